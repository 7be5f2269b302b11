"""
Learning-rate schedules
=======================

Point 13: the schedules that there are, one composed of others, and what a decaying rate is for. With a constant rate
SGD ends in a cloud about the minimum whose size is proportional to the rate, for the minibatch gradients keep their
noise. Exponential and cosine decay start as fast and let the cloud shrink.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastnn
from fastnn import schedules

# %%
# Schedules are values
# --------------------
# A schedule is a function of the step and has no state: it can be compared, printed, written as JSON and drawn.

GALLERY = {
    "exponential decay": {
        "Exponential": schedules.Exponential(1.0, 0.5, every=300),
        "…, staircase=True": schedules.Exponential(1.0, 0.5, every=300, staircase=True),
        "InverseTime": schedules.InverseTime(1.0, 1.0, every=300),
    },
    "cosine decay": {
        "Cosine": schedules.Cosine(1.0, 1500),
        "CosineRestarts": schedules.CosineRestarts(1.0, 300, mult=1.5, decay=0.8),
    },
    "other shapes": {
        "Piecewise": schedules.Piecewise([1.0, 0.3, 0.1], [800, 1500]),
        "Polynomial": schedules.Polynomial(1.0, 0.0, 2000, power=2),
        "Linear": schedules.Linear(1.0, 0.0, 2000),
    },
    "with a warm-up": {
        "Warmup(Cosine)": schedules.Warmup(schedules.Cosine(1.0, 1600, floor=0.1), 200),
        "InverseSqrt": schedules.InverseSqrt(1.0, 200),
    },
    "up and down": {
        "OneCycle": schedules.OneCycle(1.0, 2000),
        "Cyclic": schedules.Cyclic(0.1, 1.0, up=250, mode="triangular2"),
    },
}
STEPS = 2000
for entries in GALLERY.values():
    for schedule in entries.values():
        assert schedules.from_json(schedule.to_json()) == schedule

# %%
# Decay at work
# -------------
# F(θ) = ½‖θ‖² in 50 dimensions with minibatch noise N(0, 1) in each. The step θ ← (1 − η)θ − ηε of a constant rate η
# has the stationary variance η/(2 − η) in each coordinate: F stays at 50 η/(2(2 − η)) in the mean.

LR, DIMENSION, RUNS = 0.1, 50, 64


def loss_under(schedule):
    """F after each step of SGD, the mean of 64 runs."""
    generator = fastnn.Generator(0)
    theta = fastnn.Parameter(np.full((RUNS, DIMENSION), 3.0))
    optimizer = fastnn.SGD([theta], lr=schedule)
    losses = np.empty(STEPS)
    for step in range(STEPS):
        theta.grad[...] = theta.data + generator.normal(theta.data.shape, dtype=np.float64)
        optimizer.step()
        losses[step] = 0.5 * np.mean(np.sum(theta.data**2, axis=1))
    return losses


constant = loss_under(schedules.Constant(LR))
exponential = loss_under(schedules.Exponential(LR, 0.1, every=STEPS / 2))
cosine = loss_under(schedules.Cosine(LR, STEPS))
cloud = 0.5 * DIMENSION * LR / (2 - LR)
assert abs(constant[-1] / cloud - 1) < 0.1
assert max(exponential[-1], cosine[-1]) < cloud / 10

figure, grid = plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
*panels, last = grid.ravel()
for ax, (title, entries) in zip(panels, GALLERY.items()):
    for schedule in entries.values():
        schedules.plot(schedule, STEPS, ax=ax)
    ax.set(title=title, ylabel="learning rate")
    ax.legend(entries)
for losses, label in ((constant, "Constant"), (exponential, "Exponential"), (cosine, "Cosine")):
    last.semilogy(losses, label=label)
last.axhline(cloud, color="k", lw=0.8, ls=":", label="stationary, by theory")
last.set(title="at work: SGD on a noisy quadratic", xlabel="step", ylabel="loss F(θ)")
last.legend()
figure.savefig(Path(*sys.argv[1:]) / "13_schedules.png", dpi=120)
