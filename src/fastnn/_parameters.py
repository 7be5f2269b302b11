"""The gate for lists of parameters: what SGD and the accumulator are given becomes one list with names."""

import math
import warnings
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, _kernels

Array = npt.NDArray[Any]


class Parameter(Protocol):
    """What counts as a parameter here: an array that is trained, its gradient, and whether it decays."""

    data: Array
    grad: Array
    decay: bool


Parameters = Iterable[Parameter] | Iterable[tuple[str, Parameter]]


def collect(params: Parameters) -> tuple[list[Parameter], list[str]]:
    """The parameters, each once, and the names they came with ("" without).

    Raises
    ------
    TypeError
        If `params` is not an ordered iterable of parameters or of (name, parameter) pairs.
    """
    if isinstance(params, (set, frozenset)) or is_parameter(params) or not isinstance(params, Iterable):
        raise TypeError(f"params must be a list of Parameters or of dicts, got {type(params).__name__}")
    unique: dict[int, tuple[Parameter, str]] = {}
    count = 0
    for count, entry in enumerate(params, 1):
        pair: tuple[str, Any] = entry if isinstance(entry, tuple) and len(entry) == 2 else ("", entry)
        name, parameter = pair
        if not is_parameter(parameter):
            raise TypeError(f"params must hold Parameters, got {type(parameter).__name__} as number {count - 1}")
        unique.setdefault(id(parameter), (parameter, str(name)))
    if len(unique) < count:
        warnings.warn("params is a parameter group with duplicate parameters; each is used once", stacklevel=3)
    return [parameter for parameter, _ in unique.values()], [name for _, name in unique.values()]


def labels(names: list[str]) -> list[str]:
    """The names, or numbers where there are none.

    Raises
    ------
    ValueError
        If only some parameters have names, or two have the same.
    """
    if not any(names):
        return [str(i) for i in range(len(names))]
    if not all(names):
        raise ValueError(f"params must all have names or none: the first without is number {names.index('')}")
    if len(set(names)) < len(names):
        raise ValueError(
            f"params must have different names, got {sorted(n for n in names if names.count(n) > 1)[0]} twice"
        )
    return names


def is_parameter(value: Any) -> bool:
    return all(isinstance(getattr(value, name, None), np.ndarray) for name in ("data", "grad"))


def table(parameters: list[Parameter], names: list[str], groups: list[int], by_rows: bool) -> _kernels.TensorTable:
    """What kernels walk over; `names` are labels, for messages."""
    return _kernels.TensorTable(parameters, [f"parameter {name}" for name in names], groups, by_rows)


def table_of(params: Parameters, by_rows: bool = False) -> _kernels.TensorTable:
    """The table of one call's parameters, as one group."""
    parameters, names = collect(params)
    return table(parameters, labels(names), [0] * len(parameters), by_rows)


def number(value: Any, name: str, least: float = 0.0) -> float:
    """`value` as a finite float of at least `least`; one-element arrays and tensors count as numbers."""
    array = np.asarray(value)
    if array.dtype == object and isinstance(value, int):  # more than 64 bits
        return number(_arrays.number(value, name), name, least)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if array.size != 1:
        raise ValueError(f"{name} must be one number, got an array of shape {array.shape}")
    result = float(array.reshape(()))
    if not least <= result < math.inf or math.isinf(result):
        allowed = "finite" if math.isinf(least) else f"finite and at least {least:g}"
        raise ValueError(f"{name} must be {allowed}, got {result}")
    return result
