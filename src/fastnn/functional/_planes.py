"""Convolutions as the kernels take them: how images become planes, and where every term of the sums lies in them.

See the design notes of the kernel. Everything here depends on shapes only and is kept for the next call.
"""

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _kernels
from fastnn.functional._checks import Axis

Array = npt.NDArray[Any]

# Bytes of the padded copies of images that one pass works on; they should stay in a core's cache.
PLANES = 1024 * 1024


class Geometry(NamedTuple):
    """The numbers of one convolution."""

    n: int
    channels: int
    out_channels: int
    groups: int
    h: Axis
    w: Axis
    last: bool  # channels last

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        h, w = self.h[5], self.w[5]
        return (self.n, h, w, self.out_channels) if self.last else (self.n, self.out_channels, h, w)


def flat(g: Geometry) -> Geometry:
    """A 1×1 convolution that moves no window sees an image as one row: long runs, whatever the image's form."""
    if (g.h[1:4], g.w[1:4]) != ((1, 1, 0), (1, 1, 0)) or (g.h[0], g.w[0]) != (g.h[5], g.w[5]):
        return g
    pixels = g.h[0] * g.w[0]
    return g._replace(h=(1, 1, 1, 0, 1, 1), w=(pixels, 1, 1, 0, 1, pixels))


class Planes(NamedTuple):
    """How images are copied into planes, and where each term of the sums starts in them."""

    starts: Array  # (phases, 2): row and column of the image that are (0, 0) of the plane
    form: tuple[int, int]  # rows and columns of a plane
    images: int  # that share a plane
    shifts: Array  # (terms), from a group's first plane, then -1
    taps: Array  # (terms, 2): the same as the plane's number in its group, and the place in it


class Products(NamedTuple):
    """The arguments of one `shifted_products`, but for the arrays."""

    source: tuple[Any, ...]  # behind x
    weights: tuple[Any, ...]  # behind the weights
    offset: int  # of the result
    result: tuple[Any, ...]  # behind it


def _planes(
    g: Geometry,
    itemsize: int,
    channels: int,
    starts: list[tuple[int, int]],
    form: tuple[int, int],
    taps: list[tuple[int, int, int]],
) -> Planes:
    """`taps`: phase, row and column of each kernel element; the terms are (channel of the group, tap)."""
    rows, columns = form
    images = max(1, min(g.n, PLANES // max(1, channels * len(starts) * rows * columns * itemsize)))
    plane = -(-(images * rows * columns + _kernels.PLANE_MARGIN) // _kernels.PLANE_MULTIPLE) * _kernels.PLANE_MULTIPLE
    tap = np.array([phase * plane + row * columns + column for phase, row, column in taps], np.intp)
    channel = np.arange(channels // g.groups, dtype=np.intp) * (len(starts) * plane)
    shifts = (channel[:, None] + tap).ravel()
    places = np.stack(np.divmod(shifts, plane), axis=1)
    return Planes(np.array(starts, np.intp), form, images, np.append(shifts, np.intp(-1)), places)


@functools.lru_cache(maxsize=256)
def result_planes(g: Geometry, itemsize: int) -> Planes:
    """For the result: with stride s, kernel element k reads rows r·s + k·d − p, which are a plane of their own for each
    remainder of k·d by s."""
    remainders = [sorted({k * axis[4] % axis[2] for k in range(axis[1])}) for axis in (g.h, g.w)]
    phases = list(itertools.product(*remainders))
    taps = [
        (phases.index((k * g.h[4] % g.h[2], m * g.w[4] % g.w[2])), k * g.h[4] // g.h[2], m * g.w[4] // g.w[2])
        for k, m in itertools.product(range(g.h[1]), range(g.w[1]))
    ]
    form = (g.h[5] + max(tap[1] for tap in taps), g.w[5] + max(tap[2] for tap in taps))
    starts = [(row - g.h[3], column - g.w[3]) for row, column in phases]
    return _planes(g, itemsize, g.channels, starts, form, taps)


@functools.lru_cache(maxsize=256)
def result_products(g: Geometry, itemsize: int) -> Products:
    """The convolution itself."""
    g = flat(g)
    planes = result_planes(g, itemsize)
    terms = len(planes.shifts) - 1
    rows = g.out_channels // g.groups
    return Products(
        (
            *image_strides(g, g.channels, g.h[0], g.w[0]),
            (g.h[2], g.w[2]),
            *planes[:3],
            g.channels,
            g.groups,
            planes.shifts,
        ),
        (np.arange(terms, dtype=np.intp), rows, rows * terms, terms),
        0,
        (*image_strides(g, g.out_channels, g.h[5], g.w[5]), g.n),
    )


@functools.lru_cache(maxsize=256)
def input_products(g: Geometry, itemsize: int) -> tuple[Products, ...]:
    """The input's gradient: its rows a, a + s, … collect dy at rows t + e, e = (a + p − k·d)/s, from the kernel
    elements k for which that is whole. One product for each remainder (a, b) of row and column that any reaches."""
    g = flat(g)
    products = []
    kernel = g.h[1] * g.w[1]
    each = g.channels // g.groups * kernel  # weights of one output channel
    (image, channel, row, column), _ = image_strides(g, g.channels, g.h[0], g.w[0])
    at = (image, channel, row * g.h[2], column * g.w[2])
    for a, b in itertools.product(range(min(g.h[2], g.h[0])), range(min(g.w[2], g.w[0]))):
        rows, columns = _reached(g.h, a), _reached(g.w, b)
        if not rows or not columns:
            continue
        sizes = (-((a - g.h[0]) // g.h[2]), -((b - g.w[0]) // g.w[2]))
        top, left = min(e for _, e in rows), min(e for _, e in columns)
        taps = [(0, e - top, f - left) for (_, e), (_, f) in itertools.product(rows, columns)]
        form = (sizes[0] + max(tap[1] for tap in taps), sizes[1] + max(tap[2] for tap in taps))
        planes = _planes(g, itemsize, g.out_channels, [(top, left)], form, taps)
        tap = np.array([k * g.w[1] + m for (k, _), (m, _) in itertools.product(rows, columns)], np.intp)
        outputs = np.arange(g.out_channels // g.groups, dtype=np.intp) * each
        products.append(
            Products(
                (
                    *image_strides(g, g.out_channels, g.h[5], g.w[5]),
                    (1, 1),
                    *planes[:3],
                    g.out_channels,
                    g.groups,
                    planes.shifts,
                ),
                (
                    np.ascontiguousarray((outputs[:, None] + tap).ravel()),
                    g.channels // g.groups,
                    g.out_channels // g.groups * each,
                    kernel,
                ),
                a * row + b * column,
                (at, sizes, g.n),
            )
        )
    return tuple(products)


def depthwise_last(g: Geometry) -> bool:
    """Whether `depthwise_products` takes it: one output channel for each input channel, channels last."""
    return g.last and g.groups == g.channels == g.out_channels


@functools.lru_cache(maxsize=256)
def result_tables(g: Geometry) -> tuple[Array, Array]:
    """The rows (OH, KH) and columns (OW, KW) of the input that make the result of a depthwise convolution."""
    return _met(g.h), _met(g.w)


@functools.lru_cache(maxsize=256)
def input_tables(g: Geometry) -> tuple[Array, Array]:
    """The rows (H, KH) and columns (W, KW) of dy that make the input's gradient of a depthwise convolution."""
    return _meeting(g.h), _meeting(g.w)


def _met(axis: Axis) -> Array:
    size, kernel, stride, padding, dilation, out = axis
    place = np.arange(out, dtype=np.intp)[:, None] * stride - padding + np.arange(kernel, dtype=np.intp) * dilation
    return np.where((place >= 0) & (place < size), place, np.intp(-1))


def _meeting(axis: Axis) -> Array:
    size, kernel, stride, padding, dilation, out = axis
    place = np.arange(size, dtype=np.intp)[:, None] + padding - np.arange(kernel, dtype=np.intp) * dilation
    window, remainder = np.divmod(place, stride)
    return np.where((remainder == 0) & (window >= 0) & (window < out), window, np.intp(-1))


@functools.lru_cache(maxsize=256)
def weight_arguments(g: Geometry, itemsize: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The arguments of `weight_gradient` behind x and behind dy."""
    g = flat(g)
    source = result_products(g, itemsize).source
    return source, (
        *image_strides(g, g.out_channels, g.h[5], g.w[5]),
        np.zeros((1, 2), np.intp),
        g.out_channels // g.groups,
    )


def _reached(axis: Axis, a: int) -> list[tuple[int, int]]:
    """Kernel elements k, and e, by which windows t + e see the rows a + t·s."""
    _, kernel, stride, padding, dilation, _ = axis
    return [
        (k, (a + padding - k * dilation) // stride) for k in range(kernel) if (a + padding - k * dilation) % stride == 0
    ]


def image_strides(
    g: Geometry, channels: int, rows: int, columns: int
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Strides in elements of image, channel, row and column, and the numbers of rows and columns."""
    if g.last:
        return (rows * columns * channels, 1, columns * channels, channels), (rows, columns)
    return (channels * rows * columns, rows * columns, columns, 1), (rows, columns)
