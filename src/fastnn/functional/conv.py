"""Two-dimensional convolution and its gradients, for both image layouts."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import channels_last, gradient, images, pair, refuse_overlap
from fastnn.functional._planes import (
    Geometry,
    depthwise_last,
    input_products,
    input_tables,
    result_products,
    result_tables,
    weight_arguments,
)

Array = npt.NDArray[Any]

__all__ = ["Conv2dContext", "conv2d", "conv2d_backward", "conv2d_forward", "geometry"]


class Conv2dContext(NamedTuple):
    """What `conv2d_backward` needs."""

    input: Array
    weight: Array
    has_bias: bool
    geometry: Geometry


def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> Array:
    """Two-dimensional cross-correlation, which the field calls convolution.

    ``y[n, o, i, j] = b[o] + Σ_{c, k, l} w[o, c, k, l] · x[n, c, i·s − p + k·d, j·s − p + l·d]``, zero outside.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W), or (N, H, W, C) with ``channel_axis=-1``
        float32 or float64.
    weight : ndarray, shape (out_channels, C / groups, KH, KW)
        PyTorch's layout, whatever the images' layout.
    bias : ndarray, shape (out_channels,), optional
    stride, dilation : int or pair of int, default 1
    padding : int, pair of int, "valid" or "same", default 0
        Rows and columns of zeros on each side. "valid" is none; "same" keeps the size (stride 1 only), the odd one
        behind the image, as in PyTorch.
    groups : int, default 1
        Output channel block g sees input channel block g only. ``groups=C`` is a depthwise convolution.
    channel_axis : int, default 1
        1 for channels first, -1 (or 3) for channels last.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (N, out_channels, OH, OW) or (N, OH, OW, out_channels)
        ``OH = ⌊(H + 2p − d(KH − 1) − 1)/s⌋ + 1``.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If the shapes or numbers do not fit.

    Notes
    -----
    No window is unfolded: every kernel element multiplies a shifted run of the zero-padded image. Each result is one
    sum over (c, k, l) in this order, so its bits depend on nothing but the operands.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.conv2d(np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2)))
    array([[[[ 8., 12.], [20., 24.]]]])
    """
    x, w, b, geometry = _operands(input, weight, bias, stride, padding, dilation, groups, channel_axis)
    return _convolve(x, w, b, geometry, out)


def conv2d_forward(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> tuple[Array, Conv2dContext]:
    """`conv2d`, and the context for `conv2d_backward`; `out` may not overlap the input, which backward needs.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.conv2d_forward(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.zeros(1))
    >>> dx, dw, db = F.conv2d_backward(np.ones_like(y), ctx)
    >>> dx
    array([[[[1., 2., 1.], [2., 4., 2.], [1., 2., 1.]]]])
    """
    x, w, b, geometry = _operands(input, weight, bias, stride, padding, dilation, groups, channel_axis)
    refuse_overlap(out, x, w)
    return _convolve(x, w, b, geometry, out), Conv2dContext(x, w, b is not None, geometry)


def conv2d_backward(dy: Array, ctx: Conv2dContext) -> tuple[Array, Array, Array | None]:
    """Gradients of `conv2d`.

    Parameters
    ----------
    dy : ndarray
        Of the result's shape.
    ctx : Conv2dContext
        From `conv2d_forward`.

    Returns
    -------
    (dinput, dweight, dbias)
        `dbias` is None if there was no bias.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.conv2d_forward(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.zeros(1))
    >>> F.conv2d_backward(np.ones_like(y), ctx)[1:]
    (array([[[[4., 4.], [4., 4.]]]]), array([4.]))
    """
    g = ctx.geometry
    dy = gradient(dy, ctx.input, g.out_shape)
    if depthwise_last(g):
        dx = np.empty_like(ctx.input)
        _kernels.depthwise_products(dy, _channels_side_by_side(ctx.weight), None, *input_tables(g), dx)
        return dx, *parameter_gradients(dy, ctx)
    products = input_products(g, dy.itemsize)
    # where the stride leaves pixels that no window sees, they stay zero
    dx = np.empty_like(ctx.input) if len(products) == g.h[2] * g.w[2] else np.zeros_like(ctx.input)
    for source, weights, offset, result in products:
        _kernels.shifted_products(dy, *source, ctx.weight, *weights, None, dx, offset, *result)  # type: ignore[call-arg]
    return dx, *parameter_gradients(dy, ctx)


def parameter_gradients(dy: Array, ctx: Conv2dContext) -> tuple[Array, Array | None]:
    """Gradients of weight and bias only."""
    g = ctx.geometry
    dy = gradient(dy, ctx.input, g.out_shape)
    total = np.zeros(ctx.weight.shape)  # float64: the sums of all passes are added in it
    source, planes = weight_arguments(g, dy.itemsize)
    _kernels.weight_gradient(ctx.input, *source, dy, *planes, total, g.n)  # type: ignore[call-arg]
    pixels = g.h[5] * g.w[5]
    db = None
    if ctx.has_bias:
        db = _kernels.channel_sums(dy, g.n * pixels if g.last else g.n, g.out_channels, 1 if g.last else pixels)
    return total.astype(dy.dtype), db


# ---- operands ----------------------------------------------------------------------------------------------------


def _operands(
    input: Array,
    weight: Array,
    bias: Array | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int] | str,
    dilation: int | Sequence[int],
    groups: int,
    channel_axis: int,
) -> tuple[Array, Array, Array | None, Geometry]:
    x = images(input)
    w = _arrays.floating(weight, "weight", x.dtype)
    key = (x.shape, w.shape, stride, padding, dilation, groups, channel_axis)
    try:
        g = geometry(*key)
    except TypeError:  # a list cannot be a key
        g = geometry.__wrapped__(*key)
    b = _arrays.vector(bias, "bias", x.dtype, w.shape[:1])
    return x, w, b, g


@functools.lru_cache(maxsize=512, typed=True)
def geometry(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    stride: int | Sequence[int],
    padding: int | Sequence[int] | str,
    dilation: int | Sequence[int],
    groups: int,
    channel_axis: int,
) -> Geometry:
    last, groups = channels_last(channel_axis), _arrays.integer(groups, "groups")
    if len(weight) != 4:
        raise ValueError(f"weight must have shape (out_channels, in_channels / groups, KH, KW), got {weight}")
    n, channels, sizes = (shape[0], shape[3], shape[1:3]) if last else (shape[0], shape[1], shape[2:])
    if groups < 1 or channels % groups or weight[0] % groups:
        raise ValueError(f"groups must divide the {channels} input and {weight[0]} output channels, got {groups}")
    if weight[1] * groups != channels:
        raise ValueError(
            f"weight of shape {weight} with groups={groups} takes {weight[1] * groups} channels, "
            f"got input of shape {shape}"
        )
    strides, dilations = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    before, both = _padding(padding, weight[2:], strides, dilations)
    axes = tuple(
        (size, k, s, b, d, (size + p - d * (k - 1) - 1) // s + 1)
        for size, k, s, b, p, d in zip(sizes, weight[2:], strides, before, both, dilations)
    )
    if min(axes[0][5], axes[1][5]) < 1:
        raise ValueError(
            f"input of shape {shape} is smaller than the kernel {weight[2:]} with its dilation {dilations}"
        )
    return Geometry(n, channels, weight[0], groups, axes[0], axes[1], last)


def _padding(
    padding: int | Sequence[int] | str, kernel: Sequence[int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before each axis, and before and behind together."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(f"padding='same' needs stride 1, got {stride}")
        both = tuple(d * (k - 1) for k, d in zip(kernel, dilation))
        return tuple(total // 2 for total in both), both
    if isinstance(padding, str):
        raise ValueError(f"padding must be a number, a pair, 'valid' or 'same', got {padding!r}")
    before = pair(padding, "padding", 0)
    return before, (2 * before[0], 2 * before[1])


def _convolve(x: Array, w: Array, b: Array | None, g: Geometry, out: Array | None) -> Array:
    target = None
    if out is not None:
        _arrays.check_out(out, g.out_shape, x.dtype)
        target = _arrays.direct_out(out, x, (x, w, b))
    y = np.empty(g.out_shape, x.dtype) if target is None else target
    if depthwise_last(g):
        _kernels.depthwise_products(x, _channels_side_by_side(w), b, *result_tables(g), y)
        return _arrays.deliver(y, out)
    source, weights, offset, result = result_products(g, x.itemsize)
    _kernels.shifted_products(x, *source, w, *weights, b, y, offset, *result)  # type: ignore[call-arg]
    return _arrays.deliver(y, out)


def _channels_side_by_side(w: Array) -> Array:
    """Depthwise weights (C, 1, KH, KW) as (KH, KW, C)."""
    return np.ascontiguousarray(w[:, 0].transpose(1, 2, 0))
