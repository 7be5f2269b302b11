"""Flax's variables (linen) and states (nnx) as a state dict."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn.convert._layouts import apply_flattened, kernel, options

Array = npt.NDArray[Any]

__all__ = ["flax", "flax_options"]

_COLLECTIONS = ("params", "batch_stats")
_NAMES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def flax(variables: Mapping[str, Any], flattened: Mapping[str, tuple[int, int, int]] | None = None) -> dict[str, Array]:
    """Flax's variables under PyTorch's names and in its layouts.

    ==================== ============================ =======================
    Flax                 here                         layout
    ==================== ============================ =======================
    Dense, Linear kernel weight                       (in, out) → (out, in)
    Conv kernel          weight                       HWIO → OIHW
    scale · bias         weight · bias
    mean · var           running_mean · running_var
    ==================== ============================ =======================

    Parameters
    ----------
    variables : nested mapping of arrays
        What linen's ``init`` returns, ``{"params": {"Dense_0": {"kernel": …}}, "batch_stats": …}``, or such a mapping
        without the collections, as nnx's ``state.to_pure_dict()`` is. The names are joined with dots.
    flattened : mapping of str to (H, W, C), optional
        As in `keras`.

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
    Flax's var is the biased variance; it is taken as it is. For epsilon and momentum see `flax_options`.

    Examples
    --------
    >>> import numpy as np, fastnn.convert
    >>> variables = {"params": {"Dense_0": {"kernel": np.ones((3, 2)), "bias": np.zeros(2)}}}
    >>> {name: array.shape for name, array in fastnn.convert.flax(variables).items()}
    {'Dense_0.weight': (2, 3), 'Dense_0.bias': (2,)}
    """
    state = {}
    for path, value in _leaves(variables, ()):
        inner = path[1:] if path[0] in _COLLECTIONS else path
        *layer, variable = inner or ("",)
        array = np.asarray(value)
        name = "/".join(path)
        if variable == "kernel":
            variable, array = "weight", kernel(array, name)
        elif variable in _NAMES:
            variable = _NAMES[variable]
        else:
            raise ValueError(f"variables must be kernels, biases and norms' variables, got {name!r}")
        state[".".join([*layer, variable])] = array
    return apply_flattened(state, flattened)


def _leaves(tree: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        where = (*path, str(key))
        if isinstance(value, Mapping):
            yield from _leaves(value, where)
        elif value is not None:
            yield where, value


def flax_options(epsilon: float = 1e-6, momentum: float | None = None) -> dict[str, float]:
    """`eps` and `momentum` of our norms for Flax's `epsilon` and `momentum`.

    The default is that of Flax's LayerNorm, RMSNorm, GroupNorm and InstanceNorm; its BatchNorm has epsilon 1e-5 and
    momentum 0.99. Both add epsilon to the variance inside the root. Flax's momentum is what the old statistics keep,
    ours what the new batch gets.

    Parameters
    ----------
    epsilon : float, default 1e-6
        Flax's.
    momentum : float, optional
        Flax's; None leaves it out, so that our layer's default counts.

    Examples
    --------
    >>> import fastnn.convert
    >>> fastnn.convert.flax_options()
    {'eps': 1e-06}
    >>> fastnn.convert.flax_options(epsilon=1e-5, momentum=0.75)
    {'eps': 1e-05, 'momentum': 0.25}
    """
    return options(epsilon, momentum)
