"""What every schedule is: an immutable value that maps steps to numbers, and the checks its parameters go through."""

import dataclasses
import itertools
import json
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Allowed(NamedTuple):
    """A set of numbers: its test and its name in error messages."""

    contains: Callable[[float], bool]
    text: str


NON_NEGATIVE = Allowed(lambda value: value >= 0, "at least 0")
POSITIVE = Allowed(lambda value: value > 0, "more than 0")
FRACTION = Allowed(lambda value: 0 <= value <= 1, "between 0 and 1")
AT_MOST_ONE = Allowed(lambda value: 0 < value <= 1, "more than 0 and at most 1")
AT_LEAST_ONE = Allowed(lambda value: value >= 1, "at least 1")


def number(value: Any, name: str, allowed: Allowed) -> int | float:
    """`value` as a Python number of the allowed set; integers stay integers, so that a schedule prints as written."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}")
    try:
        real = float(value)
    except OverflowError:  # an integer or a fraction that no float can hold
        real = math.inf
    if not (math.isfinite(real) and allowed.contains(real)):
        raise ValueError(f"{name} must be finite and {allowed.text}, got {value}")
    return int(value) if isinstance(value, numbers.Integral) else real


def whole(value: Any, name: str) -> int:
    """`value` as a Python integer of at least 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return int(value)


def check_choice(value: Any, name: str, allowed: Sequence[str]) -> None:
    """Raise unless `value` is one of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_flag(value: Any, name: str) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")


def check_phases(phases: Any, name: str) -> None:
    """Raise unless `phases` is a sequence that holds something."""
    if not isinstance(phases, Sequence | np.ndarray) or isinstance(phases, str):
        raise TypeError(f"{name} must be a sequence, got {type(phases).__name__}")
    if len(phases) == 0:
        raise ValueError(f"{name} must hold at least one, got none")


def increasing(values: Any, name: str, count: int) -> tuple[int | float, ...]:
    """`count` boundaries between phases as a tuple of numbers: above 0, each above the one before."""
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
        raise TypeError(f"{name} must be a sequence of numbers, got {type(values).__name__}")
    steps = tuple(number(value, name, POSITIVE) for value in values)
    if len(steps) != count:
        raise ValueError(f"{name} must be {count}, one fewer than the phases they separate, got {len(steps)}")
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError(f"{name} must increase, got {list(steps)}")
    return steps


def between(first: Any, last: Any, weight: Array) -> Array:
    """weight·first + (1 − weight)·last: exactly `first` at weight 1, exactly `last` at 0, exact if they are equal.

    Each half is counted from its own end: neither ``last + (first − last)·w`` nor ``w·first + (1 − w)·last`` has
    all three properties in floating point.
    """
    mixed: Array = np.where(weight < 0.5, last + (first - last) * weight, first + (last - first) * (1 - weight))
    return mixed


def remaining(t: Array, steps: float) -> Array:
    """The fraction of `steps` that is left at `t`: 1 − t/steps without its rounding, and 0 afterwards."""
    return np.maximum(steps - t, 0) / steps


def half_cosine(left: Array) -> Array:
    """½(1 + cos(π(1 − left))) for fractions left in [0, 1], as sin²(π·left/2): no digits cancel near the end."""
    return np.sin(np.pi / 2 * left) ** 2


class Schedule(ABC):
    """A hyper-parameter as a function of the step: learning rate, momentum or weight decay.

    A schedule is a value. It holds parameters and no state, so resuming needs the step alone; it can be compared,
    hashed, pickled, printed, and written as JSON.

    Examples
    --------
    >>> from fastnn import schedules
    >>> lr = schedules.Linear(0.5, 0.0, steps=4)
    >>> isinstance(lr, schedules.Schedule), lr(1), lr([0, 2, 9])
    (True, 0.375, array([0.5 , 0.25, 0.  ]))
    """

    @overload
    def __call__(self, step: float) -> float: ...
    @overload
    def __call__(self, step: Sequence[float] | npt.NDArray[Any]) -> Array: ...
    def __call__(self, step: Any) -> Any:
        """The value at `step`: a float for a number, a float64 array of the same shape for an array of steps.

        Raises
        ------
        ValueError
            If a step is negative, NaN, or an integer beyond float64.
        """
        try:
            steps = np.asarray(step, np.float64)
        except OverflowError:
            raise ValueError("step must be a number that float64 holds, got a larger integer") from None
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"step must be a number or an array of numbers, got {type(step).__name__}: {error}"
            ) from None
        if not (steps >= 0).all():
            raise ValueError(f"step must be at least 0, got {step}")
        values = self._at(steps.reshape(-1))
        return float(values[0]) if steps.ndim == 0 else values.reshape(steps.shape)

    @abstractmethod
    def _at(self, t: Array) -> Array:
        """The values at the steps `t`, a vector of floats of at least 0; a new array."""

    def to_json(self) -> str:
        """The schedule as JSON text; `fastnn.schedules.from_json` reads it back.

        Examples
        --------
        >>> from fastnn import schedules
        >>> schedules.Cosine(0.1, 1000).to_json()
        '{"schedule": "Cosine", "lr": 0.1, "steps": 1000, "floor": 0.0}'
        """
        return json.dumps(_plain(self), allow_nan=False)

    def _set(self, **allowed: Allowed) -> None:
        """Check the fields named and store them as Python numbers."""
        for name, numbers_allowed in allowed.items():
            object.__setattr__(self, name, number(getattr(self, name), name, numbers_allowed))


def check_schedule(value: Any, name: str) -> None:
    """Raise unless `value` is a schedule."""
    if not isinstance(value, Schedule):
        raise TypeError(f"{name} must be a schedule, got {type(value).__name__}")


def _plain(value: Any) -> Any:
    """Schedules as dicts and tuples as lists, all the way down."""
    if isinstance(value, Schedule):
        fields = dataclasses.fields(value)  # type: ignore[arg-type]  # every concrete schedule is a dataclass
        return {"schedule": type(value).__name__} | {field.name: _plain(getattr(value, field.name)) for field in fields}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
