"""Losses of single elements: squared error and binary cross-entropy, and their gradients."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import REDUCTIONS, loss_factor, loss_factors

Array = npt.NDArray[Any]

__all__ = [
    "ElementwiseLossContext",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "binary_cross_entropy_with_logits_forward",
    "mse_loss",
    "mse_loss_backward",
    "mse_loss_forward",
]


class ElementwiseLossContext(NamedTuple):
    """What backward needs."""

    kind: int
    input: Array
    target: Array
    weight: Array | None
    pos_weight: Array | None
    divisor: float
    scalar: bool


def mse_loss(input: Array, target: Array, reduction: str = "mean", weight: Array | None = None) -> Any:
    """Squared error, ``w · (x − t)²``, its mean, sum, or each.

    Parameters
    ----------
    input, target : ndarray
        float32 or float64, of one shape and dtype; PyTorch also broadcasts, with a warning.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the sum of the weights, or by the number of elements.
    weight : ndarray of the input's shape, optional

    Returns
    -------
    scalar of the input's dtype, or for "none" an ndarray of the input's shape

    Raises
    ------
    TypeError
        If the arrays are not float32 or float64, or the dtypes differ.
    ValueError
        If the shapes differ or `reduction` is unknown.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    np.float64(2.0)
    """
    return mse_loss_forward(input, target, reduction, weight)[0]


def mse_loss_forward(
    input: Array, target: Array, reduction: str = "mean", weight: Array | None = None
) -> tuple[Any, ElementwiseLossContext]:
    """`mse_loss`, and the context for `mse_loss_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> loss, ctx = F.mse_loss_forward(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> F.mse_loss_backward(1.0, ctx)
    array([ 0., -2.])
    """
    x, t = _operands(input, target)
    w = _arrays.vector(weight, "weight", x.dtype, x.shape)
    count = x.size if w is None else float(w.sum(dtype=np.float64))
    return _forward(_kernels.MSE, x, t, w, None, reduction, count)


def mse_loss_backward(dy: Any, ctx: ElementwiseLossContext) -> Array:
    """Gradient of `mse_loss` with respect to the input: ``2 · w · (x − t)`` times `dy`, divided as the loss was.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> loss, ctx = F.mse_loss_forward(np.array([3.0]), np.array([1.0]), "none")
    >>> F.mse_loss_backward(np.array([10.0]), ctx)
    array([40.])
    """
    return _backward(dy, ctx)


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Any:
    """Binary cross-entropy of logits, ``w · (p · t · log(1 + e⁻ˣ) + (1 − t) · log(1 + eˣ))``.

    Parameters
    ----------
    input, target : ndarray
        Logits x and labels t in [0, 1]; float32 or float64, of one shape and dtype.
    weight : ndarray, optional
        w, broadcastable to the input.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements, whatever the weights.
    pos_weight : ndarray, optional
        p, the weight of positive labels; broadcastable to the input.

    Returns
    -------
    scalar of the input's dtype, or for "none" an ndarray of the input's shape

    Raises
    ------
    TypeError
        If the arrays are not float32 or float64, or the dtypes differ.
    ValueError
        If shapes do not fit or `reduction` is unknown.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.binary_cross_entropy_with_logits(np.zeros(2), np.array([0.0, 1.0])).round(4)
    np.float64(0.6931)
    """
    return binary_cross_entropy_with_logits_forward(input, target, weight, reduction, pos_weight)[0]


def binary_cross_entropy_with_logits_forward(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> tuple[Any, ElementwiseLossContext]:
    """`binary_cross_entropy_with_logits`, and the context for its backward.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> loss, ctx = F.binary_cross_entropy_with_logits_forward(np.zeros(2), np.array([0.0, 1.0]))
    >>> F.binary_cross_entropy_with_logits_backward(1.0, ctx)
    array([ 0.25, -0.25])
    """
    x, t = _operands(input, target)
    w, p = _broadcast(weight, "weight", x), _broadcast(pos_weight, "pos_weight", x)
    return _forward(_kernels.BCE_WITH_LOGITS, x, t, w, p, reduction, x.size)


def binary_cross_entropy_with_logits_backward(dy: Any, ctx: ElementwiseLossContext) -> Array:
    """Gradient with respect to the logits: ``w · ((1 − t) · σ(x) − p · t · σ(−x))`` times `dy`, divided like the loss.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> loss, ctx = F.binary_cross_entropy_with_logits_forward(np.zeros(1), np.ones(1), pos_weight=np.array([3.0]))
    >>> F.binary_cross_entropy_with_logits_backward(1.0, ctx)
    array([-1.5])
    """
    return _backward(dy, ctx)


def _operands(input: Array, target: Array) -> tuple[Array, Array]:
    x = _arrays.floating(input, "input")
    t = _arrays.floating(target, "target", x.dtype)
    if t.shape != x.shape:
        raise ValueError(f"target must have the input's shape {x.shape}, got {t.shape}")
    return x, t


def _broadcast(value: Any, name: str, x: Array) -> Array | None:
    if value is None:
        return None
    array = _arrays.floating(value, name, x.dtype)
    try:
        return np.ascontiguousarray(np.broadcast_to(array, x.shape)).reshape(x.shape)
    except ValueError:
        raise ValueError(f"{name} must be broadcastable to the input's shape {x.shape}, got {array.shape}") from None


def _forward(
    kind: int, x: Array, t: Array, w: Array | None, p: Array | None, reduction: str, count: float
) -> tuple[Any, ElementwiseLossContext]:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    losses = np.empty_like(x) if reduction == "none" else None
    total = _kernels.elementwise_loss(kind, x, t, w, p, losses)
    divisor = float(count) if reduction == "mean" else 1.0
    context = ElementwiseLossContext(kind, x, t, w, p, divisor, losses is None)
    if losses is not None:
        return losses, context
    return x.dtype.type(total / divisor if divisor else math.nan), context


def _backward(dy: Any, ctx: ElementwiseLossContext) -> Array:
    x, scale, scales = ctx.input, 1.0, None
    if ctx.scalar:
        scale = loss_factor(dy, ctx.divisor)
    else:
        scales = loss_factors(dy, x.shape, x.dtype)
    dx = np.empty_like(x)
    _kernels.elementwise_loss_backward(ctx.kind, x, ctx.target, ctx.weight, ctx.pos_weight, scale, scales, dx)
    return dx
