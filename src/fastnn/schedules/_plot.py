"""A picture of a schedule."""

from typing import Any

import numpy as np

from fastnn.schedules.base import Schedule, whole


def plot(schedule: Schedule, steps: int, *, ax: Any = None) -> Any:
    """Draw `schedule` over its first `steps` steps with Matplotlib and return the axes.

    Parameters
    ----------
    schedule : Schedule
        Or any function of an array of steps.
    steps : int
        How many.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure without it.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("agg")
    >>> from fastnn import schedules
    >>> schedules.plot(schedules.Cosine(0.1, 100), 120)
    <Axes: xlabel='step', ylabel='value'>
    """
    import matplotlib.pyplot as plt

    t = np.arange(whole(steps, "steps"))
    if ax is None:
        _, ax = plt.subplots()
    ax.plot(t, schedule(t), label=repr(schedule))
    ax.set(xlabel="step", ylabel="value")
    return ax
