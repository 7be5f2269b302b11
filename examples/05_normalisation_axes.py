"""Batch, layer and instance norm: one operation over different axes, and what each makes of light and colour.

Two photographs, each once more in other light: one at dusk (all channels darker), one in the evening (less blue).
Whoever shares a mean and variance keeps the differences inside the group and loses those between groups. So batch norm
keeps both changes of light, layer norm forgets the dusk, and instance norm forgets dusk and evening.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

import fastnn.functional as F

SAMPLES, CHANNELS = ("temple", "flower", "temple, dusk", "flower, evening"), "RGB"
EPS = 1e-5


def photographs():
    """(B, H, W, C), values from 0 to 1."""
    temple, flower = (image[100:400, 150:550].astype(np.float32) / 255 for image in load_sample_images().images)
    return np.stack([temple, flower, temple * np.float32(0.35), flower * np.float32([1, 0.9, 0.35])])


def norms(x):
    """Name → result, and the axes that share a mean and variance (B, H, W, C are 0, 1, 2, 3)."""
    return {
        "batch norm": (F.batch_norm(x, None, None, training=True, eps=EPS, channel_axis=-1), (0, 1, 2)),
        "layer norm": (F.layer_norm(x, x.shape[1:], eps=EPS), (1, 2, 3)),
        "instance norm": (F.instance_norm(x, eps=EPS, channel_axis=-1), (1, 2)),
    }


def check_axes(x, y, axes):
    """Mean 0 and variance v/(v + eps) over these axes, and the same as the general form."""
    x, wide = x.astype(np.float64), y.astype(np.float64)
    variance = x.var(axes)
    # Every y is right to 4 units of 2⁻²⁴ relative to max(1, |y|), and the mean of max(1, |y|) is below 2.
    unit = 2.0**-24
    assert np.abs(wide.mean(axes)).max() < 8 * unit
    assert np.abs(wide.var(axes) - variance / (variance + EPS)).max() < 16 * unit
    assert np.abs(y - F.standardize(x.astype(np.float32), axes, eps=EPS)).max() < 8 * unit * np.abs(y).max()


def change_of_light(y):
    """Root mean square distance between each photograph and the same one in other light."""
    return np.sqrt(np.mean((y[2:] - y[:2]) ** 2, axis=(1, 2, 3)))


def draw_table(axes, values, text, **how):
    """Samples down, channels across."""
    axes.imshow(values, aspect="auto", **how)
    for (b, c), value in np.ndenumerate(values):
        axes.text(c, b, text(value), ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(CHANNELS)), CHANNELS)
    axes.set_yticks(range(len(SAMPLES)), SAMPLES, fontsize=8)
    axes.tick_params(length=0)


def groups(axes):
    """Number of the group that each (sample, channel) belongs to."""
    b, c = np.indices((len(SAMPLES), len(CHANNELS)))
    if 0 in axes:
        return c
    return b if 3 in axes else b * len(CHANNELS) + c


def main(folder):
    x = photographs()
    results = norms(x)
    figure, grid = plt.subplots(
        4, 7, figsize=(15.5, 8.6), width_ratios=[1, 1.6, 1.6, 1.6, 1.6, 1, 1], layout="constrained"
    )
    for row, (name, (y, shared)) in zip(grid, {"input": (x, None), **results}.items(), strict=True):
        if shared is None:
            row[0].axis("off")
            row[0].text(0.5, 0.5, "input\n\nvalues 0 … 1", ha="center", va="center", fontsize=13)
            shown = y
        else:
            check_axes(x, y, shared)
            number = groups(shared)
            draw_table(row[0], number, lambda value: str(value + 1), cmap="Set3", vmin=0, vmax=11)
            row[0].set_title(f"{name}\nstatistics over ({', '.join('BHWC'[a] for a in shared)})", fontsize=11)
            shown = np.clip(0.5 + y / 5, 0, 1)  # ±2.5 standard deviations
        for axes, image, sample in zip(row[1:5], shown, SAMPLES, strict=True):
            axes.imshow(image)
            axes.set_axis_off()
            if shared is None:
                axes.set_title(sample)
        mean, std = y.mean((1, 2), dtype=np.float64), y.std((1, 2), dtype=np.float64)
        spread = 1.5 if shared else 1.0
        near_zero = mean + 0.0 if np.abs(mean).max() > 1e-3 else np.zeros_like(mean)  # no "−0.00"
        draw_table(row[5], near_zero, "{:.2f}".format, cmap="RdBu_r", vmin=-spread, vmax=spread)
        draw_table(row[6], std, "{:.2f}".format, cmap="PuOr", vmin=1 - spread, vmax=1 + spread)
        for axes in row[5:]:
            axes.set_yticks([])
    grid[0, 5].set_title("mean over (H, W)", fontsize=10)
    grid[0, 6].set_title("standard deviation", fontsize=10)

    dusk, evening = np.transpose([change_of_light(y) for y, _ in results.values()])
    for name, d, e in zip(results, dusk, evening, strict=True):
        print(f"{name:14} distance between day and dusk {d:.4f}, between day and evening {e:.4f}")
    # eps keeps what is forgotten from being exactly 0.
    assert dusk[0] > 0.5
    assert max(dusk[1], dusk[2], evening[2]) < 0.01
    assert min(evening[0], evening[1]) > 0.25

    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "05_normalisation_axes.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures"))
