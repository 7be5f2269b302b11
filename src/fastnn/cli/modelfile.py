"""A trained network as one file: its state dict under PyTorch's names, and as metadata all that prediction needs."""

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import checkpoint
from fastnn.cli.errors import Refusal
from fastnn.cli.models import Architecture
from fastnn.layers import Layer
from fastnn.random import Generator

Array = npt.NDArray[Any]

__all__ = ["ModelFile", "Preparation", "prepare", "read", "write"]


class Preparation(NamedTuple):
    """What was learnt about the data before training: statistics, class labels, which part was held out."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[int | str, ...]
    digest: str
    split_seed: int | None  # None where the source came with a test part

    def inputs(self, x: Array) -> Array:
        """Standardised, float32."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean, std = (np.array(values).reshape(shape) for values in (self.mean, self.std))
        standard: Array = ((x - mean) / std).astype(np.float32)
        return standard

    def targets(self, y: Array, where: str) -> Array:
        """Labels as class numbers."""
        labels = np.array(self.labels)
        unknown = np.setdiff1d(y, labels)
        if unknown.size:
            raise Refusal(f"--data {where}: the label {unknown[0]!s} is none of the {len(labels)} that were trained on")
        order = np.argsort(labels)
        found: Array = order[np.searchsorted(labels, y, sorter=order)]
        return found


def prepare(digest: str, x: Array, y: Array, split_seed: int | None) -> Preparation:
    """From the training part alone. A constant channel or feature keeps its scale."""
    axes = (0, *range(2, x.ndim))
    mean, std = x.mean(axes, dtype=np.float64), x.std(axes, dtype=np.float64)
    std[std == 0] = 1
    return Preparation(tuple(mean.tolist()), tuple(std.tolist()), tuple(np.unique(y).tolist()), digest, split_seed)


class ModelFile(NamedTuple):
    """What the file holds."""

    model: Layer  # in evaluation mode
    architecture: Architecture
    preparation: Preparation


def write(path: Path, model: Layer, architecture: Architecture, preparation: Preparation, run: dict[str, Any]) -> None:
    """Replace `path` as a whole; the same content gives the same bytes."""
    metadata = {
        "format": "pt",  # other libraries take this for: names and layouts as in PyTorch
        "fastnn.architecture": architecture.to_json(),
        "fastnn.preparation": json.dumps(preparation._asdict(), sort_keys=True),
        "fastnn.run": json.dumps(run, sort_keys=True),
    }
    checkpoint.save(path, model.state_dict(), metadata)


def read(path: str | os.PathLike[str]) -> ModelFile:
    """The model of a file that `write` wrote, or a `Refusal`."""
    try:
        metadata, arrays = checkpoint.load_metadata(path), checkpoint.load(path)
    except checkpoint.CheckpointError as error:
        raise Refusal(str(error)) from None
    except OSError as error:
        raise Refusal(f"{os.fspath(path)}: {error.strerror}") from None
    if "fastnn.architecture" not in metadata or "fastnn.preparation" not in metadata:
        raise Refusal(f"{os.fspath(path)} is no model that fastnn train wrote (a model.safetensors is needed)")
    try:
        architecture = Architecture.from_json(metadata["fastnn.architecture"])
        preparation = _preparation(metadata["fastnn.preparation"], architecture)
        if architecture.weights() > sum(array.size for array in arrays.values()):
            raise ValueError("its arrays are fewer than its architecture needs")
        model = architecture.build(Generator(0)).eval()
        model.load_state_dict(arrays)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise Refusal(f"{os.fspath(path)}: the model in it is damaged ({error})") from None
    return ModelFile(model, architecture, preparation)


def _preparation(text: str, architecture: Architecture) -> Preparation:
    """Checked, because a file may say anything."""
    values = json.loads(text)
    if not isinstance(values, dict) or values.keys() != set(Preparation._fields):
        raise ValueError("it does not name the parts of a preparation")
    channels, labels, seed = architecture.shape[0], values["labels"], values["split_seed"]
    for statistic in (values["mean"], values["std"]):
        if not isinstance(statistic, list) or len(statistic) != channels:
            raise ValueError(f"its statistics are not those of {channels} channels")
        if not all(type(value) is float and math.isfinite(value) for value in statistic):
            raise ValueError("its statistics are not finite numbers")
    if 0 in values["std"] or not isinstance(labels, list) or len(labels) != architecture.classes:
        raise ValueError(f"its labels or scales are not those of {architecture.classes} classes")
    if not (all(type(label) is int for label in labels) or all(type(label) is str for label in labels)):
        raise ValueError("its labels are neither integers nor text")
    if len(set(labels)) != len(labels) or not isinstance(values["digest"], str):
        raise ValueError("its labels repeat or its digest is no text")
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**64):
        raise ValueError("its seed is out of range")
    return Preparation(tuple(values["mean"]), tuple(values["std"]), tuple(labels), values["digest"], seed)
