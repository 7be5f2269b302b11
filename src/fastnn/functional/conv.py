"""Two-dimensional convolution by matrix products, and its gradients, for both image layouts."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import Axis, channels_last, gradient, images, pair, refuse_overlap
from fastnn.functional._products import product

Array = npt.NDArray[Any]

__all__ = ["Conv2dContext", "conv2d", "conv2d_backward", "conv2d_forward"]

# Bytes of columns (unfolded windows) at a time: they are written, read by one product and forgotten, so they should
# stay in a core's cache beside the weights.
COLUMNS = 512 * 1024


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
    def terms(self) -> int:
        """Terms of each sum: the input channels of a group times the kernel's elements."""
        return self.channels // self.groups * self.h[1] * self.w[1]

    @property
    def plain(self) -> bool:
        """Whether the columns are the input itself: a 1×1 kernel on every pixel."""
        return all((axis[1], axis[2], axis[3], axis[5]) == (1, 1, 0, axis[0]) for axis in (self.h, self.w))

    @property
    def out_shape(self) -> tuple[int, ...]:
        h, w = self.h[5], self.w[5]
        return (self.n, h, w, self.out_channels) if self.last else (self.n, self.out_channels, h, w)


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
    """Two-dimensional cross-correlation, which the field calls convolution:

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
    Windows are unfolded in blocks that stay in cache and multiplied by NumPy's BLAS; a 1×1 kernel needs no unfolding.

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
    matrix = _matrix(ctx.weight, g)
    dx = np.empty_like(ctx.input) if g.plain else np.zeros_like(ctx.input)
    total = np.zeros(matrix.shape)  # the blocks' products are added in float64
    for block in _blocks(g, dy.itemsize):
        dy_block = _pixels(dy, g, g.out_channels, block)
        buffer, columns = _unfold(ctx.input, g, block)
        target = _pixels(dx, g, g.channels, block) if g.plain else columns
        if g.last:
            total += product(dy_block.swapaxes(-1, -2), columns)
            product(dy_block, matrix, out=target)
        else:
            total += product(dy_block, columns.swapaxes(-1, -2)).sum(axis=0)
            product(matrix.swapaxes(-1, -2), dy_block, out=target)
        if not g.plain:
            _kernels.fold(dx, buffer, *_place(g, block))
    pixels = g.h[5] * g.w[5]
    db = None
    if ctx.has_bias:
        db = _kernels.channel_sums(dy, g.n * pixels if g.last else g.n, g.out_channels, 1 if g.last else pixels)
    return dx, _weight_of(total, ctx.weight, g), db


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
    last = channels_last(channel_axis)
    w = _arrays.floating(weight, "weight", x.dtype)
    if w.ndim != 4:
        raise ValueError(f"weight must have shape (out_channels, in_channels / groups, KH, KW), got {w.shape}")
    n, channels, sizes = (x.shape[0], x.shape[3], x.shape[1:3]) if last else (x.shape[0], x.shape[1], x.shape[2:])
    if groups < 1 or channels % groups or w.shape[0] % groups:
        raise ValueError(f"groups must divide the {channels} input and {w.shape[0]} output channels, got {groups}")
    if w.shape[1] * groups != channels:
        raise ValueError(
            f"weight of shape {w.shape} with groups={groups} takes {w.shape[1] * groups} channels, "
            f"got input of shape {x.shape}"
        )
    strides, dilations = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    before, both = _padding(padding, w.shape[2:], strides, dilations)
    axes = tuple(
        (size, k, s, b, d, (size + p - d * (k - 1) - 1) // s + 1)
        for size, k, s, b, p, d in zip(sizes, w.shape[2:], strides, before, both, dilations)
    )
    if min(axes[0][5], axes[1][5]) < 1:
        raise ValueError(
            f"input of shape {x.shape} is smaller than the kernel {w.shape[2:]} with its dilation {dilations}"
        )
    b = _arrays.vector(bias, "bias", x.dtype, w.shape[:1])
    return x, w, b, Geometry(n, channels, w.shape[0], groups, axes[0], axes[1], last)


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


def _matrix(w: Array, g: Geometry) -> Array:
    """The weights as (groups, out channels of a group, terms), the terms in the order of the columns."""
    if g.last:
        w = w.transpose(0, 2, 3, 1)
    return w.reshape(g.groups, g.out_channels // g.groups, g.terms)


def _weight_of(matrix: Array, w: Array, g: Geometry) -> Array:
    """The inverse of `_matrix`, in the dtype of `w`."""
    out, each, kh, kw = w.shape
    if g.last:
        return np.ascontiguousarray(matrix.reshape(out, kh, kw, each).transpose(0, 3, 1, 2), dtype=w.dtype)
    return matrix.reshape(w.shape).astype(w.dtype)


# ---- blocks of the output that one product makes ---------------------------------------------------------------------


class Block(NamedTuple):
    """Whole images, or some output rows of one."""

    image: int
    images: int
    row: int
    rows: int


def _blocks(g: Geometry, itemsize: int) -> Iterator[Block]:
    rows, columns = g.h[5], g.w[5]
    row_bytes = g.groups * g.terms * columns * itemsize
    at_a_time = max(1, COLUMNS // max(1, row_bytes * rows))
    if row_bytes * rows <= COLUMNS:
        for n in range(0, g.n, at_a_time):
            yield Block(n, min(at_a_time, g.n - n), 0, rows)
        return
    some = max(1, COLUMNS // row_bytes)
    for n in range(g.n):
        for row in range(0, rows, some):
            yield Block(n, 1, row, min(some, rows - row))


def _pixels(images: Array, g: Geometry, channels: int, block: Block) -> Array:
    """A block of images of the output's size, as (images, groups, channels, pixels) or (groups, pixels, channels)."""
    width, pixels = g.w[5], g.h[5] * g.w[5]
    start = block.row * width
    if g.last:
        start += block.image * pixels
        rows = images.reshape(g.n * pixels, g.groups, channels // g.groups)
        return rows[start : start + block.images * block.rows * width].swapaxes(0, 1)
    planes = images.reshape(g.n, g.groups, channels // g.groups, pixels)
    return planes[block.image : block.image + block.images, :, :, start : start + block.rows * width]


def _unfold(x: Array, g: Geometry, block: Block) -> tuple[Array, Array]:
    """The block's columns: as stored, and as (images, groups, terms, pixels) or (groups, pixels, terms)."""
    if g.plain:
        return x, _pixels(x, g, g.channels, block)
    pixels = block.rows * g.w[5]
    shape = (block.images * pixels, g.groups, g.terms) if g.last else (block.images, g.groups, g.terms, pixels)
    buffer: Array = np.empty(shape, x.dtype)
    _kernels.unfold(x, buffer, *_place(g, block))
    return buffer, buffer.swapaxes(0, 1) if g.last else buffer


def _place(g: Geometry, block: Block) -> tuple[Any, ...]:
    return g.h, g.w, g.channels, g.groups, *block, g.last


def _convolve(x: Array, w: Array, b: Array | None, g: Geometry, out: Array | None) -> Array:
    if out is not None:
        _arrays.check_out(out, g.out_shape, x.dtype)
    target = _arrays.direct_out(out, x, (x, w, b))
    y = np.empty(g.out_shape, x.dtype) if target is None else target
    matrix = _matrix(w, g)
    for block in _blocks(g, x.itemsize):
        columns = _unfold(x, g, block)[1]
        y_block = _pixels(y, g, g.out_channels, block)
        if g.last:
            product(columns, matrix.swapaxes(-1, -2), out=y_block)
        else:
            product(matrix, columns, out=y_block)
    if b is not None:
        pixels = g.h[5] * g.w[5]
        _kernels.add_bias(y, b, g.n * pixels if g.last else g.n, g.out_channels, 1 if g.last else pixels)
    return _arrays.deliver(y, out)
