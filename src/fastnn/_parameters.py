"""The gate for lists of parameters: what SGD and the accumulator are given becomes one list with names."""

import math
import warnings
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Parameter(Protocol):
    """What counts as a parameter here: an array that is trained, its gradient, and whether it decays."""

    data: Array
    grad: Array
    decay: bool


Parameters = Iterable[Parameter] | Iterable[tuple[str, Parameter]]


def collect(params: Parameters, first: int = 0) -> tuple[list[Parameter], list[str]]:
    """The parameters, each once, and their names; without names they are numbered from `first`.

    Raises
    ------
    TypeError
        If `params` is not an ordered iterable of parameters or of (name, parameter) pairs.
    ValueError
        If only some have names.
    """
    if isinstance(params, (set, frozenset)) or _is_parameter(params) or not isinstance(params, Iterable):
        raise TypeError(f"params must be a list of Parameters or of dicts, got {type(params).__name__}")
    entries: list[Any] = list(params)
    named = [isinstance(entry, tuple) and len(entry) == 2 for entry in entries]
    if any(named) and not all(named):
        raise ValueError(f"params must all have names or none: the first without is number {named.index(False)}")
    names = [str(entry[0]) if name else str(first + i) for i, (entry, name) in enumerate(zip(entries, named))]
    parameters: list[Parameter] = [entry[1] if name else entry for entry, name in zip(entries, named)]
    for name, parameter in zip(names, parameters):
        if not _is_parameter(parameter):
            raise TypeError(f"params must hold Parameters, got {type(parameter).__name__} as {name}")
    unique = {id(parameter): (parameter, name) for name, parameter in reversed(list(zip(names, parameters)))}
    if len(unique) < len(parameters):
        warnings.warn("params is a parameter group with duplicate parameters; each is used once", stacklevel=3)
        kept = list(reversed(unique.values()))
        return [parameter for parameter, _ in kept], [name for _, name in kept]
    return parameters, names


def _is_parameter(value: Any) -> bool:
    return all(isinstance(getattr(value, name, None), np.ndarray) for name in ("data", "grad"))


def number(value: Any, name: str, least: float = 0.0) -> float:
    """`value` as a finite float of at least `least`; one-element arrays and tensors count as numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if array.size != 1:
        raise ValueError(f"{name} must be one number, got an array of shape {array.shape}")
    result = float(array.reshape(()))
    if not least <= result < math.inf or math.isinf(result):
        allowed = "finite" if math.isinf(least) else f"finite and at least {least:g}"
        raise ValueError(f"{name} must be {allowed}, got {result}")
    return result
