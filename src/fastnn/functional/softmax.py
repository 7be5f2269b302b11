"""Softmax and log-softmax along one axis, and their gradients."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import gradient

Array = npt.NDArray[Any]

__all__ = [
    "SoftmaxContext",
    "log_softmax",
    "log_softmax_backward",
    "log_softmax_forward",
    "softmax",
    "softmax_backward",
    "softmax_forward",
]


class SoftmaxContext(NamedTuple):
    """What backward needs: the result, and the axis."""

    result: Array
    axis: int
    logarithm: bool


def softmax(input: Array, dim: int | None = None, *, out: Array | None = None) -> Array:
    """Probabilities ``e^(x − m) / Σ e^(x − m)`` along one axis, m the largest element.

    Parameters
    ----------
    input : ndarray
        float32 or float64.
    dim : int, optional
        The axis. None is PyTorch's old choice: 0 for arrays with 0, 1 or 3 axes, else 1. Keras and JAX take the last.
    out : ndarray, optional
        Where the result goes; may be `input` itself.

    Returns
    -------
    ndarray
        Of the input's shape and dtype. A slice of −inf only, or with NaN or +inf, gives NaN.

    Raises
    ------
    TypeError
        If `input` is not float32 or float64.
    ValueError
        If there is no axis `dim`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.softmax(np.log(np.array([[1.0, 3.0], [2.0, 2.0]])), dim=1)
    array([[0.25, 0.75], [0.5 , 0.5 ]])
    """
    y = _kernels.softmax(input, dim, False, out)
    return y if y is not None else _softmax(input, dim, out, False)[0]


def softmax_forward(input: Array, dim: int | None = None, *, out: Array | None = None) -> tuple[Array, SoftmaxContext]:
    """`softmax`, and the context for `softmax_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.softmax_forward(np.zeros((1, 2)), dim=1)
    >>> F.softmax_backward(np.array([[1.0, 0.0]]), ctx)
    array([[ 0.25, -0.25]])
    """
    return _forward(input, dim, out, False)


def softmax_backward(dy: Array, ctx: SoftmaxContext) -> Array:
    """Gradient of `softmax`: ``y · (dy − Σ dy · y)``.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.softmax_backward(np.ones((1, 2)), F.softmax_forward(np.zeros((1, 2)), dim=1)[1])
    array([[0., 0.]])
    """
    return _backward(dy, ctx)


def log_softmax(input: Array, dim: int | None = None, *, out: Array | None = None) -> Array:
    """Logarithms of probabilities, ``x − m − log Σ e^(x − m)`` along one axis, m the largest element.

    Parameters
    ----------
    input : ndarray
        float32 or float64.
    dim : int, optional
        The axis. None is PyTorch's old choice: 0 for arrays with 0, 1 or 3 axes, else 1. Keras and JAX take the last.
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
        If there is no axis `dim`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.log_softmax(np.array([1000.0, 1000.0]), dim=0).round(4)
    array([-0.6931, -0.6931])
    """
    y = _kernels.softmax(input, dim, True, out)
    return y if y is not None else _softmax(input, dim, out, True)[0]


def log_softmax_forward(
    input: Array, dim: int | None = None, *, out: Array | None = None
) -> tuple[Array, SoftmaxContext]:
    """`log_softmax`, and the context for `log_softmax_backward`, which is the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.log_softmax_forward(np.zeros((1, 2)), dim=1)
    >>> F.log_softmax_backward(np.array([[1.0, 0.0]]), ctx)
    array([[ 0.5, -0.5]])
    """
    return _forward(input, dim, out, True)


def log_softmax_backward(dy: Array, ctx: SoftmaxContext) -> Array:
    """Gradient of `log_softmax`: ``dy − e^y · Σ dy``.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.log_softmax_backward(np.zeros((1, 2)), F.log_softmax_forward(np.zeros((1, 2)), dim=1)[1])
    array([[0., 0.]])
    """
    return _backward(dy, ctx)


def _forward(input: Array, dim: int | None, out: Array | None, logarithm: bool) -> tuple[Array, SoftmaxContext]:
    y, axis = _kernels.softmax(input, dim, logarithm, out), -1
    if y is None:
        y, axis = _softmax(input, dim, out, logarithm)
    return y, SoftmaxContext(y, axis, logarithm)


def _softmax(input: Array, dim: int | None, out: Array | None, logarithm: bool) -> tuple[Array, int]:
    x = _arrays.floating(input, "input")
    axis, shape = _axis(dim, x), x.shape
    if out is not None:
        _arrays.check_out(out, shape, x.dtype)
    if x.ndim == 0:
        x = x.reshape(1)
    if axis == x.ndim - 1:
        y = _kernels.softmax(x, axis, logarithm, _arrays.direct_out(out, x) if x.shape == shape else None)
        assert y is not None
    else:
        rows = np.moveaxis(x, axis, -1).copy()  # always new, also where all other axes have length 1
        _kernels.softmax(rows, -1, logarithm, rows)
        y = np.ascontiguousarray(np.moveaxis(rows, -1, axis))
    return _arrays.deliver(y.reshape(shape), out), axis


def _backward(dy: Array, ctx: SoftmaxContext) -> Array:
    dx = _kernels.softmax_backward(dy, ctx.result, ctx.axis, ctx.logarithm)
    return dx if dx is not None else _gated_backward(dy, ctx)


def _gated_backward(dy: Array, ctx: SoftmaxContext) -> Array:
    shape = ctx.result.shape
    y = _arrays.floating(ctx.result, "result")
    dy = gradient(dy, y, shape)
    if y.ndim == 0:
        y, dy = y.reshape(1), dy.reshape(1)
    if ctx.axis not in (-1, y.ndim - 1):
        y, dy = (np.ascontiguousarray(np.moveaxis(array, ctx.axis, -1)) for array in (y, dy))
    dx = _kernels.softmax_backward(dy, y, -1, ctx.logarithm)
    assert dx is not None
    return np.ascontiguousarray(np.moveaxis(dx, -1, ctx.axis)).reshape(shape)


def _axis(dim: int | None, x: Array) -> int:
    axes = max(1, x.ndim)
    if dim is None:
        return 0 if x.ndim in (0, 1, 3) else 1
    axis = _arrays.integer(dim, "dim")
    if not -axes <= axis < axes:
        raise ValueError(f"dim must be from {-axes} to {axes - 1} for input of shape {x.shape}, got {dim}")
    return axis % axes
