"""What the backward passes need: two integers and the parameters, of the same size for every input."""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["DropoutContext", "NoiseContext"]


class DropoutContext(NamedTuple):
    """What the backward pass of `dropout`, `drop_path` and `alpha_dropout` needs."""

    seed: int
    stream: int
    p: float  # of a drop; 0 in evaluation
    scale: float  # of what is kept
    broadcast_axes: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"


class NoiseContext(NamedTuple):
    """What the backward pass of `gaussian_dropout` and `gaussian_noise` needs; sigma 0 where the gradient is `dy`."""

    seed: int
    stream: int
    sigma: float
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
