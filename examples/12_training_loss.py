"""
The loss on the training set
============================

Point 12: the loss against steps, recorded by `fastnn.train.fit` and drawn for gradient descent and for SGD with several
batch sizes, on the handwritten digits that scikit-learn ships.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fastnn
import fastnn.functional as F

x, y = load_digits(return_X_y=True)
data = (x / 16).astype(np.float32), y
N, STEPS, EVERY = len(x), 400, 10

# %%
# Four runs of equally many steps
# -------------------------------
# The same network, start and learning rate; only the batch size differs. The history that `fit` returns has the loss of
# every step's minibatch. A callback looks at the whole training set now and then, and ends the run.


def train(batch_size):
    """The losses of the minibatches before each step, and those of the training set after 0, 10, 20, … steps."""
    model = fastnn.Sequential(fastnn.Linear(64, 32, rng=1), fastnn.ReLU(), fastnn.Linear(32, 10, rng=2))
    course = {0: fastnn.train.evaluate(model, F.cross_entropy, data).loss}

    def watch(event):
        if event.step % EVERY == 0:
            course[event.step] = fastnn.train.evaluate(model, F.cross_entropy, data).loss
        return event.step == STEPS

    history = fastnn.train.fit(
        model,
        F.cross_entropy,
        fastnn.SGD(model.parameters(), lr=0.2),
        data,
        epochs=STEPS,
        batch_size=batch_size,
        callback=watch,
        generator=fastnn.Generator(0),
        progress=False,
    )
    return history.loss, np.array(list(course.values()))


runs = {batch_size: train(batch_size) for batch_size in (N, 256, 32, 4)}

# %%
# What the curves say
# -------------------
# Gradient descent goes down at every step, and the loss of its minibatch *is* the training loss. A step with a seventh
# of the samples does as much; one with four samples does less, for their gradient is mostly noise, but it costs so
# little that its run is over before gradient descent has finished the first of its 400 passes.

steps = np.arange(0, STEPS + 1, EVERY)
final = {batch_size: training[-5:].mean() for batch_size, (_, training) in runs.items()}
scatter = {b: np.std(loss[-200:] / np.interp(range(STEPS - 200, STEPS), steps, t)) for b, (loss, t) in runs.items()}
for b in runs:
    print(f"B = {b:4}: training loss {final[b]:.3f}, the minibatches' scatters by {scatter[b]:.0%}")
losses, training = runs[N]
assert np.allclose(losses[::EVERY], training[:-1], rtol=1e-5)
assert (np.diff(losses) < 0).all()
assert abs(final[256] / final[N] - 1) < 0.1
assert final[4] > 1.2 * final[N]
assert scatter[4] > 2 * scatter[32] > 4 * scatter[256]
assert runs[4][1][-1] < 0.3 * training[0]
assert STEPS * 4 < N

# %%
# Top, each run by itself; bottom, the training losses side by side, against steps and against what they cost.

figure, grid = plt.subplot_mosaic([[*"aabbccdd"], [*"eeeeffff"]], figsize=(14, 8), layout="constrained")
colours = ("k", "tab:blue", "tab:orange", "tab:red")
for name, colour, (batch_size, (losses, training)) in zip("abcd", colours, runs.items()):
    title = f"gradient descent, B = N = {N}" if batch_size == N else f"SGD, B = {batch_size}"
    grid[name].semilogy(losses, color="0.7", lw=3 if batch_size == N else 0.8, label="minibatch of each step")
    grid[name].semilogy(steps, training, color=colour, label="whole training set")
    grid[name].set(title=title, xlabel="step", ylim=(0.02, 4))
    grid[name].legend(loc="lower left", fontsize=9)
    grid["e"].semilogy(steps, training, color=colour, label=title)
    grid["f"].loglog(np.maximum(steps, 1) * batch_size / N, training, color=colour)
grid["a"].set(ylabel="loss")
grid["e"].set(xlabel="step", ylabel="loss on the training set", title="against steps")
grid["f"].set(xlabel="passes over the training set", title="against the cost")
grid["e"].legend()
figure.savefig(Path(*sys.argv[1:]) / "12_training_loss.png", dpi=120)
