"""Two threads against one for every family of kernels, at sizes around the least work of two threads and above.

    python bench/threads.py                                               # a quiet machine, calls in a row: a minute
    python bench/threads.py layer_norm conv2d --pauses 0 1 --competitors 1   # beside a busy program (Linux)

Each line has a kernel, its work as a multiple of what is worth two threads (_runtime.pyx), and for each pause between
the calls (milliseconds; 0: in a row) microseconds on one thread and the time on two as a multiple of them. Both take
turns, call by call after pauses and slot by slot in a row. Medians; beside competitors means without the slowest
twentieth: a median would not show that a call has to wait now and then. `*` marks what takes over 3 % longer on two.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from statistics import fmean, median
from typing import Any

import numpy as np

import fastnn
import fastnn.functional as F

Call = Callable[[], object]
Build = Callable[[float], Call]  # from about how many numbers there are to be
Shape = Callable[[float], tuple[int, ...]]

LEAST = 96 * 1024  # bytes of work: twice BYTES_PER_THREAD of _runtime.pyx
SIZES = (0.9, 1.1, 1.5, 2, 4, 16)
SLOT, WARM = 0.0006, 0.0004  # seconds of calls in a row, and of those before them, which wake the workers

generator = fastnn.Generator(1)
rng = np.random.default_rng(0)


def real(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def rows(width: int) -> Shape:
    return lambda numbers: (max(1, round(numbers / width)), width)


def images(channels: int, side: int) -> Shape:
    return lambda numbers: (max(1, round(numbers / channels / side**2)), channels, side, side)


def last(channels: int, side: int) -> Shape:
    return lambda numbers: (max(1, round(numbers / channels / side**2)), side, side, channels)


def vector(numbers: float) -> tuple[int, ...]:
    return (round(numbers),)


def ones(x: np.ndarray) -> np.ndarray:
    return np.ones(x.shape[1], np.float32)


def zeros(x: np.ndarray) -> np.ndarray:
    return np.zeros(x.shape[1], np.float32)


def ones_last(x: np.ndarray) -> np.ndarray:
    return np.ones(x.shape[-1], np.float32)


def classes(x: np.ndarray) -> np.ndarray:
    return rng.integers(0, x.shape[1], x.shape[0])


def case(name: str, shape: Shape, *args: Any, **options: Any) -> Build:
    """Of `fastnn.functional`, forward or backward; arguments that are functions are called with the input."""

    def build(numbers: float) -> Call:
        x = real(*shape(numbers))
        values = [a(x) if callable(a) else a for a in args]
        keywords = {key: a(x) if callable(a) else a for key, a in options.items()}
        function = getattr(F, name)
        if not name.endswith("_backward"):
            return lambda: function(x, *values, **keywords)
        y, ctx = getattr(F, name.replace("_backward", "_forward"))(x, *values, **keywords)
        dy = real(*y.shape) if np.ndim(y) else np.float32(1)
        return lambda: function(dy, ctx)

    return build


def parameters(make: Callable[[list[Any]], Call]) -> Build:
    """On four parameters with gradients."""

    def build(numbers: float) -> Call:
        made = [fastnn.Parameter(real(max(1, round(numbers / 4)))) for _ in range(4)]
        for parameter in made:
            parameter.grad[...] = 0.01
        return make(made)

    return build


def adding(made: list[Any]) -> Call:
    accumulator = fastnn.GradientAccumulator(made)
    return lambda: accumulator.add(8)


def fill(make: Callable[[tuple[int, ...]], object]) -> Build:
    return lambda numbers: lambda: make(vector(numbers))


weight, kernels = real(128, 128), real(16, 16, 3, 3)
into = {"out": np.empty_like}
statistics = {"training": True}
# name: bytes of work for each number, or for each multiplication of a product; what makes the call
FAMILIES: dict[str, tuple[float, Build]] = {
    "layer_norm": (8, case("layer_norm", rows(768), 768, **into)),
    "layer_norm 64": (8, case("layer_norm", rows(64), 64, ones_last, ones_last, **into)),
    "layer_norm_backward": (12, case("layer_norm_backward", rows(768), 768, ones_last, ones_last)),
    "layer_norm_backward bare": (12, case("layer_norm_backward", rows(768), 768)),
    "rms_norm": (8, case("rms_norm", rows(768), 768, **into)),
    "rms_norm_backward": (12, case("rms_norm_backward", rows(768), 768, ones_last)),
    "batch_norm": (8, case("batch_norm", images(64, 7), None, None, ones, ones, **statistics, **into)),
    "batch_norm last": (8, case("batch_norm", last(64, 7), None, None, **statistics, channel_axis=-1, **into)),
    "batch_norm_backward": (12, case("batch_norm_backward", images(64, 7), None, None, ones, ones, **statistics)),
    "batch_norm_backward last": (
        12,
        case("batch_norm_backward", last(64, 7), None, None, ones_last, ones_last, **statistics, channel_axis=-1),
    ),
    "batch_norm evaluated": (8, case("batch_norm", images(64, 7), zeros, ones, ones, zeros, **into)),
    "batch_norm evaluated, table": (8, case("batch_norm", rows(64), zeros, ones, ones, zeros, **into)),
    "instance_norm": (8, case("instance_norm", images(16, 14), **into)),
    "instance_norm_backward": (12, case("instance_norm_backward", images(16, 14))),
    "group_norm": (8, case("group_norm", images(64, 7), 8, ones, ones, **into)),
    "group_norm_backward": (12, case("group_norm_backward", images(64, 7), 8, ones, ones)),
    "standardize columns": (8, case("standardize", rows(64), 0, **into)),
    "standardize_backward columns": (12, case("standardize_backward", rows(64), 0)),
    "dropout": (8, case("dropout", vector, 0.5, **into)),
    "dropout_backward": (8, case("dropout_backward", vector, 0.5)),
    "gaussian_dropout": (24, case("gaussian_dropout", vector, 0.5, **into)),
    "alpha_dropout": (8, case("alpha_dropout", vector, 0.5, True, **into)),
    "drop_path": (3, case("drop_path", rows(256), 0.5, True, **into)),
    "relu": (8, case("relu", vector, **into)),
    "gelu": (8, case("gelu", vector, **into)),
    "gelu_backward": (12, case("gelu_backward", vector)),
    "tanh": (8, case("tanh", vector, **into)),
    "softmax": (24, case("softmax", rows(128), 1, **into)),
    "softmax_backward": (16, case("softmax_backward", rows(128), 1)),
    "cross_entropy": (32, case("cross_entropy", rows(100), classes)),
    "cross_entropy_backward": (32, case("cross_entropy_backward", rows(100), classes)),
    "mse_loss": (12, case("mse_loss", vector, np.zeros_like)),
    "bce_with_logits_backward": (16, case("binary_cross_entropy_with_logits_backward", vector, np.ones_like)),
    "linear": (1 / 3, case("linear", lambda n: rows(128)(n / 128), weight)),
    "linear_backward": (1 / 3, case("linear_backward", lambda n: rows(128)(n / 128), weight)),
    "conv2d": (1 / 3, case("conv2d", lambda n: images(16, 8)(n / 144), kernels, padding=1)),
    "conv2d_backward": (1 / 3, case("conv2d_backward", lambda n: images(16, 8)(n / 144), kernels, padding=1)),
    "max_pool2d": (10, case("max_pool2d", images(16, 16), 2)),
    "avg_pool2d_backward": (10, case("avg_pool2d_backward", images(16, 16), 2)),
    "GradientAccumulator.add": (5, parameters(adding)),
    "SGD.step": (4, parameters(lambda made: fastnn.SGD(made, lr=1e-6, momentum=0.9).step)),
    "Generator.words": (8, fill(generator.words)),
    "init.uniform": (8, fill(lambda shape: fastnn.init.uniform(shape, rng=generator))),
    "init.normal": (24, fill(lambda shape: fastnn.init.normal(shape, rng=generator))),
    "init.constant": (4, fill(lambda shape: fastnn.init.constant(shape, 1.0))),
}


def timed(call: Call, threads: int, calls: int) -> float:
    """Seconds for a call: the next one, or the mean of some in a row after others."""
    fastnn.set_num_threads(threads)
    end = time.perf_counter() + (WARM if calls > 1 else 0)
    while time.perf_counter() < end:
        call()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def compared(call: Call, pause: float, seconds: float, middle: Callable[[list[float]], float]) -> tuple[float, float]:
    """Seconds for a call on one thread, and the time on two as a multiple of it."""
    once = min(timed(call, 1, 1) for _ in range(5))
    calls = 1 if pause else max(2, math.ceil(SLOT / once))
    times: dict[int, list[float]] = {1: [], 2: []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for threads in times:
            time.sleep(pause)
            times[threads].append(timed(call, threads, calls))
    one, two = (middle(sorted(t)[: math.ceil(len(t) * 0.95)]) for t in times.values())
    return one, two / one


def compete(processor: int) -> None:
    os.sched_setaffinity(0, {processor})
    while True:
        pass


@contextlib.contextmanager
def competitors(processors: list[int]) -> Iterator[None]:
    processes = [
        multiprocessing.get_context("spawn").Process(target=compete, args=(p,), daemon=True) for p in processors
    ]
    for process in processes:
        process.start()
    time.sleep(0.7 if processes else 0)
    yield
    for process in processes:
        process.kill()
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="families whose names contain one of these; all")
    parser.add_argument("--pauses", type=float, nargs="*", default=[0])
    parser.add_argument("--sizes", type=float, nargs="*", default=SIZES)
    parser.add_argument("--seconds", type=float, default=0.1, help="for each figure; more with pauses")
    parser.add_argument("--competitors", type=int, default=0, help="processors on which another program computes")
    options = parser.parse_args()
    middle = fmean if options.competitors else median
    print(f"{'':28}{'×':>5}" + "".join(f"{f'{pause:g} ms: µs':>12}{'ratio':>7} " for pause in options.pauses))
    with competitors(sorted(os.sched_getaffinity(0))[::-1][: options.competitors]):
        for name, (work, build) in FAMILIES.items():
            if options.names and not any(n in name for n in options.names):
                continue
            for size in options.sizes:
                call = build(size * LEAST / work)
                line = f"{name:28}{size:5g}"
                for pause in options.pauses:
                    seconds = options.seconds * (1 if pause == 0 else max(1, 2 * pause))
                    one, ratio = compared(call, pause / 1e3, seconds, middle)
                    line += f"{one * 1e6:12.1f}{ratio:7.2f}{'*' if ratio > 1.03 else ' '}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
