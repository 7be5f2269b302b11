"""The activation layers: each is the function of the same name in `fastnn.functional`."""

from typing import Any

import numpy.typing as npt

from fastnn import _arrays
from fastnn.functional import activation as F
from fastnn.functional.softmax import SoftmaxContext, softmax, softmax_backward, softmax_forward
from fastnn.layers.base import Layer

Array = npt.NDArray[Any]

__all__ = ["ELU", "GELU", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ReLU(Layer):
    """Rectified linear unit, ``max(x, 0)``; see `fastnn.functional.relu`.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def _evaluate(self, x: Array) -> Array:
        return F.relu(x)

    def _forward(self, x: Array) -> tuple[Array, F.ActivationContext]:
        return F.relu_forward(x)

    def _backward(self, dy: Array, context: F.ActivationContext) -> Array:
        return F.relu_backward(dy, context)


class LeakyReLU(Layer):
    """``x`` where positive, ``negative_slope · x`` elsewhere; see `fastnn.functional.leaky_relu`.

    Parameters
    ----------
    negative_slope : float, default 0.01

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.LeakyReLU()(np.array([-1.0, 2.0]))
    array([-0.01, 2. ])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = _arrays.finite(negative_slope, "negative_slope")

    def _evaluate(self, x: Array) -> Array:
        return F.leaky_relu(x, self.negative_slope)

    def _forward(self, x: Array) -> tuple[Array, F.ActivationContext]:
        return F.leaky_relu_forward(x, self.negative_slope)

    def _backward(self, dy: Array, context: F.ActivationContext) -> Array:
        return F.leaky_relu_backward(dy, context)

    def _settings(self) -> str:
        return "" if self.negative_slope == 0.01 else f"{self.negative_slope!r}"


class ELU(Layer):
    """Exponential linear unit; see `fastnn.functional.elu`.

    Parameters
    ----------
    alpha : float, default 1.0

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.ELU()(np.array([-1.0, 2.0])).round(4)
    array([-0.6321, 2. ])
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = _arrays.finite(alpha, "alpha")

    def _evaluate(self, x: Array) -> Array:
        return F.elu(x, self.alpha)

    def _forward(self, x: Array) -> tuple[Array, F.ActivationContext]:
        return F.elu_forward(x, self.alpha)

    def _backward(self, dy: Array, context: F.ActivationContext) -> Array:
        return F.elu_backward(dy, context)

    def _settings(self) -> str:
        return "" if self.alpha == 1.0 else f"{self.alpha!r}"


class GELU(Layer):
    """Gaussian error linear unit, ``x · Φ(x)``; see `fastnn.functional.gelu`.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.GELU()(np.array([-1.0, 2.0])).round(4)
    array([-0.1587, 1.9545])
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        F.gelu_kind(approximate)
        self.approximate = approximate

    def _evaluate(self, x: Array) -> Array:
        return F.gelu(x, self.approximate)

    def _forward(self, x: Array) -> tuple[Array, F.ActivationContext]:
        return F.gelu_forward(x, self.approximate)

    def _backward(self, dy: Array, context: F.ActivationContext) -> Array:
        return F.gelu_backward(dy, context)

    def _settings(self) -> str:
        return "" if self.approximate == "none" else f"{self.approximate!r}"


class SiLU(Layer):
    """Sigmoid-weighted linear unit, ``x · σ(x)``; see `fastnn.functional.silu`.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.SiLU()(np.array([-1.0, 2.0])).round(4)
    array([-0.2689, 1.7616])
    """

    def _evaluate(self, x: Array) -> Array:
        return F.silu(x)

    def _forward(self, x: Array) -> tuple[Array, F.ActivationContext]:
        return F.silu_forward(x)

    def _backward(self, dy: Array, context: F.ActivationContext) -> Array:
        return F.silu_backward(dy, context)


class Sigmoid(Layer):
    """Logistic function; see `fastnn.functional.sigmoid`.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.Sigmoid()(np.array([0.0, 2.0])).round(4)
    array([0.5 , 0.8808])
    """

    def _evaluate(self, x: Array) -> Array:
        return F.sigmoid(x)

    def _forward(self, x: Array) -> tuple[Array, F.ActivationContext]:
        return F.sigmoid_forward(x)

    def _backward(self, dy: Array, context: F.ActivationContext) -> Array:
        return F.sigmoid_backward(dy, context)


class Tanh(Layer):
    """Hyperbolic tangent; see `fastnn.functional.tanh`.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.Tanh()(np.array([0.0, 2.0])).round(4)
    array([0. , 0.964])
    """

    def _evaluate(self, x: Array) -> Array:
        return F.tanh(x)

    def _forward(self, x: Array) -> tuple[Array, F.ActivationContext]:
        return F.tanh_forward(x)

    def _backward(self, dy: Array, context: F.ActivationContext) -> Array:
        return F.tanh_backward(dy, context)


class Softplus(Layer):
    """Smooth rectifier, ``log(1 + e^(beta · x)) / beta``; see `fastnn.functional.softplus`.

    Parameters
    ----------
    beta : float, default 1.0
        Finite, not 0.
    threshold : float, default 20.0

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.Softplus()(np.array([0.0, 30.0])).round(4)
    array([ 0.6931, 30. ])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = F.check_softplus(beta, threshold)

    def _evaluate(self, x: Array) -> Array:
        return F.softplus(x, self.beta, self.threshold)

    def _forward(self, x: Array) -> tuple[Array, F.ActivationContext]:
        return F.softplus_forward(x, self.beta, self.threshold)

    def _backward(self, dy: Array, context: F.ActivationContext) -> Array:
        return F.softplus_backward(dy, context)

    def _settings(self) -> str:
        return "" if (self.beta, self.threshold) == (1.0, 20.0) else f"{self.beta}, {self.threshold}"


class Softmax(Layer):
    """Probabilities along one axis; see `fastnn.functional.softmax`.

    Parameters
    ----------
    dim : int, optional
        The axis; None is 0 for arrays with 0, 1 or 3 axes, else 1.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.Softmax(dim=1)(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = None if dim is None else _arrays.integer(dim, "dim")

    def _evaluate(self, x: Array) -> Array:
        return softmax(x, self.dim)

    def _forward(self, x: Array) -> tuple[Array, SoftmaxContext]:
        return softmax_forward(x, self.dim)

    def _backward(self, dy: Array, context: SoftmaxContext) -> Array:
        return softmax_backward(dy, context)

    def _settings(self) -> str:
        return "" if self.dim is None else f"{self.dim!r}"
