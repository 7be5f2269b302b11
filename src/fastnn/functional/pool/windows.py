"""The windows of one pooling, checked, in the kernels' numbers."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from fastnn import _arrays
from fastnn.functional._checks import Axis, channels_last, images, pair

Array = npt.NDArray[Any]

__all__ = ["Windows", "geometry", "windows_of"]


class Windows(NamedTuple):
    """The numbers of one pooling, in the kernels' order."""

    planes: int
    run: int
    h: Axis
    w: Axis
    maximum: bool
    count_padding: bool = True
    divisor: int = 0


def windows_of(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
    channel_axis: int,
    maximum: bool,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> tuple[Array, Windows, tuple[int, ...]]:
    """The images as an array, their windows and the result's shape."""
    x = images(input)
    key = (
        x.shape,
        kernel_size,
        stride,
        padding,
        dilation,
        ceil_mode,
        channel_axis,
        maximum,
        count_include_pad,
        divisor_override,
    )
    try:
        windows, shape = geometry(*key)
    except TypeError:  # a list cannot be a key
        windows, shape = geometry.__wrapped__(*key)
    return x, windows, shape


@functools.lru_cache(maxsize=512, typed=True)
def geometry(
    shape: tuple[int, ...],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
    channel_axis: int,
    maximum: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> tuple[Windows, tuple[int, ...]]:
    """Windows and result's shape; the answer for numbers met before is remembered, since a small call costs less."""
    last = channels_last(channel_axis)
    kernel = pair(kernel_size, "kernel_size", 1)
    strides = kernel if stride is None else pair(stride, "stride", 1)
    paddings, dilations = pair(padding, "padding", 0), pair(dilation, "dilation", 1)
    divisor = 0 if divisor_override is None else _arrays.integer(divisor_override, "divisor_override")
    if divisor_override is not None and (divisor == 0 or not -(2**63) <= divisor < 2**63):
        raise ValueError(f"divisor_override must be an integer other than 0 in int64, got {divisor_override}")
    n, channels, sizes = (shape[0], shape[3], shape[1:3]) if last else (shape[0], shape[1], shape[2:])
    if maximum and math.prod(sizes) * (channels if last else 1) >= 2**31:
        raise ValueError(f"input must have less than 2³¹ elements in each image, got shape {shape}")
    axes = []
    for size, k, s, p, d in zip(sizes, kernel, strides, paddings, dilations):
        reach = d * (k - 1) + 1
        if 2 * p > reach:
            raise ValueError(f"padding must be at most half the window of {reach}, got {padding}")
        count = (size + 2 * p - reach + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= size + p:  # the last window would lie in the padding
            count -= 1
        if count < 1:
            raise ValueError(f"input of shape {shape} is smaller than the window {kernel_size}")
        axes.append((size, k, s, p, d, count))
    h, w = axes
    windows = Windows(
        n if last else n * channels,
        channels if last else 1,
        h,
        w,
        maximum,
        bool(count_include_pad),
        divisor,
    )
    return windows, (n, h[5], w[5], channels) if last else (n, channels, h[5], w[5])
