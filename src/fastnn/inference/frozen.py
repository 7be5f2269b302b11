"""The callable that freezing makes."""

import os
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.inference.nodes import Node, check_node
from fastnn.inference.plan import build

__all__ = ["Frozen"]


class Frozen(_kernels.Executor):
    """A network that only answers: immutable, and safe to call from many threads at once.

    `freeze` and `load_frozen` make it. Called with an array whose first axis is the batch, it gives what the model
    gives in evaluation mode; each sample's answer depends on that sample alone, whatever the batch and the threads.

    Parameters
    ----------
    x : array, shape (samples, …)
        Of the network's dtype; anything that speaks ``__array__``, DLPack or the buffer protocol.
    out : ndarray, optional
        Where the result goes; may be `x` itself.

    Returns
    -------
    ndarray
        `out` if given.

    Raises
    ------
    TypeError
        If `x` is not of the network's dtype.
    ValueError
        If the samples' shape does not fit.

    Attributes
    ----------
    dtype : numpy.dtype or None
        float32 or float64; None where no layer has parameters: then both will do.

    Notes
    -----
    What runs for a shape of samples is planned at the first call with it: steps, and places for the results between
    them in memory that later calls use again. Batches of any size share one plan. A large batch is cut into pieces that
    go through all steps, on as many threads as `fastnn.set_num_threads` allows.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> model = fastnn.Sequential(fastnn.Linear(2, 3), fastnn.BatchNorm(3), fastnn.ReLU(), fastnn.Linear(3, 1))
    >>> frozen = fastnn.freeze(model)
    >>> frozen
    Frozen(
      0: linear(2, 3) + relu
      1: linear(3, 1)
    )
    >>> frozen(np.zeros((5, 2), np.float32)).shape
    (5, 1)
    """

    __slots__ = ("_nodes", "_packed", "dtype")

    _nodes: tuple[Node, ...]
    _packed: dict[int, Any]
    dtype: np.dtype[Any] | None

    def __init__(self, nodes: Sequence[Node]) -> None:
        for place, node in enumerate(nodes):
            check_node(node, place, _kernels.ACTIVATIONS)
        dtypes = {array.dtype for node in nodes for array in node.arrays.values()}
        if len(dtypes) > 1:
            raise ValueError(f"all parameters must have one dtype, got {sorted(map(str, dtypes))}")
        object.__setattr__(self, "_nodes", tuple(nodes))
        object.__setattr__(self, "_packed", {})
        object.__setattr__(self, "dtype", dtypes.pop() if dtypes else None)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a frozen network does not change, {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a frozen network does not change, {name} cannot be deleted")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file: its arrays, and how they are used as JSON in the metadata.

        The file is replaced as a whole, and holds neither pickle nor code; `load_frozen` reads it.

        Examples
        --------
        >>> import numpy as np, fastnn, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
        >>> frozen = fastnn.freeze(fastnn.Sequential(fastnn.Linear(2, 3), fastnn.ReLU()))
        >>> frozen.save(path)
        >>> x = np.ones((1, 2), np.float32)
        >>> bool((fastnn.load_frozen(path)(x) == frozen(x)).all())
        True
        """
        from fastnn.inference.file import save_nodes

        save_nodes(path, self._nodes)

    def _prepare(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> _kernels.Plan:
        return build(self._nodes, dtype, shape, self._packed)

    def _gate(self, x: Any, out: Any) -> Array:
        """Every call but those that need nothing of this: a known form, no `out`."""
        array = _arrays.floating(x, "x", self.dtype)
        if array.ndim < 2:
            raise ValueError(f"x must have a batch axis and at least one more, got shape {array.shape}")

        def choose(shape: tuple[int, ...]) -> Array | None:
            if out is None:
                return None
            _arrays.check_out(out, shape, array.dtype)
            usable = _arrays.contiguous(out, array.dtype) is out and not _arrays.overlaps(out, array)
            return out if usable else None  # type: ignore[no-any-return]

        return _arrays.deliver(self._run(array, choose), out)

    def __repr__(self) -> str:
        lines = "".join(f"\n  {place}: {_shown(node, place)}" for place, node in enumerate(self._nodes))
        return f"Frozen({lines}\n)"


def _shown(node: Node, place: int) -> str:
    weight = node.arrays.get("weight")
    sizes = ""
    if node.kind == "linear" and weight is not None:
        sizes = f"({weight.shape[1]}, {weight.shape[0]})"
    elif node.kind == "conv2d" and weight is not None:
        channels = weight.shape[1] * node.settings["groups"]
        sizes = f"({channels}, {weight.shape[0]}, kernel_size={weight.shape[2:]})"
    joined = node.kind + sizes
    if node.source != place - 1:
        joined += f" of {_name(node.source)}"
    if node.residual is not None:
        joined += f" + {_name(node.residual)}"
    return joined + (f" + {node.activation.name}" if node.activation is not None else "")


def _name(source: int) -> str:
    return "input" if source < 0 else f"({source})"
