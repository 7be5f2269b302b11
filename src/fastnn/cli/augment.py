"""Augmentation of images."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn.random import Generator

Array = npt.NDArray[Any]

__all__ = ["shifted"]


def shifted(x: Array, generator: Generator, pixels: int) -> Array:
    """Each image moved by a whole number of pixels, uniform from −pixels to +pixels along both axes.

    What comes in at an edge repeats the edge's pixels, whatever the background is.
    """
    count, _, height, width = x.shape
    offsets = generator.uniform((2, count), 0, 2 * pixels + 1).astype(np.int64)
    padded = np.pad(x, [(0, 0), (0, 0), (pixels, pixels), (pixels, pixels)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return windows[np.arange(count), :, offsets[0], offsets[1]]
