"""A frozen network as a value: nodes in the order they run, each with settings (JSON values) and arrays."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnn._arrays import Array

__all__ = ["INPUT", "KINDS", "Activation", "Kind", "Node", "check_node"]

INPUT = -1  # as a source: what the network is called with
LIMIT = 2**31
WINDOW = 1024  # rows and columns of a window, its stride, dilation and padding: larger ones only cost time


class Activation(NamedTuple):
    """An element-wise activation by its kernel's name, with its parameters."""

    name: str
    p: float = 0.0
    q: float = 0.0


class Node(NamedTuple):
    """One operation: activation(kind(source) + residual)."""

    kind: str
    source: int
    """The node whose result it takes."""
    settings: Mapping[str, Any]
    arrays: Mapping[str, Array]
    residual: int | None = None
    """The node whose result is added."""
    activation: Activation | None = None


class Kind(NamedTuple):
    """What a node of a kind holds."""

    settings: Mapping[str, Callable[[Any], bool]]
    """Name → whether a value is possible."""
    arrays: Mapping[str, int]
    """Name → number of axes; all but "weight" of linear and conv2d and the running statistics may be absent."""
    joins: bool
    """Whether a residual and an activation may follow in the same step."""


def _integer(least: int, most: int = LIMIT) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _pair(least: int, most: int = WINDOW) -> Callable[[Any], bool]:
    one = _integer(least, most)
    return lambda value: isinstance(value, list) and len(value) == 2 and all(map(one, value))


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _truth(value: Any) -> bool:
    return type(value) is bool


def _or_none(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


def _shape(value: Any) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 31 and all(map(_integer(1), value))


def _padding(value: Any) -> bool:
    return value in ("valid", "same") if isinstance(value, str) else _pair(0)(value)


_AXIS = _integer(-32, 31)
_WINDOW = {
    "kernel_size": _pair(1), "stride": _pair(1), "padding": _pair(0), "ceil_mode": _truth, "channel_axis": _AXIS,
}  # fmt: skip
_VECTOR_PAIR = {"weight": 1, "bias": 1}

KINDS: dict[str, Kind] = {
    "linear": Kind({"axes": _or_none(_integer(1, 31))}, {"weight": 2, "bias": 1}, True),
    "conv2d": Kind(
        {"stride": _pair(1), "padding": _padding, "dilation": _pair(1), "groups": _integer(1), "channel_axis": _AXIS},
        {"weight": 4, "bias": 1},
        True,
    ),
    "batch_norm": Kind(
        {"eps": _number, "channel_axis": _AXIS}, _VECTOR_PAIR | {"running_mean": 1, "running_var": 1}, True
    ),
    "instance_norm": Kind({"eps": _number, "channels": _integer(1), "channel_axis": _AXIS}, _VECTOR_PAIR, True),
    "group_norm": Kind(
        {"eps": _number, "groups": _integer(1), "channels": _integer(1), "channel_axis": _AXIS}, _VECTOR_PAIR, True
    ),
    "layer_norm": Kind({"eps": _number, "shape": _shape}, {"weight": -1, "bias": -1}, True),
    "rms_norm": Kind({"eps": _or_none(_number), "shape": _shape}, {"weight": -1}, True),
    "elementwise": Kind({}, {}, True),
    "scale": Kind({"factor": lambda value: _number(value) and 0 <= value <= 1}, {}, True),
    "softmax": Kind({"dim": _or_none(_AXIS)}, {}, False),
    "flatten": Kind({"start_dim": _AXIS, "end_dim": _AXIS}, {}, False),
    "max_pool2d": Kind(_WINDOW | {"dilation": _pair(1)}, {}, False),
    "avg_pool2d": Kind(
        _WINDOW | {"count_include_pad": _truth, "divisor_override": _or_none(_integer(1))}, {}, False
    ),
}  # fmt: skip

_REQUIRED = {"linear": {"weight"}, "conv2d": {"weight"}, "batch_norm": {"running_mean", "running_var"}}


def check_node(node: Node, place: int, activations: Mapping[str, int]) -> None:
    """Raise ValueError unless the node, the `place`-th, could run for some input: files may say anything."""
    kind = KINDS.get(node.kind)
    if kind is None:
        raise ValueError(f"node {place} is of the unknown kind {node.kind[:40]!r}")
    what = f"node {place} ({node.kind})"
    if node.settings.keys() != kind.settings.keys():
        raise ValueError(f"{what} must have the settings {sorted(kind.settings)}, got {sorted(node.settings)[:20]}")
    for name, possible in kind.settings.items():
        if not possible(node.settings[name]):
            raise ValueError(f"{what} has an impossible {name}")
    unknown, missing = node.arrays.keys() - kind.arrays.keys(), _REQUIRED.get(node.kind, set()) - node.arrays.keys()
    if unknown or missing:
        raise ValueError(f"{what} lacks the arrays {sorted(missing)} or has the unknown {sorted(unknown)[:20]}")
    for source in (node.source, *(() if node.residual is None else (node.residual,))):
        if not INPUT <= source < place:
            raise ValueError(f"{what} takes the result of node {source}, which does not run before it")
    if not kind.joins and (node.residual is not None or node.activation is not None):
        raise ValueError(f"{what} can have neither residual nor activation")
    if node.activation is not None:
        if node.activation.name not in activations:
            raise ValueError(f"{what} has the unknown activation {node.activation.name[:40]!r}")
        if not (_number(node.activation.p) and _number(node.activation.q)):
            raise ValueError(f"{what} has an activation whose parameters are no finite numbers")
        if node.activation.name == "softplus" and node.activation.p == 0:
            raise ValueError(f"{what} has a softplus with beta 0")
    _check_arrays(node, what, kind)


def _check_arrays(node: Node, what: str, kind: Kind) -> None:
    for name, array in node.arrays.items():
        axes = len(node.settings["shape"]) if kind.arrays[name] == -1 else kind.arrays[name]
        if array.dtype not in (np.float32, np.float64) or array.ndim != axes:
            raise ValueError(f"{what}: {name} must have {axes} axes of float32 or float64")
    arrays, settings = node.arrays, node.settings
    if node.kind in ("linear", "conv2d"):
        weight = arrays["weight"]
        if 0 in weight.shape:
            raise ValueError(f"{what}: weight has no elements")
        lengths, vectors = (len(weight),), ["bias"]
        if node.kind == "conv2d" and (len(weight) % settings["groups"] or max(weight.shape[2:]) > WINDOW):
            raise ValueError(f"{what}: its groups or kernel do not fit its weight")
    elif node.kind == "batch_norm":
        lengths, vectors = arrays["running_mean"].shape, ["running_var", "weight", "bias"]
    elif node.kind in ("layer_norm", "rms_norm"):
        lengths, vectors = tuple(settings["shape"]), ["weight", "bias"]
    elif node.kind in ("instance_norm", "group_norm"):
        lengths, vectors = (settings["channels"],), ["weight", "bias"]
        if settings["channels"] % settings.get("groups", 1):
            raise ValueError(f"{what}: groups must divide its channels")
    else:
        return
    for name in vectors:
        if name in arrays and arrays[name].shape != lengths:
            raise ValueError(f"{what}: {name} must have shape {lengths}, got {arrays[name].shape}")
