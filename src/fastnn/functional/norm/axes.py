"""Standardisation over any axes."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.norm.gate import NormContext, backward, delivered, operands, refuse_overlap

__all__ = ["standardize", "standardize_backward", "standardize_forward"]


def _gated(input: Any, axis: Any, eps: Any, mask: Any, out: Array | None, context: type[NormContext] | None) -> Any:
    """The call with plain arguments; or on a rearranged copy, where no view of the array as it lies would do."""
    plain = operands(input, None, None, mask, out, keep=context is not None)
    x, marks = plain.input, plain.mask
    axes, added = _arrays.integers(axis, "axis"), _arrays.number(eps, "eps")
    answer = _kernels.standardize(x, axes, added, marks, plain.out, context, None)
    if answer is not None:
        return delivered(answer, out)
    if context is not None and out is not None:
        refuse_overlap(out, _arrays.array(input, "input"))
    reduced = tuple(a % x.ndim for a in axes)
    order = (*(a for a in range(x.ndim) if a not in reduced), *reduced)
    marks = None if marks is None else np.ascontiguousarray(marks.transpose(order))
    last = tuple(range(x.ndim - len(axes), x.ndim))
    answer = _kernels.standardize(np.ascontiguousarray(x.transpose(order)), last, added, marks, None, context, None)
    if context is None:
        return delivered(_in_order(answer, order), out)
    y, ctx = answer
    return delivered((_in_order(y, order), ctx._replace(order=order)), out)


def standardize(
    input: Any,
    axis: SupportsIndex | Sequence[SupportsIndex],
    eps: float = 1e-5,
    *,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """The general form: (x − mean) / √(var + eps), mean and biased variance over any axes.

    Parameters
    ----------
    input : array, float32 or float64
        Any shape.
    axis : int or sequence of int
        The axes that share one mean and variance.
    eps : float, default 1e-5
        Added to the variance inside the root.
    mask : bool array, optional
        Broadcastable to `input`; True counts in the statistics.
    out : ndarray, optional
        Takes the result and is returned; may be `input` itself.

    Examples
    --------
    Over the channel axis of channels-first images:

    >>> import numpy as np, fastnn.functional as F
    >>> x = np.arange(8.0).reshape(1, 2, 2, 2)
    >>> F.standardize(x, 1).round(3)[0, :, 0, 0]
    array([-1.,  1.])
    """
    y: Array = _kernels.standardize(input, axis, eps, mask, out, None, _gated)
    return y


def standardize_forward(
    input: Any,
    axis: SupportsIndex | Sequence[SupportsIndex],
    eps: float = 1e-5,
    *,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`standardize` and the context for `standardize_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.standardize_forward(np.array([[1.0, 2.0], [3.0, 6.0]]), 0)
    """
    answer: tuple[Array, NormContext] = _kernels.standardize(input, axis, eps, mask, out, NormContext, _gated)
    return answer


def standardize_backward(dy: Any, ctx: NormContext) -> Array:
    """The input's gradient of `standardize`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.standardize_forward(np.array([[1.0, 2.0], [3.0, 6.0]]), 0)
    >>> F.standardize_backward(np.ones((2, 2)), ctx)
    array([[0., 0.],
           [0., 0.]])
    """
    if ctx.order is None:
        return _kernels.norm_backward(dy, ctx, NormContext, backward)[0]
    dy, order = _arrays.floating(dy, "dy", ctx.input.dtype), ctx.order
    shape = tuple(ctx.input.shape[order.index(a)] for a in range(len(order)))
    if dy.shape != shape:
        raise ValueError(f"dy must have the input's shape {shape}, got {dy.shape}")
    return _in_order(backward(dy.transpose(order), ctx._replace(order=None))[0], order)


def _in_order(array: Array, order: tuple[int, ...]) -> Array:
    """The array with its axes back in their own order, C-contiguous."""
    return np.ascontiguousarray(array.transpose(np.argsort(order)))
