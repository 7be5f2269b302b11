"""fastnn: normalisation, dropout, gradient accumulation and SGD on the CPU; fast, exact, small.

The map of the house, from the outside in; each part imports only what stands below it.

===================  ================================================================
`fastnn.train`       the training loop, its history and its checkpoints
`fastnn.inference`   a trained network as an immutable callable
`fastnn.convert`     weights of Keras, Flax and other PyTorch models
`fastnn.layers`      objects that hold parameters and running statistics
`fastnn.functional`  stateless operations, forward and backward
`fastnn.optim`       SGD, constraints, clipping; `fastnn.gradients` accumulates
`fastnn.schedules`   learning rates as values: ``lr = schedule(step)``
`fastnn.init`        initialisers and the variance audit
`fastnn.random`      the counter-based generator behind dropout and initialisers
`fastnn.checkpoint`  arrays to and from safetensors files
===================  ================================================================
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastnn._config import __version__, show_config
from fastnn._threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from fastnn import (
        checkpoint,
        convert,
        functional,
        gradients,
        inference,
        init,
        layers,
        optim,
        random,
        schedules,
        train,
    )
    from fastnn.checkpoint import load, load_metadata, save
    from fastnn.gradients import GradientAccumulator, full_gradient
    from fastnn.inference import load_frozen
    from fastnn.inference.lower import freeze
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
    )
    from fastnn.layers.summary import summary
    from fastnn.optim import SGD
    from fastnn.random import Generator, manual_seed

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
    "convert",
    "freeze",
    "full_gradient",
    "functional",
    "get_num_threads",
    "gradients",
    "inference",
    "init",
    "layers",
    "load",
    "load_frozen",
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

_MODULES = (
    "checkpoint", "convert", "functional", "gradients", "inference", "init", "layers", "optim", "random", "schedules",
    "train",
)  # fmt: skip
# Name → the module that defines it; the others are layers.
_HOMES = {
    "SGD": "optim",
    "Generator": "random",
    "GradientAccumulator": "gradients",
    "freeze": "inference.lower",
    "full_gradient": "gradients",
    "load": "checkpoint",
    "load_frozen": "inference.file",
    "load_metadata": "checkpoint",
    "manual_seed": "random",
    "save": "checkpoint",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and so notices a name that does not exist

    def __getattr__(name: str) -> Any:
        """Load a module when something of it is first used: a program waits only for the parts that it needs."""
        if name in _MODULES:
            return importlib.import_module(f"fastnn.{name}")
        if name not in __all__:
            raise AttributeError(f"module 'fastnn' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"fastnn.{_HOMES.get(name, 'layers')}"), name)
        globals()[name] = value  # found without this function from now on
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
