"""What a run leaves to look at: history.csv and loss.png."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import _files
from fastnn.train import History

Array = npt.NDArray[Any]

__all__ = ["write_csv", "write_figure"]

COLUMNS = ("step", "epoch", "lr", "loss", "training_loss", "training_accuracy", "test_loss", "test_accuracy")
TRAINING, HELD_OUT, RATE, FAINT, QUIET = "#1f5fa8", "#d9652b", "#4c8c6b", "#bcd3ec", "#555555"


def write_csv(path: Path, history: History, steps_per_epoch: int) -> None:
    """One row per step; the last of each epoch has the evaluations too. Numbers in full precision."""
    rows: list[list[Any]] = [
        [step + 1, step // steps_per_epoch + 1, lr, loss, "", "", "", ""]
        for step, (loss, lr) in enumerate(zip(history.loss.tolist(), history.lr.tolist()))
    ]
    for step, *values in zip(*(array.tolist() for array in history[2:])):
        rows[step - 1][4:] = ["" if math.isnan(value) else value for value in values]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    _files.replace(path, lambda file: file.write(text.getvalue().encode()))


def write_figure(path: Path, history: History, steps_per_epoch: int, title: str, subtitle: str) -> bool:
    """Loss on the training set and on the held-out set, and the learning rate, against steps.

    Returns False, and writes nothing, where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter
    except ImportError:
        return False
    steps = np.arange(1, len(history.loss) + 1)
    losses = np.concatenate([history.loss, history.training_loss, history.validation_loss])
    least = losses[losses > 0].min(initial=np.inf)  # a loss of 0 has no place on a logarithmic axis: it is drawn there
    figure = Figure(figsize=(9, 6.2), dpi=160, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])

    upper.set_title(title, loc="left", fontsize=14, fontweight="bold", pad=30)
    upper.annotate(subtitle, (0, 1), (0, 12), "axes fraction", "offset points", color=QUIET)
    if np.isfinite(least):
        upper.set_yscale("log")
        upper.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        upper.yaxis.set_minor_locator(NullLocator())
        upper.yaxis.set_minor_formatter(NullFormatter())
    else:
        least = 0.0
    upper.plot(
        steps, np.maximum(history.loss, least), color=FAINT, linewidth=0.7, label="each minibatch, while training"
    )
    training, held_out = history.training_loss, history.validation_loss
    last, other = (held_out[-1], training[-1]) if len(training) else (0.0, 0.0)
    lift = math.copysign(6, last - other) if last < 1.3 * other < 1.7 * last else 0  # or the two values overlap
    _curve(upper, history.epoch_step, training, TRAINING, "training set, after each epoch", -lift, least)
    _curve(upper, history.epoch_step, held_out, HELD_OUT, "held-out set, after each epoch", lift, least)
    upper.set_ylabel("cross-entropy loss")
    upper.legend(frameon=False, loc="upper right")

    lower.plot(steps, history.lr, color=RATE, linewidth=2)
    lower.fill_between(steps, history.lr, color=RATE, alpha=0.15, linewidth=0)
    lower.set_ylim(0, 1.1 * max([*history.lr, 1e-12]))
    lower.set_ylabel("learning rate")
    lower.set_xlabel(f"step ({steps_per_epoch} steps are one epoch)")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (upper, lower):
        axes.set_xlim(0, max(1, len(steps)))
        axes.grid(True, color="#e9e9e9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#999999")
        axes.tick_params(color="#999999", labelcolor="#333333")
    _files.replace(path, lambda file: figure.savefig(file, format="png"))
    return True


def _curve(axes: Any, steps: Array, values: Array, colour: str, label: str, lift: float, least: float) -> None:
    """A line with a dot for each epoch and its last value beside it; values below `least` are drawn there."""
    if not np.isfinite(values).any():
        return
    size = 4 if len(values) <= 60 else 0
    heights = np.maximum(values, least)
    axes.plot(steps, heights, color=colour, linewidth=2, marker="o", markersize=size, label=label, clip_on=False)
    axes.annotate(f"{values[-1]:.2g}", (steps[-1], heights[-1]), (8, lift), textcoords="offset points", color=colour,
                  va="center", fontweight="bold", annotation_clip=False)  # fmt: skip
