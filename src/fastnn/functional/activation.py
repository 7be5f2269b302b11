"""Activations and their gradients, one pass over memory each."""

from typing import Any, NamedTuple

import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import gradient

Array = npt.NDArray[Any]

__all__ = ["ActivationContext", "relu", "relu_backward", "relu_forward"]

_RELU = _kernels.ACTIVATIONS["relu"]


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
    return _apply(_RELU, input, out)


def relu_forward(input: Array, *, out: Array | None = None) -> tuple[Array, ActivationContext]:
    """`relu`, and the context for `relu_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.relu_forward(np.array([-1.0, 2.0]))
    >>> F.relu_backward(np.array([3.0, 3.0]), ctx)
    array([0., 3.])
    """
    y = _apply(_RELU, input, out)
    return y, ActivationContext(y)


def relu_backward(dy: Array, ctx: ActivationContext) -> Array:
    """Gradient of `relu`: ``dy`` where the result is positive (or NaN), else 0; 0 at x = 0, as in PyTorch.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.relu_backward(np.ones(3), F.relu_forward(np.array([-1.0, 0.0, 2.0]))[1])
    array([0., 0., 1.])
    """
    return _gradient(_RELU, dy, ctx)


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
