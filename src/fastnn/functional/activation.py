"""Activations and their gradients, one pass over memory each."""

from typing import Any, NamedTuple

import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import gradient, refuse_overlap

Array = npt.NDArray[Any]

__all__ = [
    "ActivationContext",
    "elu",
    "elu_backward",
    "elu_forward",
    "gelu",
    "gelu_backward",
    "gelu_forward",
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "relu",
    "relu_backward",
    "relu_forward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_forward",
    "silu",
    "silu_backward",
    "silu_forward",
    "softplus",
    "softplus_backward",
    "softplus_forward",
    "tanh",
    "tanh_backward",
    "tanh_forward",
]

_KINDS = _kernels.ACTIVATIONS


class ActivationContext(NamedTuple):
    """What backward needs: the result or the input of forward, and the activation's numbers."""

    saved: Array
    p: float = 0.0
    q: float = 0.0


def relu(input: Array, *, out: Array | None = None) -> Array:
    """Rectified linear unit, ``max(x, 0)``; NaN stays NaN.

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

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return _apply(_KINDS["relu"], input, out)


def relu_forward(input: Array, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`relu`, and the context for `relu_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.relu_forward(np.array([-1.0, 2.0]))
    >>> F.relu_backward(np.zeros(2), ctx).shape
    (2,)
    """
    y = _apply(_KINDS["relu"], input, out)
    return y, ActivationContext(y)


def relu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `relu`: ``dy`` where the result is positive (or NaN), else 0; 0 at x = 0, as in PyTorch.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([-1.0, 0.0, 2.0])
    >>> F.relu_backward(np.ones_like(x), F.relu_forward(x)[1])
    array([0., 0., 1.])
    """
    return _gradient(_KINDS["relu"], dy, ctx)


def leaky_relu(input: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """``x`` where positive, ``negative_slope · x`` elsewhere.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    negative_slope : float, default 0.01
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
    Keras calls the slope alpha and starts from 0.3. Source: Maas, Hannun and Ng, ICML workshop 2013.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.leaky_relu(np.array([-1.0, 2.0]), 0.5)
    array([-0.5, 2. ])
    """
    return _apply(_KINDS["leaky_relu"], input, out, _arrays.number(negative_slope, "negative_slope"))


def leaky_relu_forward(
    input: Array, negative_slope: float = 0.01, *, out: Array | None = None
) -> tuple[Array, ActivationContext]:
    """`leaky_relu`, and the context for `leaky_relu_backward`; `out` may not overlap the input, which backward needs.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.leaky_relu_forward(np.array([-1.0, 2.0]))
    >>> F.leaky_relu_backward(np.zeros(2), ctx).shape
    (2,)
    """
    x, negative_slope = _arrays.floating(input, "input"), _arrays.number(negative_slope, "negative_slope")
    refuse_overlap(out, x)
    return _apply(_KINDS["leaky_relu"], x, out, negative_slope), ActivationContext(x, negative_slope)


def leaky_relu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `leaky_relu`: ``dy`` where x is positive, ``negative_slope · dy`` elsewhere.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([-1.0, 2.0])
    >>> F.leaky_relu_backward(np.ones_like(x), F.leaky_relu_forward(x)[1])
    array([0.01, 1. ])
    """
    return _gradient(_KINDS["leaky_relu"], dy, ctx)


def elu(input: Array, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """Exponential linear unit, ``x`` where positive, ``alpha · (eˣ − 1)`` elsewhere.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    alpha : float, default 1.0
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
    Source: Clevert, Unterthiner and Hochreiter, ICLR 2016.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.elu(np.array([-1.0, 2.0])).round(4)
    array([-0.6321, 2. ])
    """
    return _apply(_KINDS["elu"], input, out, _arrays.number(alpha, "alpha"))


def elu_forward(input: Array, alpha: float = 1.0, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`elu`, and the context for `elu_backward`; `out` may not overlap the input, which backward needs.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.elu_forward(np.array([-1.0, 2.0]))
    >>> F.elu_backward(np.zeros(2), ctx).shape
    (2,)
    """
    x, alpha = _arrays.floating(input, "input"), _arrays.number(alpha, "alpha")
    refuse_overlap(out, x)
    return _apply(_KINDS["elu"], x, out, alpha), ActivationContext(x, alpha)


def elu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `elu`: ``dy`` where x is positive, ``alpha · eˣ · dy`` elsewhere.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0, 2.0])
    >>> F.elu_backward(np.ones_like(x), F.elu_forward(x)[1])
    array([1., 1.])
    """
    return _gradient(_KINDS["elu"], dy, ctx)


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
    return _apply(gelu_kind(approximate), input, out)


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
    return _apply(kind, x, out), ActivationContext(x, kind)


def gelu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `gelu`: ``dy · (Φ(x) + x · φ(x))``, or the derivative of the tanh form.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0, 30.0])
    >>> F.gelu_backward(np.ones_like(x), F.gelu_forward(x)[1])
    array([0.5, 1. ])
    """
    return _gradient(int(ctx.p), dy, ctx)


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
    return _apply(_KINDS["silu"], input, out)


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
    return _apply(_KINDS["silu"], x, out), ActivationContext(x)


def silu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `silu`: ``dy · σ(x) · (1 + x · (1 − σ(x)))``.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0, 50.0])
    >>> F.silu_backward(np.ones_like(x), F.silu_forward(x)[1])
    array([0.5, 1. ])
    """
    return _gradient(_KINDS["silu"], dy, ctx)


def sigmoid(input: Array, *, out: Array | None = None) -> Array:
    """Logistic function, ``σ(x) = 1 / (1 + e⁻ˣ)``; small results keep their digits.

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

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.sigmoid(np.array([0.0, 2.0])).round(4)
    array([0.5 , 0.8808])
    """
    return _apply(_KINDS["sigmoid"], input, out)


def sigmoid_forward(input: Array, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`sigmoid`, and the context for `sigmoid_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.sigmoid_forward(np.array([-1.0, 2.0]))
    >>> F.sigmoid_backward(np.zeros(2), ctx).shape
    (2,)
    """
    y = _apply(_KINDS["sigmoid"], input, out)
    return y, ActivationContext(y)


def sigmoid_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `sigmoid`: ``dy · y · (1 − y)``, y the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0])
    >>> F.sigmoid_backward(np.ones_like(x), F.sigmoid_forward(x)[1])
    array([0.25])
    """
    return _gradient(_KINDS["sigmoid"], dy, ctx)


def tanh(input: Array, *, out: Array | None = None) -> Array:
    """Hyperbolic tangent.

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

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.tanh(np.array([0.0, 2.0])).round(4)
    array([0. , 0.964])
    """
    return _apply(_KINDS["tanh"], input, out)


def tanh_forward(input: Array, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`tanh`, and the context for `tanh_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.tanh_forward(np.array([-1.0, 2.0]))
    >>> F.tanh_backward(np.zeros(2), ctx).shape
    (2,)
    """
    y = _apply(_KINDS["tanh"], input, out)
    return y, ActivationContext(y)


def tanh_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `tanh`: ``dy · (1 − y²)``, y the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0])
    >>> F.tanh_backward(np.ones_like(x), F.tanh_forward(x)[1])
    array([1.])
    """
    return _gradient(_KINDS["tanh"], dy, ctx)


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
        If `beta` is 0.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.softplus(np.array([0.0, 30.0])).round(4)
    array([ 0.6931, 30. ])
    """
    beta, threshold = check_beta(beta), _arrays.number(threshold, "threshold")
    return _apply(_KINDS["softplus"], input, out, beta, threshold)


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
    beta, threshold = check_beta(beta), _arrays.number(threshold, "threshold")
    x = _arrays.floating(input, "input")
    refuse_overlap(out, x)
    return _apply(_KINDS["softplus"], x, out, beta, threshold), ActivationContext(x, beta, threshold)


def softplus_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `softplus`: ``dy · σ(beta · x)``; ``dy`` beyond the threshold.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0])
    >>> F.softplus_backward(np.ones_like(x), F.softplus_forward(x)[1])
    array([0.5])
    """
    return _gradient(_KINDS["softplus"], dy, ctx)


def gelu_kind(approximate: str) -> int:
    """The kernel's number for a form of GELU."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    return _KINDS["gelu" if approximate == "none" else "gelu_tanh"]


def check_beta(beta: float) -> float:
    """A number that softplus can divide by."""
    beta = _arrays.number(beta, "beta")
    if beta == 0:
        raise ValueError("beta must not be 0, got 0")
    return beta


def _apply(kind: int, input: Array, out: Array | None, p: float = 0.0, q: float = 0.0) -> Array:
    y = _kernels.activation_forward(kind, input, out, p, q)
    if y is not None:
        return y
    x = _arrays.floating(input, "input")
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
    result = _kernels.activation_forward(kind, x, _arrays.direct_out(out, x), p, q)
    assert result is not None  # both arrays passed the gate
    return _arrays.deliver(result, out)


def _gradient(kind: int, dy: Array, ctx: ActivationContext) -> Array:
    dx = _kernels.activation_backward(kind, dy, ctx.saved, ctx.p, ctx.q)
    if dx is not None:
        return dx
    saved = _arrays.floating(ctx.saved, "saved")
    dx = _kernels.activation_backward(kind, gradient(dy, saved, saved.shape), saved, ctx.p, ctx.q)
    assert dx is not None  # both arrays passed the gate
    return dx
