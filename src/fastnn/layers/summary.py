"""A model as a table: its tree, the shape after each layer, and how many parameters each holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import _arrays
from fastnn.layers.base import Layer

Array = npt.NDArray[Any]

__all__ = ["summary"]


def summary(model: Layer, input_shape: Sequence[int], *, dtype: npt.DTypeLike | None = None) -> str:
    """Print a model's layers with their output shapes and parameter counts; returns the text.

    The model is evaluated once on zeros; its mode, gradients and running statistics stay as they are.

    Parameters
    ----------
    model : Layer
    input_shape : sequence of int
        With the batch axis.
    dtype : optional
        Of the zeros; default that of the model's first parameter, or float32.

    Returns
    -------
    str
        What was printed.

    Examples
    --------
    >>> import fastnn
    >>> text = fastnn.summary(fastnn.Sequential(fastnn.Linear(64, 10), fastnn.ReLU()), (1, 64))
    layer                 output shape  parameters
    Sequential            (1, 10)              650
      (0): Linear(64, 10) (1, 10)              650
      (1): ReLU()         (1, 10)                0
    650 parameters, 2.5 KiB
    """
    if not isinstance(model, Layer):
        raise TypeError(f"model must be a layer, got {type(model).__name__}")
    shape = _arrays.integers(input_shape, "input_shape")
    if min(shape, default=0) < 0:
        raise ValueError(f"input_shape must hold integers of at least 0, got {shape}")
    parameters = model.parameters()
    if dtype is None:
        dtype = parameters[0].data.dtype if parameters else np.float32
    shapes = _shapes(model, np.zeros(shape, dtype))
    rows = [("layer", "output shape", "parameters")]
    for name, layer in model.named_layers():
        depth = name.count(".") + 1 if name else 0
        inner = any(True for _ in layer.named_children())
        label = f"{type(layer).__name__}" if inner else repr(layer)
        own = name.rpartition(".")[2]
        count = sum(parameter.data.size for parameter in layer.parameters())
        rows.append(
            ("  " * depth + (f"({own}): " if own else "") + label, str(shapes.get(id(layer), "")), f"{count:,}")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    total = sum(parameter.data.size for parameter in parameters)
    lines.append(f"{total:,} parameters, {sum(parameter.data.nbytes for parameter in parameters) / 1024:,.1f} KiB")
    text = "\n".join(lines)
    print(text)
    return text


def _shapes(model: Layer, x: Array) -> dict[int, tuple[int, ...]]:
    """Output shape of every layer that runs, by identity; a layer used twice shows the last."""
    shapes: dict[int, tuple[int, ...]] = {}

    def watch(layer: Layer) -> None:
        evaluate = layer._evaluate

        def watched(x: Array) -> Array:
            y = evaluate(x)
            shapes[id(layer)] = y.shape
            return y

        layer._evaluate = watched  # type: ignore[method-assign]

    layers = {id(layer): layer for _, layer in model.named_layers()}.values()
    try:
        for layer in layers:
            watch(layer)
        model._evaluate(x)
    finally:
        for layer in layers:
            vars(layer).pop("_evaluate", None)
    return shapes
