"""What an initialiser's variance depends on: how many values a unit adds up, and what its nonlinearity does."""

import math
import sys
from collections.abc import Sequence
from typing import Any

from fastnn import _arrays


def check_choice(value: Any, name: str, allowed: Sequence[str]) -> None:
    """Raise unless `value` is one of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def sizes_of(shape: Sequence[int]) -> list[int]:
    """The lengths of a weight's axes, which an array can have."""
    sizes = list(_arrays.integers(shape, "shape"))
    if len(sizes) < 2 or min(sizes) < 0:
        raise ValueError(f"shape must have two axes or more, none negative, got {tuple(sizes)}")
    if math.prod(max(size, 1) for size in sizes) > sys.maxsize:
        raise ValueError(f"shape must have at most {sys.maxsize} elements, got {tuple(sizes)}")
    return sizes


def fans(shape: Sequence[int], layout: str = "oi", groups: int = 1) -> tuple[int, int]:
    """How many inputs each output of a layer adds up, and how many outputs each input reaches: (fan_in, fan_out).

    With a kernel of K = ∏ kernel positions, fan_in = K · in/groups and fan_out = K · out/groups. The weight of a
    grouped convolution has in/groups in its shape already; PyTorch leaves out's division away, so that its fan_out of a
    depthwise convolution is too large by a factor of groups.

    The weight (in, out/groups, \\*kernel) of a transposed convolution is that of the convolution whose gradient it is:
    it has that one's fans, and what comes in here goes out there. Use ``mode="fan_out"`` for it.

    Parameters
    ----------
    shape : sequence of int
        Of the weight, two axes or more.
    layout : {"oi", "io"}
        Axes (out, in/groups, \\*kernel), PyTorch's, or (\\*kernel, in/groups, out), Keras's and Flax's.
    groups : int, default 1
        Of a grouped convolution; divides out.

    Raises
    ------
    ValueError
        If the shape has fewer than two axes or more elements than an array can have, the layout is another, or `groups`
        does not divide out.

    Examples
    --------
    >>> from fastnn import init
    >>> init.fans((64, 32))
    (32, 64)
    >>> init.fans((64, 32, 3, 3))
    (288, 576)
    >>> init.fans((3, 3, 32, 64), layout="io")
    (288, 576)
    >>> init.fans((64, 1, 3, 3), groups=64)
    (9, 9)
    """
    check_choice(layout, "layout", ("oi", "io"))
    sizes = sizes_of(shape)
    n_out, n_in, *kernel = sizes if layout == "oi" else sizes[::-1]
    groups = _arrays.integer(groups, "groups")
    if groups < 1 or n_out % groups:
        raise ValueError(f"groups must be at least 1 and divide the {n_out} outputs, got {groups}")
    area = math.prod(kernel)
    return n_in * area, n_out // groups * area


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer's weights make up for what its nonlinearity does to the standard deviation.

    =================================  ==================================
    nonlinearity                       gain
    =================================  ==================================
    linear, conv1d, …, sigmoid         1
    tanh                               5/3
    relu                               √2
    leaky_relu                         √(2/(1 + param²)), param 0.01
    selu                               3/4
    =================================  ==================================

    PyTorch's values. Those of relu and leaky_relu keep the variance exactly; 5/3 and 3/4 were found by trying.

    Parameters
    ----------
    nonlinearity : str
        A name of the table; the convolutions are conv1d to conv3d and conv_transpose1d to conv_transpose3d.
    param : float, optional
        The negative slope of leaky_relu, 0.01 by default; the others ignore it.

    Raises
    ------
    ValueError
        If the name is another, or `param` not finite.

    Examples
    --------
    >>> from fastnn import init
    >>> init.calculate_gain("leaky_relu", 1.0)
    1.0
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else _arrays.finite(param, "param")
        return math.sqrt(2 / (1 + slope * slope))
    check_choice(nonlinearity, "nonlinearity", (*GAINS, "leaky_relu"))
    return GAINS[nonlinearity]


_LINEAR = ("linear", "sigmoid", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)))
GAINS = dict.fromkeys(_LINEAR, 1.0) | {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
