"""
Kaiming: a variance that stays, for ReLU and its leaky kin
==========================================================

Point 9: a ReLU passes half of the mean square, so Kaiming's Var W = 2/n_in is twice as large as a linear layer needs;
for a leaky ReLU with slope a on the left it is 2/((1 + a²) n_in). With ``mode="fan_out"`` n_out stands in place of
n_in, which keeps the gradients instead of the activations where widths change.
"""

import itertools
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastnn
from fastnn import init


def network(widths, fill, slope=0.0, seed=0):
    generator = fastnn.Generator(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = fastnn.Linear(inputs, outputs, bias=False)
        linear.weight.data = fill((outputs, inputs), rng=generator)
        layers += [linear, fastnn.LeakyReLU(slope)]
    return fastnn.Sequential(*layers)


# %%
# Thirty equal layers: the slope counts
# -------------------------------------
# For each slope the variance per layer is measured with the factor that was derived for it and with ReLU's. ReLU's
# lets it grow by (1 + a²) a layer, forward and backward.

widths, slopes = [256] * 31, np.array([0.0, 0.1, 0.3, 0.6, 1.0])
x = init.normal((256, widths[0]), rng=1)
own, relus = [], []
for slope in slopes:
    own.append(init.audit(network(widths, lambda s, rng, a=slope: init.kaiming_normal(s, a, rng=rng), slope), x))
    relus.append(init.audit(network(widths, init.kaiming_normal, slope), x))
ratios = {
    "own factor, forward": [report.mean_forward_ratio for report in own],
    "own factor, backward": [report.mean_backward_ratio for report in own],
    "ReLU's factor, forward": [report.mean_forward_ratio for report in relus],
    "ReLU's factor, backward": [report.mean_backward_ratio for report in relus],
}
for name, values in ratios.items():
    expected = 1.0 if name.startswith("own") else 1 + slopes**2
    assert np.abs(np.array(values) / expected - 1).max() < 0.05

# %%
# A network that tapers: fan_in or fan_out
# ----------------------------------------
# From 1024 units to 172, each layer r = 0.8 times as wide as the one before. With fan_in the activations keep their
# variance and the gradients lose a factor of r per layer; with fan_out the gradients keep theirs and the activations
# grow by 1/r. Xavier's mean of both fans, with ReLU's gain of √2, lies between. The derivation is about the mean over
# all networks; one of them is off by a relative variance of about 5/n per layer of n units, so we take forty.

r, NETWORKS = 0.8, 40
widths = np.rint(1024 * r ** np.arange(9)).astype(int).tolist()
x = init.normal((32, widths[0]), rng=100)
taper = {
    "fan_in": (lambda shape, rng: init.kaiming_normal(shape, mode="fan_in", rng=rng), 1, r),
    "fan_out": (lambda shape, rng: init.kaiming_normal(shape, mode="fan_out", rng=rng), 1 / r, 1),
    "Xavier": (lambda shape, rng: init.xavier_normal(shape, np.sqrt(2), rng=rng), 2 / (1 + r), 2 * r / (1 + r)),
}
layer = np.arange(1, len(widths))
spread = np.sqrt(np.sum(5 / np.array(widths[1:])) / NETWORKS)
measured, derived = {}, {}
for name, (fill, forward, backward) in taper.items():
    reports = [init.audit(network(widths, fill, seed=seed), x) for seed in range(NETWORKS)]
    a, b = (np.mean([getattr(r, way)[::2] for r in reports], axis=0) for way in ("forward", "backward"))
    measured[name] = a, b
    derived[name] = a[0] * forward ** (layer - 1.0), b[-1] * backward ** (layer[-1] - 1.0 * layer)
    for variance, expected in zip(measured[name], derived[name]):
        assert np.abs(variance / expected - 1).max() < 4 * spread

# %%
# Left, what is measured per layer in the equal layers; middle and right, the tapering network, measured (dots) and
# derived (lines).

figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
for name, values in ratios.items():
    colour = "tab:blue" if name.startswith("own") else "tab:orange"
    axes[0].plot(slopes, values, "o" if name.endswith("forward") else "x", ms=8, mfc="none", color=colour, label=name)
slope = np.linspace(0, 1, 50)
axes[0].plot(slope, 1 + slope**2, "k:", lw=1, label="1 + a²")
axes[0].axhline(1, color="k", lw=0.7)
axes[0].set(xlabel="slope a of the leaky ReLU", ylabel="variance ratio per layer", title="30 layers of 256")
axes[0].legend(fontsize=9)
for name in taper:
    for ax, variance, expected in zip(axes[1:], measured[name], derived[name]):
        (line,) = ax.semilogy(layer, expected, label=name)
        ax.semilogy(layer, variance, "o", color=line.get_color())
axes[1].set(xlabel="layer", ylabel="variance of its output", title="1024 → 172 units: activations, forward →")
axes[2].set(xlabel="layer", ylabel="variance at its input", title="1024 → 172 units: gradients, ← backward")
axes[1].legend()
figure.savefig(Path(*sys.argv[1:]) / "09_kaiming.png", dpi=120)
