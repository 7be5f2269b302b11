"""The norms' cases on fastnn: their inputs, the timed call, and its check against the oracle."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastnn.functional as F
import reference as ref
from case import Case

BOUND = 4.0  # units of the dtype, as everywhere
EPS = 1e-5


class Inputs(NamedTuple):
    x: np.ndarray
    dy: np.ndarray
    weight: np.ndarray | None
    bias: np.ndarray | None
    running_mean: np.ndarray | None
    running_var: np.ndarray | None


class Norm(NamedTuple):
    """A norm case taken apart: `op` without direction, whether it is the backward one, and its options."""

    op: str
    backward: bool
    channel_axis: int
    options: dict[str, Any]


def parse(case: Case) -> Norm:
    op = case.operation.removesuffix("_backward")
    options = dict(case.options)
    return Norm(op, op != case.operation, options.pop("channel_axis", 1), options)


def view_of(case: Case) -> ref.View:
    norm = parse(case)
    if norm.op in ("layer_norm", "rms_norm"):
        return ref.layer_view(case.shape, case.shape[-1])
    if norm.op == "batch_norm":
        return ref.batch_view(case.shape, norm.channel_axis)
    if norm.op == "instance_norm":
        return ref.instance_view(case.shape, norm.channel_axis)
    if norm.op == "group_norm":
        return ref.group_view(case.shape, norm.options["num_groups"], norm.channel_axis)
    return ref.standardize_view(case.shape, norm.options["axis"])


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line, as the arrays that fastnn, PyTorch and JAX make themselves do."""
    block = np.empty(array.nbytes + 64, np.uint8)
    start = -block.ctypes.data % 64
    copy = block[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def inputs(case: Case) -> Inputs:
    norm = parse(case)
    rng = np.random.default_rng(len(case.name))
    x, dy = (rng.standard_normal(case.shape, np.float32).astype(case.dtype, copy=False) for _ in range(2))
    x += x.dtype.type(0.5)
    channels = case.shape[-1] if norm.op in ("layer_norm", "rms_norm") else case.shape[norm.channel_axis]
    weight, bias, mean = (aligned(row) for row in rng.standard_normal((3, channels)).astype(case.dtype))
    var = aligned((rng.random(channels) + 0.5).astype(case.dtype))
    x, dy = aligned(x), aligned(dy)
    plain = norm.op in ("instance_norm", "standardize")
    tracked = norm.op == "batch_norm"
    return Inputs(
        x,
        dy,
        None if plain else weight,
        None if plain or norm.op == "rms_norm" else bias,
        mean if tracked else None,
        var if tracked else None,
    )


def arguments(case: Case, data: Inputs) -> tuple[list[Any], dict[str, Any]]:
    """What fastnn's function takes: PyTorch's order, the layout by keyword."""
    norm = parse(case)
    layout = {"channel_axis": norm.channel_axis} if norm.channel_axis != 1 else {}
    if norm.op == "layer_norm":
        return [data.x, case.shape[-1], data.weight, data.bias, EPS], {}
    if norm.op == "rms_norm":
        return [data.x, case.shape[-1], data.weight, EPS], {}
    if norm.op == "batch_norm":
        training = norm.options["training"]
        return [data.x, data.running_mean, data.running_var, data.weight, data.bias, training, 0.1, EPS], layout
    if norm.op == "instance_norm":
        return [data.x], layout
    if norm.op == "group_norm":
        return [data.x, norm.options["num_groups"], data.weight, data.bias, EPS], layout
    return [data.x, norm.options["axis"], EPS], {}


def ours(case: Case) -> tuple[Callable[[], object], Callable[[], None]]:
    """The call to time, and the check of what it returns."""
    norm, data = parse(case), inputs(case)
    args, keywords = arguments(case, data)
    if norm.backward:
        _, context = getattr(F, f"{norm.op}_forward")(*args, **keywords)
        function = getattr(F, case.operation)
        run = lambda: function(data.dy, context)  # noqa: E731
    else:
        function = getattr(F, norm.op)
        run = lambda: function(*args, **keywords)  # noqa: E731
    return run, lambda: verify(case, data, run)


def verify(case: Case, data: Inputs, run: Callable[[], object]) -> None:
    """Raise unless every result of the call is within the bound.

    Large arrays are checked in float64 arithmetic, which has 29 bits to spare for float32 results.
    """
    norm, view = parse(case), view_of(case)
    constants = None
    if norm.op == "batch_norm" and not norm.options["training"]:
        constants = (data.running_mean, data.running_var)
    real = np.longdouble if case.dtype == "float64" else np.float64
    f = ref.forward(
        data.x, view, data.weight, data.bias, EPS, centred=norm.op != "rms_norm", constants=constants, real=real
    )
    result = run()
    if not norm.backward:
        errors = {"y": ref.forward_units(result, f, data.weight)}
    else:
        b = ref.backward(data.dy, f, data.weight)
        grads = result if isinstance(result, tuple) else (result,)
        counters = (ref.dinput_units, ref.dweight_units, ref.dbias_units)
        names = ("dinput", "dweight", "dbias")
        errors = {name: count(g, b) for name, count, g in zip(names, counters, grads) if g is not None}
    bad = {name: error for name, error in errors.items() if not error <= BOUND}
    if bad:
        raise AssertionError(f"{case.name}: units of error {bad} exceed {BOUND}")
