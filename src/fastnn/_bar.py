"""The progress bar of a training run."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Bar"]


class Bar:
    """tqdm's progress bar where it is installed and wanted, else nothing."""

    def __init__(self, wanted: bool, total: int, done: int) -> None:
        self._bar: Any = None
        self._text, self._held_out, self._next = "", "", 0.0
        if wanted:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            # A log file gets a line now and then, a terminal a live bar.
            interval = 0.1 if sys.stderr.isatty() else 10.0
            self._bar = tqdm(total=total, initial=done, unit="step", mininterval=interval, dynamic_ncols=True)

    def step(self, loss: float, lr: float, accuracy: Callable[[], float]) -> None:
        """One more step. The accuracy takes a while, so it is asked for only as often as anybody could read it."""
        if self._bar is None:
            return
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.1
            value = accuracy()
            shown = "" if math.isnan(value) else f", accuracy {value:.1%}"
            self._text = f"loss {loss:.4f}{shown}, lr {lr:.3g}"
            self._bar.set_postfix_str(self._text + self._held_out, refresh=False)
        self._bar.update()

    def epoch(self, loss: float, accuracy: float) -> None:
        """The held-out set's evaluation, shown until the next one."""
        if self._bar is not None:
            shown = "" if math.isnan(accuracy) else f" {accuracy:.1%}"
            self._held_out = f", held-out {loss:.4f}{shown}"
            self._bar.set_postfix_str(self._text + self._held_out, refresh=False)

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        if self._bar is not None:
            self._bar.close()
