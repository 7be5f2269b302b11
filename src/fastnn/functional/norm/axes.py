"""Standardisation over any axes."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from fastnn import _arrays
from fastnn._arrays import Array
from fastnn.functional.norm.call import Call, NormContext, context_of, run_backward, run_forward
from fastnn.functional.norm.views import axes_view

__all__ = ["standardize", "standardize_backward", "standardize_forward"]


def _standardize_call(
    input: Any, axis: SupportsIndex | Sequence[SupportsIndex], eps: float, mask: Any
) -> tuple[Call, tuple[int, ...] | None]:
    """The call, and the order of axes its input is held in where no view of the array as it lies would do."""
    x = _arrays.floating(input, "input")
    axes = _axes(axis, x)
    marks = _arrays.mask(mask, x.shape)
    view, order = axes_view(x.shape, axes), None
    if view is None:
        kept = [a for a in range(x.ndim) if a not in axes]
        order = (*kept, *axes)
        x = np.ascontiguousarray(x.transpose(order))
        marks = None if marks is None else np.ascontiguousarray(marks.transpose(order))
        view = axes_view(x.shape, range(len(kept), x.ndim))
        assert view is not None
    return Call(x, view, None, None, (), _arrays.number(eps, "eps"), marks), order


def _axes(axis: SupportsIndex | Sequence[SupportsIndex], x: Array) -> tuple[int, ...]:
    """Axes counted from the front."""
    numbers = _arrays.integers(axis, "axis")
    if not all(-x.ndim <= number < x.ndim for number in numbers):
        raise ValueError(f"axis must be axes of the input, which has {x.ndim}, got {axis}")
    axes = tuple(number % x.ndim for number in numbers)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis must name each axis once, got {axis}")
    return axes


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
    call, order = _standardize_call(input, axis, eps, mask)
    if order is None:
        return run_forward(call, out=out, keep=False)[0]
    if out is not None:
        _arrays.check_out(out, np.shape(input), call.input.dtype)
    y = run_forward(call, out=None, keep=False)[0]
    return _arrays.deliver(_in_order(y, order), out)


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
    call, order = _standardize_call(input, axis, eps, mask)
    if order is None:
        y, groups, _ = run_forward(call, out=out, keep=True)
        return y, context_of(call, groups)
    if out is not None:
        _arrays.check_out(out, np.shape(input), call.input.dtype)
        if _arrays.overlaps(out, np.asarray(input)):
            raise ValueError("out must not overlap the input, which the backward pass needs")
    y, groups, _ = run_forward(call, out=None, keep=True)
    return _arrays.deliver(_in_order(y, order), out), context_of(call, groups)._replace(order=order)


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
        return run_backward(dy, ctx)[0]
    dy = _arrays.floating(dy, "dy", ctx.input.dtype)
    shape = tuple(ctx.input.shape[ctx.order.index(a)] for a in range(dy.ndim)) if dy.ndim == len(ctx.order) else None
    if dy.shape != shape:
        raise ValueError(f"dy must have the input's shape, got {dy.shape}")
    return _in_order(run_backward(np.ascontiguousarray(dy.transpose(ctx.order)), ctx)[0], ctx.order)


def _in_order(array: Array, order: tuple[int, ...]) -> Array:
    """The array with its axes back in their own order, C-contiguous."""
    return np.ascontiguousarray(array.transpose(np.argsort(order)))
