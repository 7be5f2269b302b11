"""The default start values of Linear and Conv2d, which are PyTorch's."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn.random import as_generator

Array = npt.NDArray[Any]


def start(shape: tuple[int, ...], bias: bool, rng: Any, dtype: npt.DTypeLike) -> tuple[Array, Array | None]:
    """``kaiming_uniform(a=√5)`` weights, which is U(±1/√fan_in), and biases U(±1/√fan_in), from one generator."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    source = as_generator(rng)
    weight = source.uniform(shape, -bound, bound, dtype=dtype)
    return weight, source.uniform(shape[:1], -bound, bound, dtype=dtype) if bias else None
