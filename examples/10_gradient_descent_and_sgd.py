"""
Gradient descent and SGD
========================

Point 10: F is a mean over N samples. Gradient descent steps along the full gradient ∇F, which minibatches accumulate
exactly, whatever the split; SGD steps along the mean over one minibatch, for a fraction of the cost.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

import fastnn
import fastnn.functional as F

# %%
# The full gradient, from any split
# ---------------------------------
# `fastnn.GradientAccumulator` weights each minibatch by its samples. The plain mean of the minibatches' gradients is
# wrong as soon as one of them is smaller than the others, as the last one of a pass mostly is.

x, y = load_diabetes(return_X_y=True)
x = (x / x.std(axis=0)).astype(np.float32)
y = ((y - y.mean()) / y.std()).astype(np.float32)[:, None]
N = len(x)
model = fastnn.Linear(10, 1, bias=False, rng=0)
theta = model.weight


def gradient(samples):
    """The mean gradient over these samples, left in the parameter too."""
    model.zero_grad()
    _, context = F.mse_loss_forward(model(x[samples]), y[samples])
    model.backward(F.mse_loss_backward(1.0, context))
    return theta.grad.copy()


residual = x.astype(np.float64) @ theta.data[0].astype(np.float64) - y[:, 0]
exact = 2 / N * residual @ x  # float64
sizes = np.array([1, 2, 5, 13, 17, 34, 50, 100, 150, 221, 300, 442])
weighted, plain = [], []
for size in sizes:
    accumulator = fastnn.GradientAccumulator([theta])
    parts = [slice(start, min(start + size, N)) for start in range(0, N, size)]
    gradients = []
    for part in parts:
        gradients.append(gradient(part))
        accumulator.add(part.stop - part.start)
    accumulator.finish()
    weighted.append(np.linalg.norm(theta.grad[0] - exact) / np.linalg.norm(exact))
    plain.append(np.linalg.norm(np.mean(gradients, axis=0)[0] - exact) / np.linalg.norm(exact))
divides = N % sizes == 0
# What is left is the rounding of float32 inside one minibatch: a few units of each of at most N terms.
assert max(weighted) < np.sqrt(N) * 2.0**-24
assert min(np.array(plain)[~divides]) > 1e-3

# %%
# The way down
# ------------
# Two weights (body mass and a blood value), so that the ways can be seen: gradient descent's is smooth, those of SGD
# wander about it, the more the smaller the minibatch. All see the same number of *steps*; SGD with B = 4 has then
# looked at 4/442 as many samples.


def way(batch, steps=60, lr=0.1):
    """θ before each step, and the number of samples seen."""
    model = fastnn.Linear(2, 1, bias=False, rng=0)
    model.weight.data[...] = -0.3, 0.15
    optimizer = fastnn.SGD(model.parameters(), lr=lr)
    path, order, generator = [model.weight.data[0].copy()], np.empty(0, int), fastnn.Generator(1)
    for _ in range(steps):
        if len(order) < batch:
            order = generator.permutation(N)
        chosen, order = order[:batch], order[batch:]
        fastnn.full_gradient(model, F.mse_loss, (x[chosen][:, [2, 8]], y[chosen]), batch)
        optimizer.step()
        path.append(model.weight.data[0].copy())
    return np.array(path)


def loss(theta):
    return np.mean((theta @ x[:, [2, 8]].T - y[:, 0]) ** 2, axis=-1)


best = np.linalg.lstsq(x[:, [2, 8]], y[:, 0])[0]
ways = {N: way(N), 64: way(64), 4: way(4)}
excess = {batch: loss(path) - loss(best) for batch, path in ways.items()}
assert (np.diff(loss(ways[N])) < 1e-6).all()  # gradient descent goes down at every step, up to rounding
assert (np.diff(loss(ways[4])) > 0.01).any()  # SGD does not
assert excess[N][-1] < 1e-6 < excess[64][-20:].mean() < excess[4][-20:].mean()

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
left.loglog(sizes, plain, "s", mfc="none", color="tab:red", label="plain mean of the minibatches' gradients")
left.loglog(sizes, weighted, "o", color="tab:green", label="weighted by their samples: accumulated")
left.set(xlabel=f"size of the minibatches (N = {N})", ylabel="relative error of ∇F", title="one pass, float32")
left.legend(loc="center left")
first, second = np.linspace(-0.4, 0.85, 120), np.linspace(-0.1, 0.85, 100)
grid = np.stack(np.meshgrid(first, second), axis=-1)
levels = loss(best) + np.linspace(0.02, 1.2, 20) ** 2
middle.contour(first, second, loss(grid), levels, colors="0.8", linewidths=0.8)
for (batch, path), style in zip(reversed(ways.items()), ("tab:orange", "tab:blue", "k")):
    name = "gradient descent (B = N)" if batch == N else f"SGD, B = {batch}"
    middle.plot(*path.T, ".-", color=style, ms=3, lw=0.8, label=name)
    right.semilogy(np.arange(len(path)) * batch / N, excess[batch], color=style, label=name)
middle.plot(*best, "*", color="tab:green", ms=12, zorder=5, label="least squares")
middle.set(xlabel="θ₁ (body mass)", ylabel="θ₂ (a blood value)", title="sixty steps, two weights", aspect="equal")
middle.legend(loc="lower right", fontsize=8)
right.set(xlabel="passes over the data", ylabel="F(θ) − minimum", title="the same, against the cost", ylim=(1e-7, 2))
right.set_xscale("symlog", linthresh=0.01)
right.set_xlim(0, 60)
right.legend(fontsize=8)
figure.savefig(Path(*sys.argv[1:]) / "10_gradient_descent_and_sgd.png", dpi=120)
