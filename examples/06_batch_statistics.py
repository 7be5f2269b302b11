"""Batch statistics at test time: running averages against the exact statistics of the training set.

Training normalises with each batch's own statistics, evaluation with saved ones. Running averages are noisy where the
momentum is large and late where it is small; `fastnn.recalibrate` computes the mean and variance of the whole training
set by one pass over it, exactly and whatever the split into batches. Training itself never looks at the saved ones.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastnn
import fastnn.functional as F

BATCH, STEPS, EVERY, LR = 32, 200, 4, 0.3
MOMENTA = {0.5: "tab:red", 0.1: "tab:orange", 0.01: "tab:blue"}
LINEAR, NORM = 0, 1  # places in the network


def data():
    """Training and held-out parts of the digits."""
    x, y = load_digits(return_X_y=True)
    return train_test_split((x / 16).astype(np.float32), y, test_size=0.25, stratify=y, random_state=0)


def network(momentum):
    return fastnn.Sequential(
        fastnn.Linear(64, 64, rng=1),
        fastnn.BatchNorm(64, momentum=momentum),
        fastnn.ReLU(),
        fastnn.Linear(64, 10, rng=2),
    )


def exact_statistics(model, x):
    """Mean and unbiased variance of what the batch norm gets, over all of x, in float64."""
    linear = model[LINEAR]
    z = x.astype(np.float64) @ linear.weight.data.T.astype(np.float64) + linear.bias.data
    return z.mean(0), z.var(0, ddof=1)


def distance(norm, mean, var):
    """How far saved means are from the true ones, in standard deviations: root mean square over the channels."""
    return np.sqrt(np.mean((norm.running_mean - mean) ** 2 / var))


def held_out_loss(model, x, y):
    model.eval()
    loss = F.cross_entropy(model(x), y)
    model.train()
    return float(loss)


def recalibrated(model, x, sizes):
    """A copy of the network with exact statistics, from batches of these sizes."""
    twin = network(0.1)
    twin.load_state_dict(model.state_dict())
    fastnn.recalibrate(twin, np.split(x, np.cumsum(sizes)[:-1]))
    return twin


def train(momentum, x, y, x_test, y_test):
    """The trained network; distance and held-out loss of running averages and of exact statistics on the way."""
    model, generator = network(momentum), fastnn.Generator(0)
    optimizer = fastnn.SGD(model.parameters(), lr=LR)
    course = []
    for step in range(1, STEPS + 1):
        chosen = generator.permutation(len(x))[:BATCH]
        model.zero_grad()
        _, context = F.cross_entropy_forward(model(x[chosen]), y[chosen])
        model.backward(F.cross_entropy_backward(1.0, context))
        optimizer.step()
        if step % EVERY:
            continue
        statistics, exact = exact_statistics(model, x), recalibrated(model, x, [500, 500, len(x) - 1000])
        course.append(
            [distance(m[NORM], *statistics) for m in (model, exact)]
            + [held_out_loss(m, x_test, y_test) for m in (model, exact)]
        )
    return model, np.transpose(course)


def check_exact(model, x):
    """Whatever the split: the float64 statistics of the whole set, up to float32's rounding of the units."""
    mean, var = exact_statistics(model, x)
    for sizes in ([len(x)], [1000, len(x) - 1000], [100] * 13 + [len(x) - 1300]):
        norm = recalibrated(model, x, sizes)[NORM]
        # The linear layer sums 64 products in float32; its error is a few units of the largest partial sum.
        assert np.abs((norm.running_mean - mean) / np.sqrt(var)).max() < 2e-6
        assert np.abs(norm.running_var / var - 1).max() < 2e-6


def main(folder):
    x, x_test, y, y_test = data()
    steps = np.arange(EVERY, STEPS + 1, EVERY)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.6))
    weights, late = [], {}
    for momentum, colour in MOMENTA.items():
        model, (running, exact, running_loss, exact_loss) = train(momentum, x, y, x_test, y_test)
        left.semilogy(steps, running, color=colour, label=f"running, momentum {momentum}")
        middle.semilogy(steps, running_loss, color=colour)
        weights.append(model.state_dict())
        late[momentum] = running[-12:].mean()
        if momentum == 0.1:
            check_exact(model, x)
            norm, var = model[NORM], exact_statistics(model, x)[1]
            assert exact.max() < 1e-6
            assert exact_loss.mean() < running_loss.mean()
            left.semilogy(steps, exact, color="tab:green", label="recalibrated", zorder=3)
            middle.semilogy(steps, exact_loss, color="tab:green")
            order = np.argsort(var)
            new = recalibrated(model, x, [len(x)])[NORM]
            right.plot(var[order], norm.running_var[order], ".", color=colour, label="running, momentum 0.1")
            right.plot(var[order], new.running_var[order], "x", color="tab:green", label="recalibrated")
            right.plot(var[order], var[order], "k", lw=0.7, zorder=0)
    # The same weights to the last bit: training never looks at the saved statistics.
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"):
        assert all(np.array_equal(other[name], weights[0][name]) for other in weights)
    # The noise of a moving average of batch means, √(m/(2 − m)/B), is most of the error where m is large.
    noise = np.sqrt(0.5 / 1.5 / BATCH)
    assert 0.8 < late[0.5] / noise < 1.5
    print("distance of the saved means from the true ones:", {m: f"{d:.3f} σ" for m, d in late.items()})
    left.axhline(noise, color="tab:red", ls=":", lw=1, label="noise at momentum 0.5, by theory")
    left.set(xlabel="step", ylabel="error of the saved means / σ", title="running averages: noisy or late")
    left.legend(fontsize=8, loc="center right")
    middle.set(xlabel="step", ylabel="loss on held-out digits", title="what it costs")
    right.set(xlabel="variance over the training set", ylabel="saved variance", title="64 units after training")
    right.legend(fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "06_batch_statistics.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures"))
