"""Arrays under the mask of a stream: one value for each element, or one for all along some axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.dropout.arguments import source_of
from fastnn.random import Generator

__all__ = ["apply", "dropped", "small_mask"]


def dropped(
    input: Array,
    p: float,
    scale: float,
    generator: Generator | None,
    broadcast_axes: int | Sequence[int],
    out: Array | None,
    shift: float = -0.0,
    fill: float = 0.0,
) -> tuple[Array, int, int, tuple[int, ...]]:
    """The result, seed and stream, and the axes from 0; a stream is taken only when nothing can fail any more."""
    source = source_of(generator)
    x = _arrays.floating(input, "input")
    axes = _axes(broadcast_axes, x.ndim)
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
    seed, stream = source.seed, source.take()
    return apply(x, p, scale, seed, stream, axes, out, shift, fill), seed, stream, axes


def apply(
    x: Array,
    p: float,
    scale: float,
    seed: int,
    stream: int,
    axes: tuple[int, ...],
    out: Array | None,
    shift: float = -0.0,
    fill: float = 0.0,
) -> Array:
    """scale·x + shift where the stream's mask keeps, else `fill`."""
    target = None if out is None else _arrays.direct_out(out, x)
    if not axes:
        y = _kernels.dropout(x, p, scale, seed, stream, target, shift, fill)
    else:
        small = small_mask(x.shape, axes, x.dtype, p, seed, stream)
        mask, repeats, inner = _lines(small, x.shape)
        y = _kernels.apply_mask(x, mask, repeats, inner, scale, target, shift, fill)
    return y if out is None else _arrays.deliver(y, out)


def _axes(axes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Axes as sorted numbers from 0."""
    numbers = _arrays.integers(axes, "broadcast_axes")
    for axis in numbers:
        if not -ndim <= axis < ndim:
            raise ValueError(f"broadcast_axes must be axes of the input, which has {ndim}, got {axis}")
    return tuple(sorted({axis % ndim for axis in numbers}))


def small_mask(
    shape: tuple[int, ...], axes: tuple[int, ...], dtype: "np.dtype[Any]", p: float, seed: int, stream: int
) -> Array:
    """The mask as 0 and 1, of the shape with 1 along the broadcast axes."""
    ones = np.ones([1 if axis in axes else n for axis, n in enumerate(shape)], dtype)
    return _kernels.dropout(ones, p, 1.0, seed, stream, ones)


def _lines(mask: Array, shape: tuple[int, ...]) -> tuple[Array, int, int]:
    """The mask as (outer, middle), and repeats and inner of the view (outer, repeats, middle, inner) of the shape.

    Axes of one kind that stand together are one; the layouts of images with channels first or last fit such a view.
    An alternation of more kinds is resolved by writing the mask out.
    """
    runs: list[tuple[bool, int]] = []  # (broadcast?, size), alternating, the last one broadcast
    for n, of_mask in zip(shape, mask.shape):
        if n == 1:
            continue
        shared = of_mask == 1
        if runs and runs[-1][0] == shared:
            n *= runs.pop()[1]
        runs.append((shared, n))
    if not runs or not runs[-1][0]:
        runs.append((True, 1))
    if len(runs) > 4:
        return np.broadcast_to(mask, shape).reshape(1, -1), 1, 1
    outer, repeats, middle, inner = [1] * (4 - len(runs)) + [n for _, n in runs]
    return mask.reshape(outer, middle), repeats, inner
