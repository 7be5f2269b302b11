"""One call of a norm, checked: what goes to the kernels and what comes back."""

from typing import Any, NamedTuple

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.norm.views import View

__all__ = ["Call", "NormContext", "context_of", "run_backward", "run_forward"]


class NormContext(NamedTuple):
    """What the backward pass of a norm needs: references to the arguments and four numbers for each group."""

    input: Array
    groups: Array
    view: View
    weight: Array | None
    mask: Array | None
    parameter_shape: tuple[int, ...] | None
    """Shape of weight and bias; None where the call had neither."""
    has_weight: bool
    has_bias: bool
    centered: bool
    constant: bool
    """Whether the statistics were given (evaluation), so that they have no gradient."""
    order: tuple[int, ...] | None
    """The axes' order in which `input` is held, where it had to be rearranged."""


class Call(NamedTuple):
    """One checked call: everything the kernels take."""

    input: Array
    view: View
    weight: Array | None
    bias: Array | None
    parameter_shape: tuple[int, ...]
    eps: float
    mask: Array | None
    centered: bool = True


def run_forward(
    call: Call, *, out: Array | None, keep: bool, population: bool = False, given: Array | None = None
) -> tuple[Array, Array | None, Array | None]:
    """(y, groups, populations) of a call; `given` groups instead of the input's own."""
    x, view = call.input, call.view
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
        if keep and _arrays.overlaps(out, x):
            raise ValueError("out must not overlap the input, which the backward pass needs")
    target = _arrays.direct_out(out, x, (call.weight, call.bias, call.mask))
    if view.rows:
        y, groups, populations = _kernels.rows_forward(
            x, view.shape, view.entries, view.period, call.weight, call.bias, call.eps, call.centered, call.mask,
            given, target, keep, population,
        )  # fmt: skip
    else:
        y, groups, populations = _kernels.columns_forward(
            x, view.shape, call.weight, call.bias, call.eps, call.centered, call.mask, given, target, keep, population
        )
    return _arrays.deliver(y, out), groups, populations


def context_of(call: Call, groups: Array | None, *, constant: bool = False) -> NormContext:
    assert groups is not None
    affine = call.weight is not None or call.bias is not None
    return NormContext(
        call.input, groups, call.view, call.weight, call.mask, call.parameter_shape if affine else None,
        call.weight is not None, call.bias is not None, call.centered, constant, None,
    )  # fmt: skip


def run_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """(dinput, dweight, dbias) with None for the parameters that the call did not have."""
    x, view = ctx.input, ctx.view
    dy = _arrays.floating(dy, "dy", x.dtype)
    if dy.shape != x.shape:
        raise ValueError(f"dy must have the input's shape {x.shape}, got {dy.shape}")
    affine = ctx.parameter_shape is not None
    if view.rows and affine and view.entries == view.shape[3] and view.shape[1] == 1:
        weight = ctx.weight if ctx.weight is not None else np.ones(view.entries * view.period, x.dtype)
        dx, dweight, dbias = _kernels.rows_backward_own(
            dy, x, ctx.groups, view.shape, view.period, weight, ctx.mask, ctx.centered
        )
    elif view.rows:
        dx, dweight, dbias = _kernels.rows_backward(
            dy, x, ctx.groups, view.shape, view.entries, view.period, ctx.weight, ctx.mask, ctx.centered,
            ctx.constant, affine,
        )  # fmt: skip
    else:
        dx, dweight, dbias = _kernels.columns_backward(
            dy, x, ctx.groups, view.shape, ctx.weight, ctx.mask, ctx.centered, ctx.constant, affine
        )
    return (
        dx,
        dweight.reshape(ctx.parameter_shape) if ctx.has_weight and dweight is not None else None,
        dbias.reshape(ctx.parameter_shape) if ctx.has_bias and dbias is not None else None,
    )
