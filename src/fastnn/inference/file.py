"""Frozen networks as safetensors files: the nodes as JSON in the metadata, their arrays as "0.weight", …"""

import json
import os
from collections.abc import Sequence
from typing import Any

from fastnn import checkpoint
from fastnn.inference.frozen import Frozen
from fastnn.inference.nodes import Activation, Node

__all__ = ["FrozenError", "load_frozen", "save_nodes"]

KEY = "fastnn.frozen"
VERSION = 1
MOST_NODES = 10_000


class FrozenError(checkpoint.CheckpointError):
    """A well-formed safetensors file that does not hold a frozen network.

    Examples
    --------
    >>> import fastnn
    >>> issubclass(fastnn.inference.FrozenError, ValueError)
    True
    """


def save_nodes(path: str | os.PathLike[str], nodes: Sequence[Node]) -> None:
    """Write them so that `load_frozen` finds them."""
    described = [
        {
            "kind": node.kind,
            "source": node.source,
            "residual": node.residual,
            "activation": None if node.activation is None else list(node.activation),
            "settings": dict(node.settings),
            "arrays": sorted(node.arrays),
        }
        for node in nodes
    ]
    text = json.dumps({"version": VERSION, "nodes": described}, sort_keys=True, allow_nan=False)
    arrays = {f"{k}.{name}": array for k, node in enumerate(nodes) for name, array in node.arrays.items()}
    checkpoint.save(path, arrays, {KEY: text})


def load_frozen(path: str | os.PathLike[str]) -> Frozen:
    """The network that `Frozen.save` wrote.

    Only what inference needs is imported: neither layers nor training. Nothing in the file is executed; what it says
    is checked before it is believed.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Frozen

    Raises
    ------
    CheckpointError
        A `ValueError`: the file is not a well-formed safetensors file, or (`FrozenError`) holds no frozen network.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import numpy as np, fastnn, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> fastnn.freeze(fastnn.Sequential(fastnn.Linear(4, 2), fastnn.Softmax())).save(path)
    >>> fastnn.load_frozen(path)(np.zeros((3, 4), np.float32)).sum(axis=1).round(6)
    array([1., 1., 1.], dtype=float32)
    """
    metadata = checkpoint.load_metadata(path)
    if KEY not in metadata:
        raise FrozenError(f"{os.fspath(path)} holds no frozen network: its metadata has no {KEY!r}")
    arrays = checkpoint.load(path)
    for array in arrays.values():
        array.flags.writeable = False
    try:
        return Frozen(_nodes(json.loads(metadata[KEY]), arrays))
    except (ValueError, RecursionError) as error:
        raise FrozenError(f"{os.fspath(path)}: the network in it is damaged ({error})") from None


def _nodes(description: Any, arrays: dict[str, Any]) -> list[Node]:
    if not isinstance(description, dict) or description.keys() != {"version", "nodes"}:
        raise ValueError("it is not described by a version and nodes")
    if description["version"] != VERSION:
        raise ValueError(f"it has version {description['version']!r:.40}, this fastnn reads {VERSION}")
    described = description["nodes"]
    if not isinstance(described, list) or not 1 <= len(described) <= MOST_NODES:
        raise ValueError(f"it must have from 1 to {MOST_NODES} nodes")
    nodes = [_node(one, place, arrays) for place, one in enumerate(described)]
    if arrays.keys() != {f"{k}.{name}" for k, node in enumerate(nodes) for name in node.arrays}:
        raise ValueError("it does not use all arrays")
    return nodes


def _node(one: Any, place: int, arrays: dict[str, Any]) -> Node:
    if not isinstance(one, dict) or one.keys() != {"kind", "source", "residual", "activation", "settings", "arrays"}:
        raise ValueError(f"node {place} is not described as nodes are")
    names, activation, residual = one["arrays"], one["activation"], one["residual"]
    good = (
        isinstance(one["kind"], str)
        and type(one["source"]) is int
        and (residual is None or type(residual) is int)
        and isinstance(one["settings"], dict)
        and isinstance(names, list)
        and all(isinstance(name, str) and f"{place}.{name}" in arrays for name in names)
    )
    if not good:
        raise ValueError(f"a part of node {place} is of a wrong type or names an array that is not there")
    if activation is not None:
        if not (isinstance(activation, list) and len(activation) == 3 and isinstance(activation[0], str)):
            raise ValueError(f"node {place} has an activation that is no name with two numbers")
        activation = Activation(*activation)
    own = {name: arrays[f"{place}.{name}"] for name in names}
    return Node(one["kind"], one["source"], one["settings"], own, residual, activation)
