"""One call of a pooling, checked: what goes to the kernels and what comes back."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels
from fastnn.functional._checks import gradient
from fastnn.functional.pool.windows import Windows

Array = npt.NDArray[Any]

__all__ = ["PoolContext", "run_backward", "run_forward"]


class PoolContext(NamedTuple):
    """What backward needs: shapes, and for maxima which element of each window won."""

    windows: Windows
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    winner: Array | None


def run_forward(x: Array, windows: Windows, shape: tuple[int, ...], out: Array | None, winner: Array | None) -> Array:
    """The pooled image; where each maximum lies goes to `winner`, if backward will want it."""
    target = None
    if out is not None:
        _arrays.check_out(out, shape, x.dtype)
        target = _arrays.direct_out(out, x, (x,))
    y = np.empty(shape, x.dtype) if target is None else target
    _kernels.pool_forward(x, y, winner, *windows)
    return _arrays.deliver(y, out)


def run_backward(dy: Array, ctx: PoolContext) -> Array:
    """The gradient of the pooling's input."""
    dx = np.empty(ctx.input_shape, ctx.dtype)
    dy = gradient(dy, dx, ctx.output_shape)
    _kernels.pool_backward(dy, dx, ctx.winner, *ctx.windows)
    return dx
