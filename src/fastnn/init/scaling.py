"""Initialisers that keep the variance from layer to layer: one of them, and its named special cases."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastnn import _arrays
from fastnn.init.fills import Array, Rng, normal, uniform
from fastnn.init.gains import calculate_gain, check_choice, fans


def variance_scaling(
    shape: Sequence[int],
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
    layout: str = "oi",
    groups: int = 1,
) -> Array:
    """Weights of mean 0 and variance scale/n, n being fan_in, fan_out, or their mean.

    A unit that adds up n independent inputs of variance v with weights of variance 1/n has variance v again; backwards
    the same holds for gradients with fan_out. All of `xavier_uniform` to `lecun_normal` are this function.
    "normal" is N(0, scale/n), untruncated; "uniform" is U(−√(3·scale/n), √(3·scale/n)).

    Parameters
    ----------
    shape : sequence of int
        Of the weight, two axes or more; see `fans`.
    scale : float, default 1
        At least 0.
    mode : {"fan_in", "fan_out", "fan_avg"}
        What n is.
    distribution : {"normal", "uniform"}
        Keras's and Flax's "truncated_normal" is `trunc_normal` here.
    rng : Generator, numpy.random.Generator, int or None
        Where the numbers come from; see `uniform`.
    dtype : float32 (default) or float64
        Of the new array.
    layout : {"oi", "io"}
        Axes (out, in/groups, \\*kernel), PyTorch's, or (\\*kernel, in/groups, out), Keras's and Flax's.
    groups : int, default 1
        Of a grouped convolution.

    Raises
    ------
    ValueError
        If a parameter is out of its range, naming it.

    Examples
    --------
    >>> from fastnn import init
    >>> w = init.variance_scaling((300, 400), scale=2.0, rng=0)
    >>> round(float(w.var() * 400), 1)
    2.0
    """
    check_choice(mode, "mode", ("fan_in", "fan_out", "fan_avg"))
    check_choice(distribution, "distribution", ("normal", "uniform"))
    scale = _arrays.finite(scale, "scale")
    if scale < 0:
        raise ValueError(f"scale must be at least 0, got {scale}")
    fan_in, fan_out = fans(shape, layout, groups)
    n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    std = math.sqrt(scale / max(n, 1))  # an n of 0 has no weights
    if distribution == "normal":
        return normal(shape, 0.0, std, rng=rng, dtype=dtype)
    bound = math.sqrt(3.0) * std
    return uniform(shape, -bound, bound, rng=rng, dtype=dtype)


def _square(gain: float) -> float:
    real = _arrays.finite(gain, "gain")
    return real * real  # with ** a result beyond float64 would be an OverflowError


def xavier_uniform(
    shape: Sequence[int],
    gain: float = 1.0,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
    layout: str = "oi",
    groups: int = 1,
) -> Array:
    """U(−c, c), c = gain · √(6/(fan_in + fan_out)): Glorot's initialisation, for tanh- and sigmoid-like units.

    Its variance, 2·gain²/(fan_in + fan_out), is between what keeps the variance of activations forward, 1/fan_in, and
    what keeps that of gradients backward, 1/fan_out, where units work in their linear part.

    Parameters
    ----------
    shape : sequence of int
        Of the weight; see `fans`.
    gain : float, default 1
        A factor; see `calculate_gain`.
    rng, dtype, layout, groups
        As of `variance_scaling`.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.

    Examples
    --------
    >>> from fastnn import init
    >>> bool(abs(init.xavier_uniform((100, 50), rng=0)).max() <= (6 / 150) ** 0.5)
    True
    """
    return variance_scaling(
        shape, _square(gain), "fan_avg", "uniform", rng=rng, dtype=dtype, layout=layout, groups=groups
    )


def xavier_normal(
    shape: Sequence[int],
    gain: float = 1.0,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
    layout: str = "oi",
    groups: int = 1,
) -> Array:
    """N(0, gain² · 2/(fan_in + fan_out)): the normal form of `xavier_uniform`.

    Parameters
    ----------
    shape, gain, rng, dtype, layout, groups
        As of `xavier_uniform`.

    Examples
    --------
    >>> from fastnn import init
    >>> init.xavier_normal((3, 3, 8, 16), layout="io", rng=0).shape
    (3, 3, 8, 16)
    """
    return variance_scaling(
        shape, _square(gain), "fan_avg", "normal", rng=rng, dtype=dtype, layout=layout, groups=groups
    )


def kaiming_uniform(
    shape: Sequence[int],
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
    layout: str = "oi",
    groups: int = 1,
) -> Array:
    """U(−c, c), c = gain · √(3/fan): He's initialisation, for ReLU and leaky ReLU.

    Its variance is 2/((1 + a²)·fan): half of a ReLU's inputs, and a² of a leaky one's other half, come through.

    Parameters
    ----------
    shape : sequence of int
        Of the weight; see `fans`.
    a : float, default 0
        Negative slope of the leaky ReLU; 0 is ReLU.
    mode : {"fan_in", "fan_out"}
        Whether activations keep their variance forward or gradients theirs backward.
    nonlinearity : str, default "leaky_relu"
        Any that `calculate_gain` knows; others than "leaky_relu" ignore `a`.
    rng, dtype, layout, groups
        As of `variance_scaling`.

    References
    ----------
    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015.

    Examples
    --------
    >>> from fastnn import init
    >>> bool(abs(init.kaiming_uniform((100, 50), rng=0)).max() <= (6 / 50) ** 0.5)
    True
    """
    check_choice(mode, "mode", ("fan_in", "fan_out"))
    return variance_scaling(
        shape, calculate_gain(nonlinearity, a) ** 2, mode, "uniform", rng=rng, dtype=dtype, layout=layout, groups=groups
    )


def kaiming_normal(
    shape: Sequence[int],
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
    layout: str = "oi",
    groups: int = 1,
) -> Array:
    """N(0, 2/((1 + a²)·fan)): the normal form of `kaiming_uniform`.

    Parameters
    ----------
    shape, a, mode, nonlinearity, rng, dtype, layout, groups
        As of `kaiming_uniform`.

    Examples
    --------
    >>> from fastnn import init
    >>> init.kaiming_normal((64, 32, 3, 3), mode="fan_out", rng=0).shape
    (64, 32, 3, 3)
    """
    check_choice(mode, "mode", ("fan_in", "fan_out"))
    return variance_scaling(
        shape, calculate_gain(nonlinearity, a) ** 2, mode, "normal", rng=rng, dtype=dtype, layout=layout, groups=groups
    )


def lecun_normal(
    shape: Sequence[int],
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
    layout: str = "oi",
    groups: int = 1,
) -> Array:
    """N(0, 1/fan_in), for SELU and linear units; untruncated, where Keras and Flax truncate.

    Parameters
    ----------
    shape : sequence of int
        Of the weight; see `fans`.
    rng, dtype, layout, groups
        As of `variance_scaling`.

    References
    ----------
    LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> from fastnn import init
    >>> init.lecun_normal((10, 20), dtype="float64").dtype
    dtype('float64')
    """
    return variance_scaling(shape, 1.0, "fan_in", "normal", rng=rng, dtype=dtype, layout=layout, groups=groups)
