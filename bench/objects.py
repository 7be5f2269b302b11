"""The cases that are not functions of one array: SGD, accumulation, random numbers, initialisers, layers, import."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn
import fastnn.functional as F
from cases import Case

Subject = tuple[Callable[[], object], Callable[[], None]]


def _parameters(case: Case) -> list[Any]:
    """One parameter for each size of the case's shape, with gradients."""
    rng = np.random.default_rng(1)
    made = []
    for size in case.shape:
        parameter = fastnn.Parameter(rng.standard_normal(size, np.float32).astype(case.dtype, copy=False))
        parameter.grad[...] = rng.standard_normal(size, np.float32)
        made.append(parameter)
    return made


def sgd(case: Case) -> Subject:
    """A step with momentum and decay; its first one is checked against the formula."""
    options = {"momentum": 0.9, "weight_decay": 5e-4}

    def verify() -> None:
        parameters = _parameters(case)
        before = [p.data.astype(np.float64) for p in parameters]
        fastnn.SGD(parameters, lr=0.1, **options).step()
        for parameter, old in zip(parameters, before):
            np.testing.assert_allclose(parameter.data, old - 0.1 * (parameter.grad + 5e-4 * old), rtol=1e-5, atol=1e-6)

    optimizer = fastnn.SGD(_parameters(case), lr=1e-6, **options)
    return optimizer.step, verify


def accumulator(case: Case) -> Subject:
    """Adding a microbatch's gradients, with statistics if the case says so."""
    statistics = case.options.get("statistics", False)

    def verify() -> None:
        parameters = _parameters(case)
        first = [p.grad.astype(np.float64) for p in parameters]
        collected = fastnn.GradientAccumulator(parameters, statistics)
        collected.add(3.0)
        for parameter in parameters:
            parameter.grad.fill(1)
        collected.add(1.0)
        collected.finish()
        for parameter, gradient in zip(parameters, first):
            np.testing.assert_allclose(parameter.grad, (3 * gradient + 1) / 4, rtol=1e-5, atol=1e-6)

    collected = fastnn.GradientAccumulator(_parameters(case), statistics)
    return lambda: collected.add(1.0), verify


def random_numbers(case: Case) -> Subject:
    """`Generator.uniform` or `.normal`."""
    kind = case.operation.removeprefix("Generator.")
    draw, shape = getattr(fastnn.Generator(1), kind), case.shape
    mean, std = {"uniform": (0.5, 12**-0.5), "normal": (0.0, 1.0)}[kind]

    def verify() -> None:
        x = draw(shape).astype(np.float64)
        if abs(x.mean() - mean) > 6 * std / np.sqrt(x.size) or abs(x.std() / std - 1) > 6 / np.sqrt(x.size):
            raise AssertionError(f"{case.name}: mean {x.mean()}, standard deviation {x.std()}")

    return lambda: draw(shape), verify


def initialiser(case: Case) -> Subject:
    """A weight matrix; its variance is checked where the initialiser promises one."""
    function, shape = getattr(fastnn.init, case.operation.removeprefix("init.")), case.shape
    inputs, out = int(np.prod(shape[1:])), shape[0] * int(np.prod(shape[2:]))  # fans: a filter counts with its area
    variances = {
        "xavier_uniform": 2 / (out + inputs), "xavier_normal": 2 / (out + inputs), "kaiming_uniform": 2 / inputs,
        "kaiming_normal": 2 / inputs, "lecun_normal": 1 / inputs, "orthogonal": 1 / max(out, inputs),
        "normal": 1.0, "uniform": 1 / 12,
    }  # fmt: skip
    expected = variances.get(case.operation.removeprefix("init."))

    def verify() -> None:
        x = function(shape, rng=3).astype(np.float64)
        if expected is not None and abs(x.var() / expected - 1) > 8 / np.sqrt(x.size):
            raise AssertionError(f"{case.name}: variance {x.var():.3g} instead of {expected:.3g}")

    return lambda: function(shape, rng=3), verify


def layer_call(case: Case) -> Subject:
    """A layer in evaluation mode on a tiny array: what a call costs."""
    layer = fastnn.LayerNorm(case.shape[-1]).eval()
    x = np.random.default_rng(0).standard_normal(case.shape, np.float32)

    def verify() -> None:
        np.testing.assert_array_equal(layer(x), F.layer_norm(x, case.shape[-1], layer.weight.data, layer.bias.data))

    return lambda: layer(x), verify


def network(channels_in: int, classes: int) -> Any:
    """A small convolutional network with batch norm and dropout."""
    return fastnn.Sequential(
        fastnn.Conv2d(channels_in, 16, 3, padding=1, rng=0), fastnn.BatchNorm(16), fastnn.ReLU(), fastnn.MaxPool2d(2),
        fastnn.Conv2d(16, 32, 3, padding=1, rng=1), fastnn.BatchNorm(32), fastnn.ReLU(), fastnn.MaxPool2d(2),
        fastnn.Flatten(), fastnn.Dropout(0.25), fastnn.Linear(32 * 4, classes, rng=2),
    )  # fmt: skip


def training_step(case: Case) -> Subject:
    """Forward, loss, backward and SGD on 8×8 images."""
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal(case.shape, np.float32), rng.integers(0, 10, case.shape[0])

    def prepare(lr: float) -> Callable[[], float]:
        model = network(case.shape[1], 10)
        optimizer = fastnn.SGD(model.parameters(), lr=lr, momentum=0.9)

        def step() -> float:
            optimizer.zero_grad()
            loss, context = F.cross_entropy_forward(model(x), target)
            model.backward(F.cross_entropy_backward(1.0, context))
            optimizer.step()
            return float(loss)

        return step

    def verify() -> None:
        step = prepare(0.05)
        losses = [step() for _ in range(8)]
        if not losses[-1] < losses[0]:
            raise AssertionError(f"{case.name}: the loss did not fall: {losses[0]:.3f} → {losses[-1]:.3f}")

    return prepare(1e-4), verify


def inference(case: Case) -> Subject:
    """The same network in evaluation mode."""
    x = np.random.default_rng(0).standard_normal(case.shape, np.float32)
    model = network(case.shape[1], 10)
    model(x if len(x) > 1 else np.repeat(x, 2, axis=0))
    model.eval()

    def verify() -> None:
        np.testing.assert_allclose(model(x)[:1], model(x[:1]), rtol=1e-4, atol=1e-5)

    return lambda: model(x), verify


def import_time(case: Case) -> Subject:
    """A fresh interpreter that imports the module; the difference to numpy's is what fastnn costs."""
    module = case.options["module"]

    def run() -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    return run, run


OBJECTS: dict[str, Callable[[Case], Subject]] = {
    "SGD.step": sgd,
    "GradientAccumulator.add": accumulator,
    "Generator.uniform": random_numbers,
    "Generator.normal": random_numbers,
    "LayerNorm.__call__": layer_call,
    "training step": training_step,
    "inference": inference,
    "import": import_time,
}


def build(case: Case) -> Subject:
    return initialiser(case) if case.operation.startswith("init.") else OBJECTS[case.operation](case)
