"""Maximum and average pooling of images, and their gradients, for both image layouts."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import Axis, channels_last, gradient, images, pair

Array = npt.NDArray[Any]

__all__ = [
    "PoolContext",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "geometry",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_forward",
]


class Windows(NamedTuple):
    """The numbers of one pooling, in the kernels' order."""

    planes: int
    run: int
    h: Axis
    w: Axis
    maximum: bool
    count_padding: bool = True
    divisor: int = 0


class PoolContext(NamedTuple):
    """What backward needs: shapes, and for maxima which element of each window won."""

    windows: Windows
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    winner: Array | None


def max_pool2d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> Array:
    """Largest element of each window; a window with a NaN gives NaN.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W), or (N, H, W, C) with ``channel_axis=-1``
        float32 or float64.
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        Default: `kernel_size`.
    padding : int or pair of int, default 0
        Of −inf, on each side; at most half the window.
    dilation : int or pair of int, default 1
    ceil_mode : bool, default False
        Whether windows that reach beyond the last padding count, as long as they start before it.
    channel_axis : int, default 1
        1 for channels first, -1 (or 3) for channels last.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (N, C, OH, OW) or (N, OH, OW, C)
        ``OH = ⌊(H + 2p − d(k − 1) − 1)/s⌋ + 1`` (⌈ ⌉ in ceil_mode).

    Raises
    ------
    TypeError
        If `input` is not float32 or float64.
    ValueError
        If the numbers do not fit each other or the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 5., 7.], [13., 15.]]]])
    """
    x, windows, shape = _windows(input, kernel_size, stride, padding, dilation, ceil_mode, channel_axis, True)
    return _pool(x, windows, shape, out, None)


def max_pool2d_forward(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> tuple[Array, PoolContext]:
    """`max_pool2d`, and the context for `max_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.max_pool2d_forward(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    >>> F.max_pool2d_backward(np.ones_like(y), ctx)
    array([[[[0., 0.], [0., 1.]]]])
    """
    x, windows, shape = _windows(input, kernel_size, stride, padding, dilation, ceil_mode, channel_axis, True)
    winner = np.empty(shape, np.int32)
    return _pool(x, windows, shape, out, winner), PoolContext(windows, x.shape, shape, x.dtype, winner)


def max_pool2d_backward(dy: Array, ctx: PoolContext) -> Array:
    """Gradient of `max_pool2d`: each window's `dy` goes to its largest element, the first of equals.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.max_pool2d_forward(np.ones((1, 1, 1, 3)), (1, 2), stride=1)
    >>> F.max_pool2d_backward(np.array([[[[3.0, 5.0]]]]), ctx)
    array([[[[3., 5., 0.]]]])
    """
    return _pool_backward(dy, ctx)


def avg_pool2d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> Array:
    """Mean of each window.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W), or (N, H, W, C) with ``channel_axis=-1``
        float32 or float64.
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        Default: `kernel_size`.
    padding : int or pair of int, default 0
        Of zeros, on each side; at most half the window.
    ceil_mode : bool, default False
        Whether windows that reach beyond the last padding count, as long as they start before it.
    count_include_pad : bool, default True
        Whether the padding's zeros count as elements; what lies beyond the padding (ceil_mode) never does.
    divisor_override : int, optional
        What every sum is divided by, in place of the number of elements; not 0.
    channel_axis : int, default 1
        1 for channels first, -1 (or 3) for channels last.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (N, C, OH, OW) or (N, OH, OW, C)

    Raises
    ------
    TypeError
        If `input` is not float32 or float64.
    ValueError
        If the numbers do not fit each other or the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 2.5, 4.5], [10.5, 12.5]]]])
    """
    x, windows, shape = _windows(
        input, kernel_size, stride, padding, 1, ceil_mode, channel_axis, False, count_include_pad, divisor_override
    )
    return _pool(x, windows, shape, out, None)


def avg_pool2d_forward(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> tuple[Array, PoolContext]:
    """`avg_pool2d`, and the context for `avg_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.avg_pool2d_forward(np.ones((1, 1, 2, 2)), 2)
    >>> F.avg_pool2d_backward(np.ones_like(y), ctx)
    array([[[[0.25, 0.25], [0.25, 0.25]]]])
    """
    x, windows, shape = _windows(
        input, kernel_size, stride, padding, 1, ceil_mode, channel_axis, False, count_include_pad, divisor_override
    )
    return _pool(x, windows, shape, out, None), PoolContext(windows, x.shape, shape, x.dtype, None)


def avg_pool2d_backward(dy: Array, ctx: PoolContext) -> Array:
    """Gradient of `avg_pool2d`: each window's `dy` in equal shares.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.avg_pool2d_forward(np.ones((1, 1, 1, 3)), (1, 2), stride=1)
    >>> F.avg_pool2d_backward(np.ones_like(y), ctx)
    array([[[[0.5, 1. , 0.5]]]])
    """
    return _pool_backward(dy, ctx)


def _windows(
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


def _pool(x: Array, windows: Windows, shape: tuple[int, ...], out: Array | None, winner: Array | None) -> Array:
    target = None
    if out is not None:
        _arrays.check_out(out, shape, x.dtype)
        target = _arrays.direct_out(out, x, (x,))
    y = np.empty(shape, x.dtype) if target is None else target
    _kernels.pool_forward(x, y, winner, *windows)
    return _arrays.deliver(y, out)


def _pool_backward(dy: Array, ctx: PoolContext) -> Array:
    dx = np.empty(ctx.input_shape, ctx.dtype)
    dy = gradient(dy, dx, ctx.output_shape)
    _kernels.pool_backward(dy, dx, ctx.winner, *ctx.windows)
    return dx
