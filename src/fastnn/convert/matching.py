"""Which array of somebody's state dict belongs where in a model of ours."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn.layers import Layer

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

__all__ = ["Match", "match"]


class Match(NamedTuple):
    """What `match` found.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.convert
    >>> model = fastnn.Sequential(fastnn.Linear(3, 2))
    >>> theirs = {"fc.weight": np.ones((2, 3)), "fc.bias": np.ones(2), "head.bias": np.ones(1)}
    >>> print(fastnn.convert.match(model, theirs))
    0.weight ← fc.weight  (by shape)
    0.bias ← fc.bias  (by shape)
    unused: head.bias (1,)
    """

    state: dict[str, Array]
    """For ``model.load_state_dict(…, strict=False)``: the arrays that were found, under the model's names."""
    sources: dict[str, str]
    """The model's name → the name it was found under."""
    missing: dict[str, Shape]
    """The model's arrays for which nothing was found, with their shapes."""
    unused: dict[str, Shape]
    """The arrays that belong nowhere, with their shapes."""

    @property
    def complete(self) -> bool:
        """Whether every array of the model was found and every array found a place."""
        return not self.missing and not self.unused

    def __str__(self) -> str:
        lines = [
            f"{name} ← {source}" + ("" if name == source else "  (by shape)") for name, source in self.sources.items()
        ]
        lines += [f"missing: {name} {shape}" for name, shape in self.missing.items()]
        lines += [f"unused: {name} {shape}" for name, shape in self.unused.items()]
        return "\n".join(lines)


def match(model: Layer, state: Mapping[str, Any]) -> Match:
    """Find for each layer of a model the arrays that belong there.

    A layer's arrays stay together. First, layers whose names and shapes are the same are matched. Then, in order, each
    layer that is left takes the first one left in `state` with the same names behind the last dot and the same shapes:
    so ``layer1.0.conv1`` finds its place in a `Sequential` of `Residual` blocks, whatever it is called here. Two layers
    of one form must come in the same order on both sides; look at the report, ``print(match(…))``, where that is in
    doubt.

    Parameters
    ----------
    model : Layer
        It stays as it is.
    state : mapping of str to array
        A state dict of PyTorch's, in its own order or sorted by name as in files (then numbers in names are compared as
        numbers), or what `keras` and `flax` return. ``num_batches_tracked`` may be absent on either side.

    Returns
    -------
    Match

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.convert
    >>> block = fastnn.Residual(fastnn.Sequential(fastnn.Conv2d(4, 4, 3, padding=1, bias=False), fastnn.BatchNorm(4)))
    >>> model = fastnn.Sequential(block, fastnn.Flatten(), fastnn.Linear(4, 2))
    >>> theirs = {"layer1.conv1.weight": np.ones((4, 4, 3, 3)), "layer1.bn1.weight": np.ones(4)}
    >>> theirs |= {f"layer1.bn1.{name}": np.ones(4) for name in ("bias", "running_mean", "running_var")}
    >>> theirs |= {"fc.weight": np.ones((2, 5)), "fc.bias": np.ones(2)}
    >>> found = fastnn.convert.match(model, theirs)
    >>> found.sources["0.layer.0.weight"]
    'layer1.conv1.weight'
    >>> found.missing, found.unused
    ({'2.weight': (2, 4), '2.bias': (2,)}, {'fc.weight': (2, 5), 'fc.bias': (2,)})
    >>> model.load_state_dict(found.state, strict=False)
    """
    own = _layers(model.state_dict(), model.state_dict())
    arrays = {name: np.asarray(value) for name, value in state.items()}
    theirs = _layers(arrays, _ordered(arrays))
    pairs = {name: name for name, parts in own.items() if name in theirs and _form(theirs[name]) == _form(parts)}
    left = [name for name in theirs if name not in pairs]
    for name, parts in own.items():
        if name in pairs:
            continue
        other = next((one for one in left if _form(theirs[one]) == _form(parts)), None)
        if other is not None:
            pairs[name] = other
            left.remove(other)
    sources = {
        _joined(name, part): _joined(pairs[name], part)
        for name, parts in own.items()
        if name in pairs
        for part in parts
        if part in theirs[pairs[name]]
    }
    missing = {
        _joined(name, part): array.shape
        for name, parts in own.items()
        for part, array in parts.items()
        if _joined(name, part) not in sources and part not in _OPTIONAL
    }
    used = set(sources.values())
    unused = {
        name: array.shape
        for name, array in arrays.items()
        if name not in used and name.rpartition(".")[2] not in _OPTIONAL
    }
    return Match({name: arrays[source] for name, source in sources.items()}, sources, missing, unused)


_OPTIONAL = ("num_batches_tracked", "num_samples_tracked")


def _layers(arrays: Mapping[str, Array], order: Iterable[str]) -> dict[str, dict[str, Array]]:
    """Layer → the names behind its dot → arrays."""
    layers: dict[str, dict[str, Array]] = {}
    for name in order:
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = arrays[name]
    return layers


def _form(parts: Mapping[str, Array]) -> dict[str, Shape]:
    return {part: array.shape for part, array in parts.items() if part not in _OPTIONAL}


def _joined(layer: str, part: str) -> str:
    return f"{layer}.{part}" if layer else part


def _ordered(arrays: Mapping[str, Array]) -> list[str]:
    """The order given; where it is by name, as in a file, "10" comes behind "9"."""
    names = list(arrays)
    by_dtype: dict[str, list[str]] = {}
    for name in names:
        by_dtype.setdefault(arrays[name].dtype.name, []).append(name)
    if all(group == sorted(group) for group in by_dtype.values()):
        return sorted(names, key=_with_numbers)
    return names


def _with_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(digits or -1), text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]
