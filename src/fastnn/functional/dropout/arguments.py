"""Checks of the arguments that dropout, its relatives and their layers share."""

import math
from typing import Any, Literal

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.dropout.contexts import DropoutContext, NoiseContext
from fastnn.random import Generator, default_generator

__all__ = ["Mode", "check_probability", "check_rule", "check_sigma", "gradient", "native", "source_of"]

Mode = Literal["inverted", "classic"]


def check_probability(p: float, below_one: bool = False) -> float:
    """A probability; below one where a variance is p/(1−p)."""
    p = _arrays.number(p, "p")
    if 0.0 <= p < 1.0 or (p == 1.0 and not below_one):
        return p
    raise ValueError(f"p must be in [0, 1{')' if below_one else ']'}, got {p}")


def check_rule(p: float, training: bool, mode: str) -> tuple[float, float]:
    """The probability of a drop and the scale of what is kept."""
    p = check_probability(p)
    if mode == "inverted":
        if not training:
            return 0.0, 1.0
        return p, 1.0 / (1.0 - p) if p < 1.0 else 0.0
    if mode == "classic":
        return (p, 1.0) if training else (0.0, 1.0 - p)
    raise ValueError(f"mode must be 'inverted' or 'classic', got {mode!r}")


def check_sigma(sigma: float) -> float:
    """A standard deviation: finite, at least 0."""
    sigma = _arrays.number(sigma, "sigma")
    if 0.0 <= sigma < math.inf:
        return sigma
    raise ValueError(f"sigma must be finite and at least 0, got {sigma}")


def source_of(generator: Generator | None) -> Generator:
    if generator is None:
        return default_generator()
    if not isinstance(generator, Generator):
        raise TypeError(f"generator must be a fastnn.Generator or None, got {type(generator).__name__}")
    return generator


def gradient(dy: Array, ctx: DropoutContext | NoiseContext) -> Array:
    array = (
        dy
        if dy.__class__ is np.ndarray and _kernels.ready(dy) and dy.dtype == ctx.dtype
        else _arrays.floating(dy, "dy", ctx.dtype)
    )
    if array.shape != ctx.shape:
        raise ValueError(f"dy must have the result's shape {ctx.shape}, got {array.shape}")
    return array


def native(y: Array) -> "np.dtype[Any]":
    """The result's dtype for backward; a user's `out` may have the other byte order."""
    return y.dtype.newbyteorder("=")
