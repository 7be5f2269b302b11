"""The norms' cases on PyTorch eager, torch.compile and JAX jit: each the quickest way its library offers.

Backward passes are timed alone, from saved statistics: in PyTorch by the operator that autograd calls where there is
one, else through autograd; in JAX by a compiled application of the function that `jax.vjp` returns.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from case import Case
from norms import EPS, inputs, parse, view_of

Run = Callable[[], object]


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def _torch_inputs(case: Case) -> dict[str, Any]:
    """Tensors that share the inputs' memory; channels last becomes PyTorch's memory format of that name."""
    import torch

    norm, data = parse(case), inputs(case)
    tensors = {k: None if a is None else torch.from_numpy(a) for k, a in data._asdict().items()}
    if norm.channel_axis != 1:
        for k in ("x", "dy"):
            tensors[k] = tensors[k].movedim(-1, 1)
    return tensors


def _torch_function(case: Case, t: dict[str, Any]) -> Callable[..., Any]:
    """The norm as a function of (x, weight, bias)."""
    import torch
    import torch.nn.functional as functional

    norm = parse(case)
    if norm.op == "layer_norm":
        return lambda x, w, b: functional.layer_norm(x, case.shape[-1:], w, b, EPS)
    if norm.op == "rms_norm":
        return lambda x, w, b: functional.rms_norm(x, case.shape[-1:], w, EPS)
    if norm.op == "batch_norm":
        mean, var, training = t["running_mean"], t["running_var"], norm.options["training"]
        return lambda x, w, b: functional.batch_norm(x, mean, var, w, b, training, 0.1, EPS)
    if norm.op == "instance_norm":
        return lambda x, w, b: functional.instance_norm(x, eps=EPS)
    if norm.op == "group_norm":
        return lambda x, w, b: functional.group_norm(x, norm.options["num_groups"], w, b, EPS)
    axes = norm.options["axis"]

    def standardize(x: Any, w: Any, b: Any) -> Any:
        var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(var + EPS)

    return standardize


def _torch_operator(case: Case, t: dict[str, Any]) -> Run | None:
    """The operator behind the backward pass, where PyTorch has one."""
    import torch

    norm, aten = parse(case), torch.ops.aten
    x, dy, w, b = t["x"], t["dy"], t["weight"], t["bias"]
    if norm.op == "layer_norm":
        width = list(case.shape[-1:])
        _, mean, rstd = aten.native_layer_norm.default(x, width, w, b, EPS)
        return lambda: aten.native_layer_norm_backward.default(dy, x, width, mean, rstd, w, b, [True] * 3)
    if norm.op == "batch_norm":
        old, training = (t["running_mean"], t["running_var"]), norm.options["training"]
        _, mean, rstd = aten.native_batch_norm.default(x, w, b, *old, training, 0.1, EPS)
        return lambda: aten.native_batch_norm_backward.default(dy, x, w, *old, mean, rstd, training, EPS, [True] * 3)
    if norm.op == "group_norm":
        n, c, pixels, groups = x.shape[0], x.shape[1], x[0, 0].numel(), norm.options["num_groups"]
        _, mean, rstd = aten.native_group_norm.default(x, w, b, n, c, pixels, groups, EPS)
        return lambda: aten.native_group_norm_backward.default(dy, x, mean, rstd, w, n, c, pixels, groups, [True] * 3)
    return None


def _autograd(case: Case, function: Callable[..., Any], t: dict[str, Any]) -> Run:
    import torch

    operands = {k: t[k].detach().requires_grad_() for k in ("x", "weight", "bias") if t[k] is not None}
    y = function(operands["x"], operands.get("weight"), operands.get("bias"))
    wanted, dy = list(operands.values()), t["dy"]
    if parse(case).op == "instance_norm":
        dy = dy.contiguous()  # PyTorch 2.13's gradient is wrong for one sample whose dy has its channels last
    return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def torch_eager(case: Case) -> Run:
    t = _torch_inputs(case)
    function = _torch_function(case, t)
    if not parse(case).backward:
        return lambda: function(t["x"], t["weight"], t["bias"])  # nothing requires a gradient: no graph is recorded
    return _torch_operator(case, t) or _autograd(case, function, t)


def torch_compile(case: Case) -> Run:
    import torch
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False  # else a second backward pass over one forward pass is refused
    torch._dynamo.reset()
    t = _torch_inputs(case)
    function = torch.compile(_torch_function(case, t), dynamic=False)
    if not parse(case).backward:
        return lambda: function(t["x"], t["weight"], t["bias"])
    return _autograd(case, function, t)


# ---- JAX -------------------------------------------------------------------------------------------------------------


def jax_jit(case: Case) -> Run | None:
    if case.dtype == "float64":
        return None  # JAX has it only as a switch of the whole process
    import jax
    import jax.numpy as jnp

    norm, data, view = parse(case), inputs(case), view_of(case)
    constants = None
    if norm.op == "batch_norm" and not norm.options["training"]:
        constants = [jnp.asarray(a.reshape(view.affine)) for a in (data.running_mean, data.running_var)]

    def function(x: Any, parameters: list[Any]) -> Any:
        x = x.reshape(view.shape)
        if constants is not None:
            mean, var = constants
        elif norm.op == "rms_norm":
            mean, var = 0.0, jnp.mean(jnp.square(x), view.axes, keepdims=True)
        else:
            mean, var = jnp.mean(x, view.axes, keepdims=True), jnp.var(x, view.axes, keepdims=True)
        y = (x - mean) * jax.lax.rsqrt(var + EPS)
        for combine, parameter in zip((jnp.multiply, jnp.add), parameters):
            y = combine(y, parameter.reshape(view.affine))
        return y.reshape(case.shape)

    x, dy = jnp.asarray(data.x), jnp.asarray(data.dy)
    parameters = [jnp.asarray(a) for a in (data.weight, data.bias) if a is not None]
    if not norm.backward:
        compiled = jax.jit(function)
        return lambda: compiled(x, parameters).block_until_ready()
    _, pullback = jax.jit(functools.partial(jax.vjp, function))(x, parameters)
    compiled = jax.jit(lambda pullback, dy: pullback(dy))
    return lambda: jax.block_until_ready(compiled(pullback, dy))


PEERS: dict[str, Callable[[Case], Run | None]] = {"torch": torch_eager, "compile": torch_compile, "jax": jax_jit}


def agree(name: str, case: Case, peer: Any, own: Any) -> None:
    """Raise unless the peer's first output is ours, roughly: that it is the same computation."""
    while isinstance(peer, tuple | list):
        peer = peer[0]
    own = own[0] if isinstance(own, tuple) else own
    array = np.asarray(peer.detach() if name in ("torch", "compile") else peer)
    if parse(case).channel_axis != 1 and name in ("torch", "compile"):
        array = np.moveaxis(array, 1, -1)
    difference = np.abs(array - own).max() / np.abs(own).max()
    if not difference < 1e-3:
        raise AssertionError(f"{case.name}: {name} computes something else, the difference is {difference:.2g}")
