"""Schedules that go one way: constant, exponential, cosine, linear, polynomial, inverse time, inverse square root."""

from dataclasses import dataclass

import numpy as np

from fastnn.schedules.base import (
    NON_NEGATIVE,
    POSITIVE,
    Array,
    Schedule,
    between,
    check_flag,
    half_cosine,
    remaining,
)


def check_floor(floor: float, lr: float) -> None:
    """Raise unless a decay from `lr` goes down to `floor`."""
    if floor > lr:
        raise ValueError(f"floor must not be more than lr, {lr}, got {floor}")


@dataclass(frozen=True)
class Constant(Schedule):
    """lr, at every step.

    Parameters
    ----------
    lr : float
        At least 0.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.Constant(0.1)(1000)
    0.1
    """

    lr: float

    def __post_init__(self) -> None:
        self._set(lr=NON_NEGATIVE)

    def _at(self, t: Array) -> Array:
        return np.full(t.shape, self.lr, np.float64)


@dataclass(frozen=True)
class Exponential(Schedule):
    """max(floor, lr · rate^(step/every)), with ⌊step/every⌋ if `staircase`.

    PyTorch's ``ExponentialLR(gamma)`` is ``Exponential(lr, gamma)``, its ``StepLR(step_size, gamma)`` is
    ``Exponential(lr, gamma, every=step_size, staircase=True)``. Optax's ``end_value`` becomes an upper bound where
    the rate is above 1; `floor` is always a lower one.

    Parameters
    ----------
    lr : float
        Value at step 0; at least 0.
    rate : float
        Factor per `every` steps; more than 0. Above 1 it grows, as a learning-rate range test does.
    every : float, default 1
        Number of steps; more than 0.
    staircase : bool, default False
        Whether to stay for `every` steps and then jump.
    floor : float, default 0
        Between 0 and lr.

    Examples
    --------
    >>> from fastnn import schedules
    >>> lr = schedules.Exponential(1.0, 0.5, every=10, floor=0.1)
    >>> lr([0, 5, 10, 100])
    array([1.        , 0.70710678, 0.5       , 0.1       ])
    """

    lr: float
    rate: float
    every: float = 1
    staircase: bool = False
    floor: float = 0.0

    def __post_init__(self) -> None:
        self._set(lr=NON_NEGATIVE, rate=POSITIVE, every=POSITIVE, floor=NON_NEGATIVE)
        check_flag(self.staircase, "staircase")
        check_floor(self.floor, self.lr)

    def _at(self, t: Array) -> Array:
        times = t / self.every
        return np.maximum(self.lr * float(self.rate) ** (np.floor(times) if self.staircase else times), self.floor)


@dataclass(frozen=True)
class Cosine(Schedule):
    """floor + (lr − floor) · ½(1 + cos(π·step/steps)), and `floor` from step `steps` on.

    Half a period of SGDR's cosine. PyTorch's ``CosineAnnealingLR(T_max, eta_min)`` climbs again after T_max; Optax
    and Keras give the floor as a fraction `alpha` of lr.

    Parameters
    ----------
    lr : float
        Value at step 0; at least 0.
    steps : float
        Length of the decay; more than 0.
    floor : float, default 0
        Value at the end, absolute; between 0 and lr.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.Cosine(1.0, 100, floor=0.2)([0, 50, 100, 150])
    array([1. , 0.6, 0.2, 0.2])
    """

    lr: float
    steps: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        self._set(lr=NON_NEGATIVE, steps=POSITIVE, floor=NON_NEGATIVE)
        check_floor(self.floor, self.lr)

    def _at(self, t: Array) -> Array:
        return between(self.lr, self.floor, half_cosine(remaining(t, self.steps)))


@dataclass(frozen=True)
class Linear(Schedule):
    """start + (end − start) · step/steps, and `end` from step `steps` on.

    PyTorch's ``LinearLR(start_factor, end_factor, total_iters)`` gives the ends as factors of lr (by default from a
    third of it).

    Parameters
    ----------
    start, end : float
        At least 0.
    steps : float
        More than 0.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.Linear(0.0, 1.0, 4)(range(6))
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.  ])
    """

    start: float
    end: float
    steps: float

    def __post_init__(self) -> None:
        self._set(start=NON_NEGATIVE, end=NON_NEGATIVE, steps=POSITIVE)

    def _at(self, t: Array) -> Array:
        return between(self.start, self.end, remaining(t, self.steps))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """end + (start − end) · (1 − step/steps)^power, and `end` from step `steps` on.

    PyTorch's ``PolynomialLR(total_iters, power)`` is ``Polynomial(lr, 0, total_iters, power)``.

    Parameters
    ----------
    start, end : float
        At least 0.
    steps : float
        More than 0.
    power : float, default 1
        More than 0.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.Polynomial(1.0, 0.0, 4, power=2)(range(6))
    array([1.    , 0.5625, 0.25  , 0.0625, 0.    , 0.    ])
    """

    start: float
    end: float
    steps: float
    power: float = 1.0

    def __post_init__(self) -> None:
        self._set(start=NON_NEGATIVE, end=NON_NEGATIVE, steps=POSITIVE, power=POSITIVE)

    def _at(self, t: Array) -> Array:
        return between(self.start, self.end, remaining(t, self.steps) ** self.power)


@dataclass(frozen=True)
class InverseTime(Schedule):
    """lr / (1 + rate · step/every), with ⌊step/every⌋ if `staircase`.

    Keras's ``InverseTimeDecay(lr, every, rate)``. With 0 < rate its sum diverges and that of its squares converges:
    the classical condition of Robbins and Monro.

    Parameters
    ----------
    lr : float
        Value at step 0; at least 0.
    rate : float
        At least 0.
    every : float, default 1
        More than 0.
    staircase : bool, default False
        Whether to stay for `every` steps and then jump.

    References
    ----------
    Robbins and Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22, 1951.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.InverseTime(1.0, 0.5)([0, 2, 6])
    array([1.  , 0.5 , 0.25])
    """

    lr: float
    rate: float
    every: float = 1
    staircase: bool = False

    def __post_init__(self) -> None:
        self._set(lr=NON_NEGATIVE, rate=NON_NEGATIVE, every=POSITIVE)
        check_flag(self.staircase, "staircase")

    def _at(self, t: Array) -> Array:
        times = t / self.every
        return self.lr / (1 + self.rate * (np.floor(times) if self.staircase else times))


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """lr · min(step/warmup, √(warmup/step)): linear from 0 to lr at step `warmup`, then down with the square root.

    The Transformer's schedule, d_model^−½ · min(step^−½, step · warmup^−1.5), is ``InverseSqrt((d_model *
    warmup) ** -0.5, warmup)`` if its steps are counted from 1.

    Parameters
    ----------
    lr : float
        Value at the peak; at least 0.
    warmup : float
        Step of the peak; more than 0.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.InverseSqrt(1.0, 4)([0, 2, 4, 16])
    array([0. , 0.5, 1. , 0.5])
    """

    lr: float
    warmup: float

    def __post_init__(self) -> None:
        self._set(lr=NON_NEGATIVE, warmup=POSITIVE)

    def _at(self, t: Array) -> Array:
        return self.lr * np.minimum(t / self.warmup, np.sqrt(self.warmup / np.maximum(t, self.warmup)))
