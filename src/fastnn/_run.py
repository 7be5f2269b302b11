"""What a training run remembers: its history, and a checkpoint from which it goes on as if it had never stopped."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import checkpoint
from fastnn.layers.base import Layer
from fastnn.optim import SGD
from fastnn.random import Generator, default_generator

Array = npt.NDArray[Any]
Path = str | os.PathLike[str]

__all__ = ["History", "Position", "Recorder", "Run", "check_target", "generators"]


class History(NamedTuple):
    """The course of a training run as float64 and int64 arrays.

    Attributes
    ----------
    loss, lr : ndarray, shape (steps,)
        Mean loss of each step's minibatches in training mode, before the step; learning rate of each step.
    epoch_step : ndarray of int64, shape (epochs,)
        Steps done at the end of each epoch.
    training_loss, training_accuracy : ndarray, shape (epochs,)
        Of the whole training set in evaluation mode; NaN where not asked for.
    validation_loss, validation_accuracy : ndarray, shape (epochs,)
        Of the held-out set in evaluation mode; NaN without one.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> x, y = np.eye(4, dtype=np.float32), np.arange(4)
    >>> model = fastnn.Linear(4, 4, rng=0)
    >>> optimizer = fastnn.SGD(model.parameters(), lr=0.5)
    >>> history = fastnn.train.fit(model, F.cross_entropy, optimizer, (x, y), 3, batch_size=2, progress=False)
    >>> history.loss.shape, history.lr.tolist(), history.epoch_step.tolist()
    ((6,), [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [2, 4, 6])
    """

    loss: Array
    lr: Array
    epoch_step: Array
    training_loss: Array
    training_accuracy: Array
    validation_loss: Array
    validation_accuracy: Array


class Recorder:
    """Grows a `History`."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self.epochs: list[tuple[float, ...]] = []

    def history(self) -> History:
        """Up to now."""
        steps = np.array(self.steps, np.float64).reshape(-1, 2)
        epochs = np.array(self.epochs, np.float64).reshape(-1, 5)
        return History(steps[:, 0].copy(), steps[:, 1].copy(), epochs[:, 0].astype(np.int64), *epochs[:, 1:].T.copy())

    def restore(self, history: History) -> None:
        """Go on from there."""
        self.steps = list(zip(history.loss.tolist(), history.lr.tolist()))
        self.epochs = list(zip(*(array.tolist() for array in history[2:])))


class Position(NamedTuple):
    """Where a run stands: `step` steps into `epoch`, which visits the samples in `order` (None: not drawn yet)."""

    epoch: int = 0
    step: int = 0
    order: Array | None = None


def generators(model: Layer, source: Generator) -> list[Generator]:
    """Every generator that a training step may draw from, each once: the loop's own first, then the layers'."""
    found = [source]
    for _, layer in model.named_layers():
        if "generator" in vars(layer):
            own = vars(layer)["generator"]
            found.append(default_generator() if own is None else own)
    return list({id(generator): generator for generator in found}.values())


@dataclasses.dataclass(frozen=True)
class Run:
    """All that changes while a model is trained."""

    model: Layer
    optimizer: SGD
    generators: Sequence[Generator]
    recorder: Recorder
    settings: Mapping[str, int]  # what must be the same when the run goes on

    def save(self, path: Path, position: Position, metadata: Mapping[str, str] | None) -> None:
        """Replace the file as a whole."""
        order = np.zeros(0, np.int64) if position.order is None else position.order
        sections = {part: holder.state_dict() for part, holder in self._holders().items()}
        sections["history"] = self.recorder.history()._asdict()
        sections["position"] = {"epoch": position.epoch, "step": position.step, "order": order}
        arrays = {f"{part}.{name}": value for part, values in sections.items() for name, value in values.items()}
        checkpoint.save(path, arrays, dict(metadata or {}) | {"fastnn.fit": json.dumps(self.settings, sort_keys=True)})

    def restore(self, path: Path) -> Position:
        """Take up the state that `save` wrote; all of it or, on error, none.

        Raises
        ------
        CheckpointError
            If the file is malformed, no whole checkpoint of a run, or of a run with another model or settings.
        """
        name = os.fspath(path)
        try:
            saved = json.loads(checkpoint.load_metadata(path)["fastnn.fit"])
        except checkpoint.CheckpointError:
            raise
        except (KeyError, ValueError, RecursionError):
            raise checkpoint.CheckpointError(f"{name} is not a checkpoint of a training run") from None
        if saved != dict(self.settings):
            raise checkpoint.CheckpointError(
                f"{name} belongs to a run with {saved}, this one has {dict(self.settings)}"
            )
        parts: dict[str, dict[str, Array]] = {}
        for key, array in checkpoint.load(path).items():
            part, _, rest = key.partition(".")
            parts.setdefault(part, {})[rest] = array
        holders = self._holders()
        before = {part: holder.state_dict() for part, holder in holders.items()}
        try:
            history = _history(parts.pop("history", {}))
            position = _position(parts.pop("position", {}), self.settings["samples"])
            if parts.keys() != holders.keys():
                raise ValueError(f"it has the parts {sorted(parts)} where {sorted(holders)} are needed")
            for part, holder in holders.items():
                holder.load_state_dict(parts[part])
        except (TypeError, KeyError, ValueError) as error:
            for part, holder in holders.items():
                holder.load_state_dict(before[part])
            raise checkpoint.CheckpointError(f"{name} is not a checkpoint of this run: {error}") from None
        self.recorder.restore(history)
        return position

    def _holders(self) -> dict[str, Any]:
        """Everything that saves and loads its own state, by its part of the file."""
        numbered = {f"generator{k}": generator for k, generator in enumerate(self.generators)}
        return {"model": self.model, "optimizer": self.optimizer, **numbered}


def check_target(path: Path, metadata: Mapping[str, str] | None) -> None:
    """Raise before the training what `Run.save` would raise after its first epoch."""
    target = os.path.realpath(path)
    if os.path.isdir(target) or not os.path.isdir(os.path.dirname(target)):
        raise ValueError(f"checkpoint must be a file in an existing folder, got {os.fspath(path)!r}")
    checkpoint.check_metadata(metadata or {})


def _history(arrays: Mapping[str, Array]) -> History:
    history = History(**arrays)
    lengths = [len(history.loss)] * 2 + [len(history.epoch_step)] * 5
    for name, array, length in zip(History._fields, history, lengths):
        expected = np.int64 if name == "epoch_step" else np.float64
        if array.dtype != expected or array.shape != (length,):
            raise ValueError(f"history.{name} is an array of {array.dtype} with shape {array.shape}")
    return history


def _position(arrays: Mapping[str, Array], samples: int) -> Position:
    epoch, step, order = int(arrays["epoch"]), int(arrays["step"]), arrays["order"]
    if epoch < 0 or step < 0:
        raise ValueError(f"epoch {epoch} and step {step} are out of range")
    if order.size == 0 and step == 0:
        return Position(epoch)
    if order.dtype != np.int64 or order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(samples)):
        raise ValueError("the order of the samples is no permutation")
    return Position(epoch, step, order)
