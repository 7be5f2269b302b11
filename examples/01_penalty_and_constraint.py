"""Penalty against constraint: ridge regression solved with weight decay λ and inside the ball ‖θ‖² ≤ h.

Each active h has one λ, its Lagrange multiplier: both forms end at the same θ, and ∇F(θ) = −λθ there.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

import fastnn
import fastnn.functional as F

STEPS = 1200


def standardized(features):
    """Real data: a disease's progress against body measurements, all with mean 0 and variance 1."""
    x, y = load_diabetes(return_X_y=True)
    x = x[:, features]
    return (x - x.mean(axis=0)) / x.std(axis=0), ((y - y.mean()) / y.std())[:, None]


def descend(x, y, start=0.0, **options):
    """Gradient descent on the mean squared error; all θ on the way."""
    model = fastnn.Linear(x.shape[1], 1, bias=False, dtype=np.float64, rng=0)
    (theta,) = model.parameters()
    theta.data[...] = start
    optimizer = fastnn.SGD([theta], **{"lr": 0.05, "momentum": 0.9, **options})
    path = [theta.data[0].copy()]
    for _ in range(STEPS):
        fastnn.full_gradient(model, F.mse_loss, (x, y), len(x))
        optimizer.step()
        path.append(theta.data[0].copy())
    return np.array(path)


def ridge(x, y, penalty):
    """The minimum of (1/N)‖xθ − y‖² + (λ/2)‖θ‖² by linear algebra."""
    n, d = x.shape
    return np.linalg.solve(2 / n * x.T @ x + penalty * np.eye(d), 2 / n * x.T @ y)[:, 0]


def multiplier(x, y, theta):
    """The λ with ∇F(θ) = −λθ, and how far ∇F is from that direction."""
    gradient = 2 / len(x) * x.T @ (x @ theta - y[:, 0])
    value = -gradient @ theta / (theta @ theta)
    return value, np.linalg.norm(gradient + value * theta)


def main(folder):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))

    x, y = standardized(slice(None))
    penalties = np.array([0.02, 0.1, 0.5, 2.0, 8.0])
    balls, multipliers = [], []
    for penalty in penalties:
        penalized = descend(x, y, weight_decay=penalty)[-1]
        balls.append(penalized @ penalized)
        constrained = descend(x, y, constraint=fastnn.optim.L2Ball(balls[-1]))[-1]
        value, residual = multiplier(x, y, constrained)
        multipliers.append(value)
        assert np.allclose(penalized, ridge(x, y, penalty), atol=1e-8)
        assert np.allclose(constrained, penalized, atol=1e-6)
        assert residual < 1e-6
    assert np.allclose(multipliers, penalties, rtol=1e-4)
    line = np.geomspace(0.01, 16, 100)
    right.loglog(line, [np.sum(ridge(x, y, penalty) ** 2) for penalty in line], "k-", lw=1, label="linear algebra")
    right.loglog(penalties, balls, "o", ms=9, mfc="none", label=r"$\lambda$ given, $\|\theta\|^2$ found (weight decay)")
    right.loglog(multipliers, balls, "x", ms=6, label=r"$h$ given, $\lambda$ found (projection)")
    right.set(xlabel=r"$\lambda$", ylabel=r"$h = \|\theta\|^2$", title="ten features: each active h has one λ")
    right.legend()

    x, y = standardized([2, 8])
    penalty = 1.0
    h = np.sum(ridge(x, y, penalty) ** 2)
    axis = np.linspace(-0.5, 0.75, 121)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    loss = np.mean((grid @ x.T - y[:, 0]) ** 2, axis=-1)
    left.contour(axis, axis, loss, 25, cmap="Greys", linewidths=0.8)
    left.add_patch(plt.Circle((0, 0), np.sqrt(h), color="tab:orange", alpha=0.2))
    plain = {"start": (-0.35, 0.2), "lr": 0.02, "momentum": 0.0}
    path = descend(x, y, weight_decay=penalty, **plain)
    left.plot(*path.T, ".-", ms=3, lw=0.8, label=rf"penalty $\lambda$ = {penalty:g}")
    path = descend(x, y, constraint=fastnn.optim.L2Ball(h), **plain)
    left.plot(*path.T, ".-", ms=3, lw=0.8, label=rf"constraint $\|\theta\|^2 \leq$ {h:.3f}")
    left.plot(*ridge(x, y, 0.0), "k*", ms=10, label="least squares")
    left.plot(*ridge(x, y, penalty), "ko", mfc="none", ms=10, label="both end here")
    left.set(xlabel=r"$\theta_1$ (body mass)", ylabel=r"$\theta_2$ (serum)", title="two features", aspect="equal")
    left.legend(loc="lower right", fontsize=8)

    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "01_penalty_and_constraint.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures"))
