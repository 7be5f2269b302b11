"""The activation layers."""

from typing import Any

import numpy.typing as npt

from fastnn.functional.activation import ActivationContext, relu, relu_backward, relu_forward
from fastnn.layers.base import Layer

Array = npt.NDArray[Any]

__all__ = ["ReLU"]


class ReLU(Layer):
    """Rectified linear unit, ``max(x, 0)``; see `fastnn.functional.relu`.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def _evaluate(self, x: Array) -> Array:
        return relu(x)

    def _forward(self, x: Array) -> tuple[Array, ActivationContext]:
        return relu_forward(x)

    def _backward(self, dy: Array, context: ActivationContext) -> Array:
        return relu_backward(dy, context)
