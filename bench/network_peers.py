"""The networks on PyTorch eager, torch.compile and JAX jit: the same layers with the same weights, taken from ours."""

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn
from case import Case
from networks import NETS, model_of, samples

Run = Callable[[], object]
LR, MOMENTUM = 1e-4, 0.9

# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def _torch_layer(layer: Any) -> Any:
    """The module that computes what a layer of ours does; its parameters have the same names."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.layer = inner

        def forward(self, x: Any) -> Any:
            return x + self.layer(x)

    kind = type(layer).__name__
    if kind == "Sequential":
        return nn.Sequential(*(_torch_layer(inner) for inner in layer))
    if kind == "Residual":
        return Residual(_torch_layer(layer.layer))
    if kind == "Linear":
        return nn.Linear(*layer.weight.data.shape[::-1])
    if kind == "Conv2d":
        out, channels = layer.weight.data.shape[:2]
        return nn.Conv2d(channels, out, 3, padding=1, bias=layer.bias is not None)
    if kind == "BatchNorm":
        return nn.BatchNorm2d(layer.weight.data.size)
    if kind in ("MaxPool2d", "AvgPool2d"):
        return getattr(torch.nn, kind)(layer.kernel_size)
    return nn.Dropout(layer.p) if kind == "Dropout" else getattr(nn, kind)()


def _torch_model(ours: Any) -> Any:
    import torch

    model = _torch_layer(ours)
    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in ours.state_dict().items()})
    return model


def _torch(case: Case, compiled: bool) -> Run | None:
    import torch

    x, target = (torch.from_numpy(a) for a in samples(case))
    if case.operation == "inference":
        model = _torch_model(model_of(case)).eval().requires_grad_(False)
        return _call(torch.compile(model, dynamic=False) if compiled else model, x)
    if case.operation != "training step":
        return None
    model = _torch_model(NETS[case.options["net"]]())
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(x), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _call(model: Any, x: Any) -> Run:
    return lambda: model(x)


def torch_eager(case: Case) -> Run | None:
    return _torch(case, False)


def torch_compile(case: Case) -> Run | None:
    import torch

    torch._dynamo.reset()
    return _torch(case, True)


# ---- JAX -------------------------------------------------------------------------------------------------------------


def _jax_apply(layer: Any, name: str, p: dict[str, Any], x: Any, training: bool, key: Any) -> Any:
    """What a layer of ours computes from the parameters `p`, which have our names."""
    import jax
    import jax.numpy as jnp

    kind = type(layer).__name__
    if kind == "Sequential":
        for k, inner in enumerate(layer):
            x = _jax_apply(inner, f"{name}{k}.", p, x, training, key)
        return x
    if kind == "Residual":
        return x + _jax_apply(layer.layer, f"{name}layer.", p, x, training, key)
    if kind == "Linear":
        return x @ p[name + "weight"].T + p[name + "bias"]
    if kind == "Conv2d":
        y = jax.lax.conv_general_dilated(x, p[name + "weight"], (1, 1), [(1, 1)] * 2)
        return y + p[name + "bias"][:, None, None] if name + "bias" in p else y
    if kind == "BatchNorm":
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        if not training:
            mean, var = jnp.asarray(layer.running_mean), jnp.asarray(layer.running_var)
        scale = p[name + "weight"] * jax.lax.rsqrt(var + layer.eps)
        return (x - mean[:, None, None]) * scale[:, None, None] + p[name + "bias"][:, None, None]
    if kind in ("MaxPool2d", "AvgPool2d"):
        size = x.shape[-1] if kind == "AvgPool2d" else 2
        window = (1, 1, size, size)
        if kind == "AvgPool2d":
            return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "VALID") / size**2
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    if kind == "Dropout":
        return jnp.where(jax.random.bernoulli(key, 1 - layer.p, x.shape), x / (1 - layer.p), 0) if training else x
    return x.reshape(len(x), -1) if kind == "Flatten" else jax.nn.relu(x)


def jax_jit(case: Case) -> Run | None:
    import jax
    import jax.numpy as jnp
    import optax

    if case.operation not in ("inference", "training step"):
        return None
    training = case.operation == "training step"
    ours = NETS[case.options["net"]]() if training else model_of(case)
    parameters = {name: jnp.asarray(p.data) for name, p in ours.named_parameters()}
    x, target = (jnp.asarray(a) for a in samples(case))
    if not training:
        call = jax.jit(lambda p, x: _jax_apply(ours, "", p, x, False, None))
        return lambda: call(parameters, x).block_until_ready()
    transform = optax.sgd(LR, momentum=MOMENTUM)

    def loss(p: Any, x: Any, target: Any, key: Any) -> Any:
        y = _jax_apply(ours, "", p, x, True, key)
        return optax.softmax_cross_entropy_with_integer_labels(y, target).mean()

    def step(p: Any, state: Any, key: Any, x: Any, target: Any) -> Any:
        key, now = jax.random.split(key)
        value, gradients = jax.value_and_grad(loss)(p, x, target, now)
        updates, state = transform.update(gradients, state, p)
        return value, optax.apply_updates(p, updates), state, key

    compiled = jax.jit(step, donate_argnums=(0, 1))
    held = [parameters, transform.init(parameters), jax.random.key(0)]

    def run() -> float:
        value, *held[:] = compiled(*held, x, target)
        return float(value)

    return run


PEERS: dict[str, Callable[[Case], Run | None]] = {"torch": torch_eager, "compile": torch_compile, "jax": jax_jit}


def agree(name: str, case: Case, peer: Any, own: Any) -> None:
    """Raise unless outputs or losses are ours; with dropout two losses of a first step are only alike."""
    dropout = any(isinstance(layer, fastnn.Dropout) for layer in NETS[case.options["net"]]())
    tolerance = 0.3 if dropout and case.operation == "training step" else 1e-3
    difference = np.abs(np.asarray(peer) - own).max() / np.abs(own).max()
    if not difference < tolerance:
        raise AssertionError(f"{case.name}: {name} computes something else, the difference is {difference:.2g}")
