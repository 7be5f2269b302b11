"""Whole networks: training steps, inference, and what else runs a model over samples."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

import fastnn
import fastnn.functional as F
from case import Case

Subject = tuple[Callable[[], object], Callable[[], None]]
CLASSES = 10


def _mlp(*widths: int) -> Any:
    layers: list[Any] = []
    for k, (features, out) in enumerate(pairwise(widths)):
        layers += [fastnn.ReLU()] * (k > 0) + [fastnn.Linear(features, out, rng=k)]
    return fastnn.Sequential(*layers)


def _conv(channels: int, out: int) -> list[Any]:
    return [fastnn.Conv2d(channels, out, 3, padding=1, bias=False, rng=out), fastnn.BatchNorm(out)]


def _conv_net() -> Any:
    """The network of `python -m fastnn train` for 8×8 images."""
    return fastnn.Sequential(
        *_conv(1, 32), fastnn.ReLU(),
        *_conv(32, 32), fastnn.ReLU(), fastnn.MaxPool2d(2),
        *_conv(32, 64), fastnn.ReLU(), fastnn.MaxPool2d(2),
        fastnn.Flatten(), fastnn.Dropout(0.2, generator=fastnn.Generator(1)), fastnn.Linear(64 * 4, CLASSES, rng=2),
    )  # fmt: skip


def _residual_net() -> Any:
    """Three stages of one residual block each, as in a small ResNet for 32×32 images."""
    layers = [*_conv(3, 16), fastnn.ReLU()]
    for channels, out in ((16, 32), (32, 64), (64, 64)):
        block = [*_conv(channels, channels), fastnn.ReLU(), *_conv(channels, channels)]
        layers += [fastnn.Residual(fastnn.Sequential(*block)), fastnn.ReLU()]
        layers += [] if out == channels else [*_conv(channels, out), fastnn.ReLU(), fastnn.MaxPool2d(2)]
    return fastnn.Sequential(*layers, fastnn.AvgPool2d(8), fastnn.Flatten(), fastnn.Linear(64, CLASSES, rng=3))


NETS: dict[str, Callable[[], Any]] = {
    "MLP 64-128-128-10": lambda: _mlp(64, 128, 128, CLASSES),
    "MLP 784-1024-1024-10": lambda: _mlp(784, 1024, 1024, CLASSES),
    "conv net": _conv_net,
    "residual net": _residual_net,
}


def samples(case: Case) -> tuple[Any, Any]:
    """Inputs and labels, the same for every library."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(case.shape, np.float32), rng.integers(0, CLASSES, case.shape[0])


def model_of(case: Case) -> Any:
    """The case's network in training mode, its running statistics those of a batch."""
    model = NETS[case.options["net"]]()
    model(np.random.default_rng(1).standard_normal((16, *case.shape[1:]), np.float32))
    model.zero_grad()
    return model


def training_step(case: Case) -> Subject:
    """Clearing, forward, loss, backward and SGD with momentum."""
    x, target = samples(case)

    def prepare(lr: float) -> Callable[[], float]:
        model = NETS[case.options["net"]]()
        optimizer = fastnn.SGD(model.parameters(), lr=lr, momentum=0.9)

        def step() -> float:
            optimizer.zero_grad()
            loss, context = F.cross_entropy_forward(model(x), target)
            model.backward_parameters(F.cross_entropy_backward(1.0, context))
            optimizer.step()
            return float(loss)

        return step

    def verify() -> None:
        step = prepare(0.05)
        losses = [step() for _ in range(8)]
        if not losses[-1] < 0.95 * losses[0]:
            raise AssertionError(f"{case.name}: the loss did not fall: {losses[0]:.3f} → {losses[-1]:.3f}")

    return prepare(1e-4), verify


def inference(case: Case) -> Subject:
    """A call in evaluation mode; samples do not depend on their neighbours."""
    x, _ = samples(case)
    model = model_of(case).eval()

    def verify() -> None:
        y = model(x)
        assert y.shape == (case.shape[0], CLASSES)
        np.testing.assert_allclose(model(np.concatenate([x[-1:], x]))[1:], y, rtol=1e-4, atol=1e-5)

    return lambda: model(x), verify


def over_samples(case: Case) -> Subject:
    """What runs a model over a data set, in batches of 64."""
    x, target = samples(case)
    model, operation = model_of(case), case.operation

    def batches() -> Iterator[Any]:
        return (x[k : k + 64] for k in range(0, len(x), 64))

    def fit() -> Any:
        optimizer = fastnn.SGD(model.parameters(), lr=0.05, momentum=0.9)
        return fastnn.train.fit(model, F.cross_entropy, optimizer, (x, target), 1, generator=fastnn.Generator(0))

    run: Callable[[], Any] = {
        "train.fit": fit,
        "train.evaluate": lambda: fastnn.train.evaluate(model, F.cross_entropy, (x, target), 64),
        "train.predict": lambda: fastnn.train.predict(model, x, 64),
        "full_gradient": lambda: fastnn.full_gradient(model, F.cross_entropy, (x, target), 64),
        "recalibrate": lambda: fastnn.recalibrate(model, batches()),
        "init.audit": lambda: fastnn.init.audit(model, x[:64]),
    }[operation]

    def verify() -> None:
        before = fastnn.train.evaluate(model, F.cross_entropy, (x, target))
        result = run()
        after = fastnn.train.evaluate(model, F.cross_entropy, (x, target))
        holds = {
            "train.fit": lambda: after.loss < before.loss,
            "train.evaluate": lambda: abs(result.loss - before.loss) < 1e-4 * before.loss,
            "train.predict": lambda: np.allclose(result, model.eval()(x), rtol=1e-4, atol=1e-5),
            "full_gradient": lambda: all(np.isfinite(g).all() and g.any() for g in result),
            "recalibrate": lambda: np.allclose(model[1].running_mean, _first_mean(model, x), rtol=1e-3, atol=1e-5),
            "init.audit": lambda: len(result.forward) > 5 and all(v > 0 for v in result.forward),
        }[operation]
        model.train()
        if not holds():
            raise AssertionError(f"{case.name} returned something wrong")

    return run, verify


def _first_mean(model: Any, x: Any) -> Any:
    """Means over all samples of what the first batch norm sees."""
    return model[0](x).mean((0, 2, 3), dtype=np.float64)


OVER_SAMPLES = ("train.fit", "train.evaluate", "train.predict", "full_gradient", "recalibrate", "init.audit")
BUILDERS: dict[str, Callable[[Case], Subject]] = {
    "training step": training_step,
    "inference": inference,
    **dict.fromkeys(OVER_SAMPLES, over_samples),
}
