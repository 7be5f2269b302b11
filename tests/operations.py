"""Every public operation that takes arrays, as a table: how its arguments are made and what its results are.

Tests that hold for all operations alike walk over this table: memory layouts, errors, faults, fuzzing, guard pages.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import fastnn
import fastnn.functional as F
from fastnn import train

Array = np.ndarray
Maker = Callable[[np.random.Generator, Any], Array]  # (source of values, floating dtype) → array
Arguments = dict[str, Any]


def normal(*shape: int) -> Maker:
    return lambda rng, dtype: (0.5 + rng.standard_normal(shape)).astype(dtype)


def positive(*shape: int) -> Maker:
    return lambda rng, dtype: (0.1 + rng.random(shape)).astype(dtype)


def boolean(*shape: int) -> Maker:
    return lambda rng, dtype: rng.random(shape) < 0.7


def classes(count: int, *shape: int) -> Maker:
    return lambda rng, dtype: rng.integers(0, count, shape)


def upstream(y: Any) -> Any:
    """A gradient for a result; 0.5 for a scalar one."""
    if np.ndim(y) == 0:
        return 0.5
    return np.cos(np.arange(y.size, dtype=np.float64)).astype(y.dtype).reshape(y.shape)


def flat(*results: Any) -> list[Array]:
    """The arrays of results that may be tuples and None."""
    listed: list[Array] = []
    for result in results:
        if isinstance(result, tuple | list):
            listed += flat(*result)
        elif result is not None:
            listed.append(np.asarray(result))
    return listed


@dataclass(frozen=True)
class Operation:
    """One operation of `fastnn.functional` with its companions, or a procedure over objects (`call` is given)."""

    name: str
    arrays: Mapping[str, Maker]
    others: Mapping[str, Any] = field(default_factory=dict)
    updates: frozenset[str] = frozenset()  # arrays that it writes into
    random: bool = False
    out: bool = True
    call: Callable[[Arguments], list[Array]] | None = None

    def arguments(self, dtype: Any, seed: int = 0) -> Arguments:
        rng = np.random.default_rng(seed)
        return {name: make(rng, dtype) for name, make in self.arrays.items()} | dict(self.others)

    def plain(self, arguments: Arguments, **more: Any) -> Any:
        return getattr(F, self.name)(**arguments, **self._source(), **more)

    def forward(self, arguments: Arguments, **more: Any) -> Any:
        return getattr(F, f"{self.name}_forward")(**arguments, **self._source(), **more)

    def backward(self, dy: Any, context: Any) -> Any:
        return getattr(F, f"{self.name}_backward")(dy, context)

    def run(self, arguments: Arguments, lay: Callable[[Array], Array] = np.asarray) -> list[Array]:
        """Every result: of the plain call, of forward, the gradients for a `dy` as `lay` gives it, what was updated."""
        if self.call is not None:
            return self.call(arguments)
        y = self.plain(arguments)
        z, context = self.forward(arguments)
        dy = upstream(y)
        gradients = self.backward(dy if np.ndim(dy) == 0 else lay(dy), context)
        return flat(y, z, gradients, *(arguments[name] for name in sorted(self.updates)))

    def _source(self) -> dict[str, Any]:
        return {"generator": fastnn.Generator(5)} if self.random else {}


RUNNING = frozenset({"running_mean", "running_var"})
IMAGES, LAST = (3, 4, 6, 5), (3, 6, 5, 4)


def _norms() -> dict[str, Operation]:
    affine = {"weight": normal(4), "bias": normal(4)}
    statistics = {"running_mean": normal(4), "running_var": positive(4)}
    table = {}
    for place, shape, axis in (("", IMAGES, 1), (", channels last", LAST, -1), (", one axis between", (3, 6, 4, 5), 2)):
        x = {"input": normal(*shape)}
        table |= {
            f"batch_norm in training{place}": Operation(
                "batch_norm", x | affine | statistics, {"training": True, "channel_axis": axis}, RUNNING
            ),
            f"batch_norm in evaluation{place}": Operation(
                "batch_norm", x | affine | statistics, {"training": False, "channel_axis": axis}
            ),
            f"batch_norm with a mask{place}": Operation(
                "batch_norm",
                x | affine | statistics | {"mask": boolean(*shape)},
                {"training": True, "channel_axis": axis},
                RUNNING,
            ),
            f"instance_norm{place}": Operation(
                "instance_norm", x | affine | statistics, {"channel_axis": axis}, RUNNING
            ),
            f"group_norm{place}": Operation("group_norm", x | affine, {"num_groups": 2, "channel_axis": axis}),
            f"group_norm with a mask{place}": Operation(
                "group_norm", x | affine | {"mask": boolean(*shape)}, {"num_groups": 2, "channel_axis": axis}
            ),
        }
    rows = {"input": normal(7, 3, 29)}
    return table | {
        "batch_norm of features": Operation(
            "batch_norm", {"input": normal(17, 4)} | affine | statistics, {"training": True}, RUNNING
        ),
        "instance_norm in evaluation": Operation(
            "instance_norm", {"input": normal(*IMAGES)} | affine | statistics, {"use_input_stats": False}
        ),
        "layer_norm": Operation(
            "layer_norm", rows | {"weight": normal(29), "bias": normal(29)}, {"normalized_shape": 29}
        ),
        "layer_norm of two axes": Operation(
            "layer_norm", rows | {"weight": normal(3, 29), "bias": normal(3, 29)}, {"normalized_shape": (3, 29)}
        ),
        "layer_norm with a mask": Operation("layer_norm", rows | {"mask": boolean(3, 29)}, {"normalized_shape": 29}),
        "rms_norm": Operation("rms_norm", rows | {"weight": normal(29)}, {"normalized_shape": 29}),
        "standardize": Operation("standardize", rows, {"axis": (0, 2)}),
        "standardize the first axis": Operation("standardize", rows, {"axis": 0}),
    }


def _functions() -> dict[str, Operation]:
    x = {"input": normal(9, 31)}
    image, last = {"input": normal(*IMAGES)}, {"input": normal(*LAST)}
    logits = {"input": normal(6, 5, 4)}
    table = {
        name: Operation(name, x, others)
        for name, others in {
            "relu": {},
            "leaky_relu": {"negative_slope": 0.2},
            "elu": {"alpha": 0.7},
            "gelu": {"approximate": "none"},
            "silu": {},
            "sigmoid": {},
            "tanh": {},
            "softplus": {"beta": 2.0, "threshold": 3.0},
            "softmax": {"dim": -1},
            "log_softmax": {"dim": -1},
        }.items()
    }
    table |= {
        name: Operation(name, x, others, random=True)
        for name, others in {
            "dropout": {"p": 0.4},
            "gaussian_dropout": {"p": 0.3},
            "alpha_dropout": {"p": 0.2, "training": True},
            "drop_path": {"p": 0.5},
            "gaussian_noise": {"sigma": 0.3},
        }.items()
    }
    convolution = {"weight": normal(6, 4, 3, 2), "bias": normal(6)}
    return table | {
        "gelu with tanh": Operation("gelu", x, {"approximate": "tanh"}),
        "softmax of the first axis": Operation("softmax", x, {"dim": 0}),
        "log_softmax of the middle axis": Operation("log_softmax", logits, {"dim": 1}),
        "dropout, classic": Operation("dropout", x, {"p": 0.4, "mode": "classic"}, random=True),
        "dropout in evaluation": Operation("dropout", x, {"p": 0.4, "training": False, "mode": "classic"}, random=True),
        "dropout of channels": Operation("dropout", image, {"p": 0.4, "broadcast_axes": (2, 3)}, random=True),
        "dropout of channels last": Operation("dropout", last, {"p": 0.4, "broadcast_axes": (1, 2)}, random=True),
        "linear": Operation("linear", {"input": normal(3, 7, 13), "weight": normal(11, 13), "bias": normal(11)}),
        "conv2d": Operation("conv2d", image | convolution, {"padding": 1, "stride": (2, 1)}),
        "conv2d, channels last": Operation("conv2d", last | convolution, {"padding": "same", "channel_axis": -1}),
        "conv2d of groups": Operation(
            "conv2d", image | {"weight": normal(6, 2, 2, 2)}, {"groups": 2, "dilation": 2, "padding": 2}
        ),
        "max_pool2d": Operation("max_pool2d", image, {"kernel_size": 2, "ceil_mode": True}),
        "max_pool2d, channels last": Operation(
            "max_pool2d", last, {"kernel_size": 3, "stride": 2, "padding": 1, "channel_axis": -1}
        ),
        "avg_pool2d": Operation("avg_pool2d", image, {"kernel_size": 3, "stride": 1, "padding": 1}),
        "avg_pool2d, channels last": Operation("avg_pool2d", last, {"kernel_size": 2, "channel_axis": -1}),
        "cross_entropy": Operation(
            "cross_entropy",
            logits | {"target": classes(5, 6, 4), "weight": positive(5)},
            {"ignore_index": 2},
            out=False,
        ),
        "cross_entropy of probabilities": Operation(
            "cross_entropy", logits | {"target": positive(6, 5, 4)}, {"label_smoothing": 0.1}, out=False
        ),
        "cross_entropy of each": Operation(
            "cross_entropy", {"input": normal(9, 5), "target": classes(5, 9)}, {"reduction": "none"}, out=False
        ),
        "mse_loss": Operation("mse_loss", x | {"target": normal(9, 31), "weight": positive(9, 31)}, out=False),
        "mse_loss of each": Operation("mse_loss", x | {"target": normal(9, 31)}, {"reduction": "none"}, out=False),
        "binary_cross_entropy_with_logits": Operation(
            "binary_cross_entropy_with_logits",
            x | {"target": positive(9, 31), "weight": positive(31), "pos_weight": positive(9, 1)},
            {"reduction": "sum"},
            out=False,
        ),
    }


# ---- procedures over objects -------------------------------------------------------------------------------------


def _parameter(data: Array, grad: Array) -> fastnn.Parameter:
    parameter = fastnn.Parameter(data)
    parameter.grad = grad
    return parameter


def _sgd(**options: Any) -> Callable[[Arguments], list[Array]]:
    def call(arguments: Arguments) -> list[Array]:
        parameter = _parameter(arguments["data"], arguments["grad"])
        optimizer = fastnn.SGD([parameter], lr=0.1, **options)
        optimizer.step()
        optimizer.step()
        return [parameter.data, parameter.grad]

    return call


def _over_parameters(apply: Callable[[fastnn.Parameter], Any]) -> Callable[[Arguments], list[Array]]:
    def call(arguments: Arguments) -> list[Array]:
        parameter = _parameter(arguments["data"], arguments["grad"])
        return flat(apply(parameter), parameter.data, parameter.grad)

    return call


def _accumulate(parameter: fastnn.Parameter) -> Any:
    accumulator = fastnn.GradientAccumulator([parameter], statistics=True)
    accumulator.add(3)
    parameter.grad[...] = 2.0
    accumulator.add(5)
    accumulator.finish()
    return [accumulator.variance[0], accumulator.trace_cov, accumulator.grad_sq_norm, parameter.grad]


def network(dtype: Any) -> fastnn.Sequential:
    return fastnn.Sequential(
        fastnn.Conv2d(4, 3, 3, padding=1, rng=0, dtype=dtype),
        fastnn.BatchNorm(3, dtype=dtype),
        fastnn.ReLU(),
        fastnn.MaxPool2d(2),
        fastnn.Flatten(),
        fastnn.Linear(18, 5, rng=1, dtype=dtype),
    )


def _of(arguments: Arguments) -> fastnn.Sequential:
    return network(arguments["input"].dtype.newbyteorder("="))


def _layers(arguments: Arguments) -> list[Array]:
    model, x = _of(arguments), arguments["input"]
    y = model(x)
    dx = model.backward(upstream(y))
    return flat(y, dx, [p.grad for p in model.parameters()], model.eval()(x), list(model.state_dict().values()))


def _fit(arguments: Arguments) -> list[Array]:
    model, data = _of(arguments), (arguments["input"], arguments["target"])
    optimizer = fastnn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = {"batch_size": 2, "generator": fastnn.Generator(1), "progress": False}
    history = train.fit(model, F.cross_entropy, optimizer, data, 2, **options)
    return [*history, *model.state_dict().values()]


def _evaluate(arguments: Arguments) -> list[Array]:
    model, data = _of(arguments).eval(), (arguments["input"], arguments["target"])
    return flat(tuple(train.evaluate(model, F.cross_entropy, data)), train.predict(model, arguments["input"], 2))


def _full_gradient(arguments: Arguments) -> list[Array]:
    model, data = _of(arguments), (arguments["input"], arguments["target"])
    return fastnn.full_gradient(model, F.cross_entropy, data, 2)


def _recalibrate(arguments: Arguments) -> list[Array]:
    model = _of(arguments)
    fastnn.recalibrate(model, [arguments["input"], arguments["input"][:2]])
    return list(model.state_dict().values())


def _audit(arguments: Arguments) -> list[Array]:
    result = fastnn.init.audit(_of(arguments), arguments["input"])
    return [result.forward, result.backward]


def _load_state(arguments: Arguments) -> list[Array]:
    layer = fastnn.Linear(13, 11, dtype=arguments["weight"].dtype.newbyteorder("="))
    layer.load_state_dict(arguments)
    return [layer.weight.data, layer.bias.data]


def _save(arguments: Arguments) -> list[Array]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "arrays.safetensors")
        fastnn.save(path, arguments)
        return list(fastnn.load(path).values())


def _schedule(arguments: Arguments) -> list[Array]:
    steps = arguments["step"]
    warm = fastnn.schedules.Warmup(fastnn.schedules.Cosine(0.1, 50), 5)
    return [np.asarray(warm(steps)), np.asarray(fastnn.schedules.OneCycle(1.0, 60)(steps))]


def _procedures() -> dict[str, Operation]:
    tensors = {"data": normal(7, 9), "grad": normal(7, 9)}
    both, data, grad = frozenset({"data", "grad"}), frozenset({"data"}), frozenset({"grad"})

    def of(name, arrays, call, updates=frozenset()):
        return Operation(name, arrays, {}, updates, out=False, call=call)

    batch = {"input": normal(5, 4, 4, 6)}
    labelled = batch | {"target": classes(5, 5)}
    return {
        "SGD": of("SGD", tensors, _sgd(momentum=0.9, weight_decay=0.1, nesterov=True), data),
        "SGD with clipping": of("SGD", tensors, _sgd(clip_norm=0.5, decoupled=True, weight_decay=0.1), both),
        "SGD with a row constraint": of("SGD", tensors, _sgd(constraint=fastnn.optim.MaxRowNorm(0.5)), data),
        "SGD with a ball": of("SGD", tensors, _sgd(constraint=fastnn.optim.L2Ball(0.5)), data),
        "clip_grad_norm": of(
            "clip_grad_norm", tensors, _over_parameters(lambda p: fastnn.optim.clip_grad_norm([p], 0.5)), grad
        ),
        "l2_penalty": of("l2_penalty", tensors, _over_parameters(lambda p: fastnn.optim.l2_penalty([p], 0.5))),
        "add_gradient_noise": of(
            "add_gradient_noise",
            tensors,
            _over_parameters(lambda p: fastnn.optim.add_gradient_noise([p], 0.5, rng=fastnn.Generator(3))),
            grad,
        ),
        "L2Ball": of("L2Ball", tensors, _over_parameters(lambda p: fastnn.optim.L2Ball(0.5).project([p])), data),
        "MaxRowNorm": of(
            "MaxRowNorm", tensors, _over_parameters(lambda p: fastnn.optim.MaxRowNorm(0.5).project([p])), data
        ),
        "GradientAccumulator": of("GradientAccumulator", tensors, _over_parameters(_accumulate), grad),
        "layers": of("Sequential", batch, _layers),
        "fit": of("fit", labelled, _fit),
        "evaluate and predict": of("evaluate", labelled, _evaluate),
        "full_gradient": of("full_gradient", labelled, _full_gradient),
        "recalibrate": of("recalibrate", batch, _recalibrate),
        "audit": of("audit", batch, _audit),
        "load_state_dict": of("load_state_dict", {"weight": normal(11, 13), "bias": normal(11)}, _load_state),
        "save and load": of("save", {"a": normal(3, 4), "b": classes(9, 5), "c": boolean(2, 3)}, _save),
        "schedules": of("schedules", {"step": classes(70, 8)}, _schedule),
    }


FUNCTIONS = _norms() | _functions()
OPERATIONS = FUNCTIONS | _procedures()
