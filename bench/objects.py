"""The cases that are neither functions of one array nor networks: lists of parameters, draws, files, calls, import."""

import atexit
import functools
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from case import Case

Subject = tuple[Callable[[], object], Callable[[], None]]


def _parameters(case: Case) -> list[Any]:
    """One parameter for each size of the case's shape, with gradients."""
    rng = np.random.default_rng(1)
    made = []
    for size in case.shape:
        shape = (1024, -1) if case.options.get("constraint") else size  # rows to constrain
        parameter = fastnn.Parameter(rng.standard_normal(size, np.float32).reshape(shape))
        parameter.grad[...] = rng.standard_normal(size, np.float32).reshape(shape)
        made.append(parameter)
    return made


def sgd(case: Case) -> Subject:
    """A step with momentum and decay; its first one is checked against the formula."""
    options: dict[str, Any] = {"momentum": 0.9, "weight_decay": 5e-4}
    clip, constraint = case.options.get("clip_norm"), case.options.get("constraint")
    bound = {"MaxRowNorm": 20.0, "L2Ball": 1e5}.get(constraint, math.nan)
    if clip:
        options["clip_norm"] = clip
    if constraint:
        options["constraint"] = getattr(fastnn.optim, constraint)(bound)

    def verify() -> None:
        parameters = _parameters(case)
        before = [p.data.astype(np.float64) for p in parameters]
        gradients = [p.grad.astype(np.float64) for p in parameters]
        if clip:
            norm = math.sqrt(sum((g**2).sum() for g in gradients))
            gradients = [g * min(1, clip / (norm + 1e-6)) for g in gradients]
        fastnn.SGD(parameters, lr=0.1, **options).step()
        for parameter, old, gradient in zip(parameters, before, gradients):
            expected = old - 0.1 * (gradient + 5e-4 * old)
            if constraint == "MaxRowNorm":
                expected *= np.minimum(1, bound / np.linalg.norm(expected, axis=1, keepdims=True))
            elif constraint == "L2Ball":
                expected *= min(1, math.sqrt(bound) / np.linalg.norm(expected))
            np.testing.assert_allclose(parameter.data, expected, rtol=1e-5, atol=1e-6)

    optimizer = fastnn.SGD(_parameters(case), lr=1e-6, **options)
    return optimizer.step, verify


def on_gradients(case: Case) -> Subject:
    """Functions of `fastnn.optim` over a list of parameters."""
    parameters, name = _parameters(case), case.operation.removeprefix("optim.")
    generator = fastnn.Generator(3)
    run: Callable[[], Any] = {
        "clip_grad_norm": lambda: fastnn.optim.clip_grad_norm(parameters, 1.0),
        "l2_penalty": lambda: fastnn.optim.l2_penalty(parameters, 5e-4),
        "add_gradient_noise": lambda: fastnn.optim.add_gradient_noise(parameters, 1e-3, rng=generator),
    }[name]

    def verify() -> None:
        before = [p.grad.astype(np.float64) for p in parameters]
        result = run()
        change = np.concatenate([(p.grad - old).ravel() for p, old in zip(parameters, before)])
        if name == "clip_grad_norm":
            norm = math.sqrt(sum((g**2).sum() for g in before))
            np.testing.assert_allclose(result, norm, rtol=1e-6)
            for p, old in zip(parameters, before):
                np.testing.assert_allclose(p.grad, old / norm, rtol=1e-5, atol=1e-9)
        elif name == "l2_penalty":
            squares = sum((p.data.astype(np.float64) ** 2).sum() for p in parameters if p.decay)
            np.testing.assert_allclose(result, 2.5e-4 * squares, rtol=1e-6)
        else:
            np.testing.assert_allclose(change.std(), 1e-3, rtol=6 / math.sqrt(change.size))

    return run, verify


def accumulator(case: Case) -> Subject:
    """Adding a microbatch's gradients, with statistics if the case says so; the end of a pass; a drawn gradient."""
    operation = case.operation.removeprefix("GradientAccumulator.")
    statistics = case.options.get("statistics", operation == "sample")

    def after_two() -> tuple[Any, list[Any], list[Any]]:
        """An accumulator that took gradients g with weight 3 and ones with weight 1, the parameters, and g."""
        parameters = _parameters(case)
        first = [p.grad.astype(np.float64) for p in parameters]
        collected = fastnn.GradientAccumulator(parameters, statistics)
        collected.add(3.0)
        for parameter in parameters:
            parameter.grad.fill(1)
        collected.add(1.0)
        return collected, parameters, first

    def verify() -> None:
        collected, parameters, first = after_two()
        collected.finish()
        for parameter, gradient in zip(parameters, first):
            np.testing.assert_allclose(parameter.grad, (3 * gradient + 1) / 4, rtol=1e-5, atol=1e-6)
        if operation == "sample":  # of the noise only its size: Σ has one degree of freedom for each element
            drawn = [g - (3 * f + 1) / 4 for g, f in zip(collected.sample(1, 1.0), first)]
            noise = math.sqrt(sum((d**2).sum() for d in drawn) / collected.trace_cov)
            np.testing.assert_allclose(noise, 1, rtol=0.05)

    if operation == "sample":
        collected, *_ = after_two()
        collected.finish()
        generator = fastnn.Generator(1)
        return lambda: collected.sample(generator, 1.0), verify
    collected = fastnn.GradientAccumulator(_parameters(case), statistics)
    if operation == "add":
        return lambda: collected.add(1.0), verify

    def add_and_finish() -> None:
        collected.add(1.0)
        collected.finish()

    return add_and_finish, verify


def random_numbers(case: Case) -> Subject:
    """What a `Generator` draws, with its mean and standard deviation."""
    kind, n = case.operation.removeprefix("Generator."), math.prod(case.shape)
    draw = getattr(fastnn.Generator(1), kind)
    size = n if kind == "permutation" else case.shape
    mean, std = {
        "uniform": (0.5, 12**-0.5),
        "normal": (0.0, 1.0),
        "words": (2**31, 2**32 * 12**-0.5),
        "permutation": ((n - 1) / 2, n * 12**-0.5),
    }[kind]

    def verify() -> None:
        x = draw(size).astype(np.float64)
        if abs(x.mean() - mean) > 6 * std / np.sqrt(x.size) or abs(x.std() / std - 1) > 6 / np.sqrt(x.size):
            raise AssertionError(f"{case.name}: mean {x.mean()}, standard deviation {x.std()}")

    return lambda: draw(size), verify


def block(case: Case) -> Subject:
    """The bare block function, checked with a published vector (Random123, `kat_vectors`)."""
    ones = (2**32 - 1,) * 4

    def verify() -> None:
        assert fastnn.random.threefry4x32(ones, ones) == (0x2A881696, 0x57012287, 0xF6C7446E, 0xA16A6732)

    return lambda: fastnn.random.threefry4x32(ones, ones), verify


def initialiser(case: Case) -> Subject:
    """A weight matrix; its variance is checked where the initialiser promises one."""
    name, shape = case.operation.removeprefix("init."), case.shape
    function = getattr(fastnn.init, name)
    inputs, out = math.prod(shape[1:]), shape[0] * math.prod(shape[2:])  # fans: a filter counts with its area
    variances = {
        "xavier_uniform": 2 / (out + inputs), "xavier_normal": 2 / (out + inputs), "kaiming_uniform": 2 / inputs,
        "kaiming_normal": 2 / inputs, "lecun_normal": 1 / inputs, "orthogonal": 1 / max(out, inputs),
        "normal": 1.0, "uniform": 1 / 12, "variance_scaling": 1 / inputs,
        "trunc_normal": 0.7737, "constant": 0.0, "zeros": 0.0, "ones": 0.0,
    }  # fmt: skip
    fills = {"constant": 0.5, "zeros": 0.0, "ones": 1.0}
    expected = variances[name]

    def draw() -> Any:
        if name in fills:
            return function(shape, 0.5) if name == "constant" else function(shape)
        return function(shape, rng=3)

    def verify() -> None:
        x = draw().astype(np.float64)
        if abs(x.var() - expected) > 8 * expected / np.sqrt(x.size) or x.flat[0] != fills.get(name, x.flat[0]):
            raise AssertionError(f"{case.name}: variance {x.var():.4g} instead of {expected:.4g}")

    return draw, verify


def layer_call(case: Case) -> Subject:
    """A layer in evaluation mode on a tiny array: what a call costs."""
    name, width = case.operation.removesuffix(".__call__"), case.shape[-1]
    layer = getattr(fastnn, name)(*{"ReLU": (), "Dropout": (0.5,), "Linear": (width, width)}.get(name, (width,))).eval()
    x = np.random.default_rng(0).standard_normal(case.shape, np.float32)
    wide = x.astype(np.float64)

    def oracle() -> Any:
        if name == "Linear":
            return wide @ layer.weight.data.T + layer.bias.data
        if name == "LayerNorm":
            return (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5)
        if name == "RMSNorm":
            return wide / np.sqrt((wide**2).mean() + np.finfo(np.float32).eps)
        return {"ReLU": np.maximum(wide, 0), "Dropout": wide, "BatchNorm": wide / np.sqrt(1 + 1e-5)}[name]

    return lambda: layer(x), lambda: np.testing.assert_allclose(layer(x), oracle(), rtol=1e-4, atol=1e-5)


def schedule(case: Case) -> Subject:
    """The values of a schedule at an array of steps, checked against its values at single steps."""
    s, steps = fastnn.schedules, math.prod(case.shape)
    made = {
        "Constant": lambda: s.Constant(0.1),
        "Exponential": lambda: s.Exponential(0.1, 0.9, every=100),
        "Cosine": lambda: s.Cosine(0.1, steps),
        "CosineRestarts": lambda: s.CosineRestarts(0.1, steps // 8, mult=2.0),
        "Linear": lambda: s.Linear(0.1, 0.0, steps),
        "Polynomial": lambda: s.Polynomial(0.1, 0.0, steps, 2.0),
        "Piecewise": lambda: s.Piecewise((0.1, 0.01, 0.001), (steps // 3, steps // 2)),
        "InverseTime": lambda: s.InverseTime(0.1, 0.5, every=100),
        "InverseSqrt": lambda: s.InverseSqrt(0.1, 400),
        "Warmup": lambda: s.Warmup(s.Cosine(0.1, steps), 400),
        "Join": lambda: s.Join((s.Constant(0.1), s.Linear(0.1, 0.0, steps // 2)), (steps // 2,)),
        "OneCycle": lambda: s.OneCycle(0.1, steps),
        "Cyclic": lambda: s.Cyclic(0.01, 0.1),
        "ReduceOnPlateau": lambda: s.ReduceOnPlateau(0.1),
    }[case.operation.removeprefix("schedules.")]()
    every = np.arange(steps)

    def verify() -> None:
        values = np.broadcast_to(made(every), every.shape)
        chosen = every[:: steps // 20]
        np.testing.assert_allclose(values[chosen], [made(int(k)) for k in chosen], rtol=1e-12, atol=1e-15)

    return lambda: made(every), verify


@functools.cache
def _folder() -> Path:
    """A folder that goes when the process ends."""
    path = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, path)
    return Path(path)


def files(case: Case) -> Subject:
    """Saving a network's parameters, loading them, and loading their metadata alone."""
    path, arrays = _folder() / "model.safetensors", {str(k): p.data for k, p in enumerate(_parameters(case))}
    fastnn.save(path, arrays, {"network": case.source})
    run: Callable[[], Any] = {
        "save": lambda: fastnn.save(path, arrays, {"network": case.source}),
        "load": lambda: fastnn.load(path),
        "load_metadata": lambda: fastnn.load_metadata(path),
    }[case.operation]

    def verify() -> None:
        run()
        assert fastnn.load_metadata(path) == {"network": case.source}
        for name, array in fastnn.load(path).items():
            np.testing.assert_array_equal(array, arrays[name])

    return run, verify


def import_time(case: Case) -> Subject:
    """A fresh interpreter that imports the module."""
    module = case.options["module"]

    def run() -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    return run, run


OBJECTS: dict[str, Callable[[Case], Subject]] = {
    "SGD.": sgd,
    "optim.": on_gradients,
    "GradientAccumulator.": accumulator,
    "Generator.": random_numbers,
    "random.threefry4x32": block,
    "init.": initialiser,
    "schedules.": schedule,
    "save": files,
    "load": files,
    "import": import_time,
}


def build(case: Case) -> Subject:
    if case.operation.endswith(".__call__"):
        return layer_call(case)
    return next(make for prefix, make in OBJECTS.items() if case.operation.startswith(prefix))(case)
