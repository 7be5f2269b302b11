"""Two-dimensional convolution and its gradients, for both image layouts."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import Axis, channels_last, gradient, images, pair, refuse_overlap

Array = npt.NDArray[Any]

__all__ = ["Conv2dContext", "conv2d", "conv2d_backward", "conv2d_forward"]

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
    x, w = ctx.input, ctx.weight
    passes = input_passes(g, dy.itemsize)
    # where stride leaves pixels that no window sees, they stay zero
    dx = np.empty_like(x) if len(passes) == g.h[2] * g.w[2] else np.zeros_like(x)
    dy_at, dx_at = _strides(g, g.out_channels, (g.h[5], g.w[5])), _strides(g, g.channels, (g.h[0], g.w[0]))
    each = w[0].size
    for (top, left), sizes, planes, places in passes:
        _kernels.shifted_products(
            dy,
            dy_at,
            (g.h[5], g.w[5]),
            (1, 1),
            planes.starts,
            planes.form,
            planes.images,
            g.out_channels,
            g.groups,
            planes.shifts,
            w,
            places,
            g.channels // g.groups,
            g.out_channels // g.groups * each,
            w.shape[2] * w.shape[3],
            None,
            dx,
            top * dx_at[2] + left * dx_at[3],
            (dx_at[0], dx_at[1], dx_at[2] * g.h[2], dx_at[3] * g.w[2]),
            sizes,
            g.n,
        )
    return dx, *parameter_gradients(dy, ctx)


def parameter_gradients(dy: Array, ctx: Conv2dContext) -> tuple[Array, Array | None]:
    """Gradients of weight and bias only."""
    g = ctx.geometry
    dy = gradient(dy, ctx.input, g.out_shape)
    planes = result_planes(g, dy.itemsize)
    total = np.zeros(ctx.weight.shape)  # float64: the sums of all passes are added in it
    _kernels.weight_gradient(
        ctx.input,
        _strides(g, g.channels, (g.h[0], g.w[0])),
        (g.h[0], g.w[0]),
        (g.h[2], g.w[2]),
        planes.starts,
        planes.form,
        planes.images,
        g.channels,
        g.groups,
        planes.shifts,
        dy,
        _strides(g, g.out_channels, (g.h[5], g.w[5])),
        (g.h[5], g.w[5]),
        ORIGIN,
        g.out_channels // g.groups,
        total,
        g.n,
    )
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


# ---- planes and shifts, see the design of the kernel -----------------------------------------------------------------

ORIGIN: Array = np.zeros((1, 2), np.intp)


class Planes(NamedTuple):
    """How images are copied into planes, and where each term of the sums starts in them."""

    starts: Array  # (phases, 2): row and column of the image that are (0, 0) of the plane
    form: tuple[int, int]  # rows and columns of a plane
    images: int  # that share a plane
    shifts: Array  # (terms), from a group's first plane, then -1


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
    images = max(1, min(g.n, PLANES // (channels * len(starts) * rows * columns * itemsize)))
    plane = -(-(images * rows * columns + _kernels.PLANE_MARGIN) // _kernels.PLANE_MULTIPLE) * _kernels.PLANE_MULTIPLE
    tap = np.array([phase * plane + row * columns + column for phase, row, column in taps], np.intp)
    channel = np.arange(channels // g.groups, dtype=np.intp) * (len(starts) * plane)
    shifts = np.append((channel[:, None] + tap).ravel(), np.intp(-1))
    return Planes(np.array(starts, np.intp), form, images, shifts)


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


Pass = tuple[tuple[int, int], tuple[int, int], Planes, Array]


@functools.lru_cache(maxsize=256)
def input_passes(g: Geometry, itemsize: int) -> list[Pass]:
    """For the input's gradient: its rows a, a + s, … collect dy at rows t + e, e = (a + p − k·d)/s, from the kernel
    elements k for which that is whole. One pass for each remainder (a, b): first row and column, number of rows and
    columns, planes, and the terms' places in the weights."""
    passes: list[Pass] = []
    each = g.channels // g.groups * g.h[1] * g.w[1]  # weights of one output channel
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
        channel = np.arange(g.out_channels // g.groups, dtype=np.intp) * each
        passes.append(((a, b), sizes, planes, np.ascontiguousarray((channel[:, None] + tap).ravel())))
    return passes


def _reached(axis: Axis, a: int) -> list[tuple[int, int]]:
    """Kernel elements k, and e, by which windows t + e see the rows a + t·s."""
    _, kernel, stride, padding, dilation, _ = axis
    return [
        (k, (a + padding - k * dilation) // stride) for k in range(kernel) if (a + padding - k * dilation) % stride == 0
    ]


def _strides(g: Geometry, channels: int, sizes: tuple[int, int]) -> tuple[int, int, int, int]:
    """Strides in elements of image, channel, row and column."""
    rows, columns = sizes
    if g.last:
        return rows * columns * channels, 1, columns * channels, channels
    return channels * rows * columns, rows * columns, columns, 1


def _convolve(x: Array, w: Array, b: Array | None, g: Geometry, out: Array | None) -> Array:
    if out is not None:
        _arrays.check_out(out, g.out_shape, x.dtype)
    target = _arrays.direct_out(out, x, (x, w, b))
    y = np.empty(g.out_shape, x.dtype) if target is None else target
    planes = result_planes(g, x.itemsize)
    terms = w[0].size
    _kernels.shifted_products(
        x,
        _strides(g, g.channels, (g.h[0], g.w[0])),
        (g.h[0], g.w[0]),
        (g.h[2], g.w[2]),
        planes.starts,
        planes.form,
        planes.images,
        g.channels,
        g.groups,
        planes.shifts,
        w,
        np.arange(terms, dtype=np.intp),
        g.out_channels // g.groups,
        g.out_channels // g.groups * terms,
        terms,
        b,
        y,
        0,
        _strides(g, g.out_channels, (g.h[5], g.w[5])),
        (g.h[5], g.w[5]),
        g.n,
    )
    return _arrays.deliver(y, out)
