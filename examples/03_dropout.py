"""Classic against inverted dropout: two places for one factor, so that E[training] = evaluation in both.

For one layer q of units and many masks, the mean of training tends to what evaluation gives, as 1/√n, in both modes.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import fastnn
import fastnn.functional as F


def running_error(q, p, mode, draws):
    """Root mean square distance of the mean of n draws from evaluation, for n = 1 … draws, in units of its σ."""
    generator = fastnn.Generator(len(mode))  # another stream for each mode
    evaluation = F.dropout(q, p, training=False, mode=mode)
    scale = 1 / (1 - p) if mode == "inverted" else 1
    sigma = scale * np.abs(q) * np.sqrt(p * (1 - p))
    total, errors = np.zeros_like(q), []
    for n in range(1, draws + 1):
        total += F.dropout(q, p, mode=mode, generator=generator)
        errors.append(np.sqrt(np.mean(((total / n - evaluation) / sigma) ** 2)))
    return np.array(errors)


def main(folder):
    q, p, draws = np.linspace(0.5, 2, 2000), 0.4, 1000
    n = np.arange(1, draws + 1)
    figure, (*left, right) = plt.subplots(1, 3, figsize=(12, 4))
    for axes, mode, colour in zip(left, ("classic", "inverted"), ("tab:blue", "tab:red"), strict=True):
        sample = F.dropout(q, p, mode=mode, generator=fastnn.Generator(1))
        axes.plot(q, sample, ".", ms=2, color="grey", label="training, one mask")
        axes.plot(q, F.dropout(q, p, training=False, mode=mode), color=colour, label="evaluation")
        axes.set(xlabel="unit q", ylabel="output", title=f"{mode}, p = {p}", ylim=(-0.2, 3.6))
        axes.legend(loc="upper left")
        errors = running_error(q, p, mode, draws)
        right.loglog(n, errors, color=colour, label=mode)
        # 2000 independent units: the root mean square of their errors is within a few percent of 1/√n.
        assert abs(errors[-1] * np.sqrt(draws) - 1) < 0.1
    right.loglog(n, 1 / np.sqrt(n), "k:", label=r"$1/\sqrt{n}$")
    right.set(xlabel="masks averaged, n", ylabel="distance from evaluation / σ", title="E[training] = evaluation")
    right.legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "03_dropout.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures"))
