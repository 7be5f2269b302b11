"""The linear layer."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import _arrays
from fastnn.functional.linear import LinearContext, gradients, linear, linear_forward, parameter_gradients
from fastnn.layers._start import start
from fastnn.layers.base import Layer, Parameter

Array = npt.NDArray[Any]

__all__ = ["Linear"]


class Linear(Layer):
    """Affine map ``y = x Wᵀ + b`` of the last axis.

    Parameters
    ----------
    in_features, out_features : int
        At least 1.
    bias : bool, default True
    rng : Generator, numpy.random.Generator, int or None
        Where the start values come from; None draws from the default generator.
    dtype : default float32
        float32 or float64.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features)
        Starts as ``kaiming_uniform(a=√5)``, that is U(±1/√in_features), as in PyTorch.
    bias : Parameter, shape (out_features,), or None
        Starts as U(±1/√in_features); exempt from weight decay.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> layer = fastnn.Linear(3, 2, rng=0)
    >>> layer(np.zeros((5, 3), np.float32)).shape
    (5, 2)
    >>> layer
    Linear(3, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Any = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = (
            _arrays.integer(in_features, "in_features"),
            _arrays.integer(out_features, "out_features"),
        )
        if min(self.in_features, self.out_features) < 1:
            raise ValueError(f"in_features and out_features must be at least 1, got {in_features} and {out_features}")
        weight, offset = start((self.out_features, self.in_features), bias, rng, dtype)
        self.weight = Parameter(weight)
        self.bias = None if offset is None else Parameter(offset, decay=False)

    def _evaluate(self, x: Array) -> Array:
        return linear(x, self.weight.data, None if self.bias is None else self.bias.data)

    def _forward(self, x: Array) -> tuple[Array, LinearContext]:
        return linear_forward(x, self.weight.data, None if self.bias is None else self.bias.data)

    def _backward(self, dy: Array, context: LinearContext) -> Array:
        dx, dbias = gradients(dy, context, self.weight.grad, add=True)
        self._add(dbias)
        return dx

    def _backward_parameters(self, dy: Array, context: LinearContext) -> None:
        self._add(parameter_gradients(dy, context, self.weight.grad, add=True))

    def _add(self, dbias: Array | None) -> None:
        if self.bias is not None:
            self.bias.grad += dbias

    def _settings(self) -> str:
        return f"{self.in_features}, {self.out_features}{'' if self.bias else ', bias=False'}"
