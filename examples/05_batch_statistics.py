"""
Batch norm at test time: saved statistics
=========================================

Point 5: training normalises with each batch's own mean and variance, evaluation with saved ones. Running averages are
noisy where the momentum is large and late where it is small; `fastnn.recalibrate` computes the statistics of the whole
training set by one pass over it, exactly and whatever the split into batches.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastnn
import fastnn.functional as F

digits, classes = load_digits(return_X_y=True)
x, x_test, y, y_test = train_test_split(
    (digits / 16).astype(np.float32), classes, test_size=0.25, stratify=classes, random_state=0
)
BATCH, STEPS, EVERY = 32, 200, 4
MOMENTA = {0.5: "tab:red", 0.1: "tab:orange", 0.01: "tab:blue"}


def network(momentum):
    norm = fastnn.BatchNorm(64, momentum=momentum)
    return fastnn.Sequential(fastnn.Linear(64, 64, rng=1), norm, fastnn.ReLU(), fastnn.Linear(64, 10, rng=2))


# %%
# The true statistics, and a network that has them
# ------------------------------------------------


def true_statistics(model):
    """Mean and unbiased variance of what the batch norm gets, over all of x, in float64."""
    linear = model[0]
    z = x.astype(np.float64) @ linear.weight.data.T.astype(np.float64) + linear.bias.data
    return z.mean(0), z.var(0, ddof=1)


def recalibrated(model, sizes):
    """A copy of the network with exact statistics, from batches of these sizes."""
    twin = network(0.1)
    twin.load_state_dict(model.state_dict())
    fastnn.recalibrate(twin, np.split(x, np.cumsum(sizes)[:-1]))
    return twin


def error_of_means(model):
    """How far saved means are from the true ones, in standard deviations: root mean square over the channels."""
    mean, var = true_statistics(model)
    return np.sqrt(np.mean((model[1].running_mean - mean) ** 2 / var))


def held_out_loss(model):
    return fastnn.train.evaluate(model, F.cross_entropy, (x_test, y_test)).loss


# %%
# Training
# --------
# Three times the same, with another momentum of the running averages: they play no part in training, so the weights
# are the same to the last bit.


def train(momentum):
    """The trained network; error and held-out loss with running averages and with exact statistics on the way."""
    model, generator = network(momentum), fastnn.Generator(0)
    optimizer = fastnn.SGD(model.parameters(), lr=0.3)
    course = []
    for step in range(1, STEPS + 1):
        chosen = generator.permutation(len(x))[:BATCH]
        model.zero_grad()
        _, context = F.cross_entropy_forward(model(x[chosen]), y[chosen])
        model.backward(F.cross_entropy_backward(1.0, context))
        optimizer.step()
        if step % EVERY == 0:
            exact = recalibrated(model, [500, 500, len(x) - 1000])
            course.append([f(m) for f in (error_of_means, held_out_loss) for m in (model, exact)])
    return model, np.transpose(course)


runs = {momentum: train(momentum) for momentum in MOMENTA}
first, *others = (model.state_dict() for model, _ in runs.values())
for name in ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"):
    assert all(np.array_equal(first[name], other[name]) for other in others)

# %%
# What the saved statistics are worth
# -----------------------------------
# Recalibration is exact up to float32's rounding of the units (sums of 64 products), whatever the split. The noise of
# a running average of batch means, √(m/(2 − m)/B), is most of the error where the momentum m is large.

model, (running, exact, running_loss, exact_loss) = runs[0.1]
mean, var = true_statistics(model)
for sizes in ([len(x)], [1000, len(x) - 1000], [100] * 13 + [len(x) - 1300]):
    norm = recalibrated(model, sizes)[1]
    assert np.abs((norm.running_mean - mean) / np.sqrt(var)).max() < 2e-6
    assert np.abs(norm.running_var / var - 1).max() < 2e-6
assert exact.max() < 1e-6
assert exact_loss.mean() < running_loss.mean()
noise = np.sqrt(0.5 / 1.5 / BATCH)
assert 0.8 < runs[0.5][1][0, -12:].mean() / noise < 1.5

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
steps = np.arange(EVERY, STEPS + 1, EVERY)
for momentum, colour in MOMENTA.items():
    _, (error, _, loss, _) = runs[momentum]
    left.semilogy(steps, error, color=colour, label=f"running, momentum {momentum}")
    middle.semilogy(steps, loss, color=colour)
left.axhline(noise, color="tab:red", ls=":", lw=1, label="noise at momentum 0.5, by theory")
left.semilogy(steps, exact, color="tab:green", label="recalibrated")
middle.semilogy(steps, exact_loss, color="tab:green")
right.plot(var, model[1].running_var, ".", color=MOMENTA[0.1], label="running, momentum 0.1")
right.plot(var, norm.running_var, "x", color="tab:green", label="recalibrated")
right.axline((var.min(), var.min()), slope=1, color="k", lw=0.7, zorder=0)
left.set(xlabel="step", ylabel="error of the saved means / σ", title="running averages: noisy or late")
left.legend(fontsize=8, loc="center right")
middle.set(xlabel="step", ylabel="loss on held-out digits", title="what it costs")
right.set(xlabel="variance over the training set", ylabel="saved variance", title="64 units after training")
right.legend(fontsize=8)
figure.savefig(Path(*sys.argv[1:]) / "05_batch_statistics.png", dpi=120)
