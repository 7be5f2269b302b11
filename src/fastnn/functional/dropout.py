"""Dropout and its relatives: what is random is a function of (seed, stream, position), and backward makes it again.

A context holds two integers and the parameters, no mask; it has the same size for every input.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.random import Generator, default_generator

__all__ = [
    "alpha_dropout",
    "alpha_dropout_backward",
    "alpha_dropout_forward",
    "drop_path",
    "drop_path_backward",
    "drop_path_forward",
    "dropout",
    "dropout_backward",
    "dropout_forward",
    "dropout_mask",
    "gaussian_dropout",
    "gaussian_dropout_backward",
    "gaussian_dropout_forward",
    "gaussian_noise",
    "gaussian_noise_backward",
    "gaussian_noise_forward",
]

Array = npt.NDArray[Any]
Mode = Literal["inverted", "classic"]

# SELU's limit for x → −∞, −λα: what alpha dropout puts in place of a dropped value (Klambauer et al. 2017).
SELU_FLOOR = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717
GROUP = 128  # elements that the kernel decides from one chunk of random words


class DropoutContext(NamedTuple):
    """What the backward pass of `dropout`, `drop_path` and `alpha_dropout` needs."""

    seed: int
    stream: int
    p: float  # of a drop; 0 in evaluation
    scale: float  # of what is kept
    broadcast_axes: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"


class NoiseContext(NamedTuple):
    """What the backward pass of `gaussian_dropout` and `gaussian_noise` needs; sigma 0 where the gradient is `dy`."""

    seed: int
    stream: int
    sigma: float
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"


# -- dropout -------------------------------------------------------------------------------------------------------


def dropout(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    mode: Mode = "inverted",
    generator: Generator | None = None,
    broadcast_axes: int | Sequence[int] = (),
    out: Array | None = None,
) -> Array:
    """Dropout: each element is zero with probability p.

    Inverted (the default, as everywhere): training gives ``m·x/(1−p)`` with m ~ Bernoulli(1−p), evaluation ``x``.
    Classic (the original paper): training gives ``m·x``, evaluation ``(1−p)·x``. In both, E[training] = evaluation.

    Dropped elements are exactly zero, whatever they were (PyTorch multiplies by zero, so that inf and NaN give NaN).
    The probability of a drop is p to 2⁻⁶⁴. The mask is a function of the generator's seed, the number of its draw
    and the element's position, whatever the dtype, the number of threads or the machine.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    p : float, default 0.5
        Probability of a drop, in [0, 1].
    training : bool, default True
        Whether to drop. Inverted dropout in evaluation returns `input` itself and costs nothing.
    mode : {"inverted", "classic"}
        Where the expectation is put right: in training or in evaluation.
    generator : Generator, optional
        Takes its next stream; by default the one that `manual_seed` seeds.
    broadcast_axes : int or sequence of int, default ()
        Axes along which elements share their fate. Channel dropout, PyTorch's ``dropout2d`` and Keras's
        ``SpatialDropout2D``, is ``(2, 3)`` for N×C×H×W and ``(1, 2)`` for N×H×W×C.
    out : ndarray, optional
        Where the result goes; may be `input` itself.

    Returns
    -------
    ndarray
        Of the input's shape and dtype.

    Raises
    ------
    ValueError
        If p is outside [0, 1] or NaN, `mode` is unknown, or an axis is not one of the input's.
    TypeError
        If `input` is not float32 or float64, or `generator` is not a `Generator`.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout", JMLR 15 (2014); for whole channels Tompson,
    Goroshin, Jain, LeCun and Bregler, "Efficient object localization using convolutional networks", CVPR 2015.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> x = np.arange(8, dtype=np.float32)
    >>> F.dropout(x, 0.5, generator=fastnn.Generator(2))
    array([...], dtype=float32)
    >>> F.dropout(x, 0.25, training=False, mode="classic")
    array([0.  , 0.75, 1.5 , 2.25, 3.  , 3.75, 4.5 , 5.25], dtype=float32)
    >>> F.dropout(x, training=False) is x
    True
    """
    if training and broadcast_axes == ():
        drawn = _kernels.draw_dropout(input, p, mode, default_generator() if generator is None else generator, out)
        if drawn is not None:
            return drawn[0]
    p, scale = check_rule(p, training, mode)
    if not training:
        return _scaled(input, scale, out)
    return _dropped(input, p, scale, generator, broadcast_axes, out)[0]


def dropout_forward(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    mode: Mode = "inverted",
    generator: Generator | None = None,
    broadcast_axes: int | Sequence[int] = (),
    out: Array | None = None,
) -> tuple[Array, DropoutContext]:
    """`dropout`, and the context for `dropout_backward`: a few numbers, no mask.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> x = np.ones(6, np.float32)
    >>> y, ctx = F.dropout_forward(x, 0.5, generator=fastnn.Generator(2))
    >>> bool((F.dropout_backward(x, ctx) == y).all())
    True
    """
    if training and broadcast_axes == ():
        drawn = _kernels.draw_dropout(input, p, mode, default_generator() if generator is None else generator, out)
        if drawn is not None:
            y, seed, stream, scale = drawn
            return y, DropoutContext(seed, stream, p, scale, (), y.shape, y.dtype)
    p, scale = check_rule(p, training, mode)
    if not training:
        return _in_evaluation(input, scale, out)
    y, seed, stream, axes = _dropped(input, p, scale, generator, broadcast_axes, out)
    return y, DropoutContext(seed, stream, p, scale, axes, y.shape, _native(y))


def dropout_backward(dy: Array, ctx: DropoutContext) -> Array:
    """Gradient of `dropout`: ``dy`` times the mask and the scale of forward; the mask is made again.

    Parameters
    ----------
    dy : ndarray
        Gradient with respect to the result, of its shape and dtype.
    ctx : DropoutContext
        From `dropout_forward`.

    Raises
    ------
    TypeError, ValueError
        If `dy` has another dtype or shape than the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> _, ctx = F.dropout_forward(np.ones(3), 0.5, training=False, mode="classic")
    >>> F.dropout_backward(np.ones(3), ctx)
    array([0.5, 0.5, 0.5])
    """
    dy = _gradient(dy, ctx)
    if ctx.p == 0 and ctx.scale == 1:
        return dy
    return _apply(dy, ctx.p, ctx.scale, ctx.seed, ctx.stream, ctx.broadcast_axes, None)


def dropout_mask(ctx: DropoutContext, start: int = 0, stop: int | None = None) -> Array:
    """The mask of a call to `dropout_forward`, `drop_path_forward` or `alpha_dropout_forward`: True where kept.

    Parameters
    ----------
    ctx : DropoutContext
        The call's context.
    start, stop : int, default all
        Which elements, counted in C order. Only what is asked for is made.

    Returns
    -------
    ndarray of bool
        Of the input's shape, or with `start` or `stop` given 1-d, the elements from `start` up to `stop`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.dropout_forward(np.ones((20, 30)), 0.3)
    >>> mask = F.dropout_mask(ctx)
    >>> bool((mask == (y != 0)).all())
    True
    >>> bool((F.dropout_mask(ctx, 100, 200) == mask.ravel()[100:200]).all())
    True
    """
    if not isinstance(ctx, DropoutContext):
        raise TypeError(f"ctx must be the context of a dropout with a mask, got {type(ctx).__name__}")
    size = math.prod(ctx.shape)
    first, last, _ = slice(start, stop).indices(size)
    last = max(first, last)
    if ctx.broadcast_axes:
        small = _small_mask(ctx.shape, ctx.broadcast_axes, np.dtype(np.float32), ctx.p, ctx.seed, ctx.stream)
        mask = np.broadcast_to(small != 0, ctx.shape).flat[first:last]
    else:
        group = first // GROUP
        ones = np.ones(last - group * GROUP, np.float32)
        kept = _kernels.dropout(ones, ctx.p, 1.0, ctx.seed, ctx.stream, ones, first=group)
        mask = kept[first - group * GROUP :] != 0
    return mask.reshape(ctx.shape) if start == 0 and stop is None else mask


# -- stochastic depth ----------------------------------------------------------------------------------------------


def drop_path(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> Array:
    """Stochastic depth: inverted dropout of whole samples, for the branch of a residual block.

    ``y = m_i·x_i/(1−p)`` with one m_i ~ Bernoulli(1−p) for each i along axis 0; evaluation returns `input` itself.
    It is `dropout` with all axes but the first in `broadcast_axes`.

    Parameters
    ----------
    input : ndarray
        (N, …), float32 or float64.
    p : float, default 0.5
        Probability that a sample is dropped, in [0, 1].
    training : bool, default True
        Whether to drop.
    generator, out
        As in `dropout`.

    Raises
    ------
    ValueError
        If the input has no axis, or p is outside [0, 1].

    References
    ----------
    Huang, Sun, Liu, Sedra and Weinberger, "Deep networks with stochastic depth", ECCV 2016.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> y = F.drop_path(np.ones((5, 2)), 0.5, generator=fastnn.Generator(1))
    >>> bool((y[:, 0] == y[:, 1]).all())
    True
    """
    return dropout(input, p, training, generator=generator, broadcast_axes=_all_but_first(input), out=out)


def drop_path_forward(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> tuple[Array, DropoutContext]:
    """`drop_path`, and the context for `drop_path_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.drop_path_forward(np.ones((5, 2)))
    >>> F.dropout_mask(ctx).shape
    (5, 2)
    """
    return dropout_forward(input, p, training, generator=generator, broadcast_axes=_all_but_first(input), out=out)


def drop_path_backward(dy: Array, ctx: DropoutContext) -> Array:
    """Gradient of `drop_path`; see `dropout_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.drop_path_forward(np.ones((5, 2)))
    >>> bool((F.drop_path_backward(np.ones((5, 2)), ctx) == y).all())
    True
    """
    return dropout_backward(dy, ctx)


# -- alpha dropout -------------------------------------------------------------------------------------------------


def alpha_dropout(
    input: Array,
    p: float = 0.5,
    training: bool = False,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> Array:
    """Alpha dropout, which keeps mean 0 and variance 1: for networks of SELU units.

    ``y = a·(m·x + (1−m)·α') + b`` with m ~ Bernoulli(1−p), α' = −λα = −1.7581 (SELU's limit for x → −∞),
    ``a = ((1−p)(1 + p·α'²))^(−1/2)`` and ``b = −a·p·α'``. Evaluation returns `input` itself; p = 1 gives zeros.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    p : float, default 0.5
        Probability of a drop, in [0, 1].
    training : bool, default False
        Whether to drop; False, unlike in the other functions, because it is so in PyTorch.
    generator, out
        As in `dropout`.

    References
    ----------
    Klambauer, Unterthiner, Mayr and Hochreiter, "Self-normalizing neural networks", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.random.default_rng(0).standard_normal(100_000)
    >>> y = F.alpha_dropout(x, 0.3, training=True)
    >>> bool(abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02)
    True
    """
    return alpha_dropout_forward(input, p, training, generator=generator, out=out)[0]


def alpha_dropout_forward(
    input: Array,
    p: float = 0.5,
    training: bool = False,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> tuple[Array, DropoutContext]:
    """`alpha_dropout`, and the context for `alpha_dropout_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.alpha_dropout_forward(np.zeros(4), 0.0, True)
    >>> F.alpha_dropout_backward(np.ones(4), ctx)
    array([1., 1., 1., 1.])
    """
    p = check_probability(p)
    if not training:
        return _in_evaluation(input, 1.0, out)
    a = ((1 - p) * (1 + p * SELU_FLOOR**2)) ** -0.5 if p < 1 else 0.0
    b = -a * p * SELU_FLOOR
    y, seed, stream, _ = _dropped(input, p, a, generator, (), out, b, a * SELU_FLOOR + b)
    return y, DropoutContext(seed, stream, p, a, (), y.shape, _native(y))


def alpha_dropout_backward(dy: Array, ctx: DropoutContext) -> Array:
    """Gradient of `alpha_dropout`: ``a·m·dy``; see `dropout_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.alpha_dropout_forward(np.ones(4), 1.0, True)
    >>> F.alpha_dropout_backward(np.ones(4), ctx)
    array([0., 0., 0., 0.])
    """
    return dropout_backward(dy, ctx)


# -- Gaussian noise ------------------------------------------------------------------------------------------------


def gaussian_dropout(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> Array:
    """Multiplicative Gaussian noise, ``y = x·(1 + √(p/(1−p))·ε)`` with ε ~ N(0, 1): mean and variance of dropout.

    Evaluation returns `input` itself.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    p : float, default 0.5
        In [0, 1): the dropout with the same first two moments.
    training : bool, default True
        Whether to add noise.
    generator, out
        As in `dropout`.

    Raises
    ------
    ValueError
        If p is outside [0, 1) or NaN.

    References
    ----------
    Srivastava et al., "Dropout", JMLR 15 (2014), section 10; Keras's ``GaussianDropout``.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y = F.gaussian_dropout(np.ones(100_000), 0.2)
    >>> bool(abs(y.mean() - 1) < 0.01 and abs(y.std() - 0.5) < 0.01)
    True
    """
    return gaussian_dropout_forward(input, p, training, generator=generator, out=out)[0]


def gaussian_dropout_forward(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> tuple[Array, NoiseContext]:
    """`gaussian_dropout`, and the context for `gaussian_dropout_backward`: a few numbers, no noise.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.gaussian_dropout_forward(np.ones(4))
    >>> bool((F.gaussian_dropout_backward(np.ones(4), ctx) == y).all())
    True
    """
    p = check_probability(p, below_one=True)
    return _noisy(input, math.sqrt(p / (1 - p)), True, training, generator, out)


def gaussian_dropout_backward(dy: Array, ctx: NoiseContext) -> Array:
    """Gradient of `gaussian_dropout`: ``dy·(1 + σε)`` with forward's ε, which is made again.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.gaussian_dropout_forward(np.ones(4), training=False)
    >>> F.gaussian_dropout_backward(np.ones(4), ctx)
    array([1., 1., 1., 1.])
    """
    dy = _gradient(dy, ctx)
    if ctx.sigma == 0:
        return dy
    dx = np.empty_like(dy)
    _kernels.noise(dy, dx, ctx.sigma, True, ctx.seed, ctx.stream)
    return dx


def gaussian_noise(
    input: Array,
    sigma: float,
    training: bool = True,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> Array:
    """Additive Gaussian noise, ``y = μ + σ ε`` with ε ~ N(0, 1) and the input as μ; evaluation returns `input` itself.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    sigma : float
        σ, finite and at least 0.
    training : bool, default True
        Whether to add noise.
    generator, out
        As in `dropout`.

    Raises
    ------
    ValueError
        If `sigma` is negative or not finite.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y = F.gaussian_noise(np.full(100_000, 3.0), 0.5)
    >>> bool(abs(y.mean() - 3) < 0.01 and abs(y.std() - 0.5) < 0.01)
    True
    """
    return gaussian_noise_forward(input, sigma, training, generator=generator, out=out)[0]


def gaussian_noise_forward(
    input: Array,
    sigma: float,
    training: bool = True,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> tuple[Array, NoiseContext]:
    """`gaussian_noise`, and the context for `gaussian_noise_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.gaussian_noise_forward(np.ones(4), 0.1)
    """
    y, ctx = _noisy(input, check_sigma(sigma), False, training, generator, out)
    return y, ctx._replace(sigma=0.0)


def gaussian_noise_backward(dy: Array, ctx: NoiseContext) -> Array:
    """Gradient of `gaussian_noise`: ``dy``.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.gaussian_noise_forward(np.ones(3), 0.1)
    >>> F.gaussian_noise_backward(np.ones(3), ctx)
    array([1., 1., 1.])
    """
    return _gradient(dy, ctx)


# -- parameters ----------------------------------------------------------------------------------------------------


def check_probability(p: float, below_one: bool = False) -> float:
    """A probability; below one where a variance is p/(1−p)."""
    p = _arrays.number(p, "p")
    if 0.0 <= p < 1.0 or (p == 1.0 and not below_one):
        return p
    raise ValueError(f"p must be in [0, 1{')' if below_one else ']'}, got {p}")


def check_rule(p: float, training: bool, mode: str) -> tuple[float, float]:
    """The probability of a drop and the scale of what is kept."""
    p = check_probability(p)
    if mode == "inverted":
        if not training:
            return 0.0, 1.0
        return p, 1.0 / (1.0 - p) if p < 1.0 else 0.0
    if mode == "classic":
        return (p, 1.0) if training else (0.0, 1.0 - p)
    raise ValueError(f"mode must be 'inverted' or 'classic', got {mode!r}")


def check_sigma(sigma: float) -> float:
    """A standard deviation: finite, at least 0."""
    sigma = _arrays.number(sigma, "sigma")
    if 0.0 <= sigma < math.inf:
        return sigma
    raise ValueError(f"sigma must be finite and at least 0, got {sigma}")


def _source(generator: Generator | None) -> Generator:
    if generator is None:
        return default_generator()
    if not isinstance(generator, Generator):
        raise TypeError(f"generator must be a fastnn.Generator or None, got {type(generator).__name__}")
    return generator


def _axes(axes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Axes as sorted numbers from 0."""
    numbers = _arrays.integers(axes, "broadcast_axes")
    for axis in numbers:
        if not -ndim <= axis < ndim:
            raise ValueError(f"broadcast_axes must be axes of the input, which has {ndim}, got {axis}")
    return tuple(sorted({axis % ndim for axis in numbers}))


def _all_but_first(input: Array) -> tuple[int, ...]:
    ndim = np.ndim(input)
    if ndim == 0:
        raise ValueError("input must have a batch axis, got shape ()")
    return tuple(range(1, ndim))


def _gradient(dy: Array, ctx: DropoutContext | NoiseContext) -> Array:
    array = (
        dy
        if dy.__class__ is np.ndarray and _kernels.ready(dy) and dy.dtype == ctx.dtype
        else _arrays.floating(dy, "dy", ctx.dtype)
    )
    if array.shape != ctx.shape:
        raise ValueError(f"dy must have the result's shape {ctx.shape}, got {array.shape}")
    return array


def _native(y: Array) -> "np.dtype[Any]":
    """The result's dtype for backward; a user's `out` may have the other byte order."""
    return y.dtype.newbyteorder("=")


# -- masks ---------------------------------------------------------------------------------------------------------


def _dropped(
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
    source = _source(generator)
    x = _arrays.floating(input, "input")
    axes = _axes(broadcast_axes, x.ndim)
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
    seed, stream = source.seed, source.take()
    return _apply(x, p, scale, seed, stream, axes, out, shift, fill), seed, stream, axes


def _apply(
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
        small = _small_mask(x.shape, axes, x.dtype, p, seed, stream)
        mask, repeats, inner = _lines(small, x.shape)
        y = _kernels.apply_mask(x, mask, repeats, inner, scale, target, shift, fill)
    return y if out is None else _arrays.deliver(y, out)


def _small_mask(
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


# -- what evaluation and noise do ----------------------------------------------------------------------------------


def _scaled(input: Array, scale: float, out: Array | None) -> Array:
    """scale·input; with scale 1 the input itself."""
    native = isinstance(input, np.ndarray) and input.dtype in _arrays.FLOATING
    x = input if native else _arrays.floating(input, "input")
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
    y = x if scale == 1 else x * x.dtype.type(scale)
    return _arrays.deliver(y, out)


def _in_evaluation(input: Array, scale: float, out: Array | None) -> tuple[Array, DropoutContext]:
    y = _scaled(input, scale, out)
    return y, DropoutContext(0, 0, 0.0, scale, (), y.shape, _native(y))


def _noisy(
    input: Array, sigma: float, multiply: bool, training: bool, generator: Generator | None, out: Array | None
) -> tuple[Array, NoiseContext]:
    if not training:
        y = _scaled(input, 1.0, out)
        return y, NoiseContext(0, 0, 0.0, y.shape, _native(y))
    source = _source(generator)
    x = _arrays.floating(input, "input")
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
    target = _arrays.direct_out(out, x)
    y = np.empty_like(x) if target is None else target
    seed, stream = source.seed, source.take()
    _kernels.noise(x, y, sigma, multiply, seed, stream)
    return _arrays.deliver(y, out), NoiseContext(seed, stream, sigma, x.shape, x.dtype)
