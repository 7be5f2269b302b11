"""
Batch, layer and instance norm: one operation over different axes
=================================================================

Points 5, 6 and 7, on two photographs and each of them once more in other light: one at dusk (all channels darker), one
in the evening (less blue). Whoever shares a mean and variance keeps the differences inside the group and loses those
between groups. So batch norm keeps both changes of light, layer norm forgets the dusk, and instance norm forgets dusk
and evening.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

import fastnn.functional as F

temple, flower = (image[100:400, 150:550].astype(np.float32) / 255 for image in load_sample_images().images)
dusk, evening = np.float32(0.35), np.float32([1, 0.9, 0.35])
x = np.stack([temple, flower, temple * dusk, flower * evening])  # (B, H, W, C), values from 0 to 1
SAMPLES, CHANNELS = ("temple", "flower", "temple, dusk", "flower, evening"), "RGB"
EPS = 1e-5

# %%
# Three names, one operation
# --------------------------
# The axes that share a mean and variance are all the difference; `fastnn.functional.standardize` takes any.

norms = {
    "batch norm": (F.batch_norm(x, None, None, training=True, eps=EPS, channel_axis=-1), (0, 1, 2)),
    "layer norm": (F.layer_norm(x, x.shape[1:], eps=EPS), (1, 2, 3)),
    "instance norm": (F.instance_norm(x, eps=EPS, channel_axis=-1), (1, 2)),
}

u = 2.0**-24  # every y is right to 4u relative to max(1, |y|), and the mean of max(1, |y|) is below 2
for y, axes in norms.values():
    variance = x.var(axes, dtype=np.float64)
    assert np.abs(y.mean(axes, dtype=np.float64)).max() < 8 * u
    assert np.abs(y.var(axes, dtype=np.float64) - variance / (variance + EPS)).max() < 16 * u
    assert np.abs(y - F.standardize(x, axes, eps=EPS)).max() < 8 * u * np.abs(y).max()

# %%
# What each forgets
# -----------------
# The distance between a photograph and the same one in other light; eps keeps what is forgotten from being exactly 0.


def change_of_light(y):
    """Root mean square distances (day to dusk, day to evening)."""
    return np.sqrt(np.mean((y[2:] - y[:2]) ** 2, axis=(1, 2, 3)))


by_batch, by_layer, by_instance = (change_of_light(y) for y, _ in norms.values())
for name, change in zip(norms, (by_batch, by_layer, by_instance)):
    print(f"{name:14} day to dusk {change[0]:.4f}, day to evening {change[1]:.4f}")
assert by_batch[0] > 0.5
assert max(by_layer[0], by_instance[0], by_instance[1]) < 0.01
assert min(by_batch[1], by_layer[1]) > 0.25

# %%
# The picture
# -----------
# Left, which values share statistics (equal numbers, equal colours); middle, the normalised photographs, ±2.5 standard
# deviations from black to white; right, mean and standard deviation of each photograph's channels after the norm.


def groups(axes):
    """Number of the group that each (sample, channel) belongs to."""
    b, c = np.indices((len(SAMPLES), len(CHANNELS)))
    if 0 in axes:
        return c
    return b if 3 in axes else b * len(CHANNELS) + c


def draw_table(axes, values, text, **how):
    """Samples down, channels across."""
    axes.imshow(values, aspect="auto", **how)
    for (b, c), value in np.ndenumerate(values):
        axes.text(c, b, text(value), ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(CHANNELS)), CHANNELS)
    axes.set_yticks([])
    axes.tick_params(length=0)


figure, grid = plt.subplots(4, 7, figsize=(15.5, 8.2), width_ratios=[1, 1.6, 1.6, 1.6, 1.6, 1, 1], layout="constrained")
for row, (name, (y, shared)) in zip(grid, {"input": (x, None), **norms}.items()):
    if shared is None:
        row[0].axis("off")
        row[0].text(0.5, 0.5, "input\n\nvalues 0 … 1", ha="center", va="center", fontsize=13)
        shown = y
    else:
        draw_table(row[0], groups(shared), lambda number: str(number + 1), cmap="Set3", vmin=0, vmax=11)
        row[0].set_yticks(range(len(SAMPLES)), SAMPLES, fontsize=8)
        row[0].set_title(f"{name}\nstatistics over ({', '.join('BHWC'[a] for a in shared)})", fontsize=11)
        shown = np.clip(0.5 + y / 5, 0, 1)
    for axes, image, sample in zip(row[1:5], shown, SAMPLES):
        axes.imshow(image)
        axes.set_axis_off()
        if shared is None:
            axes.set_title(sample)
    mean, std = y.mean((1, 2), dtype=np.float64), y.std((1, 2), dtype=np.float64)
    draw_table(row[5], mean.round(2) + 0.0, "{:.2f}".format, cmap="RdBu_r", vmin=-1.5, vmax=1.5)  # + 0.0: no "-0.00"
    draw_table(row[6], std, "{:.2f}".format, cmap="PuOr", vmin=-0.5, vmax=2.5)
grid[0, 5].set_title("mean over (H, W)", fontsize=10)
grid[0, 6].set_title("standard deviation", fontsize=10)
figure.savefig(Path(*sys.argv[1:]) / "05_06_07_norm_axes.png", dpi=120)
