"""Schedules that go up and down: cosine with restarts, one cycle, and many."""

from dataclasses import dataclass

import numpy as np

from fastnn.schedules.base import (
    AT_LEAST_ONE,
    AT_MOST_ONE,
    FRACTION,
    NON_NEGATIVE,
    POSITIVE,
    Array,
    Schedule,
    between,
    check_choice,
    check_flag,
    half_cosine,
)
from fastnn.schedules.decay import check_floor

LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Cosine decays end to end: cycle k goes from lr·decay^k to `floor` over steps·mult^k steps, then starts anew.

    A cycle whose lr·decay^k has fallen below `floor` stays at `floor`. PyTorch's ``CosineAnnealingWarmRestarts(T_0,
    T_mult, eta_min)`` is ``CosineRestarts(lr, T_0, mult=T_mult, floor=eta_min)``; Keras's ``CosineDecayRestarts``
    has `decay` as m_mul and `floor` as a fraction.

    Parameters
    ----------
    lr : float
        Value at step 0; at least 0.
    steps : float
        Length of the first cycle; more than 0.
    mult : float, default 1
        Each cycle is so many times as long as the one before; at least 1.
    decay : float, default 1
        Each cycle starts so many times as high as the one before; more than 0, at most 1.
    floor : float, default 0
        Between 0 and lr.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.CosineRestarts(1.0, 2, mult=2, decay=0.5)(range(7))
    array([1.       , 0.5      , 0.5      , 0.4267767, 0.25     , 0.0732233, 0.25     ])
    """

    lr: float
    steps: float
    mult: float = 1.0
    decay: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        self._set(lr=NON_NEGATIVE, steps=POSITIVE, mult=AT_LEAST_ONE, decay=AT_MOST_ONE, floor=NON_NEGATIVE)
        check_floor(self.floor, self.lr)

    def _at(self, t: Array) -> Array:
        with np.errstate(over="ignore"):  # what is too large is the largest number
            cycle = self._cycle(t)
            start, end = self._start(cycle), self._start(cycle + 1)
        peak = np.maximum(self.lr * float(self.decay) ** cycle, self.floor)
        # Far out, where numbers are further apart than cycles, a cycle has no length and is over at once.
        left = np.divide(end - t, end - start, out=np.zeros_like(t), where=end > start)
        return between(peak, self.floor, half_cosine(left))

    def _cycle(self, t: Array) -> Array:
        """The number k of the cycle that step t lies in: start(k) ≤ t < start(k + 1)."""
        if self.mult == 1:
            k = np.floor(np.minimum(t / self.steps, LARGEST))
        else:
            k = np.floor(np.log1p(np.minimum(t / self.steps * (self.mult - 1), LARGEST)) / np.log(self.mult))
        # The logarithm's rounding may miss by one where a cycle begins.
        k = np.where(self._start(k + 1) <= t, k + 1, k)
        return np.where(self._start(k) > t, k - 1, k)

    def _start(self, k: Array) -> Array:
        """Where cycle k starts: steps · (1 + mult + … + mult^(k−1))."""
        if self.mult == 1:
            start = self.steps * k
        else:
            start = self.steps * np.expm1(k * np.log(self.mult)) / (self.mult - 1)
        start = np.minimum(start, LARGEST)
        # A whole number of steps but for rounding is that number; else a restart might come one step late.
        nearest = np.rint(start)
        return np.where(np.abs(start - nearest) <= 1e-12 * nearest, nearest, start)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from max_lr/div_factor to max_lr, then down to max_lr/div_factor/final_div_factor at step = steps − 1.

    PyTorch's ``OneCycleLR``, off-by-ones included: the peak is at step pct_start·steps − 1. With `three_phase` the way
    down first mirrors the way up, to max_lr/div_factor at step 2·pct_start·steps − 2. After the last step the value
    stays, where PyTorch raises. Optax's one-cycle schedules have their peak at int(pct_start·steps) and end at `steps`.

    Parameters
    ----------
    max_lr : float
        At least 0.
    steps : float
        At least 1.
    pct_start : float, default 0.3
        Fraction of the steps that go up, between 0 and 1; with `three_phase` at most 0.5.
    anneal : {"cos", "linear"}
        Shape of every phase.
    div_factor, final_div_factor : float, default 25 and 1e4
        More than 0.
    three_phase : bool, default False
        Whether to come down in two phases.

    References
    ----------
    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.OneCycle(1.0, 10, anneal="linear")([0, 1, 2, 9, 20])
    array([4.0e-02, 5.2e-01, 1.0e+00, 4.0e-06, 4.0e-06])
    """

    max_lr: float
    steps: float
    pct_start: float = 0.3
    anneal: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        self._set(max_lr=NON_NEGATIVE, steps=AT_LEAST_ONE, pct_start=FRACTION)
        self._set(div_factor=POSITIVE, final_div_factor=POSITIVE)
        check_choice(self.anneal, "anneal", ("cos", "linear"))
        check_flag(self.three_phase, "three_phase")
        if self.three_phase and self.pct_start > 0.5:
            raise ValueError(f"pct_start must be at most 0.5 with three_phase, got {self.pct_start}")

    def _at(self, t: Array) -> Array:
        low, up = self.max_lr / self.div_factor, self.pct_start * self.steps
        middle = ([2 * up - 2], [low]) if self.three_phase else ([], [])
        ends = np.array([0, up - 1, *middle[0], self.steps - 1], np.float64)
        levels = np.array([low, self.max_lr, *middle[1], low / self.final_div_factor], np.float64)
        t = np.minimum(t, self.steps - 1)
        phase = np.searchsorted(ends[1:-1], t, side="left")
        end, length = ends[phase + 1], ends[phase + 1] - ends[phase]
        # A phase of no length, as with pct_start·steps = 1, is over at once.
        left = np.divide(end - t, length, out=np.zeros_like(t), where=length > 0)
        return between(levels[phase], levels[phase + 1], half_cosine(left) if self.anneal == "cos" else left)


@dataclass(frozen=True)
class Cyclic(Schedule):
    """base_lr + (max_lr − base_lr) · height · scale: straight up over `up` steps, straight down over `down`, again.

    The scale is 1 ("triangular"), 2^−k in cycle k = 0, 1, … ("triangular2"), or gamma^step ("exp_range"). PyTorch's
    ``CyclicLR`` with step_size_up and step_size_down.

    Parameters
    ----------
    base_lr, max_lr : float
        0 ≤ base_lr ≤ max_lr.
    up : float, default 2000
        More than 0.
    down : float or None, default None
        More than 0; None is `up`.
    mode : {"triangular", "triangular2", "exp_range"}
        What scales the cycles.
    gamma : float, default 1
        More than 0, at most 1; of "exp_range" alone.

    References
    ----------
    Smith, "Cyclical learning rates for training neural networks", WACV 2017.

    Examples
    --------
    >>> from fastnn import schedules
    >>> schedules.Cyclic(0.0, 1.0, up=2, mode="triangular2")(range(9))
    array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 0.5 , 0.25, 0.  ])
    """

    base_lr: float
    max_lr: float
    up: float = 2000
    down: float | None = None
    mode: str = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        self._set(base_lr=NON_NEGATIVE, max_lr=NON_NEGATIVE, up=POSITIVE, gamma=AT_MOST_ONE)
        if self.down is not None:
            self._set(down=POSITIVE)
        if self.base_lr > self.max_lr:
            raise ValueError(f"base_lr must not be more than max_lr, {self.max_lr}, got {self.base_lr}")
        check_choice(self.mode, "mode", ("triangular", "triangular2", "exp_range"))

    def _at(self, t: Array) -> Array:
        down = self.up if self.down is None else self.down
        cycle, place = np.divmod(t, self.up + down)
        height = np.where(place <= self.up, place / self.up, (self.up + down - place) / down)
        if self.mode == "triangular2":
            height *= 0.5**cycle
        elif self.mode == "exp_range":
            height *= float(self.gamma) ** t
        return between(self.max_lr, self.base_lr, height)
