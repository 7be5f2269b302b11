"""
Penalty against constraint
==========================

Point 2: instead of paying for ‖θ‖², forbid it: minimise F(θ) subject to ‖θ‖² ≤ h. After each step, SGD with
``constraint=L2Ball(h)`` projects θ on the ball. In a convex problem each active h has one λ, its Lagrange multiplier:
both forms end at the same θ, and ∇F(θ) = −λθ there.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

import fastnn
import fastnn.functional as F


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
    for _ in range(1200):
        fastnn.full_gradient(model, F.mse_loss, (x, y), len(x))
        optimizer.step()
        path.append(theta.data[0].copy())
    return np.array(path)


def ridge(x, y, penalty):
    """The minimum of (1/N)‖xθ − y‖² + (λ/2)‖θ‖² by linear algebra."""
    n, d = x.shape
    return np.linalg.solve(2 / n * x.T @ x + penalty * np.eye(d), 2 / n * x.T @ y)[:, 0]


# %%
# Each h has one λ
# ----------------
# For five λ: train with the penalty, take h = ‖θ‖² from where that ends, train with the constraint, and read the
# multiplier from the gradient there. It is λ again.

x, y = standardized(slice(None))
penalties = np.array([0.02, 0.1, 0.5, 2.0, 8.0])
balls, multipliers = [], []
for penalty in penalties:
    penalized = descend(x, y, weight_decay=penalty)[-1]
    balls.append(penalized @ penalized)
    constrained = descend(x, y, constraint=fastnn.optim.L2Ball(balls[-1]))[-1]
    assert np.allclose(constrained, penalized, rtol=0, atol=1e-6)
    gradient = 2 / len(x) * x.T @ (x @ constrained - y[:, 0])
    multipliers.append(-gradient @ constrained / (constrained @ constrained))
    assert np.linalg.norm(gradient + multipliers[-1] * constrained) < 1e-6  # ∇F is parallel to θ
assert np.allclose(multipliers, penalties, rtol=1e-4)
line = np.geomspace(0.01, 16, 100)
curve = [np.sum(ridge(x, y, penalty) ** 2) for penalty in line]

# %%
# Two ways to one point
# ---------------------
# With two features the paths can be seen. The penalty bends the way from the start; the constraint does nothing inside
# the ball and then slides along its surface.

x, y = standardized([2, 8])
penalty = 1.0
h = np.sum(ridge(x, y, penalty) ** 2)
plain = {"start": (-0.35, 0.2), "lr": 0.02, "momentum": 0.0}
paths = {
    f"penalty λ = {penalty:g}": descend(x, y, weight_decay=penalty, **plain),
    f"constraint ‖θ‖² ≤ {h:.3f}": descend(x, y, constraint=fastnn.optim.L2Ball(h), **plain),
}
for path in paths.values():
    assert np.allclose(path[-1], ridge(x, y, penalty), rtol=0, atol=1e-6)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
first, second = np.linspace(-0.5, 1.0, 151), np.linspace(-0.5, 0.75, 126)
grid = np.stack(np.meshgrid(first, second), axis=-1)
loss = np.mean((grid @ x.T - y[:, 0]) ** 2, axis=-1)
levels = loss.min() + np.linspace(0.03, 1.4, 22) ** 2
left.contour(first, second, loss, levels, colors="0.75", linewidths=0.8)
left.add_patch(plt.Circle((0, 0), np.sqrt(h), color="tab:orange", alpha=0.2))
for name, path in paths.items():
    left.plot(*path.T, ".-", ms=3, lw=0.8, label=name)
left.plot(*ridge(x, y, 0.0), "k*", ms=10, label="least squares")
left.plot(*ridge(x, y, penalty), "ko", mfc="none", ms=10, label="both end here")
left.set(xlabel="θ₁ (body mass)", ylabel="θ₂ (a blood value)", title="two features", aspect="equal")
left.legend(loc="lower right", fontsize=8)
right.loglog(line, curve, "k-", lw=1, label="linear algebra")
right.loglog(penalties, balls, "o", ms=9, mfc="none", label="λ given, ‖θ‖² found (weight decay)")
right.loglog(multipliers, balls, "x", ms=6, label="h given, λ found (projection)")
right.set(xlabel="λ", ylabel="h = ‖θ‖²", title="ten features: each active h has one λ")
right.legend()
figure.savefig(Path(*sys.argv[1:]) / "02_constraint.png", dpi=120)
