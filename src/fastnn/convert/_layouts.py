"""The layouts and names that Keras and Flax share, and how they become PyTorch's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def kernel(array: Array, name: str) -> Array:
    """(in, out) → (out, in); (KH, KW, in / groups, out) → (out, in / groups, KH, KW)."""
    if array.ndim == 2:
        return np.ascontiguousarray(array.T)
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    raise ValueError(f"{name} must have two axes (a dense layer) or four (a 2-d convolution), got shape {array.shape}")


def reordered(weight: Array, shape: tuple[int, int, int], name: str) -> Array:
    """Columns of a linear weight for features flattened from (H, W, C), as for the same flattened from (C, H, W)."""
    height, width, channels = shape
    if weight.ndim != 2 or weight.shape[1] != height * width * channels:
        raise ValueError(
            f"flattened[{name!r}] = {shape} must have as many elements as {name} has inputs, got shape {weight.shape}"
        )
    columns = weight.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(columns.reshape(weight.shape))


def apply_flattened(state: dict[str, Array], flattened: Mapping[str, tuple[int, int, int]] | None) -> dict[str, Array]:
    """Reorder the columns of the named linear layers' weights."""
    for name, shape in (flattened or {}).items():
        key = f"{name}.weight"
        if key not in state:
            raise ValueError(f"flattened must name layers among the weights, got {name!r}")
        state[key] = reordered(state[key], shape, name)
    return state


def options(epsilon: float, momentum: float | None) -> dict[str, float]:
    """Their epsilon is our eps; their momentum is the old statistics' share, ours the new batch's."""
    if momentum is None:
        return {"eps": float(epsilon)}
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}")
    return {"eps": float(epsilon), "momentum": 1 - float(momentum)}
