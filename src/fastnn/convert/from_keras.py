"""Keras's weights as a state dict."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn.convert._layouts import apply_flattened, kernel, options

Array = npt.NDArray[Any]

__all__ = ["keras", "keras_options"]

_NAMES = {
    "gamma": "weight",
    "scale": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def keras(weights: Mapping[str, Any], flattened: Mapping[str, tuple[int, int, int]] | None = None) -> dict[str, Array]:
    """Keras's weights under PyTorch's names and in its layouts.

    ================================ =========================== ==============================
    Keras                            here                        layout
    ================================ =========================== ==============================
    Dense kernel                     weight                      (in, out) → (out, in)
    Conv2D kernel                    weight                      HWIO → OIHW
    DepthwiseConv2D depthwise_kernel weight, ``groups=in``       HWIM → (I·M, 1, H, W)
    gamma, scale · beta              weight · bias
    moving_mean, moving_variance     running_mean, running_var
    ================================ =========================== ==============================

    Parameters
    ----------
    weights : mapping of str to array
        Named "layer/variable", as ``{w.path: w.numpy() for w in model.weights}`` gives them; a ":0" at the end is
        dropped, and "/" becomes ".".
    flattened : mapping of str to (H, W, C), optional
        For dense layers behind a Flatten of channels-last images that shall follow channels-first ones here: the
        images' shape, by which the inputs are put in (C, H, W) order. Not needed with ``channel_axis=-1``.

    Returns
    -------
    dict of str to ndarray
        For `Layer.load_state_dict` or `match`.

    Raises
    ------
    ValueError
        For a variable whose name or number of axes is not in the table.

    Notes
    -----
    Keras's moving variance is the biased one, PyTorch's running variance the unbiased one. For inference it is a
    number like any other and taken as it is. For epsilon and momentum see `keras_options`.

    Examples
    --------
    >>> import numpy as np, fastnn.convert
    >>> state = fastnn.convert.keras({"dense/kernel": np.ones((3, 2)), "norm/gamma": np.ones(2)})
    >>> {name: array.shape for name, array in state.items()}
    {'dense.weight': (2, 3), 'norm.weight': (2,)}
    """
    state = {}
    for path, value in weights.items():
        layer, _, variable = path.removesuffix(":0").rpartition("/")
        array = np.asarray(value)
        if variable == "kernel":
            variable, array = "weight", kernel(array, path)
        elif variable == "depthwise_kernel":
            variable, array = "weight", _depthwise(array, path)
        elif variable in _NAMES:
            variable = _NAMES[variable]
        else:
            raise ValueError(f"weights must be kernels, biases and norms' variables, got {path!r}")
        state[f"{layer}.{variable}".replace("/", ".").removeprefix(".")] = array
    return apply_flattened(state, flattened)


def _depthwise(array: Array, name: str) -> Array:
    if array.ndim != 4:
        raise ValueError(f"{name} must have four axes, got shape {array.shape}")
    height, width, channels, multiplier = array.shape
    return np.ascontiguousarray(array.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width))


def keras_options(epsilon: float = 1e-3, momentum: float | None = None) -> dict[str, float]:
    """`eps` and `momentum` of our norms for Keras's `epsilon` and `momentum`; the default is Keras's, for every norm.

    Both add it to the variance inside the root. Keras's momentum (0.99 by default) is what the old statistics keep,
    ours what the new batch gets. (Keras's RMSNormalization has epsilon 1e-6.)

    Parameters
    ----------
    epsilon : float, default 1e-3
        Keras's.
    momentum : float, optional
        Keras's; None leaves it out, so that our layer's default counts.

    Examples
    --------
    >>> import fastnn.convert
    >>> fastnn.convert.keras_options(momentum=0.75)
    {'eps': 0.001, 'momentum': 0.25}
    >>> fastnn.BatchNorm(8, channel_axis=-1, **fastnn.convert.keras_options(momentum=0.75))
    BatchNorm(8, eps=0.001, momentum=0.25)
    """
    return options(epsilon, momentum)
