"""The one schedule with state: it waits for a metric to stop improving."""

import math
from typing import Any

import numpy as np

from fastnn.schedules.base import NON_NEGATIVE, POSITIVE, check_choice, number, whole


class ReduceOnPlateau:
    """Multiplies the learning rate by `factor` when a metric has not improved for more than `patience` updates.

    The behaviour, names and defaults of PyTorch's ``ReduceLROnPlateau``, whose rate lives in the optimiser; here it is
    the property `lr`, and ``plateau(step)`` returns it whatever the step, so that it can drive what a schedule drives.

    Parameters
    ----------
    lr : float
        Where it starts; at least 0.
    mode : {"min", "max"}
        Whether less of the metric is better, or more.
    factor : float, default 0.1
        More than 0 and less than 1.
    patience : int, default 10
        How many updates in a row without improvement are let pass.
    threshold : float, default 1e-4
        Improvement that counts: "rel" asks for metric < best·(1 − threshold) (max: > best·(1 + threshold)), "abs" for
        metric < best − threshold (max: > best + threshold). At least 0; with "rel" less than 1.
    threshold_mode : {"rel", "abs"}
        See `threshold`.
    cooldown : int, default 0
        Updates after a reduction that are not held against the metric.
    min_lr : float, default 0
        Between 0 and lr; no reduction goes below.
    eps : float, default 1e-8
        Reductions of no more than this are not made. At least 0.

    Raises
    ------
    ValueError, TypeError
        If a parameter is outside its range, naming it.

    Examples
    --------
    >>> from fastnn import schedules
    >>> plateau = schedules.ReduceOnPlateau(0.1, patience=1)
    >>> [plateau.update(loss) for loss in (1.0, 0.9, 0.9, 0.9)]
    [0.1, 0.1, 0.1, 0.010000000000000002]
    """

    def __init__(
        self,
        lr: float,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        check_choice(mode, "mode", ("min", "max"))
        check_choice(threshold_mode, "threshold_mode", ("rel", "abs"))
        self.mode, self.threshold_mode = mode, threshold_mode
        self.factor = number(factor, "factor", POSITIVE)
        if self.factor >= 1:
            raise ValueError(f"factor must be less than 1, got {factor}")
        self.patience, self.cooldown = whole(patience, "patience"), whole(cooldown, "cooldown")
        self.threshold = number(threshold, "threshold", NON_NEGATIVE)
        if threshold_mode == "rel" and self.threshold >= 1:
            raise ValueError(f"threshold must be less than 1 with threshold_mode 'rel', got {threshold}")
        self.min_lr, self.eps = number(min_lr, "min_lr", NON_NEGATIVE), number(eps, "eps", NON_NEGATIVE)
        self._lr = float(number(lr, "lr", NON_NEGATIVE))
        if self.min_lr > self._lr:
            raise ValueError(f"min_lr must not be more than lr, {lr}, got {min_lr}")
        self._best = math.inf if mode == "min" else -math.inf
        self._num_bad = 0
        self._cooldown_left = 0

    def __repr__(self) -> str:
        return (
            f"ReduceOnPlateau(lr={self.lr!r}, mode={self.mode!r}, factor={self.factor!r}, patience={self.patience!r}, "
            f"threshold={self.threshold!r}, threshold_mode={self.threshold_mode!r}, cooldown={self.cooldown!r}, "
            f"min_lr={self.min_lr!r}, eps={self.eps!r})"
        )

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return self._lr

    def __call__(self, step: float) -> float:
        """The learning rate now; only `update` changes it."""
        return self._lr

    def update(self, metric: float) -> float:
        """Take in the metric of one more epoch (NaN is no improvement) and return the learning rate from here on."""
        try:
            value = math.ldexp(metric, 0)  # no string is a number
        except TypeError:
            raise TypeError(f"metric must be a number, got {type(metric).__name__}") from None
        except OverflowError:
            raise ValueError("metric must be a number that float64 holds, got a larger integer") from None
        if self._improves(value):
            self._best, self._num_bad = value, 0
        else:
            self._num_bad += 1
        if self._cooldown_left > 0:
            self._cooldown_left -= 1
            self._num_bad = 0
        if self._num_bad > self.patience:
            reduced = max(self._lr * self.factor, self.min_lr)
            if self._lr - reduced > self.eps:
                self._lr = reduced
            self._cooldown_left, self._num_bad = self.cooldown, 0
        return self._lr

    def _improves(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            bound = self._best * (1 + sign * self.threshold)
        else:
            bound = self._best + sign * self.threshold
        return value > bound if self.mode == "max" else value < bound

    def state_dict(self) -> dict[str, float]:
        """What changes from update to update, under PyTorch's names: lr, best, num_bad_epochs, cooldown_counter.

        Examples
        --------
        >>> from fastnn import schedules
        >>> schedules.ReduceOnPlateau(0.1).state_dict()
        {'lr': 0.1, 'best': inf, 'num_bad_epochs': 0, 'cooldown_counter': 0}
        """
        return {
            "lr": self._lr,
            "best": self._best,
            "num_bad_epochs": self._num_bad,
            "cooldown_counter": self._cooldown_left,
        }

    def load_state_dict(self, d: dict[str, Any]) -> None:
        """Take up the state `d`, as `state_dict` returns it (arrays of one element will do as numbers).

        Raises
        ------
        ValueError, TypeError
            If a key is missing or unexpected, or a value senseless; the state is then as before.
        """
        if set(d) != set(self.state_dict()):
            raise ValueError(f"the state must have the keys {', '.join(self.state_dict())}, got {sorted(map(str, d))}")
        state = {key: value.item() if isinstance(value, np.ndarray) else value for key, value in d.items()}
        best = state["best"]
        if isinstance(best, bool) or not isinstance(best, int | float):
            raise TypeError(f"best must be a real number, got {type(best).__name__}")
        lr = float(number(state["lr"], "lr", NON_NEGATIVE))
        num_bad = whole(state["num_bad_epochs"], "num_bad_epochs")
        cooldown_left = whole(state["cooldown_counter"], "cooldown_counter")
        self._lr, self._best, self._num_bad, self._cooldown_left = lr, float(best), num_bad, cooldown_left
