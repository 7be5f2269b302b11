"""The other cases on PyTorch eager, torch.compile and JAX jit: functions by autograd and vjp, dropout, SGD, drawing.

What a library does not have (classic accumulation, alpha dropout in JAX, …) has no entry: the case then has fewer
peers. Random operations draw from the library's own generator.
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from case import Case
from functions import FUNCTIONS, operands, upstream

Run = Callable[[], object]


def base(case: Case) -> str:
    return case.operation.removesuffix("_backward")


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def _torch_function(case: Case) -> Callable[..., Any] | None:
    import torch.nn.functional as functional

    op, options = base(case), case.options
    if op == "conv2d":
        settings = {"padding": options.get("padding", 0), "groups": options.get("groups", 1)}
        if options.get("channel_axis") == -1:  # PyTorch's memory format of that name
            return lambda x, w, b: functional.conv2d(x.permute(0, 3, 1, 2), w, b, **settings).permute(0, 2, 3, 1)
        return lambda x, w, b: functional.conv2d(x, w, b, **settings)
    if op == "linear":
        return functional.linear
    if op == "dropout":
        return lambda x: functional.dropout(x, options["p"], True)
    if op == "alpha_dropout":
        return lambda x: functional.alpha_dropout(x, options["p"], True)
    if op in FUNCTIONS:
        return lambda x, *rest: getattr(functional, op)(x, *rest, **options)
    return None


def _torch_operands(case: Case) -> list[Any]:
    import torch

    if base(case) in FUNCTIONS:
        return [torch.from_numpy(a) for a in operands(case)[0]]
    return [torch.from_numpy(np.random.default_rng(3).standard_normal(case.shape, np.float32))]


def _torch_run(case: Case, function: Callable[..., Any]) -> Run:
    import torch

    tensors = _torch_operands(case)
    if base(case) == case.operation:
        return lambda: function(*tensors)
    wanted = [
        t.requires_grad_() if t.is_floating_point() and not _target(case, k) else t for k, t in enumerate(tensors)
    ]
    y = function(*wanted)
    dy = torch.as_tensor(upstream(y.detach().numpy()), dtype=y.dtype)
    leaves = [t for t in wanted if t.requires_grad]
    return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)


def _target(case: Case, k: int) -> bool:
    return k > 0 and base(case) in ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits")


def torch_eager(case: Case) -> Run | None:
    import torch

    if case.operation.startswith(("SGD.", "optim.", "GradientAccumulator.")):
        return _torch_parameters(case)
    if case.operation.startswith("init."):
        return _torch_init(case)
    if case.operation.endswith(".__call__"):
        return _torch_module(case)
    if case.operation == "import":
        return _fresh_import(case, "torch")
    if case.operation in ("Generator.uniform", "Generator.normal"):
        draw = torch.rand if case.operation.endswith("uniform") else torch.randn
        return lambda: draw(case.shape)
    function = _torch_function(case)
    return None if function is None else _torch_run(case, function)


def _torch_module(case: Case) -> Run:
    """A module in evaluation mode, without a graph."""
    import torch

    name, width = case.operation.removesuffix(".__call__"), case.shape[-1]
    arguments = {"ReLU": (), "Dropout": (0.5,), "Linear": (width, width)}.get(name, (width,))
    module = getattr(torch.nn, {"BatchNorm": "BatchNorm1d"}.get(name, name))(*arguments)
    module.eval().requires_grad_(False)
    x = torch.randn(case.shape)
    return lambda: module(x)


def _fresh_import(case: Case, module: str) -> Run | None:
    """A new interpreter that imports the peer, beside the one that imports fastnn."""
    if case.options["module"] != "fastnn":
        return None
    return lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


def _torch_parameters(case: Case) -> Run | None:
    """SGD, clipping and accumulation: fused or over lists of tensors, PyTorch's quickest ways."""
    import torch

    parameters = [torch.randn(size).requires_grad_() for size in case.shape]
    gradients = [torch.randn(p.shape) for p in parameters]
    for p, gradient in zip(parameters, gradients):
        p.grad = gradient
    clip, statistics = case.options.get("clip_norm"), case.options.get("statistics")
    if case.operation == "SGD.step" and "constraint" not in case.options:
        step = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, weight_decay=5e-4, fused=True).step
        clipped = torch.nn.utils.clip_grad_norm_
        return (lambda: (clipped(parameters, clip), step())) if clip else step
    if case.operation == "optim.clip_grad_norm":
        return lambda: torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    if case.operation == "GradientAccumulator.add" and not statistics:
        sums = [torch.zeros(p.shape) for p in parameters]

        def add() -> None:
            torch._foreach_add_(sums, gradients, alpha=1.0)
            torch._foreach_zero_(gradients)

        return add
    return None


def _torch_init(case: Case) -> Run | None:
    import torch

    name = case.operation.removeprefix("init.")
    fill = getattr(torch.nn.init, f"{name}_", None)
    arguments = (0.5,) if name == "constant" else ()
    return None if fill is None else lambda: fill(torch.empty(case.shape), *arguments)


def torch_compile(case: Case) -> Run | None:
    import torch
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False  # else a second backward pass over one forward pass is refused
    torch._dynamo.reset()
    function = _torch_function(case)
    return None if function is None else _torch_run(case, torch.compile(function, dynamic=False))


# ---- JAX -------------------------------------------------------------------------------------------------------------


def _jax_function(case: Case) -> Callable[..., Any] | None:
    import jax
    import jax.numpy as jnp
    import optax

    op, options = base(case), case.options
    size = options.get("kernel_size", 1)
    window = (1, 1, size, size)
    last = options.get("channel_axis") == -1
    formulas: dict[str, Callable[..., Any]] = {
        "softmax": lambda x: jax.nn.softmax(x, axis=options["dim"]),
        "log_softmax": lambda x: jax.nn.log_softmax(x, axis=options["dim"]),
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "tanh": jnp.tanh,
        "linear": lambda x, w, b: x @ w.T + b,
        "conv2d": lambda x, w, b: (
            jax.lax.conv_general_dilated(
                x,
                w,
                (1, 1),
                [(options.get("padding", 0),) * 2] * 2,
                dimension_numbers=("NHWC", "OIHW", "NHWC") if last else ("NCHW", "OIHW", "NCHW"),
                feature_group_count=options.get("groups", 1),
            )
            + (b if last else b[:, None, None])
        ),
        "max_pool2d": lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID"),
        "avg_pool2d": lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "VALID") / size**2,
        "cross_entropy": lambda x, t: optax.softmax_cross_entropy_with_integer_labels(x, t).mean(),
        "mse_loss": lambda x, t: jnp.mean((x - t) ** 2),
        "binary_cross_entropy_with_logits": lambda x, t: optax.sigmoid_binary_cross_entropy(x, t).mean(),
    }
    return formulas.get(op) or (getattr(jax.nn, op) if op in FUNCTIONS else None)


def jax_jit(case: Case) -> Run | None:
    import jax
    import jax.numpy as jnp

    op = base(case)
    if op == "dropout":
        return _jax_dropout(case)
    if case.operation == "import":
        return _fresh_import(case, "jax")
    if case.operation == "SGD.step":
        return None if "constraint" in case.options else _jax_sgd(case)
    function = _jax_function(case)
    if function is None:
        return None
    arrays = [jnp.asarray(a) for a in operands(case)[0]]
    if op == case.operation:
        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*arrays))
    learnt = 1 if _target(case, 1) else len(arrays)
    y, pullback = jax.vjp(lambda *a: function(*a, *arrays[learnt:]), *arrays[:learnt])
    dy = jnp.asarray(upstream(np.asarray(y)), y.dtype)
    pull = jax.jit(lambda pullback, dy: pullback(dy))
    return lambda: jax.block_until_ready(pull(pullback, dy))


def _jax_dropout(case: Case) -> Run | None:
    import jax
    import jax.numpy as jnp

    if base(case) != case.operation:
        return None
    p, x = case.options["p"], jnp.ones(case.shape)
    compiled = jax.jit(lambda key, x: jnp.where(jax.random.bernoulli(key, 1 - p, x.shape), x / (1 - p), 0))
    key = jax.random.key(1)
    return lambda: compiled(key, x).block_until_ready()


def _jax_sgd(case: Case) -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    clip = [optax.clip_by_global_norm(case.options["clip_norm"])] if "clip_norm" in case.options else []
    transform = optax.chain(*clip, optax.add_decayed_weights(5e-4), optax.sgd(1e-6, momentum=0.9))
    parameters = [jnp.ones(size) for size in case.shape]
    gradients = [jnp.ones(size) for size in case.shape]

    def step(parameters: Any, state: Any) -> Any:
        updates, state = transform.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    held = [(parameters, transform.init(parameters))]

    def run() -> None:
        held[0] = jax.block_until_ready(compiled(*held[0]))

    return run


PEERS: dict[str, Callable[[Case], Run | None]] = {"torch": torch_eager, "compile": torch_compile, "jax": jax_jit}


def agree(name: str, case: Case, peer: Any, own: Any) -> None:
    """Raise unless the peer's first output is ours, roughly; random results are not compared."""
    if base(case) not in FUNCTIONS:
        return
    while isinstance(peer, tuple | list):
        peer = peer[0]
    own = own[0] if isinstance(own, tuple) else own
    array = np.asarray(peer.detach() if name in ("torch", "compile") else peer)
    difference = np.abs(array - own).max() / np.abs(own).max()
    if not difference < 1e-3:
        raise AssertionError(f"{case.name}: {name} computes something else, the difference is {difference:.2g}")
