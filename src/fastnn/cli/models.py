"""The command line's networks: an architecture is a value that a file can carry, and builds its layers."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

from fastnn import init
from fastnn.cli.errors import Refusal
from fastnn.cli.options import NORMS
from fastnn.layers import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GroupNorm,
    Identity,
    InstanceNorm,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    ReLU,
    RMSNorm,
    Sequential,
)
from fastnn.random import Generator

__all__ = ["Architecture"]

GROUPS = 8
LIMIT = 2**24  # of the numbers in an architecture: what a file says must not make us build a giant


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A convolutional net or a multilayer perceptron.

    conv: two convolutions 3×3 of widths[0] channels, pooling, one of widths[1] channels, pooling, dropout, one linear
    layer. mlp: a hidden layer for each width, each with dropout, and one linear layer. A norm and a ReLU follow every
    layer but the last.
    """

    kind: str
    shape: tuple[int, ...]  # of one sample
    classes: int
    norm: str
    dropout: float
    widths: tuple[int, ...]

    @classmethod
    def choose(cls, kind: str, shape: tuple[int, ...], classes: int, norm: str, dropout: float) -> "Architecture":
        """The architecture for samples of this shape; ``kind="auto"`` is conv for images, mlp for vectors."""
        if kind == "auto":
            kind = "conv" if len(shape) == 3 and min(shape[1:]) >= 4 else "mlp"
        widths = (32, 64) if kind == "conv" else (128, 128)
        architecture = cls(kind, shape, classes, norm, dropout, widths)
        if problem := architecture.problem():
            raise Refusal(problem)
        return architecture

    def problem(self) -> str | None:
        """Why it cannot be built, if it cannot."""
        if self.kind == "conv" and (len(self.shape) != 3 or min(self.shape[1:]) < 4):
            return f"the conv model needs images of at least 4×4, samples have shape {self.shape}: use --model mlp"
        if self.kind == "mlp" and self.norm == "instance":
            return "instance norm needs images: use --model conv or another --norm"
        if self.classes < 2:
            return f"a classifier needs labels of at least two classes, got {self.classes}"
        return None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """The architecture that `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is anything else.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.keys() != {field.name for field in dataclasses.fields(cls)}:
            raise ValueError("it does not name the parts of an architecture")
        numbers = [values["shape"], values["widths"], [values["classes"]]]
        if not all(isinstance(n, list) and n and all(type(k) is int and 1 <= k <= LIMIT for k in n) for n in numbers):
            raise ValueError("a length in it is not an integer within the limits")
        good = (
            values["kind"] in ("conv", "mlp")
            and values["norm"] in NORMS
            and type(values["dropout"]) is float
            and 0 <= values["dropout"] < 1
            and math.prod(values["shape"]) <= LIMIT
            and len(values["widths"]) <= 8
            and (values["kind"] == "mlp" or len(values["widths"]) == 2)
        )
        if not good:
            raise ValueError("a part of it is out of range")
        architecture = cls(**values | {"shape": tuple(values["shape"]), "widths": tuple(values["widths"])})
        if problem := architecture.problem():
            raise ValueError(problem)
        return architecture

    def weights(self) -> int:
        """How many numbers the weights of the convolutions and linear layers hold."""
        last = math.prod(self.shape)
        if self.kind == "conv":
            first, second = self.widths
            area = self.shape[1] // 4 * (self.shape[2] // 4)
            return 9 * first * (self.shape[0] + first + second) + second * area * self.classes
        total = 0
        for width in (*self.widths, self.classes):
            total += last * width
            last = width
        return total

    def build(self, generator: Generator, initialiser: str = "default") -> Layer:
        """The network with fresh weights from `generator`, which its dropout draws from too."""
        layers = self._conv(generator) if self.kind == "conv" else self._mlp(generator)
        model = Sequential(*layers)
        if initialiser != "default":
            draw = getattr(init, initialiser)
            for _, layer in model.named_layers():
                if isinstance(layer, Conv2d | Linear):
                    weight = layer.weight.data
                    weight[...] = draw(weight.shape, **_gain(initialiser), rng=generator, dtype=weight.dtype)
        return model

    def _conv(self, generator: Generator) -> list[Layer]:
        channels, height, width = self.shape
        layers: list[Layer] = []
        for out, pool in [(self.widths[0], False), (self.widths[0], True), (self.widths[1], True)]:
            bias = self.norm in ("none", "rms")  # the other norms have a bias of their own
            layers += [Conv2d(channels, out, 3, padding=1, bias=bias, rng=generator)]
            layers += [self._norm((out, height, width)), ReLU()]
            channels = out
            if pool:
                layers.append(MaxPool2d(2))
                height, width = height // 2, width // 2
        return [*layers, Flatten(), *self._head(channels * height * width, generator)]

    def _mlp(self, generator: Generator) -> list[Layer]:
        layers: list[Layer] = [Flatten()]
        features = math.prod(self.shape)
        for k, out in enumerate(self.widths):
            if k > 0:
                layers.append(Dropout(self.dropout, generator=generator))
            layers += [Linear(features, out, bias=self.norm in ("none", "rms"), rng=generator)]
            layers += [self._norm((out,)), ReLU()]
            features = out
        return [*layers, *self._head(features, generator)]

    def _head(self, features: int, generator: Generator) -> list[Layer]:
        return [Dropout(self.dropout, generator=generator), Linear(features, self.classes, rng=generator)]

    def _norm(self, shape: tuple[int, ...]) -> Layer:
        kinds: dict[str, Callable[[], Layer]] = {
            "batch": lambda: BatchNorm(shape[0]),
            "layer": lambda: LayerNorm(shape),
            "instance": lambda: InstanceNorm(shape[0], affine=True),
            "group": lambda: GroupNorm(math.gcd(GROUPS, shape[0]), shape[0]),
            "rms": lambda: RMSNorm(shape),
            "none": Identity,
        }
        return kinds[self.norm]()


def _gain(initialiser: str) -> dict[str, Any]:
    """For layers that a ReLU follows; lecun_normal has the gain 1 by definition."""
    if initialiser.startswith("kaiming"):
        return {"nonlinearity": "relu"}
    return {} if initialiser == "lecun_normal" else {"gain": math.sqrt(2)}
