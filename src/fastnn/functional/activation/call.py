"""One call of an activation, checked: what goes to the kernels and what comes back."""

from typing import Any, NamedTuple

import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import gradient

Array = npt.NDArray[Any]

__all__ = ["KINDS", "ActivationContext", "run_backward", "run_forward"]

KINDS = _kernels.ACTIVATIONS


class ActivationContext(NamedTuple):
    """What backward needs: the result or the input of forward, and the activation's numbers."""

    saved: Array
    p: float = 0.0
    q: float = 0.0


def run_forward(kind: int, input: Array, out: Array | None, p: float = 0.0, q: float = 0.0) -> Array:
    """The activation of that kind, with its numbers p and q; the kernel refuses what needs the gate first."""
    y = _kernels.activation_forward(kind, input, out, p, q)
    if y is not None:
        return y
    x = _arrays.floating(input, "input")
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
    result = _kernels.activation_forward(kind, x, _arrays.direct_out(out, x), p, q)
    assert result is not None  # both arrays passed the gate
    return _arrays.deliver(result, out)


def run_backward(kind: int, dy: Array, ctx: ActivationContext) -> Array:
    """The gradient of the activation's input."""
    dx = _kernels.activation_backward(kind, dy, ctx.saved, ctx.p, ctx.q)
    if dx is not None:
        return dx
    saved = _arrays.floating(ctx.saved, "saved")
    dx = _kernels.activation_backward(kind, gradient(dy, saved, saved.shape), saved, ctx.p, ctx.q)
    assert dx is not None  # both arrays passed the gate
    return dx
