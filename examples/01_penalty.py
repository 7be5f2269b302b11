"""
Weight decay is a penalty
=========================

Point 1: SGD with ``weight_decay=λ`` descends F(θ) + (λ/2)‖θ‖², whose gradient adds λθ to ∇F(θ). With a mean squared
error that is ridge regression, so linear algebra knows the answer: here for a disease's progress in a year, against
ten measurements of 442 people.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

import fastnn
import fastnn.functional as F

data = load_diabetes()
x = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
y = ((data.target - data.target.mean()) / data.target.std())[:, None]


# %%
# Gradient descent with a penalty
# -------------------------------
# The objective that is descended is the loss plus `fastnn.optim.l2_penalty`.


def descend(penalty, steps=1200, momentum=0.9):
    """θ at the end, and the loss and the penalty before each step."""
    model = fastnn.Linear(10, 1, bias=False, dtype=np.float64, rng=0)
    optimizer = fastnn.SGD(model.parameters(), lr=0.05, momentum=momentum, weight_decay=penalty)
    course = []
    for _ in range(steps):
        course.append((F.mse_loss(model(x), y), fastnn.optim.l2_penalty(model.parameters(), penalty)))
        fastnn.full_gradient(model, F.mse_loss, (x, y), len(x))
        optimizer.step()
    return model.weight.data[0].copy(), np.array(course)


def ridge(penalty):
    """The minimum of (1/N)‖xθ − y‖² + (λ/2)‖θ‖² by linear algebra."""
    return np.linalg.solve(2 / len(x) * x.T @ x + penalty * np.eye(10), 2 / len(x) * x.T @ y)[:, 0]


# %%
# It ends where linear algebra says
# ---------------------------------

penalties = np.geomspace(0.02, 20, 10)
found = np.array([descend(penalty)[0] for penalty in penalties])
assert np.abs(found - [ridge(penalty) for penalty in penalties]).max() < 1e-8

example = 0.5
_, course = descend(example, steps=80, momentum=0.0)
minimum = np.mean((x @ ridge(example) - y[:, 0]) ** 2) + example / 2 * np.sum(ridge(example) ** 2)
assert course.sum(axis=1).min() >= minimum
assert course[-1].sum() < minimum * (1 + 1e-3)

# %%
# Left, the objective and its two parts; right, what a larger λ does to the ten weights: together they shrink, and blood
# values that say nearly the same (s1 to s5) share out what least squares plays off between them.

assert (np.diff(np.sum(found**2, axis=1)) < 0).all()

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
left.plot(course.sum(axis=1), "k", label="objective")
left.plot(course[:, 0], label="loss F(θ)")
left.plot(course[:, 1], label="penalty (λ/2)‖θ‖²")
left.axhline(minimum, color="k", ls=":", lw=1, label="minimum, by linear algebra")
left.set(xlabel="step", title=f"gradient descent, λ = {example}", ylim=0)
left.legend()

line = np.geomspace(0.01, 20, 200)
curves = right.semilogx(line, [ridge(penalty) for penalty in line])
for curve, name, values in zip(curves, data.feature_names, found.T):
    curve.set_label(name)
    right.semilogx(penalties, values, "o", ms=4, color=curve.get_color())
right.axhline(0, color="k", lw=0.5)
right.set(xlabel="λ", ylabel="weight", title="weights: SGD (dots), linear algebra (lines)")
right.legend(ncols=2, fontsize=8)
figure.savefig(Path(*sys.argv[1:]) / "01_penalty.png", dpi=120)
