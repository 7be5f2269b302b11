"""Layers made of layers, and layers that only arrange."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from fastnn import _arrays
from fastnn.layers.base import Layer

Array = npt.NDArray[Any]

__all__ = ["Flatten", "Identity", "Residual", "Sequential"]


class _Evaluated:
    """The context of an inner layer that was in evaluation mode while the outer one trained: none."""


_EVALUATED = _Evaluated()


def _forward_inner(layer: Layer, x: Array) -> tuple[Array, Any]:
    return layer._forward(x) if layer.training else (layer._evaluate(x), _EVALUATED)


def _backward_inner(layer: Layer, dy: Array, context: Any) -> Array:
    _refuse_evaluated(layer, context)
    return layer._backward(dy, context)


def _refuse_evaluated(layer: Layer, context: Any) -> None:
    if context is _EVALUATED:
        raise RuntimeError(f"{type(layer).__name__} was in evaluation mode and cannot be differentiated")


class Sequential(Layer):
    """Layers one after the other.

    Parameters
    ----------
    *layers : Layer, or one mapping from names to layers
        Without names they are called "0", "1", …, as in PyTorch: parameters are "0.weight", ….

    Notes
    -----
    A layer whose call fails is as it was before. Those in front of it have had their call: as in PyTorch, running
    statistics keep the batch and generators have moved on, since keeping the old ones would cost every call that works.
    No context is left behind, so that the next `backward` belongs to the last call that worked.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> model = fastnn.Sequential(fastnn.Linear(4, 8), fastnn.ReLU(), fastnn.Linear(8, 2))
    >>> model(np.zeros((5, 4), np.float32)).shape
    (5, 2)
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> model
    Sequential(
      (0): Linear(4, 8)
      (1): ReLU()
      (2): Linear(8, 2)
    )
    >>> fastnn.Sequential({"head": fastnn.Linear(4, 2)})
    Sequential(
      (head): Linear(4, 2)
    )
    """

    _layers: tuple[Layer, ...] = ()  # those that the attributes name, in their order

    def __init__(self, *layers: Layer | Mapping[str, Layer]) -> None:
        super().__init__()
        named: Mapping[str, Any]
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = layers[0]
        else:
            named = {str(position): layer for position, layer in enumerate(layers)}
        for name, layer in named.items():
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"layers must be layers, or one mapping from names to layers, got {type(layer).__name__}"
                )
            if not isinstance(name, str) or not name or "." in name or hasattr(self, name):
                raise ValueError(f"a layer's name must be a string without dots that is not taken, got {name!r}")
            setattr(self, name, layer)

    def __setattr__(self, name: str, value: Any) -> None:
        """A layer set under the name of another takes its place, under a new name the last one."""
        super().__setattr__(name, value)
        self._collect()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._collect()

    def _collect(self) -> None:
        super().__setattr__("_layers", tuple(layer for _, layer in self.named_children()))

    def _evaluate(self, x: Array) -> Array:
        for layer in self._layers:
            x = layer._evaluate(x)
        return x

    def _forward(self, x: Array) -> tuple[Array, tuple[Any, ...]]:
        contexts = []
        for layer in self._layers:
            x, context = _forward_inner(layer, x)
            contexts.append(context)
        return x, tuple(contexts)

    def _backward(self, dy: Array, context: tuple[Any, ...]) -> Array:
        for layer, inner in zip(reversed(self._layers), reversed(context)):
            dy = _backward_inner(layer, dy, inner)
        return dy

    def _backward_parameters(self, dy: Array, context: tuple[Any, ...]) -> None:
        first = next((i for i, layer in enumerate(self._layers) if any(layer.named_parameters())), len(self._layers))
        for layer, inner in zip(reversed(self._layers[first + 1 :]), reversed(context[first + 1 :])):
            dy = _backward_inner(layer, dy, inner)
        if first < len(self._layers):
            _refuse_evaluated(self._layers[first], context[first])
            self._layers[first]._backward_parameters(dy, context[first])

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...

    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...

    def __getitem__(self, index: int | slice) -> Layer:
        """One layer, or a Sequential of some that shares them, under the names that they have here."""
        if isinstance(index, slice):
            return Sequential(dict(list(self.named_children())[index]))
        return self._layers[index]


class Residual(Layer):
    """``y = x + layer(x)``: a skip connection around a layer that keeps the shape.

    Parameters
    ----------
    layer : Layer
        Its parameters are named "layer.…".

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.Residual(fastnn.ReLU())(np.array([-1.0, 2.0]))
    array([-1., 4.])
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        if not isinstance(layer, Layer):
            raise TypeError(f"layer must be a layer, got {type(layer).__name__}")
        self.layer = layer

    def _evaluate(self, x: Array) -> Array:
        x = _arrays.array(x, "x")
        return self._sum(x, self.layer._evaluate(x))

    def _forward(self, x: Array) -> tuple[Array, Any]:
        x = _arrays.array(x, "x")
        y, context = _forward_inner(self.layer, x)
        return self._sum(x, y), context

    def _backward(self, dy: Array, context: Any) -> Array:
        dy = _arrays.array(dy, "dy")
        return np.add(_backward_inner(self.layer, dy, context), dy)

    def _backward_parameters(self, dy: Array, context: Any) -> None:
        _refuse_evaluated(self.layer, context)
        self.layer._backward_parameters(dy, context)

    @staticmethod
    def _sum(x: Array, y: Array) -> Array:
        if y.shape != x.shape:
            raise ValueError(f"the layer inside Residual must keep the shape {x.shape}, got {y.shape}")
        return np.add(y, x)


class Flatten(Layer):
    """Merges axes `start_dim` to `end_dim` into one; by default all but the batch axis.

    Parameters
    ----------
    start_dim, end_dim : int, default 1 and -1
        Inclusive; may be negative.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.Flatten()(np.zeros((5, 3, 2, 2), np.float32)).shape
    (5, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = _arrays.integer(start_dim, "start_dim"), _arrays.integer(end_dim, "end_dim")

    def _evaluate(self, x: Array) -> Array:
        return self._forward(x)[0]

    def _forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        x = _arrays.floating(x, "x")
        start, end = self.start_dim % max(1, x.ndim), self.end_dim % max(1, x.ndim)
        if not (-x.ndim <= self.start_dim < x.ndim and -x.ndim <= self.end_dim < x.ndim and start <= end):
            raise ValueError(f"x must have axes {self.start_dim} to {self.end_dim} in order, got shape {x.shape}")
        merged = math.prod(x.shape[start : end + 1])
        return x.reshape(*x.shape[:start], merged, *x.shape[end + 1 :]), x.shape

    def _backward(self, dy: Array, context: tuple[int, ...]) -> Array:
        return _arrays.floating(dy, "dy").reshape(context)

    def _settings(self) -> str:
        return "" if (self.start_dim, self.end_dim) == (1, -1) else f"{self.start_dim}, {self.end_dim}"


class Identity(Layer):
    """``y = x``: a place that another layer may take.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.Identity()
    Identity()
    """

    def _evaluate(self, x: Array) -> Array:
        return x

    def _forward(self, x: Array) -> tuple[Array, None]:
        return x, None

    def _backward(self, dy: Array, context: None) -> Array:
        return dy
