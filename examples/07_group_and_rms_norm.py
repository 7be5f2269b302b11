"""
Neighbours: group norm and RMS norm
===================================

Beside points 5 to 7. Group norm shares a mean and variance among groups of channels: with one group it is layer norm,
with as many groups as channels instance norm. RMS norm is layer norm without the subtraction: it divides by the root
mean square and keeps the direction.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import fastnn.functional as F

flower = load_sample_image("flower.jpg")[100:400, 150:550].astype(np.float32) / 255  # (H, W, C), values from 0 to 1
u = 2.0**-24  # the rounding error of float32

# %%
# Group norm lies between layer and instance norm
# -----------------------------------------------
# Six channels: the photograph, and the same one at dusk. The picture's bars show each channel's mean ± σ. With
# one group the dusk stays dark, with two it becomes as bright as the day and both keep their colours, with six the
# colours are gone too.

x = np.concatenate([flower, flower * np.float32(0.35)], axis=-1)[None]  # (1, H, W, 6)
channels = ["R", "G", "B", "r", "g", "b"]
results = {"input": (x, 0)}
for groups, note in ((1, "layer norm"), (2, "day and dusk apart"), (6, "instance norm")):
    title = f"{groups} group{'s' * (groups > 1)}: {note}"
    results[title] = (F.group_norm(x, groups, channel_axis=-1), groups)

by_layer, by_exposure, by_channel = (y for y, groups in results.values() if groups)
assert np.abs(by_layer - F.layer_norm(x, x.shape[1:])).max() < 16 * u
assert np.abs(by_channel - F.instance_norm(x, channel_axis=-1)).max() < 16 * u
assert np.abs(by_exposure[..., :3] - by_exposure[..., 3:]).max() < 0.01  # only eps tells day and dusk apart
assert np.abs(by_layer[..., :3] - by_layer[..., 3:]).mean() > 0.5

# %%
# RMS norm keeps the direction
# ----------------------------
# A pixel is a point in the cube of colours. RMS norm takes away its length, the brightness, and leaves the sphere of
# radius √3. Layer norm first takes away the grey part, the mean of the three values, and leaves a circle: the hue.

pixels = flower[::6, ::6].reshape(-1, 3)
pixels = pixels[np.ptp(pixels, axis=1) > 0.1]  # grey pixels have no hue
on_sphere = F.rms_norm(pixels, (3,), eps=0.0)
on_circle = F.layer_norm(pixels, (3,), eps=0.0)
length = np.linalg.norm(pixels, axis=1, keepdims=True)
assert np.abs(on_sphere - np.sqrt(3) * pixels / length).max() < 16 * u
assert np.abs(np.linalg.norm(on_circle, axis=1) - np.sqrt(3)).max() < 16 * u
assert np.abs(on_circle.sum(axis=1)).max() < 16 * u
centred = (pixels - pixels.mean(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
assert np.abs(F.rms_norm(centred, (3,), eps=0.0) - on_circle).max() < 32 * u  # the mean taken away: the same

figure = plt.figure(figsize=(13, 8), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.3])
for axes, (title, (y, groups)) in zip(top.subplots(1, 4), results.items()):
    mean, std = y.mean((0, 1, 2), dtype=np.float64), y.std((0, 1, 2), dtype=np.float64)
    axes.bar(range(6), 2 * std, 0.7, mean - std, color=["#d55", "#5a5", "#57d"] * 2, alpha=0.7)
    axes.plot(range(6), mean, "k_", ms=14)
    for group in range(1, groups):
        axes.axvline(group * 6 / groups - 0.5, color="k", ls=":", lw=0.8)
    axes.set_xticks(range(6), channels)
    axes.set(title=title, ylim=(-2.7, 2.7) if groups else (0, 1))
clouds = {
    "pixels: points in the cube of colours": (pixels, [0, 0.5, 1]),
    "RMS norm: a sphere, no brightness": (on_sphere, [0, 1]),
    "layer norm: a circle, the hue alone": (on_circle, [-1, 0, 1]),
}
for axes, (title, (points, ticks)) in zip(bottom.subplots(1, 3, subplot_kw={"projection": "3d"}), clouds.items()):
    axes.scatter(*points.T, s=6, c=pixels, depthshade=False)
    limits = min(ticks[0], 1.4 * ticks[0]), max(1.0, points.max())
    axes.set(xlim=limits, ylim=limits, zlim=limits, xticks=ticks, yticks=ticks, zticks=ticks)
    axes.set(title=title, xlabel="R", ylabel="G", zlabel="B")
    axes.set_box_aspect((1, 1, 1), zoom=0.9)
    axes.view_init(25, 20)
figure.savefig(Path(*sys.argv[1:]) / "07_group_and_rms_norm.png", dpi=120)
