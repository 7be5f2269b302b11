"""Augmentation of images."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn.random import Generator

Array = npt.NDArray[Any]

__all__ = ["moved"]


def moved(x: Array, generator: Generator, pixels: float, degrees: float, zoom: float) -> Array:
    """Each image turned, magnified and shifted at random, interpolated linearly.

    Uniformly: the tangent of half the angle, up to `degrees`; the magnification, from 1 − zoom to 1 + zoom; the shift
    along either axis, up to `pixels`. What comes in at an edge repeats the edge's pixels, whatever the background is.
    """
    from scipy.ndimage import affine_transform

    t, size, down, right = generator.uniform((4, len(x)), -1, 1, dtype=np.float64)
    # Sine and cosine from the half angle's tangent, by arithmetic alone: it rounds alike on every processor.
    t = t * math.tan(math.radians(degrees) / 2)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    matrices = (np.array([[cosine, -sine], [sine, cosine]]) / (1 + zoom * size)).transpose(2, 0, 1)
    centre = (np.array(x.shape[2:]) - 1) / 2
    offsets = centre + pixels * np.stack([down, right], axis=1) - (matrices * centre).sum(axis=2)
    images = np.empty_like(x)
    for before, after, matrix, offset in zip(x, images, matrices, offsets):
        for k, channel in enumerate(before):
            affine_transform(channel, matrix, offset, output=after[k], order=1, mode="nearest")
    return images
