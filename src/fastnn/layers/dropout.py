"""The layers that drop or disturb in training; in evaluation they hand their input on (classic dropout scales it)."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from fastnn import _arrays
from fastnn.functional.dropout import (
    DropoutContext,
    NoiseContext,
    alpha_dropout_backward,
    alpha_dropout_forward,
    drop_path_backward,
    drop_path_forward,
    dropout,
    dropout_backward,
    dropout_forward,
    gaussian_dropout_backward,
    gaussian_dropout_forward,
    gaussian_noise_backward,
    gaussian_noise_forward,
)
from fastnn.functional.dropout.arguments import Mode, check_probability, check_rule, check_sigma
from fastnn.layers.base import Layer
from fastnn.random import Generator

Array = npt.NDArray[Any]

__all__ = ["AlphaDropout", "DropPath", "Dropout", "GaussianDropout", "GaussianNoise"]


class Dropout(Layer):
    """Zeroes each element with probability p in training; see `fastnn.functional.dropout`.

    Parameters
    ----------
    p : float, default 0.5
        Probability of a drop, in [0, 1].
    mode : {"inverted", "classic"}
        Scale what is kept by 1/(1−p) in training, or everything by 1−p in evaluation.
    broadcast_axes : int or sequence of int, default ()
        Axes along which elements share their fate; PyTorch's ``Dropout2d`` is ``(2, 3)``.
    generator : Generator, optional
        By default the one that `fastnn.manual_seed` seeds.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> layer = fastnn.Dropout(0.2, generator=fastnn.Generator(1))
    >>> x = np.ones((100, 100), np.float32)
    >>> y = layer(x)
    >>> bool((layer.backward(x) == y).all())
    True
    >>> layer.eval()(x) is x
    True
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        mode: Mode = "inverted",
        broadcast_axes: int | Sequence[int] = (),
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        check_rule(p, True, mode)
        self.p = p
        self.mode: Mode = mode
        self.broadcast_axes = _arrays.integers(broadcast_axes, "broadcast_axes")
        self.generator = generator

    def _evaluate(self, x: Array) -> Array:
        return dropout(x, self.p, False, mode=self.mode)

    def _forward(self, x: Array) -> tuple[Array, DropoutContext]:
        return dropout_forward(x, self.p, mode=self.mode, generator=self.generator, broadcast_axes=self.broadcast_axes)

    def _backward(self, dy: Array, context: DropoutContext) -> Array:
        return dropout_backward(dy, context)


class DropPath(Layer):
    """Drops whole samples with probability p in training; see `fastnn.functional.drop_path`.

    Parameters
    ----------
    p : float, default 0.5
        Probability of dropping a sample.
    generator : Generator, optional
        Where the numbers come from; default: the default generator.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> y = fastnn.DropPath(0.5)(np.ones((8, 3)))
    >>> sorted(set(y.ravel().tolist()) | {0.0, 2.0})
    [0.0, 2.0]
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.p = check_probability(p)
        self.generator = generator

    def _evaluate(self, x: Array) -> Array:
        return x

    def _forward(self, x: Array) -> tuple[Array, DropoutContext]:
        return drop_path_forward(x, self.p, generator=self.generator)

    def _backward(self, dy: Array, context: DropoutContext) -> Array:
        return drop_path_backward(dy, context)


class AlphaDropout(Layer):
    """Dropout that keeps mean 0 and variance 1, for SELU networks; see `fastnn.functional.alpha_dropout`.

    Parameters
    ----------
    p : float, default 0.5
        Probability of dropping a unit.
    generator : Generator, optional
        Where the numbers come from; default: the default generator.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.AlphaDropout(1.0)(np.ones(3))
    array([0., 0., 0.])
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.p = check_probability(p)
        self.generator = generator

    def _evaluate(self, x: Array) -> Array:
        return x

    def _forward(self, x: Array) -> tuple[Array, DropoutContext]:
        return alpha_dropout_forward(x, self.p, True, generator=self.generator)

    def _backward(self, dy: Array, context: DropoutContext) -> Array:
        return alpha_dropout_backward(dy, context)


class GaussianDropout(Layer):
    """Multiplies by 1 + √(p/(1−p))·ε in training; see `fastnn.functional.gaussian_dropout`.

    Parameters
    ----------
    p : float, default 0.5
        In [0, 1); the noise has variance p/(1 − p).
    generator : Generator, optional
        Where the numbers come from; default: the default generator.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.GaussianDropout(0.0)(np.ones(3))
    array([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.p = check_probability(p, below_one=True)
        self.generator = generator

    def _evaluate(self, x: Array) -> Array:
        return x

    def _forward(self, x: Array) -> tuple[Array, NoiseContext]:
        return gaussian_dropout_forward(x, self.p, generator=self.generator)

    def _backward(self, dy: Array, context: NoiseContext) -> Array:
        return gaussian_dropout_backward(dy, context)


class GaussianNoise(Layer):
    """Adds σ ε, ε ~ N(0, 1), in training: x = μ + σ ε around the input μ; see `fastnn.functional.gaussian_noise`.

    Parameters
    ----------
    sigma : float
        σ, finite and at least 0. The attribute may be set at any time, by a schedule for example.
    generator : Generator, optional
        By default the one that `fastnn.manual_seed` seeds.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> layer = fastnn.GaussianNoise(0.1)
    >>> layer.sigma = 0.0
    >>> layer(np.ones(3))
    array([1., 1., 1.])
    """

    def __init__(self, sigma: float, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.sigma = sigma
        self.generator = generator

    @property
    def sigma(self) -> float:
        """σ, the standard deviation of the noise."""
        return self._sigma

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        self._sigma = check_sigma(sigma)

    def _evaluate(self, x: Array) -> Array:
        return x

    def _forward(self, x: Array) -> tuple[Array, NoiseContext]:
        return gaussian_noise_forward(x, self.sigma, generator=self.generator)

    def _backward(self, dy: Array, context: NoiseContext) -> Array:
        return gaussian_noise_backward(dy, context)
