"""What batch, instance and group norm share: the channel axis, and running statistics."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.norm.call import Call, NormContext, context_of, run_forward
from fastnn.functional.norm.views import View

__all__ = ["channel_call", "channel_input", "finite_momentum", "running_of", "with_running"]


def channel_input(input: Any, channel_axis: int, least: int) -> tuple[Array, int]:
    """The input and its channel axis counted from the front; axis 0 is the batch."""
    x = _arrays.floating(input, "input")
    if x.ndim < least:
        raise ValueError(f"input must have at least {least} axes, got shape {x.shape}")
    axis = _arrays.integer(channel_axis, "channel_axis")
    if not -x.ndim <= axis < x.ndim or axis % x.ndim == 0:
        raise ValueError(f"channel_axis must be an axis of the input other than the batch axis 0, got {channel_axis}")
    return x, axis % x.ndim


def channel_call(x: Array, view: View, axis: int, weight: Any, bias: Any, eps: float, mask: Any) -> Call:
    shape = (x.shape[axis],)
    return Call(
        x,
        view,
        _arrays.vector(weight, "weight", x.dtype, shape),
        _arrays.vector(bias, "bias", x.dtype, shape),
        shape,
        _arrays.number(eps, "eps"),
        _arrays.mask(mask, x.shape),
    )


class Running(NamedTuple):
    """A pair of running statistics and the arrays that kernels update, which may be copies of them."""

    mean: Array
    var: Array
    mean_buffer: Array
    var_buffer: Array

    def store(self) -> None:
        _arrays.deliver(self.mean_buffer, self.mean)
        _arrays.deliver(self.var_buffer, self.var)


def running_of(mean: Any, var: Any, dtype: np.dtype[Any], channels: int, *, updated: bool) -> Running | None:
    """Both running statistics, or None where neither is given."""
    if (mean is None) != (var is None):
        raise ValueError("running_mean and running_var must be given together or both be None")
    if mean is None:
        return None
    if updated:
        for name, array in (("running_mean", mean), ("running_var", var)):
            if not isinstance(array, np.ndarray) or not array.flags.writeable:
                raise ValueError(f"{name} must be a writeable numpy array, which training updates in place")
        if _arrays.overlaps(mean, var):
            raise ValueError("running_mean and running_var must not overlap")
    mean_buffer = _arrays.vector(mean, "running_mean", dtype, (channels,))
    var_buffer = _arrays.vector(var, "running_var", dtype, (channels,))
    assert mean_buffer is not None
    assert var_buffer is not None
    return Running(mean, var, mean_buffer, var_buffer)


def finite_momentum(momentum: float) -> float:
    value = _arrays.number(momentum, "momentum")
    if not math.isfinite(value):
        raise ValueError(f"momentum must be a finite number, got {momentum}")
    return value


def with_running(
    call: Call, running: Running | None, use_input_stats: bool, momentum: float, out: Array | None, keep: bool
) -> tuple[Array, NormContext | None]:
    """Batch and instance norm: with the input's statistics, updating the running ones, or with those."""
    if not use_input_stats:
        assert running is not None
        if call.mask is not None:
            call = call._replace(mask=None)
        given = _kernels.groups_from_running(running.mean_buffer, running.var_buffer, call.eps)
        y, groups, _ = run_forward(call, out=out, keep=keep, given=given)
        return y, context_of(call, given, constant=True) if keep else None
    y, groups, populations = run_forward(call, out=out, keep=keep, population=running is not None)
    result = y, context_of(call, groups) if keep else None
    if running is not None and populations is not None:  # last: nothing after it can fail
        _kernels.update_running(populations, running.mean_buffer, running.var_buffer, momentum)
        running.store()
    return result
