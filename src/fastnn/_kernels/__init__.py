"""Chooses one ISA build of the kernels at import and hands its entry points on under one name each.

FASTNN_ISA = x86_64_v2 | x86_64_v3 | x86_64_v4 | generic asks for a build; one that is missing, that this CPU cannot
run or that is broken is an ImportError, never silently another one.
"""

import importlib
import os

# After each parallel region libgomp's idle workers spin for milliseconds by default. On a processor that others want
# too, among them OpenBLAS's workers in the next matrix product, that costs more than it saves: training a small net on
# two processors took 6 times as long, and single calls now and then 8 ms. libgomp reads its settings when `_runtime`
# loads it, and never again: the variable is there for just that long, so that neither this process nor its children
# see an environment that differs. What the user has set stays.
_short_spin = not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
if _short_spin:
    os.environ["GOMP_SPINCOUNT"] = "1000"
try:
    from fastnn._kernels._plan import CallStep, Executor, Finisher, Plan, Step
    from fastnn._kernels._runtime import cpu_level, get_thread_limit, has_openmp, seal_threads, set_thread_limit
    from fastnn._kernels._streams import StreamCounter
    from fastnn._kernels._tensors import TensorTable
finally:
    if _short_spin:
        del os.environ["GOMP_SPINCOUNT"]

# Build → the least CPU level that runs it; best first.
LEVELS = {"x86_64_v4": 4, "x86_64_v3": 3, "x86_64_v2": 2, "generic": 0}
MODULES: tuple[str, ...] = (
    "accumulate",
    "activation",
    "columns_backward",
    "columns_forward",
    "convolution",
    "dropout",
    "elementwise_loss",
    "linear_step",
    "loss",
    "noise",
    "norm_running",
    "pool",
    "products",
    "random",
    "rows_backward",
    "rows_backward_own",
    "rows_forward",
    "sgd",
    "softmax",
    "sums",
)


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


ISA = _choose(os.environ.get("FASTNN_ISA", ""))


def _load() -> None:
    for module in MODULES:
        build = importlib.import_module(f"{__name__}.{ISA}.{module}")
        globals().update({name: getattr(build, name) for name in build.__all__})


_load()
