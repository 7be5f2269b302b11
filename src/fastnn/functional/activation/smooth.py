"""Smooth rectifiers: GELU, SiLU and softplus."""

import math
from typing import Any

import numpy.typing as npt

from fastnn import _arrays
from fastnn.functional._checks import refuse_overlap
from fastnn.functional.activation.call import KINDS, ActivationContext, run_backward, run_forward

Array = npt.NDArray[Any]

__all__ = [
    "check_softplus",
    "gelu",
    "gelu_backward",
    "gelu_forward",
    "gelu_kind",
    "silu",
    "silu_backward",
    "silu_forward",
    "softplus",
    "softplus_backward",
    "softplus_forward",
]


def gelu(input: Array, approximate: str = "none", *, out: Array | None = None) -> Array:
    """Gaussian error linear unit, ``x · Φ(x)``, Φ the normal distribution's integral.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    approximate : {"none", "tanh"}, default "none"
        "tanh" is ``x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))``.
    out : ndarray, optional
        Where the result goes; may be `input` itself.

    Returns
    -------
    ndarray
        Of the input's shape and dtype.

    Raises
    ------
    TypeError
        If `input` is not float32 or float64.
    ValueError
        If `approximate` is neither "none" nor "tanh".

    Notes
    -----
    The lower tail keeps its relative accuracy (7 units in the last place), where ``1 + erf`` and ``1 + tanh`` lose all
    digits. Keras's and Flax's default is the tanh form. Source: Hendrycks and Gimpel, arXiv 1606.08415.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.gelu(np.array([-1.0, 2.0])).round(4)
    array([-0.1587, 1.9545])
    """
    return run_forward(gelu_kind(approximate), input, out)


def gelu_forward(
    input: Array, approximate: str = "none", *, out: Array | None = None
) -> tuple[Array, ActivationContext]:
    """`gelu`, and the context for `gelu_backward`; `out` may not overlap the input, which backward needs.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.gelu_forward(np.array([-1.0, 2.0]))
    >>> F.gelu_backward(np.zeros(2), ctx).shape
    (2,)
    """
    x = _arrays.floating(input, "input")
    refuse_overlap(out, x)
    kind = gelu_kind(approximate)
    return run_forward(kind, x, out), ActivationContext(x, kind)


def gelu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `gelu`: ``dy · (Φ(x) + x · φ(x))``, or the derivative of the tanh form.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0, 30.0])
    >>> F.gelu_backward(np.ones_like(x), F.gelu_forward(x)[1])
    array([0.5, 1. ])
    """
    return run_backward(int(ctx.p), dy, ctx)


def gelu_kind(approximate: str) -> int:
    """The kernel's number for a form of GELU."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    return KINDS["gelu" if approximate == "none" else "gelu_tanh"]


def silu(input: Array, *, out: Array | None = None) -> Array:
    """Sigmoid-weighted linear unit (swish), ``x · σ(x) = x / (1 + e⁻ˣ)``.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    out : ndarray, optional
        Where the result goes; may be `input` itself.

    Returns
    -------
    ndarray
        Of the input's shape and dtype.

    Raises
    ------
    TypeError
        If `input` is not float32 or float64.

    Notes
    -----
    Source: Elfwing, Uchibe and Doya, Neural Networks 107 (2018).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.silu(np.array([-1.0, 2.0])).round(4)
    array([-0.2689, 1.7616])
    """
    return run_forward(KINDS["silu"], input, out)


def silu_forward(input: Array, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`silu`, and the context for `silu_backward`; `out` may not overlap the input, which backward needs.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.silu_forward(np.array([-1.0, 2.0]))
    >>> F.silu_backward(np.zeros(2), ctx).shape
    (2,)
    """
    x = _arrays.floating(input, "input")
    refuse_overlap(out, x)
    return run_forward(KINDS["silu"], x, out), ActivationContext(x)


def silu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `silu`: ``dy · σ(x) · (1 + x · (1 − σ(x)))``.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0, 50.0])
    >>> F.silu_backward(np.ones_like(x), F.silu_forward(x)[1])
    array([0.5, 1. ])
    """
    return run_backward(KINDS["silu"], dy, ctx)


def softplus(input: Array, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None) -> Array:
    """Smooth rectifier, ``log(1 + e^(beta · x)) / beta``; x itself where ``beta · x > threshold``.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    beta : float, default 1.0
        Not 0.
    threshold : float, default 20.0
    out : ndarray, optional
        Where the result goes; may be `input` itself.

    Returns
    -------
    ndarray
        Of the input's shape and dtype.

    Raises
    ------
    TypeError
        If `input` is not float32 or float64.
    ValueError
        If `beta` is 0 or not finite, or `threshold` is NaN.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.softplus(np.array([0.0, 30.0])).round(4)
    array([ 0.6931, 30. ])
    """
    beta, threshold = check_softplus(beta, threshold)
    return run_forward(KINDS["softplus"], input, out, beta, threshold)


def softplus_forward(
    input: Array, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None
) -> tuple[Array, ActivationContext]:
    """`softplus`, and the context for `softplus_backward`; `out` may not overlap the input, which backward needs.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.softplus_forward(np.array([-1.0, 2.0]))
    >>> F.softplus_backward(np.zeros(2), ctx).shape
    (2,)
    """
    beta, threshold = check_softplus(beta, threshold)
    x = _arrays.floating(input, "input")
    refuse_overlap(out, x)
    return run_forward(KINDS["softplus"], x, out, beta, threshold), ActivationContext(x, beta, threshold)


def softplus_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `softplus`: ``dy · σ(beta · x)``; ``dy`` beyond the threshold.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0])
    >>> F.softplus_backward(np.ones_like(x), F.softplus_forward(x)[1])
    array([0.5])
    """
    return run_backward(KINDS["softplus"], dy, ctx)


def check_softplus(beta: float, threshold: float) -> tuple[float, float]:
    """Softplus's parameters: a number to divide by, and one to compare with, which may be infinite."""
    beta, threshold = _arrays.finite(beta, "beta"), _arrays.number(threshold, "threshold")
    if beta == 0:
        raise ValueError("beta must not be 0, got 0")
    if math.isnan(threshold):
        raise ValueError("threshold must be a number, got nan")
    return beta, threshold
