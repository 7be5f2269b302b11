"""Gradient descent against SGD: the loss on the training set at several batch sizes, and the noise scale beside it.

The full gradient is the mean over all samples, whatever the split into minibatches. A step with a minibatch costs a
fraction of it and, as long as the batch is not small against the noise scale tr Σ/‖∇F‖², helps nearly as much.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fastnn
import fastnn.functional as F

STEPS, EVERY, LR = 240, 20, 0.2


def network():
    return fastnn.Sequential(fastnn.Linear(64, 32, rng=1), fastnn.ReLU(), fastnn.Linear(32, 10, rng=2))


def training_loss(model, x, y):
    model.eval()
    loss = F.cross_entropy(model(x), y)
    model.train()
    return float(loss)


def noise_scale(model, x, y, size=64):
    """tr Σ / ‖∇F‖² from one pass in microbatches; the pass holds every sample, so its mean is ∇F itself."""
    accumulator = fastnn.GradientAccumulator(model.parameters(), statistics=True)
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        gradient_of(model, x[part], y[part])
        accumulator.add(len(x[part]))
    accumulator.finish()
    return accumulator.trace_cov / sum(np.sum(p.grad**2) for p in model.parameters())


def gradient_of(model, x, y):
    """Puts the mean gradient over these samples into the parameters."""
    model.zero_grad()
    _, context = F.cross_entropy_forward(model(x), y)
    model.backward(F.cross_entropy_backward(1.0, context))


def train(x, y, batch):
    """Steps of SGD with this batch size; training loss and noise scale on the way."""
    model, generator = network(), fastnn.Generator(0)
    optimizer = fastnn.SGD(model.parameters(), lr=LR)
    losses, noise, order = [], [], np.empty(0, np.int64)
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            losses.append(training_loss(model, x, y))
            noise.append(noise_scale(model, x, y))
        if len(order) < batch:
            order = generator.permutation(len(x))
        chosen, order = order[:batch], order[batch:]
        gradient_of(model, x[chosen], y[chosen])
        optimizer.step()
    return np.array(losses), np.array(noise)


def check_splits(x, y):
    """∇F is the same for every split, ragged ones included: up to the rounding of float32 sums of N terms."""
    model = network()
    rounding = np.sqrt(len(x)) * 2.0**-24
    whole = [g.copy() for g in fastnn.full_gradient(model, F.cross_entropy, (x, y), len(x))]
    for size in (50, 100, 1000):
        split = fastnn.full_gradient(model, F.cross_entropy, (x, y), size)
        for a, b in zip(whole, split, strict=True):
            assert np.allclose(a, b, rtol=0, atol=rounding * np.abs(a).max())


def main(folder):
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    check_splits(x, y)
    steps = np.arange(0, STEPS + 1, EVERY)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2))
    final = {}
    for batch in (len(x), 256, 32, 4):
        losses, noise = train(x, y, batch)
        final[batch] = losses[-3:].mean()
        name = f"gradient descent (B = N = {batch})" if batch == len(x) else f"SGD, B = {batch}"
        style = {"color": "k", "lw": 2} if batch == len(x) else {}
        left.semilogy(steps, losses, label=name, **style)
        middle.loglog(np.maximum(steps, 1) * batch, losses, **style)
        right.semilogy(steps, noise, **style)
    for axes, xlabel, ylabel in (
        (left, "steps", "loss on the training set"),
        (middle, "samples seen", "loss on the training set"),
        (right, "steps", r"noise scale  $\mathrm{tr}\,\Sigma\,/\,\|\nabla F\|^2$"),
    ):
        axes.set(xlabel=xlabel, ylabel=ylabel)
    left.legend(fontsize=8)
    # A quarter of the samples lose little per step; with four of them the noise dominates.
    assert abs(final[256] / final[len(x)] - 1) < 0.1
    assert final[4] > 1.2 * final[len(x)]
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "10_gradient_descent_and_sgd.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures"))
