"""
Xavier: a variance that stays, for tanh
=======================================

Point 8: Xavier's Var W = 2/(n_in + n_out) keeps the variance of activations on the way forward and of gradients on the
way back, for units in their linear part. Smaller weights make both vanish, larger ones saturate the units.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastnn
from fastnn import init

DEPTH, WIDTH, BATCH = 30, 256, 256

# %%
# The two distributions have one variance
# ---------------------------------------
# Normal with σ² = 2/(n_in + n_out), or uniform to ±√(6/(n_in + n_out)): what counts is the variance.

shape = (400, 200)  # (out, in)
variance, bound = 2 / sum(shape), np.sqrt(6 / sum(shape))
normal, uniform = init.xavier_normal(shape, rng=0), init.xavier_uniform(shape, rng=0)
assert np.abs(uniform).max() <= bound * (1 + 1e-6)
for weights, kurtosis in ((normal, 3.0), (uniform, 1.8)):
    # The standard error of a variance from n values is √((κ − 1)/n) of it.
    assert abs(np.var(weights) / variance - 1) < 5 * np.sqrt((kurtosis - 1) / weights.size)

# %%
# Thirty layers
# -------------
# `fastnn.init.audit` runs a network forward and backward and measures the variances layer by layer.


def network(fill):
    generator = fastnn.Generator(0)
    layers = []
    for _ in range(DEPTH):
        linear = fastnn.Linear(WIDTH, WIDTH, bias=False)
        linear.weight.data = fill((WIDTH, WIDTH), rng=generator)
        layers += [linear, fastnn.Tanh()]
    return fastnn.Sequential(*layers)


fills = {
    "Xavier": (init.xavier_normal, "tab:blue"),
    "too small: N(0, 0.01²)": (lambda shape, rng: init.normal(shape, std=0.01, rng=rng), "tab:red"),
    "too large: N(0, 0.2²)": (lambda shape, rng: init.normal(shape, std=0.2, rng=rng), "tab:orange"),
}
x = init.normal((BATCH, WIDTH), std=0.1, rng=1)  # small, so that tanh is nearly linear
reports = {name: init.audit(network(fill), x) for name, (fill, _) in fills.items()}
for name, report in reports.items():
    print(f"{name:24} per layer: forward ×{report.mean_forward_ratio:.3f}, backward ×{report.mean_backward_ratio:.3f}")

xavier, small, large = reports.values()
assert abs(xavier.mean_forward_ratio - 1) < 0.05
assert abs(xavier.mean_backward_ratio - 1) < 0.05
assert small.forward_verdict == small.backward_verdict == "vanishing"
assert large.backward_verdict == "exploding"
assert large.forward[-1] > 0.5  # the units are saturated: most outputs are near ±1

# %%
# The picture
# -----------
# One point for each pair of layers, over the variance where the pass starts (left: at the input, right: at the output,
# so read it from right to left). The histogram shows what arrives at the end.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
layer = np.arange(1, DEPTH + 1)
for (name, (fill, colour)), report in zip(fills.items(), reports.values()):
    left.semilogy(layer, report.forward[1::2] / np.var(x), ".-", color=colour, label=name)
    middle.semilogy(layer, report.backward[::2], ".-", color=colour)
    output = network(fill).eval()(x).ravel()
    right.hist(output, np.linspace(-1, 1, 81), color=colour, alpha=0.6)
left.set(xlabel="layer", ylabel="Var(output) / Var(input)", title="activations, forward →", ylim=(1e-12, 1e8))
left.legend()
middle.set(xlabel="layer", ylabel="Var(gradient) / Var(at the output)", title="gradients, ← backward")
middle.set(ylim=(1e-20, 1e20))
right.set(xlabel=f"tanh units of layer {DEPTH}", ylabel="number", title="what arrives")
right.set(yscale="log", xticks=[-1, -0.5, 0, 0.5, 1])
figure.savefig(Path(*sys.argv[1:]) / "08_xavier.png", dpi=120)
