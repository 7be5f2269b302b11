"""
Classic against inverted dropout
================================

Points 3 and 4: two places for one factor, so that E[training] = evaluation in both. Classic dropout multiplies by
y ~ Bernoulli(1 − p) in training and by 1 − p in evaluation; inverted dropout multiplies by y/(1 − p) in training and
leaves evaluation alone.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastnn
import fastnn.functional as F

# %%
# One mask
# --------
# Here q are the values of 2000 units, in ascending order. A unit is dropped or kept, and what is kept lies on a line;
# evaluation is the line between.

q, p = np.linspace(0.5, 2, 2000), 0.4
samples, evaluations, factors = {}, {}, {"classic": (1.0, 1 - p), "inverted": (1 / (1 - p), 1.0)}
for mode, (kept_factor, evaluation_factor) in factors.items():
    samples[mode] = F.dropout(q, p, mode=mode, generator=fastnn.Generator(1))
    evaluations[mode] = F.dropout(q, p, training=False, mode=mode)
    kept = samples[mode] != 0
    assert np.allclose(samples[mode][kept], kept_factor * q[kept], rtol=1e-15)
    assert np.allclose(evaluations[mode], evaluation_factor * q, rtol=1e-15)


# %%
# Many masks
# ----------
# The mean of n draws comes as near to evaluation as the mean of n independent numbers with standard deviation σ comes
# to theirs: the distance falls as σ/√n, with no floor below it.


def running_error(mode, draws):
    """Root mean square distance of the mean of n draws from evaluation, for n = 1 … draws, in units of its σ."""
    generator = fastnn.Generator(2).spawn(2)[mode == "inverted"]
    sigma = q * np.sqrt(p * (1 - p)) / (1 - p if mode == "inverted" else 1)
    total, errors = np.zeros_like(q), []
    for n in range(1, draws + 1):
        total += F.dropout(q, p, mode=mode, generator=generator)
        errors.append(np.sqrt(np.mean(((total / n - evaluations[mode]) / sigma) ** 2)))
    return np.array(errors)


n = np.arange(1, 1001)
errors = {mode: running_error(mode, len(n)) for mode in factors}
for error in errors.values():
    # 2000 independent units: their root mean square is within a few per cent of what is expected.
    assert abs(error[-1] * np.sqrt(len(n)) - 1) < 0.1

figure, (*pair, right) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for axes, (mode, (kept_factor, evaluation_factor)), colour in zip(pair, factors.items(), ("tab:blue", "tab:red")):
    sample, kept = samples[mode], samples[mode] != 0
    axes.plot(q[kept], sample[kept], color="0.5", lw=5, label="training, kept")
    axes.plot(q[~kept], sample[~kept], ".", ms=3, color="0.5", label="training, dropped")
    axes.plot(q, evaluations[mode], color=colour, label="evaluation")
    axes.annotate(f"× {kept_factor:.3g}", (1.75, kept_factor * 1.75), (0, 8), textcoords="offset points", ha="right")
    axes.annotate(f"× {evaluation_factor:.3g}", (1.75, evaluation_factor * 1.75), (0, -16), textcoords="offset points")
    axes.set(xlabel="unit q", ylabel="output", title=f"{mode}, p = {p}", ylim=(-0.2, 3.8))
    axes.legend(loc="upper left")
    right.loglog(n, errors[mode], color=colour, label=mode)
right.loglog(n, 1 / np.sqrt(n), "k:", label="1/√n")
right.set(xlabel="masks averaged, n", ylabel="distance from evaluation / σ", title="E[training] = evaluation")
right.legend()
figure.savefig(Path(*sys.argv[1:]) / "03_04_dropout.png", dpi=120)
