"""The affine map of a linear layer, and its gradients."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import gradient, refuse_overlap

Array = npt.NDArray[Any]

__all__ = ["LinearContext", "linear", "linear_backward", "linear_forward"]


class LinearContext(NamedTuple):
    """What `linear_backward` needs."""

    input: Array
    weight: Array
    has_bias: bool


def linear(input: Array, weight: Array, bias: Array | None = None, *, out: Array | None = None) -> Array:
    """Affine map ``y = x Wᵀ + b``.

    Parameters
    ----------
    input : ndarray, shape (..., in_features)
        float32 or float64.
    weight : ndarray, shape (out_features, in_features)
        PyTorch's layout; Keras and Flax store the transpose.
    bias : ndarray, shape (out_features,), optional
    out : ndarray, shape (..., out_features), optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (..., out_features)

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If the shapes do not fit.

    Notes
    -----
    Each result is one sum over the input features in order, and then the bias: its bits depend on nothing but its
    sample, the weights and the bias.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([0.5, 0.0]))
    array([[11.5, 17. ]])
    """
    y = _kernels.linear_product(input, weight, bias, out)
    return y if y is not None else _affine(*_operands(input, weight, bias), out)


def linear_forward(
    input: Array, weight: Array, bias: Array | None = None, *, out: Array | None = None
) -> tuple[Array, LinearContext]:
    """`linear`, and the context for `linear_backward`; `out` may not overlap the input, which backward needs.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.linear_forward(np.ones((1, 2)), np.array([[3.0, 4.0]]))
    >>> F.linear_backward(np.ones((1, 1)), ctx)
    (array([[3., 4.]]), array([[1., 1.]]), None)
    """
    y = _kernels.linear_product(input, weight, bias, out)
    if y is not None:
        return y, LinearContext(input, weight, bias is not None)
    x, w, b = _operands(input, weight, bias)
    refuse_overlap(out, x, w)
    return _affine(x, w, b, out), LinearContext(x, w, b is not None)


def linear_backward(dy: Array, ctx: LinearContext) -> tuple[Array, Array, Array | None]:
    """Gradients of `linear`: ``dx = dy W``, ``dW = dyᵀ x``, ``db = Σ dy``.

    Parameters
    ----------
    dy : ndarray, shape (..., out_features)
    ctx : LinearContext
        From `linear_forward`.

    Returns
    -------
    (dinput, dweight, dbias)
        `dbias` is None if there was no bias.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.linear_forward(np.ones((3, 2)), np.ones((1, 2)), np.zeros(1))
    >>> F.linear_backward(np.ones((3, 1)), ctx)[1:]
    (array([[3., 3.]]), array([3.]))
    """
    dw = np.empty_like(ctx.weight)
    dx, db = gradients(dy, ctx, dw, add=False)
    return dx, dw, db


def gradients(dy: Array, ctx: LinearContext, dweight: Array, *, add: bool) -> tuple[Array, Array | None]:
    """``dx = dy W`` and ``Σ dy``, with ``dyᵀ x`` as `parameter_gradients` puts it."""
    rows, x = _rows(dy, ctx)
    dx = np.empty_like(ctx.input)
    _kernels.matrix_product(rows, ctx.weight, dx if dx.ndim == 2 else dx.reshape(x.shape))
    return dx, _parameter_gradients(rows, x, ctx, dweight, add)


def parameter_gradients(dy: Array, ctx: LinearContext, dweight: Array, *, add: bool) -> Array | None:
    """Write ``dyᵀ x`` into `dweight`, or add it to what is there; return ``Σ dy``, or None without bias."""
    return _parameter_gradients(*_rows(dy, ctx), ctx, dweight, add)


def _parameter_gradients(rows: Array, x: Array, ctx: LinearContext, dweight: Array, add: bool) -> Array | None:
    _kernels.matrix_product(rows.T, x, dweight, None, add)
    return _kernels.channel_sums(rows, len(rows), ctx.weight.shape[0], 1) if ctx.has_bias else None


def _rows(dy: Array, ctx: LinearContext) -> tuple[Array, Array]:
    """Gradients and inputs as matrices."""
    x, outputs = ctx.input, ctx.weight.shape[0]
    dy = gradient(dy, x, (*x.shape[:-1], outputs))
    if x.ndim == 2:
        return dy, x
    rows = math.prod(x.shape[:-1])
    return dy.reshape(rows, outputs), x.reshape(rows, x.shape[-1])


def _operands(input: Array, weight: Array, bias: Array | None) -> tuple[Array, Array, Array | None]:
    x = _arrays.floating(input, "input")
    w = _arrays.floating(weight, "weight", x.dtype)
    if w.ndim != 2:
        raise ValueError(f"weight must have shape (out_features, in_features), got {w.shape}")
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"input must have shape (..., {w.shape[1]}) for a weight of shape {w.shape}, got {x.shape}")
    return x, w, _arrays.vector(bias, "bias", x.dtype, w.shape[:1])


def _affine(x: Array, w: Array, b: Array | None, out: Array | None) -> Array:
    shape = (*x.shape[:-1], w.shape[0])
    if out is not None:
        _arrays.check_out(out, shape, x.dtype)
    rows = x.reshape(math.prod(x.shape[:-1]), w.shape[1])
    target = _arrays.direct_out(out, x, (x, w, b))
    y = np.empty(shape, x.dtype) if target is None else target
    _kernels.matrix_product(rows, w.T, y.reshape(len(rows), w.shape[0]), b)
    return _arrays.deliver(y, out)
