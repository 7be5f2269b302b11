"""Chooses one ISA build of the kernels at import and hands its entry points on under one name each.

FASTNN_ISA = x86_64_v2 | x86_64_v3 | x86_64_v4 | generic asks for a build; one that is missing, incomplete, that this
CPU cannot run or that is broken is an ImportError, never silently another one.

The build is chosen, and its files are looked at, at import; each of its modules is loaded when a name of it is first
used, for loading all of them takes longer than the rest of `import fastnn`.
"""

import importlib
import os
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING, Any

from fastnn._kernels import _runtime
from fastnn._kernels._plan import CallStep, Executor, Finisher, Plan, Step
from fastnn._kernels._runtime import cpu_level, get_thread_limit, set_thread_limit, team_kind
from fastnn._kernels._streams import StreamCounter
from fastnn._kernels._tensors import TensorTable

# Build → the least CPU level that runs it; best first.
LEVELS = {"x86_64_v4": 4, "x86_64_v3": 3, "x86_64_v2": 2, "generic": 0}
# Module of a build → its entry points.
MODULES: dict[str, tuple[str, ...]] = {
    "accumulate": ("accumulator_add", "accumulator_finish"),
    "activation": (
        "ACTIVATIONS", "ActivationFinisher", "ElementwiseStep", "activation_backward", "activation_forward",
    ),
    "columns_backward": ("columns_backward",),
    "columns_forward": ("columns_forward",),
    "convolution": (
        "PLANE_MARGIN", "PLANE_MULTIPLE", "ConvolutionStep", "convolution_rows", "shifted_products",
    ),
    "convolution_weights": ("weight_gradient",),
    "depthwise": ("depthwise_products",),
    "dropout": ("apply_mask", "draw_dropout", "dropout", "ready", "redraw_dropout"),
    "elementwise_loss": ("BCE_WITH_LOGITS", "MSE", "elementwise_loss", "elementwise_loss_backward"),
    "fill": ("fill_constant",),
    "linear_step": ("LinearStep", "linear_panels"),
    "loss": ("cross_entropy_rows", "cross_entropy_rows_backward"),
    "noise": ("noise",),
    "norms": (
        "batch_norm", "batch_population", "group_norm", "groups_from_running", "instance_norm", "norm_backward",
        "standardize", "trailing_norm",
    ),
    "pool": ("PoolStep", "pool_backward", "pool_forward"),
    "products": ("linear_product", "matrix_product"),
    "random": ("fill_normal", "fill_uniform", "fill_words", "permutation", "threefry4x32", "uniform_interval"),
    "rows_backward": ("rows_backward",),
    "rows_backward_own": ("rows_backward_own",),
    "rows_forward": ("NormStep", "rows_forward"),
    "sgd": (
        "clip_gradients", "gradient_norm", "parameter_norm", "project_ball", "project_rows", "sgd_step",
        "zero_gradients",
    ),
    "softmax": ("SoftmaxStep", "softmax", "softmax_backward"),
    "sums": ("add_bias", "channel_sums"),
}  # fmt: skip
_HOMES = {name: module for module, names in MODULES.items() for name in names}


def built() -> list[str]:
    """The builds that this installation holds."""
    return [level for level in LEVELS if os.path.isdir(os.path.join(os.path.dirname(__file__), level))]


def available() -> list[str]:
    """The builds that this installation holds and this CPU can run, best first."""
    return [level for level in built() if LEVELS[level] <= cpu_level()]


def _choose(asked: str) -> str:
    if not asked:
        if not available():
            raise ImportError(f"fastnn holds the kernel builds {built()}, none of which runs on this CPU")
        return available()[0]
    if asked not in LEVELS:
        raise ImportError(f"FASTNN_ISA must be one of {', '.join(LEVELS)}, got {asked!r}")
    if asked not in available():
        raise ImportError(f"FASTNN_ISA={asked} is not usable here: built {built()}, usable {available()}")
    return asked


def _check(level: str) -> None:
    """Raise unless all of a build's files are there and begin as libraries of this platform do."""
    folder = os.path.join(os.path.dirname(__file__), level)
    files = {name.partition(".")[0]: name for name in os.listdir(folder) if name.endswith(tuple(EXTENSION_SUFFIXES))}
    if missing := MODULES.keys() - files.keys():
        raise ImportError(f"the kernel build {level} lacks {', '.join(sorted(missing))}")
    expected = _beginning(_runtime.__file__)
    for module in MODULES:
        path = os.path.join(folder, files[module])
        if _beginning(path) != expected:
            raise ImportError(f"the kernel build {level} is broken: {path} is no library", name=module, path=path)


def _beginning(path: str) -> bytes:
    """The bytes by which the dynamic loader knows a library of its kind (ELF: e_ident)."""
    descriptor = os.open(path, os.O_RDONLY)  # open() would take three times as long
    try:
        return os.read(descriptor, 16)
    finally:
        os.close(descriptor)


ISA = _choose(os.environ.get("FASTNN_ISA", ""))
_check(ISA)

if not TYPE_CHECKING:  # a type checker reads __init__.pyi, and so notices a name that does not exist

    def __getattr__(name: str) -> Any:
        """Load the module of an entry point when that is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _HOMES[name]
        build = importlib.import_module(f"{__name__}.{ISA}.{module}")
        globals().update({one: getattr(build, one) for one in MODULES[module]})  # found without this from now on
        return globals()[name]
