"""Cross-entropy of class logits, and its gradient."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import REDUCTIONS, loss_factor, loss_factors

Array = npt.NDArray[Any]

__all__ = ["CrossEntropyContext", "cross_entropy", "cross_entropy_backward", "cross_entropy_forward"]


class CrossEntropyContext(NamedTuple):
    """What `cross_entropy_backward` needs."""

    logits: Array  # (positions, classes)
    target: Array
    weight: Array | None
    ignore_index: int
    label_smoothing: float
    statistics: Array  # (positions, 2): each row's largest logit and its sum of exponentials
    divisor: float
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...] | None  # None: the loss is a scalar


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Cross-entropy of logits: softmax and negative log-likelihood in one.

    ``loss = −Σ_c w_c q_c log softmax(x)_c`` for each position; q is 1 at the target class, or the target itself where
    it holds probabilities; smoothing replaces q by (1 − ε) q + ε/C.

    Parameters
    ----------
    input : ndarray, shape (N, C), (N, C, d₁, …) or (C,)
        Logits, float32 or float64.
    target : ndarray
        Class indices (any integer dtype), shape (N,), (N, d₁, …) or (); or class probabilities of the input's shape
        and dtype.
    weight : ndarray, shape (C,), optional
        Weight of each class.
    ignore_index : int, default -100
        A class index whose positions count nothing; not for probabilities.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the sum of the targets' weights (index targets) or by the number of positions
        (probabilities), as in PyTorch. The mean of nothing is NaN.
    label_smoothing : float, default 0.0
        ε in [0, 1].

    Returns
    -------
    scalar of the input's dtype, or for "none" an ndarray of shape (N,), (N, d₁, …) or ()

    Raises
    ------
    TypeError
        If `input` is not float32 or float64, or `target` is neither integers nor of the input's dtype.
    ValueError
        If shapes do not fit, or an index is neither a class nor `ignore_index`.

    Notes
    -----
    The sum of exponentials and the losses are added in float64. Keras's default takes probabilities, not logits.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.cross_entropy(np.log(np.array([[0.25, 0.75]])), np.array([1])).round(4)
    np.float64(0.2877)
    """
    return cross_entropy_forward(input, target, weight, ignore_index, reduction, label_smoothing)[0]


def cross_entropy_forward(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Any, CrossEntropyContext]:
    """`cross_entropy`, and the context for `cross_entropy_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> loss, ctx = F.cross_entropy_forward(np.zeros((1, 2)), np.array([0]))
    >>> F.cross_entropy_backward(1.0, ctx)
    array([[-0.5, 0.5]])
    """
    x = _arrays.floating(input, "input")
    if x.ndim == 0:
        raise ValueError("input must have a class axis, got shape ()")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    ignore_index = _arrays.integer(ignore_index, "ignore_index")
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must be within int64's range, got {ignore_index}")
    label_smoothing = _arrays.number(label_smoothing, "label_smoothing")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    axis = min(1, x.ndim - 1)
    logits = _rows(x, axis)
    positions = (*x.shape[:axis], *x.shape[axis + 1 :])
    labels = _labels(target, x, positions, axis)
    class_weight = _arrays.vector(weight, "weight", x.dtype, x.shape[axis : axis + 1])
    statistics = np.empty((len(logits), 2))
    losses = np.empty(len(logits))
    sums = _kernels.cross_entropy_rows(logits, labels, class_weight, ignore_index, label_smoothing, statistics, losses)
    if isinstance(sums, int):
        raise ValueError(f"target must hold classes from 0 to {x.shape[axis] - 1} or ignore_index, got {sums}")
    total, norm = sums
    divisor = norm if reduction == "mean" else 1.0
    shape = positions if reduction == "none" else None
    context = CrossEntropyContext(
        logits, labels, class_weight, ignore_index, label_smoothing, statistics, divisor, x.shape, shape
    )
    if shape is not None:
        return losses.reshape(shape).astype(x.dtype), context
    return x.dtype.type(total / divisor if divisor else math.nan), context


def cross_entropy_backward(dy: Any, ctx: CrossEntropyContext) -> Array:
    """Gradient of `cross_entropy` with respect to the logits: ``(softmax(x)_c Σ_k w_k q_k − w_c q_c)`` times `dy`.

    Parameters
    ----------
    dy : float, or ndarray of the loss's shape
        The gradient of the loss: 1.0 for the loss itself.
    ctx : CrossEntropyContext
        From `cross_entropy_forward`.

    Returns
    -------
    ndarray
        Of the input's shape and dtype.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> loss, ctx = F.cross_entropy_forward(np.zeros((1, 4)), np.array([2]), reduction="sum")
    >>> F.cross_entropy_backward(2.0, ctx)
    array([[ 0.5, 0.5, -1.5, 0.5]])
    """
    scale, scales = 1.0, None
    if ctx.output_shape is None:
        scale = loss_factor(dy, ctx.divisor)
    else:
        scales = loss_factors(dy, ctx.output_shape, np.float64)
    dx = np.empty_like(ctx.logits)
    _kernels.cross_entropy_rows_backward(
        ctx.logits, ctx.target, ctx.weight, ctx.ignore_index, ctx.label_smoothing, ctx.statistics, scale, scales, dx
    )
    return _from_rows(dx, ctx.input_shape)


def _rows(x: Array, axis: int) -> Array:
    """Positions × classes, contiguous."""
    if x.ndim == 2:
        return x
    rows = math.prod(x.shape[:axis]) * math.prod(x.shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(x, axis, -1)).reshape(rows, x.shape[axis])


def _from_rows(rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_rows`."""
    if len(shape) <= 2:
        return rows.reshape(shape)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1))


def _labels(target: Any, x: Array, positions: tuple[int, ...], axis: int) -> Array:
    """Class indices as int64 (positions), or probabilities as rows."""
    labels = _arrays.array(target, "target")
    if labels.dtype.kind in "iu":
        if labels.shape != positions:
            raise ValueError(f"target must have shape {positions} for input of shape {x.shape}, got {labels.shape}")
        return _arrays.contiguous(labels, np.dtype(np.int64)).ravel()
    if labels.dtype.kind != "f":
        raise TypeError(f"target must hold class indices or probabilities of dtype {x.dtype}, got {labels.dtype}")
    probabilities = _arrays.floating(labels, "target", x.dtype)
    if probabilities.shape != x.shape:
        raise ValueError(f"target must have the input's shape {x.shape}, got {probabilities.shape}")
    return _rows(probabilities, axis)
