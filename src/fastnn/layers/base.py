"""What every layer is: parameters, buffers and children found by looking at its attributes, and one call protocol."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

__all__ = ["Layer", "Parameter"]


class Parameter:
    """An array that is trained, and the gradient that training adds into.

    Parameters
    ----------
    data : ndarray
        float32 or float64; kept, not copied.
    decay : bool, default True
        Whether weight decay applies; False for biases and norm parameters.

    Attributes
    ----------
    grad : ndarray
        Same shape and dtype as `data`; a new parameter's gradient is zeros.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> p = fastnn.Parameter(np.ones(3, np.float32))
    >>> p
    Parameter(shape=(3,), dtype=float32, decay=True)
    >>> p.grad
    array([0., 0., 0.], dtype=float32)
    """

    __slots__ = ("data", "decay", "grad")

    def __init__(self, data: Array, decay: bool = True) -> None:
        if not isinstance(data, np.ndarray) or data.dtype not in (np.float32, np.float64):
            got = f"an array of {data.dtype}" if isinstance(data, np.ndarray) else type(data).__name__
            raise TypeError(f"data must be a float32 or float64 array, got {got}")
        self.data = data
        self.grad = np.zeros_like(data)
        self.decay = decay

    def __repr__(self) -> str:
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype}, decay={self.decay})"


class Layer:
    """Base of all layers: ``y = layer(x)``, ``dx = layer.backward(dy)``.

    In training mode a call pushes what backward needs on the layer's own stack, and `backward` pops it; in
    evaluation mode a call stores nothing and may run in many threads at once.

    A subclass defines ``_evaluate(x) -> y``, ``_forward(x) -> (y, ctx)`` and ``_backward(dy, ctx) -> dx``, the last
    adding into the gradients of its parameters. Attributes that are a `Parameter` or a `Layer` are found by name, in
    the order they were set; names in the class attribute ``_buffers`` are saved with the parameters but not trained,
    and those in ``_optional_buffers`` may be missing from a state that is loaded.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> class Scale(fastnn.Layer):
    ...     def __init__(self, factor):
    ...         super().__init__()
    ...         self.factor = fastnn.Parameter(np.array([factor]))
    ...     def _evaluate(self, x):
    ...         return self.factor.data * x
    ...     def _forward(self, x):
    ...         return self._evaluate(x), x
    ...     def _backward(self, dy, x):
    ...         self.factor.grad += (dy * x).sum()
    ...         return self.factor.data * dy
    >>> layer = Scale(3.0)
    >>> layer(np.array([1.0, 2.0]))
    array([3., 6.])
    >>> layer.backward(np.array([1.0, 1.0]))
    array([3., 3.])
    >>> layer.factor.grad
    array([3.])
    """

    training: bool = True
    _buffers: tuple[str, ...] = ()
    _optional_buffers: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._contexts: list[Any] = []

    def __call__(self, x: Array) -> Array:
        if not self.training:
            return self._evaluate(x)
        y, context = self._forward(x)
        self._contexts.append(context)
        return y

    def backward(self, dy: Array) -> Array:
        """Gradient with respect to the input of the latest call not yet used; adds into each parameter's ``.grad``.

        Raises
        ------
        RuntimeError
            If no call in training mode is left to differentiate.
        """
        dx = self._backward(dy, self._latest("backward"))
        self._contexts.pop()
        return dx

    def backward_parameters(self, dy: Array) -> None:
        """As `backward`, without the gradient with respect to the input, which a model's first layers need not compute.

        Raises
        ------
        RuntimeError
            If no call in training mode is left to differentiate.
        """
        self._backward_parameters(dy, self._latest("backward_parameters"))
        self._contexts.pop()

    def _latest(self, asker: str) -> Any:
        if not self._contexts:
            raise RuntimeError(f"{type(self).__name__}.{asker} needs a call in training mode first; none is left")
        return self._contexts[-1]

    def _evaluate(self, x: Array) -> Array:
        raise NotImplementedError

    def _forward(self, x: Array) -> tuple[Array, Any]:
        raise NotImplementedError

    def _backward(self, dy: Array, context: Any) -> Array:
        raise NotImplementedError

    def _backward_parameters(self, dy: Array, context: Any) -> None:
        """As `_backward` without a result; layers that save time by it override it."""
        self._backward(dy, context)

    def _settings(self) -> str:
        """What `repr` shows in parentheses: the constructor's arguments where they are not the defaults."""
        return ""

    def __repr__(self) -> str:
        """The layer and those inside it as a tree."""
        inner = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        lines = [self._settings(), *inner] if self._settings() else inner
        body = "".join(f"\n  {line}" for line in lines) + "\n" if inner else self._settings()
        return f"{type(self).__name__}({body})"

    # -- structure ---------------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, "Layer"]]:
        """The layers directly inside this one, with their names."""
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                yield name, value

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, "Layer"]]:
        """This layer and all inside it, with dotted names; the layer itself has the empty name."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_layers(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names, as PyTorch names them; a shared one appears once."""
        seen: set[int] = set()
        for prefix, layer in self.named_layers():
            for name, value in vars(layer).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def parameters(self) -> list[Parameter]:
        """All parameters, each once."""
        return [parameter for _, parameter in self.named_parameters()]

    # -- modes -------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "Layer":
        """Switch this layer and all inside it to training mode (or with ``mode=False`` to evaluation); returns self."""
        for _, layer in self.named_layers():
            layer.training = mode
            layer._contexts.clear()
        return self

    def eval(self) -> "Layer":
        """Switch to evaluation mode; returns self."""
        return self.train(False)

    @contextlib.contextmanager
    def in_mode(self, training: bool) -> Iterator[None]:
        """In a ``with`` block: this layer and all inside it in one mode; after it each in the mode that it had before.

        Examples
        --------
        >>> import fastnn
        >>> model = fastnn.Sequential(fastnn.Linear(2, 2), fastnn.BatchNorm(2).eval())
        >>> with model.in_mode(training=False):
        ...     model.training
        False
        >>> model.training, model[1].training
        (True, False)
        """
        before = [(layer, layer.training) for _, layer in self.named_layers()]
        self.train(training)
        try:
            yield
        finally:
            for layer, own in before:
                layer.training = own
                layer._contexts.clear()

    def zero_grad(self) -> None:
        """Fill every gradient with zeros."""
        for parameter in self.parameters():
            parameter.grad.fill(0)

    # -- state -------------------------------------------------------------------------------------------------------

    def _state(self) -> Iterator[tuple[str, Array]]:
        """Every saved array itself, parameters and buffers of one layer together, as PyTorch orders them."""
        for prefix, layer in self.named_layers():
            dot = f"{prefix}." if prefix else ""
            for name, value in vars(layer).items():
                if isinstance(value, Parameter):
                    yield dot + name, value.data
            for name in layer._buffers:
                buffer = getattr(layer, name)
                if buffer is not None:
                    yield dot + name, buffer

    def _optional_state(self) -> set[str]:
        """Names of saved arrays that a state may lack."""
        return {
            f"{prefix}.{name}" if prefix else name
            for prefix, layer in self.named_layers()
            for name in layer._optional_buffers
        }

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers under PyTorch's names."""
        return {name: array.copy() for name, array in self._state()}

    def load_state_dict(self, d: Mapping[str, Array], strict: bool = True) -> None:
        """Copy the arrays of `d` into the parameters and buffers of the same names; all of them or, on error, none.

        Parameters
        ----------
        d : mapping of str to ndarray
            As `state_dict` returns it. Floating arrays are converted to each parameter's dtype, as in PyTorch.
        strict : bool, default True
            Whether missing and unexpected names are an error.

        Raises
        ------
        ValueError
            Naming the missing and unexpected keys, or the key whose shape differs.
        """
        if not isinstance(d, Mapping):
            raise TypeError(f"d must be a mapping from names to arrays, got {type(d).__name__}")
        own = dict(self._state())
        missing, unexpected = sorted(own.keys() - d.keys() - self._optional_state()), sorted(d.keys() - own.keys())
        if strict and (missing or unexpected):
            raise ValueError(f"state dict does not fit: missing keys {missing}, unexpected keys {unexpected}")
        loaded = {name: np.asarray(d[name]) for name in own if name in d}
        for name, array in loaded.items():
            if not own[name].flags.writeable:
                raise ValueError(f"the layer's {name} must be writeable, got a read-only array")
            if array.shape != own[name].shape:
                raise ValueError(f"{name} must have shape {own[name].shape}, got {array.shape}")
            if array.dtype.kind not in "iuf" or not np.can_cast(array.dtype, own[name].dtype, "same_kind"):
                raise TypeError(f"{name} must be convertible to {own[name].dtype}, got {array.dtype}")
        # all are converted, which may fail, before the first is written
        loaded = {name: array.astype(own[name].dtype, copy=False) for name, array in loaded.items()}
        for name, array in loaded.items():
            own[name][...] = array
