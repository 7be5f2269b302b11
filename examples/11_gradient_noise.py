"""
The minibatch gradient is noisy
===============================

Point 11: g ≈ N(∇F, Σ/B) for a minibatch of B samples. One pass of accumulation measures Σ beside ∇F, and from both
follows the noise scale tr Σ/‖∇F‖²: the batch size at which noise and gradient are equally large.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fastnn
import fastnn.functional as F

x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32)
model = fastnn.Sequential(fastnn.Linear(64, 10, rng=0))  # softmax regression


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays]).astype(np.float64)


def gradient(samples):
    """The mean gradient over these samples, in one vector and in the parameters."""
    model.zero_grad()
    _, context = F.cross_entropy_forward(model(x[samples]), y[samples])
    model.backward(F.cross_entropy_backward(1.0, context))
    return flat([p.grad for p in model.parameters()])


# %%
# One pass measures it
# --------------------
# After some steps of gradient descent, a pass in microbatches of four. It holds every sample once, so its mean is ∇F
# itself, and the spread of the microbatches estimates tr Σ.

optimizer = fastnn.SGD(model.parameters(), lr=0.5)
for _ in range(20):
    gradient(slice(None))
    optimizer.step()

accumulator = fastnn.GradientAccumulator(model.parameters(), statistics=True)
for start in range(0, len(x), 4):
    part = slice(start, min(start + 4, len(x)))
    gradient(part)
    accumulator.add(part.stop - part.start)
accumulator.finish()
full = flat([p.grad for p in model.parameters()])
print(f"tr Σ = {accumulator.trace_cov:.3f}, ‖∇F‖² = {full @ full:.4f}, noise scale {accumulator.noise_scale:.0f}")

# %%
# The spread of real minibatches, and of drawn ones
# -------------------------------------------------
# Minibatches of B samples, drawn with replacement, miss ∇F by tr Σ/B in the mean square; so do draws
# g = ĝ + √(Σ/B) ε with ε ~ N(0, 1), which `GradientAccumulator.sample` makes.

DRAWS = 200
rng, source = np.random.default_rng(0), fastnn.Generator(0)
batches = np.array([1, 4, 16, 64, 256, 1024])
measured, drawn = [], []
for batch in batches:
    real = [np.sum((gradient(rng.integers(0, len(x), batch)) - full) ** 2) for _ in range(DRAWS)]
    made = [np.sum((flat(accumulator.sample(source, batch)) - full) ** 2) for _ in range(DRAWS)]
    measured.append(np.mean(real))
    drawn.append(np.mean(made))
    expected = accumulator.trace_cov / batch
    # The trace is an estimate from 450 microbatches, good to some per cent; the mean square has its own standard error.
    assert abs(measured[-1] - expected) < 5 * np.std(real) / np.sqrt(DRAWS) + 0.1 * expected
    assert abs(drawn[-1] / expected - 1) < 0.05

# %%
# Each coordinate is nearly normal
# --------------------------------
# The accumulator keeps the variance of each coordinate, too. Here is the weight with the largest: the means of more and
# more samples gather about ∇F and become normal, as the central limit theorem says.

variance = flat(accumulator.variance)
j = variance[: model[0].weight.data.size].argmax()
sizes = {4: "tab:orange", 16: "tab:red", 64: "tab:blue"}
coordinate = {b: np.array([gradient(rng.integers(0, len(x), b))[j] for _ in range(2000)]) for b in sizes}
for batch, g in coordinate.items():
    assert abs(g.mean() - full[j]) < 5 * g.std() / np.sqrt(len(g))  # without bias
    assert abs(g.var() * batch / variance[j] - 1) < 0.25

figure, grid = plt.subplot_mosaic("ab;ac;ad", figsize=(12, 5), layout="constrained")
left, *right = grid.values()
right[0].sharex(right[2])
right[1].sharex(right[2])
left.loglog(batches, accumulator.trace_cov / batches, "k-", lw=1, label="tr Σ / B, from one pass")
left.loglog(batches, measured, "o", ms=9, mfc="none", label="real minibatches")
left.loglog(batches, drawn, "x", label="draws from N(ĝ, Σ/B)")
left.axhline(full @ full, color="tab:green", label="‖∇F‖²")
left.axvline(accumulator.noise_scale, color="tab:green", ls=":", label=f"noise scale {accumulator.noise_scale:.0f}")
left.set(xlabel="batch size B", ylabel="mean of ‖g − ∇F‖²", title="noise against batch size")
left.legend(fontsize=9)
for axes, (batch, colour), g in zip(right, sizes.items(), coordinate.values()):
    sigma = np.sqrt(variance[j] / batch)
    line = full[j] + sigma * np.linspace(-4, 4, 200)
    normal = np.exp(-0.5 * ((line - full[j]) / sigma) ** 2) / np.sqrt(2 * np.pi) / sigma
    axes.hist(g, 40, density=True, color=colour, alpha=0.5, label=f"minibatches, B = {batch}")
    axes.plot(line, normal, color=colour, label="N(∇F, σ²/B)")
    axes.axvline(full[j], color="k", ls=":", lw=1, label="∇F")
    axes.set(yticks=[], xlim=(-0.5, 0.4))
    axes.legend(fontsize=9, loc="upper left")
right[0].set(title="one coordinate of g: towards the normal distribution")
figure.savefig(Path(*sys.argv[1:]) / "11_gradient_noise.png", dpi=120)
