"""Rectifiers that are straight above 0: ReLU, leaky ReLU and ELU."""

from typing import Any

import numpy.typing as npt

from fastnn import _arrays
from fastnn.functional._checks import refuse_overlap
from fastnn.functional.activation.call import KINDS, ActivationContext, run_backward, run_forward

Array = npt.NDArray[Any]

__all__ = [
    "elu",
    "elu_backward",
    "elu_forward",
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "relu",
    "relu_backward",
    "relu_forward",
]


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
    return run_forward(KINDS["relu"], input, out)


def relu_forward(input: Array, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`relu`, and the context for `relu_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.relu_forward(np.array([-1.0, 2.0]))
    >>> F.relu_backward(np.zeros(2), ctx).shape
    (2,)
    """
    y = run_forward(KINDS["relu"], input, out)
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
    return run_backward(KINDS["relu"], dy, ctx)


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
    ValueError
        If `negative_slope` is not finite.

    Notes
    -----
    Keras calls the slope alpha and starts from 0.3. Source: Maas, Hannun and Ng, ICML workshop 2013.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.leaky_relu(np.array([-1.0, 2.0]), 0.5)
    array([-0.5, 2. ])
    """
    return run_forward(KINDS["leaky_relu"], input, out, _arrays.finite(negative_slope, "negative_slope"))


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
    x, negative_slope = _arrays.floating(input, "input"), _arrays.finite(negative_slope, "negative_slope")
    refuse_overlap(out, x)
    return run_forward(KINDS["leaky_relu"], x, out, negative_slope), ActivationContext(x, negative_slope)


def leaky_relu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `leaky_relu`: ``dy`` where x is positive, ``negative_slope · dy`` elsewhere.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([-1.0, 2.0])
    >>> F.leaky_relu_backward(np.ones_like(x), F.leaky_relu_forward(x)[1])
    array([0.01, 1. ])
    """
    return run_backward(KINDS["leaky_relu"], dy, ctx)


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
    ValueError
        If `alpha` is not finite.

    Notes
    -----
    Source: Clevert, Unterthiner and Hochreiter, ICLR 2016.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.elu(np.array([-1.0, 2.0])).round(4)
    array([-0.6321, 2. ])
    """
    return run_forward(KINDS["elu"], input, out, _arrays.finite(alpha, "alpha"))


def elu_forward(input: Array, alpha: float = 1.0, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`elu`, and the context for `elu_backward`; `out` may not overlap the input, which backward needs.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.elu_forward(np.array([-1.0, 2.0]))
    >>> F.elu_backward(np.zeros(2), ctx).shape
    (2,)
    """
    x, alpha = _arrays.floating(input, "input"), _arrays.finite(alpha, "alpha")
    refuse_overlap(out, x)
    return run_forward(KINDS["elu"], x, out, alpha), ActivationContext(x, alpha)


def elu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `elu`: ``dy`` where x is positive, ``alpha · eˣ · dy`` elsewhere.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([0.0, 2.0])
    >>> F.elu_backward(np.ones_like(x), F.elu_forward(x)[1])
    array([1., 1.])
    """
    return run_backward(KINDS["elu"], dy, ctx)
