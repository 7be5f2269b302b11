"""Gaussian noise: multiplicative (Gaussian dropout) and additive."""

import math

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.dropout.arguments import check_probability, check_sigma, gradient, native, source_of
from fastnn.functional.dropout.contexts import NoiseContext
from fastnn.functional.dropout.evaluation import scaled
from fastnn.random import Generator

__all__ = [
    "gaussian_dropout",
    "gaussian_dropout_backward",
    "gaussian_dropout_forward",
    "gaussian_noise",
    "gaussian_noise_backward",
    "gaussian_noise_forward",
]


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
    dy = gradient(dy, ctx)
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
    return gradient(dy, ctx)


def _noisy(
    input: Array, sigma: float, multiply: bool, training: bool, generator: Generator | None, out: Array | None
) -> tuple[Array, NoiseContext]:
    if not training:
        y = scaled(input, 1.0, out)
        return y, NoiseContext(0, 0, 0.0, y.shape, native(y))
    source = source_of(generator)
    x = _arrays.floating(input, "input")
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
    target = _arrays.direct_out(out, x)
    y = np.empty_like(x) if target is None else target
    seed, stream = source.seed, source.take()
    _kernels.noise(x, y, sigma, multiply, seed, stream)
    return _arrays.deliver(y, out), NoiseContext(seed, stream, sigma, x.shape, x.dtype)
