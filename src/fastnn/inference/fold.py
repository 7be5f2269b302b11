"""Fewer nodes with the same result: what is affine goes into the weights, what follows a product into its step.

Per channel, a batch norm in evaluation is y = s·x + t with s = weight/√(var + eps), t = bias − s·mean. Behind a linear
layer or convolution W·x + b it makes the weights s·W and the bias s·b + t; before one, W·s and W·t + b. Both are
computed in more than the weights' precision and rounded once. Before a convolution that pads, t would have to be in the
padding too, where there are zeros: then only a norm without t is folded.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn.inference.nodes import INPUT, KINDS, Node

Array = npt.NDArray[Any]

__all__ = ["fold"]


# What folded parameters are computed in. (Where long double is double, float64 ones are a unit or two worse.)
def _wide(array: Array) -> Array:
    return array.astype(np.float64 if array.dtype == np.float32 else np.longdouble)


class Affine(NamedTuple):
    """y = s·x + t for each channel, or for all alike where the arrays have no axes."""

    s: Array
    t: Array
    axis: int | None  # of the batch; None: all alike


def fold(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes without those that others can take over."""
    return _into_followers(_into_producers(list(nodes)))


def _uses(nodes: Sequence[Node]) -> list[int]:
    """How often each node's result is read; the last one's is the network's."""
    uses = [0] * len(nodes)
    for node in nodes:
        for source in (node.source, node.residual):
            if source is not None and source != INPUT:
                uses[source] += 1
    if nodes:
        uses[-1] += 1
    return uses


def _renumbered(node: Node, numbers: dict[int, int]) -> Node:
    residual = None if node.residual is None else numbers[node.residual]
    return node._replace(source=numbers[node.source], residual=residual)


def _into_producers(nodes: list[Node]) -> list[Node]:
    """Let each node's producer do its work where it can, if nobody else wants the producer's own result."""
    uses = _uses(nodes)
    kept: list[Node] = []
    numbers = {INPUT: INPUT}
    for place, node in enumerate(nodes):
        moved = _renumbered(node, numbers)
        joined = None
        if node.source != INPUT and uses[node.source] == 1:
            joined = _join(kept[moved.source], moved)
        if joined is None:
            kept.append(moved)
            numbers[place] = len(kept) - 1
        else:
            kept[moved.source] = joined
            numbers[place] = moved.source
    return kept


def _join(producer: Node, node: Node) -> Node | None:
    """The producer with the node's work, if they fit."""
    if producer.activation is not None or not KINDS[producer.kind].joins:
        return None
    if node.kind == "elementwise":
        if node.residual is None:
            return producer._replace(activation=node.activation)
        if producer.residual is None and node.residual != node.source:
            return producer._replace(residual=node.residual, activation=node.activation)
        return None
    affine = _affine(node)
    if affine is None or producer.residual is not None or producer.kind not in ("linear", "conv2d"):
        return None
    joined = _behind(producer, affine)
    return None if joined is None else joined._replace(residual=node.residual, activation=node.activation)


def _affine(node: Node) -> Affine | None:
    if node.kind == "scale":
        return Affine(np.array(node.settings["factor"]), np.zeros(()), None)
    if node.kind != "batch_norm":
        return None
    wide = {name: _wide(array) for name, array in node.arrays.items()}
    with np.errstate(all="ignore"):  # where this has no finite result, nothing is folded
        s = wide.get("weight", 1.0) / np.sqrt(wide["running_var"] + node.settings["eps"])
        t = wide.get("bias", 0.0) - s * wide["running_mean"]
    return Affine(s, t, node.settings["channel_axis"])


def _behind(producer: Node, affine: Affine) -> Node | None:
    """A linear layer or convolution, then an affine map of its channels."""
    weight, bias = producer.arrays["weight"], producer.arrays.get("bias")
    settings = dict(producer.settings)
    if affine.axis is not None:
        if affine.s.size != len(weight):
            return None
        if producer.kind == "conv2d":
            if affine.axis % 4 != settings["channel_axis"] % 4:
                return None
        elif affine.axis == 1:  # the last axis, if samples are vectors
            if settings["axes"] not in (None, 1):
                return None
            settings["axes"] = 1
        elif affine.axis != -1:
            return None
    column = affine.s.reshape(-1, *[1] * (weight.ndim - 1))
    with np.errstate(all="ignore"):
        wide = _wide(weight) * column
        offset = (0.0 if bias is None else _wide(bias)) * affine.s + affine.t
        return _with(
            producer, settings, wide, np.broadcast_to(offset, len(weight)), bias is None and not affine.t.any()
        )


def _with(node: Node, settings: dict[str, Any], weight: Array, bias: Array, no_bias: bool) -> Node | None:
    """The node with these arrays, rounded; None if they leave the range."""
    dtype = node.arrays["weight"].dtype
    arrays = {"weight": weight.astype(dtype)} | ({} if no_bias else {"bias": bias.astype(dtype)})
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return None
    return node._replace(settings=settings, arrays=arrays)


def _into_followers(nodes: list[Node]) -> tuple[Node, ...]:
    """Let linear layers and convolutions take over the affine map before them, if nobody else wants its result."""
    uses = _uses(nodes)
    changed = list(nodes)
    dropped: set[int] = set()
    for place, node in enumerate(nodes):
        if node.kind not in ("linear", "conv2d") or node.source == INPUT or uses[node.source] != 1:
            continue
        source = node.source
        flat = changed[source].kind == "flatten"
        if flat:
            if node.kind != "linear" or changed[source].settings != {"start_dim": 1, "end_dim": -1}:
                continue
            source = changed[source].source
            if source == INPUT or uses[source] != 1:
                continue
        before = changed[source]
        affine = _affine(before)
        if affine is None or before.residual is not None or before.activation is not None:
            continue
        joined = _before(node, affine, flat)
        if joined is not None:
            changed[place] = joined._replace(source=node.source)
            dropped.add(source)
    numbers = {INPUT: INPUT}
    kept: list[Node] = []
    for place, node in enumerate(changed):
        if place in dropped:
            numbers[place] = numbers[node.source]
        else:
            numbers[place] = len(kept)
            kept.append(_renumbered(node, numbers))
    return tuple(kept)


def _before(node: Node, affine: Affine, flat: bool) -> Node | None:
    """An affine map of the channels, possibly flattened, then a linear layer or convolution."""
    weight, bias = node.arrays["weight"], node.arrays.get("bias")
    settings = dict(node.settings)
    inputs = weight.shape[1] * settings.get("groups", 1)
    s, t = affine.s, affine.t
    if affine.axis is not None:
        if inputs % s.size or (not flat and inputs != s.size):
            return None
        if node.kind == "conv2d":
            if affine.axis % 4 != settings["channel_axis"] % 4:
                return None
        elif flat and affine.axis in (1, -1):
            spread: Callable[..., Array] = np.repeat if affine.axis == 1 else np.tile
            s, t = spread(s, inputs // s.size), spread(t, inputs // t.size)
        elif affine.axis == 1:
            if settings["axes"] not in (None, 1):
                return None
            settings["axes"] = 1
        elif affine.axis != -1:
            return None
    s, t = np.broadcast_to(s, inputs), np.broadcast_to(t, inputs)
    if node.kind == "conv2d" and _pads(settings, weight.shape[2:]) and t.any():
        return None
    with np.errstate(all="ignore"):
        wide = _wide(weight)
        offset = np.zeros(len(weight)) if bias is None else _wide(bias)
        if node.kind == "linear":
            return _with(node, settings, wide * s, offset + wide @ t, bias is None and not t.any())
        # output channel o sees the input channels of its group
        own = np.arange(len(weight)) // (len(weight) // settings["groups"])
        s, t = (vector.reshape(settings["groups"], -1)[own] for vector in (s, t))
        offset = offset + np.einsum("ockl,oc->o", wide, t)
        return _with(node, settings, wide * s[:, :, None, None], offset, bias is None and not t.any())


def _pads(settings: dict[str, Any], kernel: tuple[int, ...]) -> bool:
    padding: str | list[int] = settings["padding"]
    if isinstance(padding, str):
        return padding == "same" and max(kernel) > 1
    return max(padding) > 0
