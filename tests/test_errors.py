"""Nonsense for every parameter: a TypeError or ValueError that names the parameter, and nothing changed."""

import inspect
import re

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from operations import FUNCTIONS, upstream

NONSENSE = {
    "a string": "x",
    "a number as a string": "1",
    "None": None,
    "a complex number": 1j,
    "a list": [1.5, "a"],
    "a dict": {"a": 1},
    "an object": object(),
    "a huge integer": 10**400,
    "an integer beyond 64 bits": 2**70,
    "a fraction": 1.5,
    "NaN": np.nan,
    "-1": -1,
}
ARRAYS = {
    "integers": np.arange(6),
    "half precision": np.ones((2, 2), np.float16),
    "complex": np.ones(3, complex),
    "objects": np.array([1.0, None]),
    "strings": np.array(["a", "b"]),
    "another shape": np.ones((2, 3, 1, 1, 1, 1), np.float32),
    "the other precision": np.ones((9, 31), np.float64),
}
FLAGS = {"training", "use_input_stats", "ceil_mode", "count_include_pad"}  # anything is true or false
WORDS = {"mode", "approximate", "reduction", "padding", "channel_axis", "broadcast_axes"}  # compared with ==
FIRST = {operation.name: operation for operation in reversed(FUNCTIONS.values())}
CASES = [
    (name, parameter, what)
    for name in FIRST
    for parameter in inspect.signature(getattr(F, name)).parameters
    for what in (NONSENSE if parameter in FLAGS | WORDS else NONSENSE | ARRAYS)
    if parameter not in FLAGS
]


@pytest.mark.parametrize(("name", "parameter", "what"), CASES)
def test_errors_name_the_parameter_and_change_nothing(name, parameter, what):
    operation, function = FIRST[name], getattr(F, name)
    for form in (function, getattr(F, f"{name}_forward")):
        arguments = operation.arguments(np.float32)
        if operation.random:
            arguments["generator"] = fastnn.Generator(1)
        arguments[parameter] = (NONSENSE | ARRAYS)[what]
        before = {k: v.tobytes() for k, v in arguments.items() if isinstance(v, np.ndarray) and v.dtype != object}
        refusal = None
        try:
            form(**arguments)
        except (TypeError, ValueError) as error:
            refusal = error
        if refusal is None:
            assert what not in ("a string", "an object")  # which no parameter takes
            continue
        # where two arguments contradict each other, either is named
        names = inspect.signature(form).parameters if parameter in ("input", "channel_axis") else [parameter]
        assert any(re.search(rf"\b{one}\b", str(refusal)) for one in names), refusal
        assert not isinstance(refusal, IndexError)
        assert {k: v.tobytes() for k, v in arguments.items() if k in before} == before
        if operation.random and parameter != "generator":
            assert arguments["generator"].stream == 0  # no stream was taken


@pytest.mark.parametrize("what", NONSENSE | ARRAYS)
@pytest.mark.parametrize("name", FIRST)
def test_a_gradient_that_does_not_fit(name, what):
    operation = FIRST[name]
    y, context = operation.forward(operation.arguments(np.float32))
    gradient = (NONSENSE | ARRAYS)[what]
    if np.ndim(y) == 0 and isinstance(gradient, int | float) and gradient != 10**400:
        pytest.skip("a factor for a scalar loss")
    if what == "the other precision" and np.ndim(y) == 0:
        gradient = np.ones(2)
    with pytest.raises((TypeError, ValueError), match=r"\bdy\b"):
        operation.backward(gradient, context)
    assert np.all(np.isfinite(np.asarray(operation.backward(upstream(y), context)[0], np.float64)))


@pytest.mark.parametrize("name", [name for name, operation in FUNCTIONS.items() if operation.out])
def test_out_that_does_not_fit(name):
    operation = FUNCTIONS[name]
    y = operation.plain(operation.arguments(np.float32))
    frozen = np.empty_like(y)
    frozen.flags.writeable = False
    wrong = {
        "out must be a numpy array, got list": [],
        "out must have the input's dtype": np.empty(y.shape, np.float64),
        "out must have shape": np.empty((*y.shape, 1), np.float32),
        "out must be writeable": frozen,
    }
    for message, out in wrong.items():
        for form in (operation.plain, operation.forward):
            arguments = operation.arguments(np.float32)
            before = {k: v.tobytes() for k, v in arguments.items() if isinstance(v, np.ndarray)}
            with pytest.raises((TypeError, ValueError), match=message):
                form(arguments, out=out)
            assert {k: v.tobytes() for k, v in arguments.items() if k in before} == before  # running statistics too


LAYERS = {
    "Linear": lambda: fastnn.Linear(5, 3, rng=0),
    "Conv2d": lambda: fastnn.Conv2d(4, 2, 2, rng=0),
    "BatchNorm": lambda: fastnn.BatchNorm(4),
    "BatchNorm of momentum None": lambda: fastnn.BatchNorm(4, momentum=None),
    "BatchNorm of ghost batches": lambda: fastnn.BatchNorm(4, virtual_batch_size=2),
    "InstanceNorm": lambda: fastnn.InstanceNorm(4, affine=True, track_running_stats=True),
    "LayerNorm": lambda: fastnn.LayerNorm(5),
    "GroupNorm": lambda: fastnn.GroupNorm(2, 4),
    "RMSNorm": lambda: fastnn.RMSNorm(5),
    "MaxPool2d": lambda: fastnn.MaxPool2d(2),
    "Dropout": lambda: fastnn.Dropout(generator=fastnn.Generator(1)),
    "GELU": fastnn.GELU,
    "Residual": lambda: fastnn.Residual(fastnn.LayerNorm(5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_unchanged_by_a_call_that_failed(name):
    layer, x = LAYERS[name](), np.ones((3, 4, 5, 5), np.float32)
    y = layer(x)
    state = {k: v.tobytes() for k, v in layer.state_dict().items()}
    stored = len(layer._contexts)
    bad = [x.astype(np.float64), x.astype(np.int32), "x", None, np.ones((), np.float32), x[..., :0][:, :3]]
    for wrong in bad:
        try:
            layer(wrong)
        except (TypeError, ValueError):
            assert {k: v.tobytes() for k, v in layer.state_dict().items()} == state
            assert len(layer._contexts) == stored
        else:
            layer._contexts.pop()  # layers without parameters take either precision, or no rows
            state = {k: v.tobytes() for k, v in layer.state_dict().items()}
    with pytest.raises((TypeError, ValueError), match="dy"):
        layer.backward(np.ones((2, 9), np.float32))
    assert all(not p.grad.any() for p in layer.parameters())
    assert len(layer._contexts) == stored
    layer.backward(np.ones_like(y))  # the context is still there
