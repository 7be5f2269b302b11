"""S-shaped functions: the logistic function and the hyperbolic tangent."""

from typing import Any

import numpy.typing as npt

from fastnn.functional.activation.call import KINDS, ActivationContext, run_backward, run_forward

Array = npt.NDArray[Any]

__all__ = [
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_forward",
    "tanh",
    "tanh_backward",
    "tanh_forward",
]


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
    return run_forward(KINDS["sigmoid"], input, out)


def sigmoid_forward(input: Array, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`sigmoid`, and the context for `sigmoid_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.sigmoid_forward(np.array([-1.0, 2.0]))
    >>> F.sigmoid_backward(np.zeros(2), ctx).shape
    (2,)
    """
    y = run_forward(KINDS["sigmoid"], input, out)
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
    return run_backward(KINDS["sigmoid"], dy, ctx)


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
    return run_forward(KINDS["tanh"], input, out)


def tanh_forward(input: Array, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`tanh`, and the context for `tanh_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.tanh_forward(np.array([-1.0, 2.0]))
    >>> F.tanh_backward(np.zeros(2), ctx).shape
    (2,)
    """
    y = run_forward(KINDS["tanh"], input, out)
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
    return run_backward(KINDS["tanh"], dy, ctx)
