"""What the norms share: contexts, and the gate for arguments that the kernels do not take as they are.

Each norm calls its entry point in `fastnn._kernels`, which does a call of plain arguments in one step and hands any
other to the norm's own function here. That makes the arguments plain, or refuses them, and calls the entry point again,
which alone knows the rules for shapes and values.
"""

from typing import Any, NamedTuple

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array

__all__ = ["NormContext", "Operands", "Running", "backward", "delivered", "operands", "refuse_overlap", "running_of"]


class NormContext(NamedTuple):
    """What the backward pass of a norm needs: references to the arguments and four numbers for each group.

    The entry points make it and read it by the order of its fields.
    """

    input: Array
    groups: Array
    view: tuple[int, ...]
    """How kernels see the input, and which family of them runs."""
    weight: Array | None
    bias: Array | None
    mask: Array | None
    centered: bool
    constant: bool
    """Whether the statistics were given (evaluation), so that they have no gradient."""
    order: tuple[int, ...] | None
    """The axes' order in which `input` is held, where it had to be rearranged."""


class Operands(NamedTuple):
    """The arrays of a call as kernels take them."""

    input: Array
    weight: Array | None
    bias: Array | None
    mask: Array | None
    out: Array | None
    """None too where the result cannot be written straight into the caller's."""


def operands(input: Any, weight: Any, bias: Any, mask: Any, out: Any, *, keep: bool) -> Operands:
    """All arrays of a call, checked and converted; with `keep` the input must survive it."""
    x = _arrays.floating(input, "input")
    weight = None if weight is None else _arrays.floating(weight, "weight", x.dtype)
    bias = None if bias is None else _arrays.floating(bias, "bias", x.dtype)
    mask = _arrays.mask(mask, x.shape)
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
        if keep:
            refuse_overlap(out, x)
    return Operands(x, weight, bias, mask, _arrays.direct_out(out, x, (weight, bias, mask)))


def refuse_overlap(out: Array, x: Array) -> None:
    if _arrays.overlaps(out, x):
        raise ValueError("out must not overlap the input, which the backward pass needs")


def delivered(answer: Any, out: Array | None) -> Any:
    """What an entry point returned, y or (y, ctx), with y in the caller's `out`."""
    if isinstance(answer, tuple):
        return _arrays.deliver(answer[0], out), answer[1]
    return _arrays.deliver(answer, out)


class Running(NamedTuple):
    """A pair of running statistics, and the arrays that kernels update, which may be copies of them."""

    mean: Any
    var: Any
    mean_buffer: Array | None
    var_buffer: Array | None

    def store(self) -> None:
        for buffer, array in ((self.mean_buffer, self.mean), (self.var_buffer, self.var)):
            if buffer is not None:
                _arrays.deliver(buffer, array)


def running_of(mean: Any, var: Any, dtype: np.dtype[Any], out: Array | None, *, updated: bool) -> Running:
    """Both running statistics, None where they are."""
    buffers = []
    for name, array in (("running_mean", mean), ("running_var", var)):
        if updated and array is not None and not (isinstance(array, np.ndarray) and array.flags.writeable):
            raise ValueError(f"{name} must be a writeable numpy array, which training updates in place")
        if updated and array is not None and out is not None and _arrays.overlaps(out, array):
            raise ValueError(f"out must not overlap {name}, which training updates")
        buffers.append(None if array is None else _arrays.floating(array, name, dtype))
    if updated and mean is not None and var is not None and _arrays.overlaps(mean, var):
        raise ValueError("running_mean and running_var must not overlap")
    return Running(mean, var, *buffers)


def backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """(dinput, dweight, dbias) with None for the parameters that the call did not have."""
    return _kernels.norm_backward(_arrays.floating(dy, "dy", ctx.input.dtype), ctx, NormContext, None)
