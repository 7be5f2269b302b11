"""fastnn: normalisation, dropout, gradient accumulation and SGD on the CPU; fast, exact, small.

The map of the house, from the outside in; each part imports only what stands below it.

=================  ==================================================================
`fastnn.train`     the training loop, its history and its checkpoints
`fastnn.layers`    objects that hold parameters and running statistics
`fastnn.functional`  stateless operations, forward and backward
`fastnn.optim`     SGD, constraints, clipping; `fastnn.gradients` accumulates
`fastnn.schedules` learning rates as values: ``lr = schedule(step)``
`fastnn.init`      initialisers and the variance audit
`fastnn.random`    the counter-based generator behind dropout and initialisers
`fastnn.checkpoint`  arrays to and from safetensors files
=================  ==================================================================
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastnn import functional, gradients, init, layers, optim, random
from fastnn._config import __version__, show_config
from fastnn._threads import get_num_threads, set_num_threads
from fastnn.gradients import GradientAccumulator, full_gradient
from fastnn.layers import (
    ELU,
    GELU,
    AlphaDropout,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    DropPath,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    GroupNorm,
    Identity,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Parameter,
    ReLU,
    Residual,
    RMSNorm,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    recalibrate,
    summary,
)
from fastnn.optim import SGD
from fastnn.random import Generator, manual_seed

if TYPE_CHECKING:
    from fastnn import checkpoint, schedules, train
    from fastnn.checkpoint import load, load_metadata, save

__all__ = [
    "ELU",
    "GELU",
    "SGD",
    "AlphaDropout",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "DropPath",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Generator",
    "GradientAccumulator",
    "GroupNorm",
    "Identity",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "__version__",
    "checkpoint",
    "full_gradient",
    "functional",
    "get_num_threads",
    "gradients",
    "init",
    "layers",
    "load",
    "load_metadata",
    "manual_seed",
    "optim",
    "random",
    "recalibrate",
    "save",
    "schedules",
    "set_num_threads",
    "show_config",
    "summary",
    "train",
]


def __getattr__(name: str) -> Any:
    """What many programs do without is loaded when it is first used: files, schedules and the training loop."""
    if name in ("checkpoint", "schedules", "train"):
        return importlib.import_module(f"fastnn.{name}")
    if name in ("load", "load_metadata", "save"):
        return getattr(importlib.import_module("fastnn.checkpoint"), name)
    raise AttributeError(f"module 'fastnn' has no attribute {name!r}")
