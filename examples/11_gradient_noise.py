"""The minibatch gradient is noisy: g ~ N(∇F, Σ/B), and one pass of accumulation measures Σ.

Minibatches of B samples, drawn with replacement, miss ∇F by tr Σ/B in the mean square; so do draws from the model
that the accumulator fits. Where B equals the noise scale tr Σ/‖∇F‖², noise and gradient are equally large.
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

DRAWS = 200


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays]).astype(np.float64)


def gradient(model, x, y):
    """The mean gradient over these samples, in one vector and in the parameters."""
    model.zero_grad()
    _, context = F.cross_entropy_forward(model(x), y)
    model.backward(F.cross_entropy_backward(1.0, context))
    return flat([p.grad for p in model.parameters()])


def main(folder):
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    model = fastnn.Sequential(fastnn.Linear(64, 10, rng=0))  # softmax regression
    optimizer = fastnn.SGD(model.parameters(), lr=0.5)
    for _ in range(20):
        gradient(model, x, y)
        optimizer.step()

    accumulator = fastnn.GradientAccumulator(model.parameters(), statistics=True)
    for start in range(0, len(x), 4):
        part = slice(start, start + 4)
        gradient(model, x[part], y[part])
        accumulator.add(len(x[part]))
    accumulator.finish()
    full = flat([p.grad for p in model.parameters()])  # every sample once: the gradient itself

    generator, source = np.random.default_rng(0), fastnn.Generator(0)
    batches = np.array([1, 4, 16, 64, 256])
    measured, sampled = [], []
    for batch in batches:
        drawn = (generator.integers(0, len(x), batch) for _ in range(DRAWS))
        real = np.array([np.sum((gradient(model, x[i], y[i]) - full) ** 2) for i in drawn])
        model_draws = [np.sum((flat(accumulator.sample(source, batch)) - full) ** 2) for _ in range(DRAWS)]
        measured.append(real.mean())
        sampled.append(np.mean(model_draws))
        # The trace is an estimate from 450 microbatches; the mean square has its own standard error.
        slack = 5 * real.std() / np.sqrt(DRAWS) + 0.1 * accumulator.trace_cov / batch
        assert abs(measured[-1] - accumulator.trace_cov / batch) < slack
        assert abs(sampled[-1] * batch / accumulator.trace_cov - 1) < 0.05

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    left.loglog(batches, accumulator.trace_cov / batches, "k-", lw=1, label=r"$\mathrm{tr}\,\Sigma\,/\,B$, accumulated")
    left.loglog(batches, measured, "o", ms=9, mfc="none", label="minibatches")
    left.loglog(batches, sampled, "x", label=r"draws from $N(\hat g, \Sigma/B)$")
    left.axhline(full @ full, color="tab:green", label=r"$\|\nabla F\|^2$")
    left.axvline(accumulator.noise_scale, color="tab:green", ls=":", label=f"noise scale {accumulator.noise_scale:.0f}")
    left.set(xlabel="batch size B", ylabel=r"mean of $\|g - \nabla F\|^2$", title="noise against batch size")
    left.legend(fontsize=8)

    along = full / np.linalg.norm(full)
    real = [gradient(model, x[i], y[i]) @ along for i in generator.integers(0, len(x), (1000, 16))]
    spread = np.std(real)
    right.hist(real, 40, density=True, alpha=0.6, label="minibatches, B = 16")
    line = np.linspace(min(real), max(real), 200)
    normal = np.exp(-((line - full @ along) ** 2) / (2 * spread**2)) / np.sqrt(2 * np.pi) / spread
    right.plot(line, normal, "k-", lw=1, label="normal")
    right.axvline(full @ along, color="tab:green", label=r"$\|\nabla F\|$")
    right.set(xlabel="g along ∇F", title="one coordinate of the minibatch gradient")
    right.legend(fontsize=8)
    assert abs(np.mean(real) - full @ along) < 5 * spread / np.sqrt(len(real))

    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "11_gradient_noise.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures"))
