"""Schedules out of JSON text that nobody vouches for."""

import json
from dataclasses import fields
from typing import Any

from fastnn.schedules.base import Schedule
from fastnn.schedules.compose import Join, Piecewise, Warmup
from fastnn.schedules.cycles import CosineRestarts, Cyclic, OneCycle
from fastnn.schedules.decay import Constant, Cosine, Exponential, InverseSqrt, InverseTime, Linear, Polynomial

# The only names that text can call.
KINDS: dict[str, type[Schedule]] = {
    kind.__name__: kind
    for kind in (
        Constant,
        Cosine,
        CosineRestarts,
        Cyclic,
        Exponential,
        InverseSqrt,
        InverseTime,
        Join,
        Linear,
        OneCycle,
        Piecewise,
        Polynomial,
        Warmup,
    )
}


def from_json(text: str) -> Schedule:
    """The schedule that `to_json` wrote; parameters with a default may be absent.

    The text may come from anywhere: it names one of the schedules of this module and its parameters, nothing else, and
    the parameters go through the same checks as in Python.

    Parameters
    ----------
    text : str
        A JSON object with the key "schedule" and one key for each parameter.

    Raises
    ------
    ValueError
        If it is anything else, saying what.

    Examples
    --------
    >>> from fastnn import schedules
    >>> warm = schedules.Warmup(schedules.Cosine(0.1, 900), 100)
    >>> schedules.from_json(warm.to_json()) == warm
    True
    >>> schedules.from_json('{"schedule": "Exponential", "lr": 1, "rate": 0.5}')
    Exponential(lr=1, rate=0.5, every=1, staircase=False, floor=0.0)
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    try:
        return _schedule(json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant))
    except RecursionError:
        raise ValueError("text must not nest schedules so deeply") from None
    except TypeError as error:
        raise ValueError(str(error)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError(f"text must not repeat a key within an object, got the keys {[key for key, _ in pairs]}")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"numbers must be finite, got {name}")


def _schedule(value: Any) -> Schedule:
    """A parsed object as the schedule that it describes."""
    if not isinstance(value, dict) or not isinstance(value.get("schedule"), str):
        raise ValueError(f'text must be a JSON object with the key "schedule", got {_short(value)}')
    parameters = {key: _parameter(item) for key, item in value.items() if key != "schedule"}
    if (kind := KINDS.get(value["schedule"])) is None:
        raise ValueError(f"schedule must be one of {', '.join(KINDS)}, got {_short(value['schedule'])}")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # every kind is a dataclass
    if unexpected := sorted(parameters.keys() - names):
        raise ValueError(f"{kind.__name__} takes {', '.join(names)}, got {_short(unexpected)}")
    if missing := [name for name in names if name not in parameters and not hasattr(kind, name)]:
        raise ValueError(f"{kind.__name__} needs {', '.join(missing)}, got {_short(sorted(parameters))}")
    return kind(**parameters)


def _parameter(value: Any) -> Any:
    """A value inside an object: a schedule, a list of parameters, or what the schedule itself will check."""
    if isinstance(value, dict):
        return _schedule(value)
    return [_parameter(item) for item in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    """A value's repr, cut to what fits an error message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
