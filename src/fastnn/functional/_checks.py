"""Checks that several operations share: windows over images, and outputs that backward's operands must survive."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import _arrays

Array = npt.NDArray[Any]

# An axis of windows as the kernels take it: size, kernel, stride, padding before, dilation, number of windows.
Axis = tuple[int, int, int, int, int, int]

# Products of two such numbers and sums of those fit the kernels' integers.
LARGEST = 2**30

REDUCTIONS = ("mean", "sum", "none")


def pair(value: int | Sequence[int], name: str, least: int) -> tuple[int, int]:
    """An int for both axes of an image, alone or as PyTorch's sequence of one, or one for height and one for width."""
    try:
        numbers = (operator.index(value),) * 2  # type: ignore[arg-type]
    except TypeError:
        try:
            numbers = tuple(operator.index(number) for number in value)  # type: ignore[union-attr, assignment]
        except TypeError:
            raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}") from None
        if len(numbers) == 1:
            numbers *= 2
    if len(numbers) != 2 or min(numbers) < least:
        raise ValueError(f"{name} must be an int or a pair of ints of at least {least}, got {value!r}")
    if max(numbers) > LARGEST:
        raise ValueError(f"{name} must be at most {LARGEST}, got {value!r}")
    return numbers


def channels_last(channel_axis: int, ndim: int = 4) -> bool:
    """Whether the channels of an image batch come last; they come first or last."""
    if channel_axis in (1, 1 - ndim):
        return False
    if channel_axis in (-1, ndim - 1):
        return True
    raise ValueError(f"channel_axis must be 1 or -1 for a batch of images, got {channel_axis!r}")


def images(value: Any, name: str = "input") -> Array:
    """A batch of images: four axes."""
    array = _arrays.floating(value, name)
    if array.ndim != 4:
        raise ValueError(f"{name} must be a batch of images with four axes, got shape {array.shape}")
    return array


def refuse_overlap(out: Any, *kept: Array | None) -> None:
    """Raise if `out` would overwrite what backward needs."""
    if out is not None and any(array is not None and _arrays.overlaps(out, array) for array in kept):
        raise ValueError("out must not overlap the arrays that backward needs; use the plain operation for that")


def loss_factor(dy: Any, divisor: float) -> float:
    """The gradient of a scalar loss, divided as the loss was."""
    factor = _arrays.number(dy, "dy")
    return factor / divisor if divisor else math.nan


def loss_factors(dy: Any, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """The gradients of single losses in a kernel's dtype, from an array or one number for all."""
    alone = _arrays.array(dy, "dy").ndim == 0
    factors = np.asarray(_arrays.number(dy, "dy")) if alone else _arrays.floating(dy, "dy")
    try:
        return np.ascontiguousarray(np.broadcast_to(factors, shape), dtype).reshape(shape)
    except ValueError:
        raise ValueError(f"dy must have the loss's shape {shape}, got {factors.shape}") from None


def gradient(dy: Any, like: Array, shape: tuple[int, ...]) -> Array:
    """`dy` as backward takes it: the dtype of `like`, this shape."""
    array = _arrays.floating(dy, "dy", like.dtype)
    if array.shape != shape:
        raise ValueError(f"dy must have the result's shape {shape}, got {array.shape}")
    return array
