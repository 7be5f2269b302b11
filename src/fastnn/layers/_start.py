"""The default start values of Linear and Conv2d, which are PyTorch's."""

import math
from typing import Any

import numpy.typing as npt

from fastnn import init
from fastnn.random import as_generator

Array = npt.NDArray[Any]


def start(shape: tuple[int, ...], bias: bool, rng: Any, dtype: npt.DTypeLike) -> tuple[Array, Array | None]:
    """``kaiming_uniform(a=√5)`` weights, which is U(±1/√fan_in), and biases U(±1/√fan_in), from one generator."""
    source = as_generator(rng)  # once: an integer would give the biases the numbers of the weights
    weight = init.kaiming_uniform(shape, a=math.sqrt(5), rng=source, dtype=dtype)
    bound = 1 / math.sqrt(init.fans(shape)[0])
    return weight, init.uniform(shape[:1], -bound, bound, rng=source, dtype=dtype) if bias else None
