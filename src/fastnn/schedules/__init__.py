"""Learning rates as values: ``lr = schedule(step)``.

A schedule is an immutable function of the step, counted from 0: of an int it makes a float, of an array of steps a
float64 array. It has no state, so a run resumes from its step alone, and it drives momentum or weight decay as well as
the learning rate. `Warmup` and `Join` compose schedules; ``schedule.to_json()`` and `from_json` write and read them;
`plot` draws them. `ReduceOnPlateau` alone has state, since it depends on a metric.
"""

from fastnn.schedules._plot import plot
from fastnn.schedules.base import Schedule
from fastnn.schedules.compose import Join, Piecewise, Warmup
from fastnn.schedules.cycles import CosineRestarts, Cyclic, OneCycle
from fastnn.schedules.decay import Constant, Cosine, Exponential, InverseSqrt, InverseTime, Linear, Polynomial
from fastnn.schedules.plateau import ReduceOnPlateau
from fastnn.schedules.text import from_json

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseSqrt",
    "InverseTime",
    "Join",
    "Linear",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Warmup",
    "from_json",
    "plot",
]
