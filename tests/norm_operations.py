"""The norms under one roof, for tests that hold for all of them: how to call each, and how the oracle sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastnn.functional as F
import reference as ref


@dataclass(frozen=True)
class Operation:
    """One norm in one layout, on inputs of `shape`."""

    name: str
    shape: tuple[int, ...]
    positional: Callable[[Any, Any, Any], tuple[Any, ...]]  # (x, weight, bias) → the leading arguments
    view: Callable[[tuple[int, ...]], ref.View]
    parameters: tuple[int, ...] | None = None  # their shape, None where there are none
    keywords: tuple[tuple[str, Any], ...] = ()
    masks: bool = True
    centred: bool = True

    def plain(self, x: Any, weight: Any = None, bias: Any = None, **more: Any) -> Any:
        return getattr(F, self.name)(*self.positional(x, weight, bias), **dict(self.keywords), **more)

    def forward(self, x: Any, weight: Any = None, bias: Any = None, **more: Any) -> Any:
        return getattr(F, f"{self.name}_forward")(*self.positional(x, weight, bias), **dict(self.keywords), **more)

    def backward(self, dy: Any, context: Any) -> tuple[Any, ...]:
        """(dinput, dweight, dbias), with None for what the operation does not have."""
        grads = getattr(F, f"{self.name}_backward")(dy, context)
        grads = grads if isinstance(grads, tuple) else (grads,)
        return grads + (None,) * (3 - len(grads))

    def oracle(self, x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, mask: Any = None) -> ref.Forward:
        return ref.forward(x, self.view(x.shape), weight, bias, eps, mask, centred=self.centred)

    def data(self, seed: int, dtype: type, shape: tuple[int, ...] | None = None) -> tuple[np.ndarray, ...]:
        """(x, dy, weight, bias); the last two are None where the operation does not take them."""
        rng = np.random.default_rng(seed)
        x, dy = (3 + rng.standard_normal((2, *(shape or self.shape)))).astype(dtype)
        if self.parameters is None:
            return x, dy, None, None
        weight, bias = rng.standard_normal((2, *self.parameters)).astype(dtype)
        return x, dy, weight, bias if self.centred else None


def _batch(x, weight, bias):
    return x, None, None, weight, bias, True


OPERATIONS = {
    "layer_norm": Operation(
        "layer_norm", (7, 5, 13), lambda x, w, b: (x, 13, w, b), lambda s: ref.layer_view(s, 13), (13,)
    ),
    "layer_norm of two axes": Operation(
        "layer_norm", (6, 5, 13), lambda x, w, b: (x, (5, 13), w, b), lambda s: ref.layer_view(s, (5, 13)), (5, 13)
    ),
    "rms_norm": Operation(
        "rms_norm",
        (7, 5, 13),
        lambda x, w, b: (x, 13, w, 1e-5),
        lambda s: ref.layer_view(s, 13),
        (13,),
        masks=False,
        centred=False,
    ),
    "batch_norm": Operation("batch_norm", (4, 6, 5, 7), _batch, ref.batch_view, (6,)),
    "batch_norm, channels last": Operation(
        "batch_norm", (4, 5, 7, 6), _batch, lambda s: ref.batch_view(s, -1), (6,), (("channel_axis", -1),)
    ),
    "batch_norm, channels in the middle": Operation(
        "batch_norm", (4, 5, 6, 7), _batch, lambda s: ref.batch_view(s, 2), (6,), (("channel_axis", 2),)
    ),
    "batch_norm of features": Operation("batch_norm", (37, 6), _batch, ref.batch_view, (6,)),
    "instance_norm": Operation(
        "instance_norm", (4, 6, 5, 7), lambda x, w, b: (x, None, None, w, b), ref.instance_view, (6,)
    ),
    "instance_norm, channels last": Operation(
        "instance_norm",
        (4, 5, 7, 6),
        lambda x, w, b: (x, None, None, w, b),
        lambda s: ref.instance_view(s, -1),
        (6,),
        (("channel_axis", -1),),
    ),
    "group_norm": Operation(
        "group_norm", (4, 6, 5, 7), lambda x, w, b: (x, 2, w, b), lambda s: ref.group_view(s, 2), (6,)
    ),
    "group_norm, channels last": Operation(
        "group_norm",
        (4, 5, 7, 6),
        lambda x, w, b: (x, 2, w, b),
        lambda s: ref.group_view(s, 2, -1),
        (6,),
        (("channel_axis", -1),),
    ),
    "group_norm of features": Operation(
        "group_norm", (7, 12), lambda x, w, b: (x, 3, w, b), lambda s: ref.group_view(s, 3), (12,)
    ),
    "group_norm, each channel": Operation(
        "group_norm", (4, 6, 9), lambda x, w, b: (x, 6, w, b), lambda s: ref.group_view(s, 6), (6,)
    ),
    "group_norm, all channels": Operation(
        "group_norm",
        (4, 9, 6),
        lambda x, w, b: (x, 1, w, b),
        lambda s: ref.group_view(s, 1, -1),
        (6,),
        (("channel_axis", -1),),
    ),
    "layer_norm of everything": Operation(
        "layer_norm", (5, 13), lambda x, w, b: (x, (5, 13), w, b), lambda s: ref.layer_view(s, (5, 13)), (5, 13)
    ),
    "standardize the last axis": Operation(
        "standardize", (4, 6, 35), lambda x, w, b: (x, -1), lambda s: ref.standardize_view(s, -1)
    ),
    "standardize the first axis": Operation(
        "standardize", (35, 4, 6), lambda x, w, b: (x, 0), lambda s: ref.standardize_view(s, 0)
    ),
    "standardize the channels": Operation(
        "standardize", (4, 11, 5, 7), lambda x, w, b: (x, 1), lambda s: ref.standardize_view(s, 1)
    ),
    "standardize two separate axes": Operation(
        "standardize", (4, 6, 5, 7), lambda x, w, b: (x, (1, 3)), lambda s: ref.standardize_view(s, (1, 3))
    ),
    "standardize everything": Operation(
        "standardize", (4, 6, 7), lambda x, w, b: (x, (0, 1, 2)), lambda s: ref.standardize_view(s, (0, 1, 2))
    ),
}
