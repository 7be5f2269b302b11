"""The oracle of the norms: their formulas in NumPy's long double, with nothing of fastnn in it.

Every norm is one operation on a `View` of its input. With 64 bits of mantissa (x86-64; 113 on aarch64 Linux) results
are good to about 2⁻⁶⁰: the mean is split, m₀ + lo, with m₀ rounded to the input's dtype, so that x − m₀ has one
rounding relative to itself however large the mean is; and every sum runs over contiguous memory, where NumPy adds
pairwise. The exponent's 15 bits leave no overflow and no underflow in squares of float64 values.

The second half counts errors in units of u = 2⁻²⁴ or 2⁻⁵³ of the result's dtype, in the sense that each function
says; 4 is what fastnn promises.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Real = np.longdouble

# Whether long double resolves the units of float64 (it is plain double on some platforms, there only float32 counts).
RESOLVES_FLOAT64 = np.finfo(Real).nmant >= 63


# ---- views: how each norm looks at its input -------------------------------------------------------------------------


class View(NamedTuple):
    """The input's shape as the norm sees it, the axes it reduces, and the shape of weight and bias in that view."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    affine: tuple[int, ...]


def _except(axis: int, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(1 if k != axis else n for k, n in enumerate(shape))


def standardize_view(shape: Sequence[int], axis: int | Iterable[int]) -> View:
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    return View(tuple(shape), tuple(a % len(shape) for a in axes), (1,) * len(shape))


def layer_view(shape: Sequence[int], normalized_shape: int | Sequence[int]) -> View:
    trailing = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    leading = len(shape) - len(trailing)
    return View(tuple(shape), tuple(range(leading, len(shape))), (1,) * leading + trailing)


def batch_view(shape: Sequence[int], channel_axis: int = 1) -> View:
    channel = channel_axis % len(shape)
    return View(tuple(shape), tuple(k for k in range(len(shape)) if k != channel), _except(channel, shape))


def instance_view(shape: Sequence[int], channel_axis: int = 1) -> View:
    channel = channel_axis % len(shape)
    return View(tuple(shape), tuple(k for k in range(1, len(shape)) if k != channel), _except(channel, shape))


def group_view(shape: Sequence[int], num_groups: int, channel_axis: int = 1) -> View:
    c = channel_axis % len(shape)
    split = (*shape[:c], num_groups, shape[c] // num_groups, *shape[c + 1 :])
    affine = tuple(n if k in (c, c + 1) else 1 for k, n in enumerate(split))
    return View(split, tuple(k for k in range(1, len(split)) if k != c), affine)


# ---- the formulas ----------------------------------------------------------------------------------------------------


class Forward(NamedTuple):
    """y and x̂ have the input's shape; the statistics have the view's shape with reduced axes of size 1.

    `counted`, in the view's shape, is the mask; `centred` says whether the mean was taken off; `own` whether the
    statistics are the input's own.
    """

    y: Array
    xhat: Array
    mean: Array
    var: Array
    rstd: Array
    count: Array
    counted: Array
    view: View
    centred: bool
    own: bool

    @property
    def unbiased(self) -> Array:
        return self.var * self.count / (self.count - 1)


class Backward(NamedTuple):
    """The gradients, and beside each the size that its error is measured against (see the counters below)."""

    dinput: Array
    dweight: Array
    dbias: Array
    dinput_scale: Array
    dweight_scale: Array
    dbias_scale: Array


def total(a: Array, axes: Iterable[int]) -> Array:
    """Sum over `axes`, which stay with size 1; the summed elements are made contiguous, so the sum is pairwise."""
    axes = tuple(axes)
    kept = tuple(k for k in range(a.ndim) if k not in axes)
    rows = [math.prod(a.shape[k] for k in kept), math.prod(a.shape[k] for k in axes)]
    flat = np.ascontiguousarray(a.transpose(kept + axes)).reshape(rows)
    return flat.sum(axis=1).reshape([1 if k in axes else n for k, n in enumerate(a.shape)])


def _shaped(parameter: Array | None, view: View, default: float, real: type) -> Array:
    return np.full(view.affine, default, real) if parameter is None else parameter.astype(real).reshape(view.affine)


@np.errstate(all="ignore")
def forward(
    x: Array,
    view: View,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    mask: Array | None = None,
    *,
    centred: bool = True,
    constants: tuple[Array, Array] | None = None,
    real: type = Real,
) -> Forward:
    """y = x̂·weight + bias with x̂ = (x − mean)/√(var + eps).

    ``centred=False`` leaves the mean out: RMS norm. `constants` are a mean and a variance for each value of the
    affine parameters, to use instead of the input's own: batch norm in evaluation mode. `real` is the arithmetic:
    float64 is a quick oracle for well-behaved float32.
    """
    counted = np.ones(view.shape, bool) if mask is None else np.broadcast_to(mask, x.shape).reshape(view.shape)
    count = total(counted.astype(real), view.axes)
    wide = x.reshape(view.shape).astype(real)
    zero = real(0)
    if constants is not None:
        mean, var = (c.astype(real).reshape(view.affine) for c in constants)
        centre = wide - mean
    else:
        mean = np.zeros_like(count)
        centre = wide
        if centred:
            rough = (total(np.where(counted, wide, zero), view.axes) / count).astype(x.dtype).astype(real)
            centre = wide - rough
            lo = total(np.where(counted, centre, zero), view.axes) / count
            mean = rough + lo
            centre = centre - lo
        var = total(np.where(counted, centre * centre, zero), view.axes) / count
    rstd = 1 / np.sqrt(var + real(eps))
    # A constant group is its own mean, whatever eps; a group that counts nothing has no statistics and gives zero.
    xhat = np.where((centre == 0) & (var + real(eps) == 0), zero, centre * rstd)
    if constants is None:
        xhat = np.where(count == 0, zero, xhat)
    y = xhat * _shaped(weight, view, 1, real) + _shaped(bias, view, 0, real)
    statistics = mean, var, rstd, count
    return Forward(y.reshape(x.shape), xhat.reshape(x.shape), *statistics, counted, view, centred, constants is None)


@np.errstate(all="ignore")
def backward(dy: Array, f: Forward, weight: Array | None = None) -> Backward:
    """dinput = rstd·(g − counts·(mean of g + x̂·mean of g·x̂)) with g = dy·weight and means per counted element.

    Every position is normalised, so every position's g reaches the statistics; only counted ones feel them.
    """
    view, real = f.view, f.xhat.dtype.type
    xhat = f.xhat.reshape(view.shape)
    upstream = dy.reshape(view.shape).astype(real)
    g = upstream * _shaped(weight, view, 1, real)
    through_mean = through_rstd = real(0)
    if f.own:
        through_rstd = f.counted * xhat * (total(g * xhat, view.axes) / f.count)
    if f.own and f.centred:
        through_mean = f.counted * (total(g, view.axes) / f.count)
    void = (f.count == 0) & f.own
    terms = [np.where(void, real(0), f.rstd * t) for t in (g, through_mean, through_rstd)]
    dinput = np.where(void, real(0), f.rstd * (g - through_mean - through_rstd))
    scale = max(np.abs(t).max(initial=0) for t in terms)
    shared = tuple(k for k, n in enumerate(view.affine) if n == 1)
    (dweight, weight_size), (dbias, bias_size) = (
        (total(t, shared), np.sqrt(total(t * t, shared))) for t in (upstream * xhat, upstream)
    )
    return Backward(
        dinput.reshape(dy.shape),
        dweight,
        dbias,
        scale,
        np.maximum(np.abs(dweight).max(initial=0), weight_size),
        np.maximum(np.abs(dbias).max(initial=0), bias_size),
    )


def running(old: Array, batch: Array, momentum: float) -> Array:
    """(1 − momentum)·old + momentum·batch, one value for each channel."""
    return (1 - Real(momentum)) * old.astype(Real) + Real(momentum) * batch.reshape(old.shape)


# ---- the counters ----------------------------------------------------------------------------------------------------


def units(actual: Array, expected: Array, scale: Array | float) -> float:
    """The largest |actual − expected| in units of u·scale, where u is half the spacing of `actual`'s dtype at 1.

    A scale so small that the unit is below the smallest subnormal counts that instead: nothing can be closer. An
    infinite result stands for the least number that rounds to it; NaN must be where it is expected, and only there.
    """
    info, real = np.finfo(actual.dtype), expected.dtype.type
    expected = expected.reshape(actual.shape)
    with np.errstate(all="ignore"):
        least = real(info.max) * (1 + real(info.eps) / 4)
        stands_for = np.where(np.isinf(actual), np.copysign(np.maximum(least, np.abs(expected)), actual), actual)
        unit = np.maximum(real(info.eps) / 2 * scale, real(info.smallest_subnormal))
        count = np.abs(stands_for - expected) / np.broadcast_to(unit, expected.shape)
    same = (stands_for == expected) | (np.isnan(actual) & np.isnan(expected))
    count = np.where(same, real(0), np.where(np.isnan(count), real(np.inf), count))
    return float(count.max(initial=0))


def forward_units(y: Array, f: Forward, weight: Array | None = None) -> float:
    """Relative to max(|weight|·max(1, |x̂|), |y|), element by element."""
    size = np.abs(_shaped(weight, f.view, 1, f.xhat.dtype.type)) * np.maximum(1, np.abs(f.xhat.reshape(f.view.shape)))
    return units(y, f.y, np.maximum(size.reshape(y.shape), np.abs(f.y)))


def dinput_units(dinput: Array, b: Backward) -> float:
    """Relative to the largest term of the sum that makes an element of dinput, over the array."""
    return units(dinput, b.dinput, b.dinput_scale)


def dweight_units(dweight: Array, b: Backward) -> float:
    """Relative to max(‖dweight‖∞, √Σ terms²), the terms being those that the element sums."""
    return units(dweight, b.dweight, b.dweight_scale.reshape(dweight.shape))


def dbias_units(dbias: Array, b: Backward) -> float:
    """Relative to max(‖dbias‖∞, √Σ terms²), the terms being those that the element sums."""
    return units(dbias, b.dbias, b.dbias_scale.reshape(dbias.shape))
