"""Schedules made of others: steps, warm-up, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastnn.schedules.base import NON_NEGATIVE, Array, Schedule, check_phases, check_schedule, increasing, number


@dataclass(frozen=True)
class Piecewise(Schedule):
    """values[i] for boundaries[i−1] ≤ step < boundaries[i].

    PyTorch's ``MultiStepLR(milestones, gamma)`` and Optax's ``piecewise_constant_schedule`` give factors from phase
    to phase instead of values; Keras's ``PiecewiseConstantDecay`` takes the same two lists in the other order and
    changes one step later, at step > boundary.

    Parameters
    ----------
    values : sequence of float
        One or more, each at least 0.
    boundaries : sequence of float
        One fewer than values; above 0 and increasing.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.Piecewise([1.0, 0.1], [3])(range(5))
    array([1. , 1. , 1. , 0.1, 0.1])
    """

    values: Sequence[float]
    boundaries: Sequence[float]

    def __post_init__(self) -> None:
        check_phases(self.values, "values")
        values = tuple(number(value, "values", NON_NEGATIVE) for value in self.values)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "boundaries", increasing(self.boundaries, "boundaries", len(values) - 1))

    def _at(self, t: Array) -> Array:
        return np.array(self.values, np.float64)[np.searchsorted(self.boundaries, t, side="right")]


@dataclass(frozen=True)
class Warmup(Schedule):
    """Linear from `start` to then(0) over `steps`, and then(step − steps) from there on.

    `then` sees its own step 0 when the warm-up ends, as in Keras's ``warmup_steps``; Optax counts the warm-up within
    `decay_steps`: ``warmup_cosine_decay_schedule(start, lr, steps, decay_steps)`` is
    ``Warmup(Cosine(lr, decay_steps - steps), steps, start)``.

    Parameters
    ----------
    then : Schedule
        What follows the warm-up.
    steps : float
        Length of the warm-up; at least 0 (none).
    start : float, default 0
        Value at step 0; at least 0.

    References
    ----------
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.Warmup(schedules.Cosine(1.0, 4), 2)(range(7))
    array([0.        , 0.5       , 1.        , 0.85355339, 0.5       , 0.14644661, 0.        ])
    """

    then: Schedule
    steps: float
    start: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.then, "then")
        self._set(steps=NON_NEGATIVE, start=NON_NEGATIVE)

    def _at(self, t: Array) -> Array:
        # One call also for then(0): with a second, nested warm-ups would cost 2^depth calls.
        values = self.then._at(np.append(np.maximum(t - self.steps, 0), 0.0))
        first = values[-1]
        warming = t < self.steps
        values[:-1][warming] = self.start + (first - self.start) * (t[warming] / self.steps)
        return values[:-1]


@dataclass(frozen=True)
class Join(Schedule):
    """schedules[i](step − boundaries[i−1]) for boundaries[i−1] ≤ step < boundaries[i]: each sees its own step 0.

    Optax's ``join_schedules`` and PyTorch's ``SequentialLR`` (whose milestones are the boundaries).

    Parameters
    ----------
    schedules : sequence of Schedule
        One or more.
    boundaries : sequence of float
        One fewer than schedules; above 0 and increasing.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.Join([schedules.Linear(0.0, 1.0, 4), schedules.Exponential(1.0, 0.5)], [4])(range(7))
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 0.5 , 0.25])
    """

    schedules: Sequence[Schedule]
    boundaries: Sequence[float]

    def __post_init__(self) -> None:
        check_phases(self.schedules, "schedules")
        for part in self.schedules:
            check_schedule(part, "each of schedules")
        object.__setattr__(self, "schedules", tuple(self.schedules))
        object.__setattr__(self, "boundaries", increasing(self.boundaries, "boundaries", len(self.schedules) - 1))

    def _at(self, t: Array) -> Array:
        values = np.empty_like(t)
        phase = np.searchsorted(self.boundaries, t, side="right")
        for i, (part, start) in enumerate(zip(self.schedules, (0, *self.boundaries))):
            here = phase == i
            if here.any():
                values[here] = part._at(t[here] - start)
        return values
