"""What norm layers share: a weight and a bias, each of which may be absent."""

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from fastnn import _arrays
from fastnn._arrays import Array
from fastnn.layers.base import Layer, Parameter


def at_least_one(value: SupportsIndex, name: str) -> int:
    number = _arrays.integer(value, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def floating_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    return np.dtype(dtype)


def data_of(parameter: Parameter | None) -> Array | None:
    return None if parameter is None else parameter.data


class AffineNorm(Layer):
    """A norm with a weight and a bias, each of which may be absent; neither decays."""

    weight: Parameter | None
    bias: Parameter | None

    def _set_parameters(self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: npt.DTypeLike) -> None:
        kind = floating_dtype(dtype)
        self.weight = Parameter(np.ones(shape, kind), decay=False) if weight else None
        self.bias = Parameter(np.zeros(shape, kind), decay=False) if bias else None

    def _accumulate(self, dweight: Array | None, dbias: Array | None) -> None:
        if self.weight is not None:
            self.weight.grad += dweight
        if self.bias is not None:
            self.bias.grad += dbias
