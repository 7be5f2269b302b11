"""Learning-rate schedules: the ones there are, one composed of others, and one of them at work.

With a constant rate SGD ends in a cloud about the minimum whose size is proportional to the rate: the minibatch
gradients keep their noise. Exponential and cosine decay start as fast and let the cloud shrink.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import fastnn
from fastnn import schedules

STEPS, LR, DIMENSION = 2000, 0.1, 50

GALLERY = [
    [schedules.Exponential(1.0, 0.5, every=300), schedules.Exponential(1.0, 0.5, every=300, staircase=True)],
    [schedules.Cosine(1.0, 1500), schedules.CosineRestarts(1.0, 300, mult=1.5, decay=0.8)],
    [schedules.Warmup(schedules.Cosine(1.0, 1600, floor=0.1), 200), schedules.InverseSqrt(1.0, 200)],
    [schedules.OneCycle(1.0, 2000), schedules.Cyclic(0.1, 1.0, up=250, mode="triangular2")],
    [schedules.Piecewise([1.0, 0.3, 0.1], [800, 1500]), schedules.Polynomial(1.0, 0.0, 2000, power=2)],
]


def name(schedule):
    return type(schedule).__name__


def loss_under(schedule):
    """The mean over 64 runs of ½‖θ‖² after each step of SGD on it, with minibatch noise N(0, I)."""
    generator = fastnn.Generator(0)
    theta = fastnn.Parameter(np.full((64, DIMENSION), 3.0))
    optimizer = fastnn.SGD([theta], lr=schedule)
    losses = np.empty(STEPS)
    for step in range(STEPS):
        theta.grad[...] = theta.data + generator.normal(theta.data.shape, dtype=np.float64)
        optimizer.step()
        losses[step] = 0.5 * np.mean(np.sum(theta.data**2, axis=1))
    return losses


def main(folder):
    figure, grid = plt.subplots(2, 3, figsize=(12, 6.5))
    *axes, last = grid.ravel()
    for ax, pair in zip(axes, GALLERY):
        for schedule in pair:
            schedules.plot(schedule, STEPS, ax=ax)
            assert schedules.from_json(schedule.to_json()) == schedule
        ax.legend([name(schedule) for schedule in pair], fontsize=8)

    final = {}
    for schedule in [
        schedules.Constant(LR),
        schedules.Exponential(LR, 0.1, every=STEPS / 2),
        schedules.Cosine(LR, STEPS),
    ]:
        losses = loss_under(schedule)
        final[name(schedule)] = losses[-1]
        last.semilogy(losses, label=name(schedule))
    # θ ← (1 − η)θ − ηε has the stationary variance η/(2 − η) in each coordinate.
    cloud = 0.5 * DIMENSION * LR / (2 - LR)
    assert abs(final["Constant"] / cloud - 1) < 0.1
    assert final["Exponential"] < cloud / 10
    assert final["Cosine"] < cloud / 10
    last.axhline(cloud, color="k", lw=0.8, ls=":", label="stationary, by theory")
    last.set(title="SGD on a noisy quadratic", xlabel="step", ylabel="loss")
    last.legend(fontsize=8)

    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "13_schedules.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures"))
