"""Random calls of everything public. Few of them make sense; each has to end in a result or in an honest error.

By hand ``make fuzz CALLS=1000000``: prints calls, results, errors by type, and findings. A finding is an exception that
the interface does not promise, an argument or a state that an error left changed, or the end of the
process. ``test_fuzzing.py`` runs the same in small, steered by hypothesis.
"""

import argparse
import collections
import contextlib
import inspect
import io
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastnn
import fastnn.functional as F
import operations
from fastnn import checkpoint, init, optim, schedules, train
from fastnn.train import DivergenceError

PROMISED = (TypeError, ValueError, MemoryError, DivergenceError, OSError)
LENGTHS = [0, 1, 1, 2, 2, 3, 4, 4, 5, 8, 15, 16, 17, 31, 32, 33, 64, 65, 130]
NUMBERS = [0.0, 1.0, 0.5, 0.1, 1e-5, 2.0, -1.0, -0.0, 3, 1, 0, 2, 1e-300, 1e300, math.nan, math.inf, -math.inf]
COUNTS = [1, 1, 2, 2, 3, 4, 5, 7, 0, -1, 10**3, 2**31, 2**40, 2**62, 2**63, -(2**63), 2**70]
ABSURD = [
    None, True, False, "x", "mean", b"", (), [], {}, (1, 2), (0,), [-1, 3], 1j, object(), int, slice(None), 2**70, -5,
    math.nan, np.float32(0.5), np.int8(3), np.array(2), np.array([1.5]), np.array([], int), np.array("a"), "1",
    np.ma.masked_array([1.0], [True]), range(3), ..., 10**400,
]  # fmt: skip
DTYPES = [np.float32, np.float64, "f4", ">f8", np.float16, np.int32, bool, np.complex64, object, "nonsense", None]
WORDS = [
    "mean", "sum", "none", "inverted", "classic", "tanh", "oi", "io", "fan_in", "fan_out", "fan_avg", "normal",
    "uniform", "truncated_normal", "relu", "leaky_relu", "linear", "same", "valid", "cos", "min", "max", "rel", "abs",
    "triangular", "exp_range", "",
]  # fmt: skip


class Source:
    """Random arguments, by the name of the parameter; arrays of one call mostly fit each other."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.dtype = rng.choice([np.float32, np.float64])
        self.shape = self.lengths(rng.choice([0, 1, 2, 2, 3, 3, 4, 4, 4, 5]))

    def lengths(self, ndim: int) -> tuple[int, ...]:
        shape = [self.rng.choice(LENGTHS) for _ in range(ndim)]
        while math.prod(shape) > 6000:
            shape[self.rng.randrange(ndim)] = self.rng.choice([1, 2, 3])
        return tuple(shape)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def array(self, shape: tuple[int, ...] | None = None, dtype: Any = None) -> np.ndarray:
        rng = self.rng
        shape = self.shape if shape is None else shape
        values = np.random.default_rng(rng.getrandbits(32)).standard_normal(shape)
        if self.chance(0.1):
            values *= rng.choice([0.0, 1e-30, 1e30, 1e-310, 1e300, math.inf, math.nan])
        if dtype is None:
            dtype = (
                self.dtype if self.chance(0.95) else rng.choice([np.float32, np.float64, ">f4", np.float16, int, bool])
            )
        with np.errstate(all="ignore"):
            array = values.astype(dtype)
        return self.layout(array)

    def layout(self, a: np.ndarray) -> np.ndarray:
        kind = self.rng.randrange(12)
        if kind == 0:
            return np.asfortranarray(a)
        if kind == 1:
            return a[tuple(slice(None, None, -1) for _ in a.shape)]
        if kind == 2:
            whole = np.zeros([2 * n for n in a.shape], a.dtype)
            whole[tuple(slice(None, None, 2) for _ in a.shape)] = a
            return whole[tuple(slice(None, None, 2) for _ in a.shape)]
        if kind == 3 and a.ndim and len(a):
            return np.broadcast_to(a[:1], a.shape)
        if kind == 4:
            memory = np.zeros(a.nbytes + 1, np.uint8)
            view = memory[1:].view(a.dtype).reshape(a.shape) if a.nbytes else a
            view[...] = a
            return view
        if kind == 5:
            a.flags.writeable = False
        return a

    def part(self) -> tuple[int, ...]:
        """A shape that a parameter of an operation on the input may have."""
        shape = self.shape or (1,)
        axis = self.rng.randrange(len(shape))
        return self.rng.choice([(shape[min(1, len(shape) - 1)],), (shape[-1],), shape[axis:], shape, (shape[axis],)])

    def any(self, name: str) -> Any:
        """Something for a parameter of this name."""
        if self.chance(0.06):
            return self.rng.choice(ABSURD)
        if self.chance(0.03):
            return self.array(self.lengths(2))
        return self.fitting(name)

    def fitting(self, name: str) -> Any:
        rng, shape = self.rng, self.shape
        pick = rng.choice
        channels = shape[1] if len(shape) > 1 else 4
        match name:
            case "input" | "x" | "dy" | "data" | "grad":
                return self.array()
            case "target":
                return pick([self.array, self.labels])()
            case "weight" if len(shape) == 4 and self.chance(0.5):
                return self.array((pick([1, 2, 4]), max(1, channels), pick([1, 2, 3]), pick([1, 2, 3])))
            case "weight" if len(shape) > 0 and self.chance(0.3):
                return self.array((pick([1, 2, 5, 33]), shape[-1]))
            case "weight" | "bias" | "pos_weight" | "running_mean" | "running_var":
                return None if self.chance(0.3) else self.array(self.part())
            case "mask":
                return None if self.chance(0.5) else self.array(pick([shape, shape[1:], (1,) * len(shape)]), bool)
            case "out":
                if self.chance(0.6):
                    return None
                return self.array() if self.chance(0.8) else self.array(self.lengths(len(shape)))
            case "normalized_shape":
                return pick([shape[-1:], shape[-2:], shape, shape[-1] if shape else 1, list(shape[-1:]), channels])
            case "axis" | "dim" | "channel_axis" | "start_dim" | "end_dim":
                return pick([1, -1, 0, 2, -2, 3, (0, 1), 5, None])
            case "broadcast_axes":
                return pick([(), (1,), (2, 3), 0, -1, (0, 0)])
            case "num_features" | "num_channels" | "in_channels" | "in_features":
                return channels if self.chance(0.8) else pick(COUNTS[:11])
            case "out_channels" | "out_features" | "n" | "rounds" | "batch_size" | "epochs" | "input_shape":
                return pick([1, 2, 3, 5, 8, 0, -1])
            case "num_groups" | "groups":
                return pick([1, 2, 1, 4, channels, 0, -1, 2**63])
            case "kernel_size" | "stride" | "padding" | "dilation" | "divisor_override":
                return (
                    pick([1, 2, 3, (2, 1), (1, 3), 0, -1, [2, 2], None, *COUNTS]) if self.chance(0.6) else pick([1, 2])
                )
            case "generator":
                return None if self.chance(0.3) else fastnn.Generator(rng.getrandbits(40))
            case "rng":
                return pick([None, 3, fastnn.Generator(1), np.random.default_rng(2)])
            case "shape" | "size":
                return pick([shape, self.lengths(2), self.lengths(1), 5, 0, (-1, 2), (2**40, 2**40), (2**62,), [3, 4]])
            case "dtype":
                return pick(DTYPES)
            case "counter" | "key":
                return [rng.getrandbits(32) for _ in range(4)]
            case "path":
                return os.path.join(tempfile.gettempdir(), f"fuzz{os.getpid()}-{rng.randrange(3)}")
            case "arrays" | "d":
                return {pick(["a", "weight", "é", "__metadata__", ""]): self.array() for _ in range(3)}
            case "metadata" | "state":
                return pick([None, {"a": "b"}, {"a": 1}, {"seed": 1, "stream": 2}])
            case "text":
                return pick(["", "{}", "[1]", "nonsense", '{"type": "Constant", "lr": 1}', '{"type": 5}', "[" * 3000])
            case "step" | "steps" | "every" | "warmup" | "up" | "down" | "patience" | "boundaries" | "values":
                return pick([*COUNTS, self.array((5,), np.int64), [1, 2, 3], [3, 2], 10.5, (1,)])
            case "params":
                return [self.parameter() for _ in range(rng.randrange(3))]
            case "model" | "layer":
                return pick(
                    [fastnn.Identity(), fastnn.ReLU(), fastnn.Linear(4, 3), fastnn.BatchNorm(4), fastnn.Dropout()]
                )
            case "layers":
                return fastnn.ReLU()
            case "loss":
                return pick([F.cross_entropy, F.mse_loss])
            case "optimizer":
                return fastnn.SGD([fastnn.Parameter(np.ones(3))], lr=0.1)
            case "batches":
                return [self.array() for _ in range(2)]
            case "then":
                return schedules.Cosine(0.1, 10)
            case "schedules":
                return [schedules.Cosine(0.1, 10), schedules.Constant(0.1)][: rng.randrange(3)]
            case "constraint":
                return pick([None, optim.L2Ball(1.0), optim.MaxRowNorm(0.5)])
            case (
                "training"
                | "ceil_mode"
                | "affine"
                | "use_input_stats"
                | "nesterov"
                | "maximize"
                | "decay"
                | "staircase"
            ):
                return self.chance(0.5)
            case "lr" | "p" | "eps" | "momentum" | "sigma" | "std" | "beta" | "threshold":
                return pick(NUMBERS)
            case _:
                return pick([*NUMBERS, *WORDS, *COUNTS])

    def labels(self) -> np.ndarray:
        shape = self.shape[:1] + self.shape[2:]
        return np.random.default_rng(self.rng.getrandbits(32)).integers(-1, 6, shape)

    def parameter(self) -> fastnn.Parameter:
        made = fastnn.Parameter(np.ones(self.lengths(self.rng.randrange(4)), self.dtype))
        if self.chance(0.1):
            made.grad = self.array()
        return made


def arguments(source: Source, function: Callable[..., Any], given: tuple[str, ...] = ()) -> dict[str, Any]:
    """Keyword arguments for the function: required parameters, and some of the others."""
    made = {}
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in given:
            continue
        if required or source.chance(0.35):
            made[name] = source.any(name)
    if source.chance(0.01):
        made["unknown"] = 1
    return made


# Parameters that take objects of ours: there a wrong class ends in AttributeError, as everywhere in Python.
OBJECTS = {"model", "layer", "optimizer", "loss", "then", "schedules", "params", "ctx", "callback", "augment"}
NOT_CALLED = {
    "show_config": "prints",
    "plot": "draws with matplotlib",
    "set_num_threads": "would start up to 65536 threads",
    "Source": "a protocol",
    "Schedule": "the base class",
    "Layer": "the base class",
}


def public() -> dict[str, Callable[..., Any]]:
    """Every public function and class by name; companions of operations are called with them."""
    found: dict[str, Callable[..., Any]] = {}
    for module in (fastnn, fastnn.random, init, optim, fastnn.gradients, schedules, checkpoint, train, fastnn.layers):
        for name in module.__all__:
            value = getattr(module, name)
            if (inspect.isclass(value) and not issubclass(value, Exception)) or inspect.isroutine(value):
                found[name] = value
    return {name: value for name, value in sorted(found.items()) if name not in NOT_CALLED}


PUBLIC = public()
FUNCTIONS = sorted(operations.FUNCTIONS)


@contextlib.contextmanager
def unchanged(made: dict[str, Any]) -> Iterator[None]:
    """Every array among the arguments is as it was: on an error all, else those that the call is not to write."""
    arrays = {name: value for name, value in made.items() if isinstance(value, np.ndarray) and value.dtype != object}
    before = {name: value.tobytes() for name, value in arrays.items()}
    try:
        yield
    except PROMISED:
        for name, value in arrays.items():
            if value.tobytes() != before[name]:
                raise AssertionError(f"{name} was changed by a call that failed") from None
        raise
    written = [value for name, value in arrays.items() if name in ("out", "running_mean", "running_var")]
    for name, value in arrays.items():
        if value.tobytes() != before[name] and not any(np.shares_memory(value, array) for array in written):
            raise AssertionError(f"{name} was changed")


def an_operation(source: Source) -> None:
    """A function of the table, with its own or with random arguments, and its companions."""
    operation = operations.FUNCTIONS[source.rng.choice(FUNCTIONS)]
    function = getattr(F, operation.name)
    if source.chance(0.4):
        made = operation.arguments(source.dtype, source.rng.getrandbits(16))
        for name in source.rng.sample(sorted(made), source.rng.randrange(3)):
            made[name] = source.any(name)
        made = {k: source.layout(v) if isinstance(v, np.ndarray) and v.ndim else v for k, v in made.items()}
        if source.chance(0.3) and isinstance(made["input"], np.ndarray):
            source.shape = made["input"].shape
            made["out"] = source.any("out")
            if not operation.out:
                del made["out"]
    else:
        made = arguments(source, function)
    with unchanged(made):
        if source.chance(0.4):
            function(**made)
            return
        y, context = getattr(F, f"{operation.name}_forward")(**made)
    shape = np.shape(y) if source.chance(0.9) else source.lengths(2)
    dy = {"dy": source.array(shape, np.asarray(y).dtype) if source.chance(0.9) else source.any("dy")}
    with unchanged(dy):
        getattr(F, f"{operation.name}_backward")(dy["dy"], context)


def an_object(source: Source) -> None:
    """A public function or class, and what can be done with its result."""
    made = PUBLIC[source.rng.choice(list(PUBLIC))]
    if made is fastnn.Sequential:
        thing = fastnn.Sequential(*(source.any("layer") for _ in range(source.rng.randrange(4))))
    else:
        given = arguments(source, made)
        with unchanged(given):
            thing = made(**given)
    match thing:
        case fastnn.Layer():
            use_layer(source, thing)
        case schedules.Schedule():
            thing(source.any("step"))
            schedules.from_json(thing.to_json())
        case fastnn.SGD() | fastnn.GradientAccumulator() | fastnn.Generator() | schedules.ReduceOnPlateau():
            for _ in range(3):
                method = source.rng.choice([name for name in dir(thing) if not name.startswith("_")])
                bound = getattr(thing, method)
                if callable(bound):
                    bound(**arguments(source, bound))
        case _:
            pass


def use_layer(source: Source, layer: fastnn.Layer) -> None:
    state = {name: value.tobytes() for name, value in layer.state_dict().items()}
    depth = len(layer._contexts)
    training = source.chance(0.6)
    layer.train(training)
    try:
        y = layer(source.any("input"))
    except PROMISED:
        if len(layer._contexts) != depth or {n: v.tobytes() for n, v in layer.state_dict().items()} != state:
            raise AssertionError(f"{layer!r} was changed by a call that failed") from None
        raise
    if training:
        layer.backward(source.array(np.shape(y)) if source.chance(0.9) else source.any("dy"))
    if source.chance(0.2):
        layer.load_state_dict(source.any("d"), source.chance(0.5))


def one_call(rng: random.Random) -> str:
    """Make one call; returns how it ended, raises for a finding."""
    source = Source(rng)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            (an_operation if rng.random() < 0.7 else an_object)(source)
    except PROMISED as error:
        if not str(error) and not isinstance(error, MemoryError):
            raise AssertionError(f"{type(error).__name__} without a message") from error
        return type(error).__name__
    except RuntimeError as error:
        if re.search("needs a call in training mode|statistics|finished|microbatch", str(error)):
            return "RuntimeError"
        raise
    except (AttributeError, RecursionError) as error:
        if of_a_wrong_class(error):
            return type(error).__name__
        raise
    return "result"


def of_a_wrong_class(error: BaseException) -> bool:
    """Whether an attribute was missing of one of the objects that stand for nothing, where ours is expected."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, AttributeError) and any(re.search(r"has no attribute", str(error)) for _ in frames)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=20_000, help="calls in one process")
    parser.add_argument("--one", type=int, help="only the call with this number, with its traceback")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(one_call(random.Random(options.seed * 2**32 + options.one)))
        return 0
    if options.child is not None:
        return child(options)
    started, total, crashes = time.monotonic(), collections.Counter(), 0
    for first in range(0, options.calls, options.chunk):
        count = min(options.chunk, options.calls - first)
        command = [sys.executable, "-X", "faulthandler", __file__, "--child", str(first), "--calls", str(count)]
        done = subprocess.run([*command, "--seed", str(options.seed)], capture_output=True, text=True)
        lines = done.stdout.splitlines()
        if done.returncode:
            crashes += 1
            place = next((line for line in reversed(lines) if line.startswith("at ")), "?")
            print(f"process of call {first} ended with {done.returncode}, {place}\n{done.stderr[-2000:]}", flush=True)
        for line in lines:
            if line.startswith("finding"):
                total["finding"] += 1
                print(line, flush=True)
            elif line.startswith("count"):
                _, kind, number = line.split()
                total[kind] += int(number)
    calls = sum(total.values())
    print(f"{calls} calls in {time.monotonic() - started:.0f} s, {crashes} crashes, {dict(total)}")
    return int(bool(crashes or total["finding"]))


def child(options: argparse.Namespace) -> int:
    os.chdir(tempfile.mkdtemp())
    tempfile.tempdir = os.getcwd()
    total: collections.Counter[str] = collections.Counter()
    for number in range(options.child, options.child + options.calls):
        if number % 1000 == 0:
            print(f"at {number}", flush=True)
        try:
            total[one_call(random.Random(options.seed * 2**32 + number))] += 1
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(
                f"finding {number}: {type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
            )
    for kind, count in total.items():
        print(f"count {kind} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
