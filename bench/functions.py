"""The cases of stateless functions other than norms on fastnn: activations, losses, products, pooling, dropout.

Each forward result is compared with the formula in NumPy and SciPy, float64; each gradient with a difference of that
formula along a random direction. The tests know the rounding errors of every operation; here a wrong operation,
layout or option is to be caught before it is timed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special as special

import fastnn
import fastnn.functional as F
from case import Case

Array = np.ndarray


class Function(NamedTuple):
    """How a function is called and what it computes."""

    operands: Callable[[np.random.Generator, Case], list[Any]]  # after the input
    oracle: Callable[..., Any]  # (input, *operands, **options) in float64
    keywords: dict[str, Any] = {}  # noqa: RUF012


def _nothing(rng: np.random.Generator, case: Case) -> list[Any]:
    return []


def _weights(rng: np.random.Generator, case: Case) -> list[Any]:
    out = case.options["out"]
    return [_real(rng, (out, case.shape[-1]), case) * 0.05, _real(rng, (out,), case)]


def _filters(rng: np.random.Generator, case: Case) -> list[Any]:
    out, size = case.options["out"], case.options["kernel_size"]
    channels = case.shape[case.options.get("channel_axis", 1)] // case.options.get("groups", 1)
    return [_real(rng, (out, channels, size, size), case) * 0.05, _real(rng, (out,), case)]


def _classes(rng: np.random.Generator, case: Case) -> list[Any]:
    return [rng.integers(0, case.shape[1], case.shape[0])]


def _like(rng: np.random.Generator, case: Case) -> list[Any]:
    return [_real(rng, case.shape, case)]


def _binary(rng: np.random.Generator, case: Case) -> list[Any]:
    return [(rng.random(case.shape) < 0.5).astype(case.dtype)]


def _real(rng: np.random.Generator, shape: tuple[int, ...], case: Case) -> Array:
    return rng.standard_normal(shape, np.float32).astype(case.dtype, copy=False)


def _conv2d(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    kernel_size: int,
    padding: int = 0,
    groups: int = 1,
    channel_axis: int = 1,
    **_: Any,
) -> Array:
    around = (padding, padding)
    padded = np.pad(np.moveaxis(x, channel_axis, 1), ((0, 0), (0, 0), around, around))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size, kernel_size), (2, 3))
    parts = zip(np.split(windows, groups, 1), np.split(weight, groups))
    y = np.concatenate([np.tensordot(part, w, ((1, 4, 5), (1, 2, 3))) for part, w in parts], -1) + bias
    return np.moveaxis(y, -1, channel_axis)


def _blocks(x: Array, size: int) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // size, size, w // size, size)


def _cross_entropy(x: Array, target: Array) -> Any:
    return (special.logsumexp(x, 1) - np.take_along_axis(x, target[:, None], 1)[:, 0]).mean()


FUNCTIONS = {
    "relu": Function(_nothing, lambda x: np.maximum(x, 0)),
    "leaky_relu": Function(_nothing, lambda x: np.where(x > 0, x, 0.01 * x)),
    "elu": Function(_nothing, lambda x: np.where(x > 0, x, np.expm1(x))),
    "gelu": Function(_nothing, lambda x: x * special.ndtr(x)),
    "silu": Function(_nothing, lambda x: x * special.expit(x)),
    "sigmoid": Function(_nothing, special.expit),
    "tanh": Function(_nothing, np.tanh),
    "softplus": Function(_nothing, lambda x: np.logaddexp(x, 0)),
    "softmax": Function(_nothing, lambda x, dim: special.softmax(x, dim)),
    "log_softmax": Function(_nothing, lambda x, dim: special.log_softmax(x, dim)),
    "cross_entropy": Function(_classes, _cross_entropy),
    "mse_loss": Function(_like, lambda x, target: ((x - target) ** 2).mean()),
    "binary_cross_entropy_with_logits": Function(_binary, lambda x, t: (np.logaddexp(x, 0) - x * t).mean()),
    "linear": Function(_weights, lambda x, w, b, out: x @ w.T + b),
    "conv2d": Function(_filters, _conv2d),
    "max_pool2d": Function(_nothing, lambda x, kernel_size: _blocks(x, kernel_size).max((3, 5))),
    "avg_pool2d": Function(_nothing, lambda x, kernel_size: _blocks(x, kernel_size).mean((3, 5))),
}
# What a case says for the benchmark alone, not for the function.
_OWN = {"conv2d": {"out", "kernel_size"}, "linear": {"out"}}

RANDOM = {"dropout", "dropout_mask", "gaussian_dropout", "drop_path", "alpha_dropout", "gaussian_noise"}


def operands(case: Case) -> tuple[list[Any], dict[str, Any], Array]:
    """(input and operands, keywords, upstream gradient's generator seed as an array) — the same for every library."""
    op = case.operation.removesuffix("_backward")
    rng = np.random.default_rng(len(case.name))
    x = _real(rng, case.shape, case)
    args = [x, *FUNCTIONS[op].operands(rng, case)]
    keywords = {k: v for k, v in case.options.items() if k not in _OWN.get(op, ())}
    return args, keywords, _real(rng, case.shape, case)


def upstream(y: Any) -> Any:
    """A gradient for a result: 1 for a loss."""
    return 1.0 if np.ndim(y) == 0 else np.random.default_rng(7).standard_normal(y.shape, np.float32).astype(y.dtype)


def ours(case: Case) -> tuple[Callable[[], object], Callable[[], None]]:
    """The call to time, and the check of what it returns."""
    op = case.operation.removesuffix("_backward")
    if op in RANDOM:
        return _random(case, op)
    args, keywords, direction = operands(case)
    function = getattr(F, op)

    def oracle(x: Array) -> Any:
        wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in args[1:]]
        return FUNCTIONS[op].oracle(x, *wide, **case.options)

    if op == case.operation:

        def verify() -> None:
            _close(case, function(*args, **keywords), oracle(args[0].astype(np.float64)))

        return lambda: function(*args, **keywords), verify
    y, context = getattr(F, f"{op}_forward")(*args, **keywords)
    dy, backward = upstream(y), getattr(F, case.operation)

    def verify_gradient() -> None:
        result = backward(dy, context)
        dx = result[0] if isinstance(result, tuple) else result
        x, step = args[0].astype(np.float64), 1e-6
        ends = [np.sum(oracle(x + s * direction) * dy) for s in (step, -step)]
        slope, scale = (ends[0] - ends[1]) / (2 * step), np.sqrt(np.sum((dx.astype(np.float64) * direction) ** 2))
        _close(case, np.sum(dx.astype(np.float64) * direction) / scale, slope / scale, 1e-2)

    return lambda: backward(dy, context), verify_gradient


def _close(case: Case, actual: Any, expected: Any, tolerance: float = 1e-4) -> None:
    difference = np.abs(np.asarray(actual, np.float64) - expected).max() / max(1e-3, np.abs(expected).max())
    if not difference <= tolerance:
        raise AssertionError(f"{case.name} differs from its formula by {difference:.2g}, {tolerance} is allowed")


def _random(case: Case, op: str) -> tuple[Callable[[], object], Callable[[], None]]:
    """Dropout and its kin: what is kept is scaled, the share that is dropped is p, the gradient has the same places."""
    if op == "gaussian_noise":
        return _noise(case)
    if op == "dropout_mask":
        return _mask(case)
    p = case.options["p"]
    x = 1 + np.abs(_real(np.random.default_rng(3), case.shape, case))
    generator = fastnn.Generator(5)
    function, backward = getattr(F, op), getattr(F, f"{op}_backward")
    y, context = getattr(F, f"{op}_forward")(x, p, True, generator=generator)

    def verify() -> None:
        ones = np.ones_like(x)
        gradient = backward(ones, context)
        if op == "gaussian_dropout":
            _close(case, (y / x).mean(), 1.0, 6 * np.sqrt(p / (1 - p) / x.size))
            _close(case, gradient, y / x)
            return
        kept = gradient != 0
        units = case.shape[0] if op == "drop_path" else x.size
        if abs((1 - kept.mean()) - p) > 6 * np.sqrt(p * (1 - p) / units):
            raise AssertionError(f"{case.name} drops {1 - kept.mean():.4f} instead of {p}")
        if op != "alpha_dropout":
            _close(case, y, np.where(kept, x / (1 - p), 0), 1e-6)

    if op == case.operation:
        return lambda: function(x, p, True, generator=generator), verify
    return lambda: backward(x, context), verify


def _mask(case: Case) -> tuple[Callable[[], object], Callable[[], None]]:
    """The mask of a dropout, shown."""
    y, context = F.dropout_forward(np.ones(case.shape, case.dtype), case.options["p"], generator=fastnn.Generator(5))

    def verify() -> None:
        np.testing.assert_array_equal(F.dropout_mask(context), y != 0)

    return lambda: F.dropout_mask(context), verify


def _noise(case: Case) -> tuple[Callable[[], object], Callable[[], None]]:
    """Additive noise of the given standard deviation; its gradient is the upstream one."""
    std = case.options["sigma"]
    x, generator = _real(np.random.default_rng(3), case.shape, case), fastnn.Generator(5)
    y, context = F.gaussian_noise_forward(x, std, True, generator=generator)

    def verify() -> None:
        _close(case, (y - x).astype(np.float64).std(), std, 6 / np.sqrt(x.size))
        np.testing.assert_array_equal(F.gaussian_noise_backward(x, context), x)

    if case.operation == "gaussian_noise":
        return lambda: F.gaussian_noise(x, std, True, generator=generator), verify
    return lambda: F.gaussian_noise_backward(x, context), verify
