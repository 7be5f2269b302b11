"""Initialisers that know nothing of fans: uniform, normal, truncated normal, constants, orthogonal matrices."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels, random
from fastnn.init.gains import check_choice, sizes_of

Array = npt.NDArray[Any]
Shape = int | Sequence[int]
# In quotes: numpy.random is loaded where it is used.
Rng: TypeAlias = "random.Source | np.random.Generator | int | None"


def real_type(dtype: npt.DTypeLike) -> "np.dtype[Any]":
    """float32 or float64."""
    chosen = np.dtype(dtype)
    if chosen not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {chosen}")
    return chosen


def uniform(
    shape: Shape, a: float = 0.0, b: float = 1.0, *, rng: Rng = None, dtype: npt.DTypeLike = np.float32
) -> Array:
    """U(a, b): every number of [a, b) alike.

    Parameters
    ----------
    shape : int or sequence of int
        Of the new array.
    a, b : float, default 0 and 1
        The interval; a ≤ b.
    rng : Generator, numpy.random.Generator, int or None
        Where the numbers come from. An int is the seed of a `fastnn.Generator`; None is the default generator, which
        `fastnn.manual_seed` seeds.
    dtype : float32 (default) or float64
        Of the new array.

    Raises
    ------
    ValueError
        If a bound is not finite or a > b.

    Examples
    --------
    >>> from fastnn import init
    >>> init.uniform((2, 3), -1, 1, rng=0).shape
    (2, 3)
    """
    if not _arrays.finite(a, "a") <= _arrays.finite(b, "b"):
        raise ValueError(f"a must not be more than b, {b}, got {a}")
    return random.as_generator(rng).uniform(shape, a, b, dtype=real_type(dtype))


def normal(
    shape: Shape, mean: float = 0.0, std: float = 1.0, *, rng: Rng = None, dtype: npt.DTypeLike = np.float32
) -> Array:
    """N(mean, std²).

    Parameters
    ----------
    shape, rng, dtype
        As of `uniform`.
    mean, std : float, default 0 and 1
        std ≥ 0.

    Raises
    ------
    ValueError
        If `mean` or `std` is not finite or `std` is negative.

    Examples
    --------
    >>> from fastnn import init
    >>> init.normal((2, 3), std=0.02, rng=0).dtype
    dtype('float32')
    """
    if _arrays.finite(std, "std") < 0:
        raise ValueError(f"std must be at least 0, got {std}")
    return random.as_generator(rng).normal(shape, _arrays.finite(mean, "mean"), std, dtype=real_type(dtype))


def trunc_normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """N(mean, std²) given that a ≤ x ≤ b, by the inverse of its distribution function.

    As in PyTorch `a` and `b` are values, not multiples of `std`, and the variance of the result is that of the cut
    distribution (0.774 for ±2 std). Keras and Flax cut at ±2 std and divide `std` by 0.8796 to make up for it.

    Parameters
    ----------
    shape, rng, dtype
        As of `uniform`.
    mean, std : float, default 0 and 1
        Before truncation; std > 0.
    a, b : float, default -2 and 2
        The bounds; a < b.

    Raises
    ------
    ValueError
        If a parameter is not finite, std ≤ 0, a ≥ b, or the distribution has nothing between them that float64 knows.

    Examples
    --------
    >>> from fastnn import init
    >>> bool(abs(init.trunc_normal(1000, std=5.0, a=-0.5, b=0.5, rng=0)).max() <= 0.5)
    True
    """
    from scipy.special import ndtr, ndtri

    real = real_type(dtype).type
    if _arrays.finite(std, "std") <= 0:
        raise ValueError(f"std must be more than 0, got {std}")
    if not _arrays.finite(a, "a") < _arrays.finite(b, "b"):
        raise ValueError(f"a must be less than b, {b}, got {a}")
    low, high = (a - _arrays.finite(mean, "mean")) / std, (b - mean) / std
    # The distribution function has its digits on the left: what lies on the right is drawn from its mirror image.
    mirror = -1.0 if low > 0 else 1.0
    first, last = sorted((float(ndtr(mirror * low)), float(ndtr(mirror * high))))
    if first == last:
        raise ValueError(f"[a, b] must hold some of the distribution, got [{a}, {b}] with mean {mean} and std {std}")
    quantile = random.as_generator(rng).uniform(shape, first, last, dtype=np.float64)
    drawn: Array = np.clip((mean + std * mirror * ndtri(quantile)).astype(real), real(a), real(b))
    return drawn


def constant(shape: Shape, val: float, *, dtype: npt.DTypeLike = np.float32) -> Array:
    """`val` everywhere.

    Parameters
    ----------
    shape, dtype
        As of `uniform`.
    val : float
        The value.

    Examples
    --------
    >>> from fastnn import init
    >>> init.constant(2, 0.5)
    array([0.5, 0.5], dtype=float32)
    """
    return _filled(shape, _arrays.number(val, "val"), dtype)


def zeros(shape: Shape, *, dtype: npt.DTypeLike = np.float32) -> Array:
    """Zeros, for biases.

    Parameters
    ----------
    shape, dtype
        As of `uniform`.

    Examples
    --------
    >>> from fastnn import init
    >>> init.zeros(2)
    array([0., 0.], dtype=float32)
    """
    return _arrays.empty(shape, real_type(dtype), np.zeros)


def ones(shape: Shape, *, dtype: npt.DTypeLike = np.float32) -> Array:
    """Ones, for the weights of norms.

    Parameters
    ----------
    shape, dtype
        As of `uniform`.

    Examples
    --------
    >>> from fastnn import init
    >>> init.ones(2)
    array([1., 1.], dtype=float32)
    """
    return _filled(shape, 1.0, dtype)


def _filled(shape: Shape, value: float, dtype: npt.DTypeLike) -> Array:
    result = _arrays.empty(shape, real_type(dtype))
    _kernels.fill_constant(result, value)
    return result


def orthogonal(
    shape: Sequence[int],
    gain: float = 1.0,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
    layout: str = "oi",
) -> Array:
    """gain · Q, Q the matrix (out, in·kernel) with orthonormal rows, or columns if it has more rows than columns.

    Uniform over all such matrices (Haar): the QR factors of a normal matrix, R's diagonal made positive. It is
    factorised in float64; on another platform the last digits may differ, as its LAPACK's do.

    Parameters
    ----------
    shape, layout
        As of `fans`.
    gain : float, default 1
        A factor; see `calculate_gain`.
    rng, dtype
        As of `uniform`.

    Raises
    ------
    ValueError
        If the shape has fewer than two axes, the layout is another, or `gain` is not finite.

    References
    ----------
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", ICLR 2014. Mezzadri, "How to generate random matrices from the classical compact groups", 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import init
    >>> q = init.orthogonal((3, 5), rng=0)
    >>> bool(np.allclose(q @ q.T, np.eye(3), atol=1e-6))
    True
    """
    check_choice(layout, "layout", ("oi", "io"))
    real = real_type(dtype)
    sizes = sizes_of(shape)
    out, *others = sizes if layout == "oi" else sizes[::-1]
    rest = math.prod(others)
    tall = random.as_generator(rng).normal((max(out, rest), min(out, rest)), dtype=np.float64)
    q, r = np.linalg.qr(tall)
    q *= _arrays.finite(gain, "gain") * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    # Rows are outputs in layout "oi" and columns are in "io".
    upright = (out >= rest) == (layout == "oi")
    return np.ascontiguousarray((q if upright else q.T).reshape(shape), real)
