"""The variance audit: what initialisers are derived from, measured layer by layer."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnn import _arrays, random

Array = npt.NDArray[Any]

# Steady is a ratio between these: beyond them the variance doubles, or halves, within two layers.
STEADY = (math.sqrt(0.5), math.sqrt(2.0))


class Trainable(Protocol):
    """What the audit needs of a model: every layer of this package has it. A container also has ``__iter__``."""

    def __call__(self, x: Array) -> Array: ...
    def backward(self, dy: Array) -> Array: ...
    def train(self) -> "Trainable": ...
    def named_children(self) -> Iterator[tuple[str, Any]]: ...


@dataclass(frozen=True, eq=False)
class Audit:
    """Variances forward and backward, layer by layer, as `fastnn.init.audit` measures them.

    Attributes
    ----------
    names, kinds : tuple of str
        The layers' names and classes, in the order of the forward pass.
    forward : ndarray of float64
        Variance of each layer's output.
    backward : ndarray of float64
        Variance of the gradient with respect to each layer's input.
    forward_ratios, backward_ratios : ndarray of float64
        Each variance over that of the layer *of the same class* before it (backward: after it); NaN where there is
        none. A ReLU halves what a Kaiming layer has doubled: only like may be compared with like.
    mean_forward_ratio, mean_backward_ratio : float
        Geometric means of the ratios; NaN without any.
    forward_verdict, backward_verdict : str
        "steady" for a mean ratio between 1/√2 and √2, else "vanishing" or "exploding"; "unknown" without any.

    Examples
    --------
    >>> import fastnn
    >>> from fastnn import init
    >>> layers = [fastnn.Linear(400, 400, bias=False, rng=i) for i in range(4)]  # PyTorch's default: Var W = 1/(3 n)
    >>> report = init.audit(fastnn.Sequential(*layers), init.normal((300, 400), rng=9))
    >>> round(report.mean_forward_ratio, 2), report.forward_verdict
    (0.33, 'vanishing')
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    forward: Array
    backward: Array

    @property
    def forward_ratios(self) -> Array:
        return _ratios(self.forward, self.kinds)

    @property
    def backward_ratios(self) -> Array:
        return _ratios(self.backward[::-1], self.kinds[::-1])[::-1]

    @property
    def mean_forward_ratio(self) -> float:
        return _mean(self.forward_ratios)

    @property
    def mean_backward_ratio(self) -> float:
        return _mean(self.backward_ratios)

    @property
    def forward_verdict(self) -> str:
        return _verdict(self.mean_forward_ratio, self.forward)

    @property
    def backward_verdict(self) -> str:
        return _verdict(self.mean_backward_ratio, self.backward)

    def __str__(self) -> str:
        """The table, with a verdict on each layer and on the whole."""
        columns = [["layer", *self.names, "mean"], ["", *self.kinds, ""]]
        for title, variances, ratios, mean, whole in (
            ("forward", self.forward, self.forward_ratios, self.mean_forward_ratio, self.forward_verdict),
            ("backward", self.backward, self.backward_ratios, self.mean_backward_ratio, self.backward_verdict),
        ):
            verdicts = [_verdict(ratio, variance) for ratio, variance in zip(ratios, variances)]
            columns.append([title, *(f"{variance:.2e}" for variance in variances), ""])
            columns.append(["ratio", *("" if math.isnan(ratio) else f"{ratio:.3g}" for ratio in [*ratios, mean])])
            columns.append(["", *("" if verdict == "unknown" else verdict for verdict in [*verdicts, whole])])
        padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
        return "\n".join("  ".join(row).rstrip() for row in zip(*padded))

    def plot(self, *, ax: Any = None) -> Any:
        """Draw both variances over the layers with Matplotlib, on a logarithmic axis, and return the axes.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure without it.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots()
        ax.semilogy(self.forward, ".-", label="activations, forward")
        ax.semilogy(self.backward, ".-", label="gradients, backward")
        ax.set(xlabel="layer", ylabel="variance")
        ax.legend()
        return ax


def audit(model: Trainable, x: Array, dy: Array | None = None) -> Audit:
    """Run a model forward on `x` and backward on `dy` and measure, layer by layer, what becomes of the variances.

    It works on a copy: parameters, gradients, running statistics and modes of `model` stay as they are. (A dropout
    without a generator of its own draws from the default one.) Layers are run in training mode. A container that can
    be iterated over, such as `Sequential`, is taken apart, also inside another; any other layer counts as one.

    Parameters
    ----------
    model : Layer
        In the state to judge: freshly initialised, or trained.
    x : ndarray
        A batch; a few hundred samples make the variances exact to some per cent.
    dy : ndarray, optional
        Gradient of the model's output; standard normal by default (the same at every call).

    Returns
    -------
    Audit
        Variances, ratios and verdicts; ``print`` it for a table, `plot` it for a picture.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015.

    Examples
    --------
    >>> import fastnn
    >>> from fastnn import init
    >>> layers = []
    >>> for i in range(3):
    ...     linear = fastnn.Linear(500, 500, bias=False)
    ...     linear.weight.data = init.normal((500, 500), std=0.01, rng=i)
    ...     layers += [linear, fastnn.ReLU()]
    >>> report = init.audit(fastnn.Sequential(*layers), init.normal((400, 500), rng=9))
    >>> print(report)
    layer          forward   ratio             backward   ratio
    0      Linear  5.05e-02                     1.56e-05  0.0253  vanishing
    1      ReLU    1.72e-02                     3.08e-04  0.025   vanishing
    2      Linear  1.30e-03  0.0258  vanishing  6.15e-04  0.0253  vanishing
    3      ReLU    4.57e-04  0.0265  vanishing  1.23e-02  0.0256  vanishing
    4      Linear  3.40e-05  0.0261  vanishing  2.43e-02
    5      ReLU    1.08e-05  0.0237  vanishing  4.81e-01
    mean                     0.0255  vanishing            0.0253  vanishing
    """
    x = _arrays.floating(x, "x")
    dy = None if dy is None else _arrays.floating(dy, "dy")
    layers = list(_layers(copy.deepcopy(model).train()))
    forward, backward = [], []
    with np.errstate(over="ignore", invalid="ignore"):  # an exploding network is a finding, not an accident
        for _, layer in layers:
            x = layer(x)
            forward.append(np.var(x, dtype=np.float64))
        if dy is None:
            dy = random.Generator(0).normal(x.shape, dtype=x.dtype)
        for _, layer in reversed(layers):
            dy = layer.backward(dy)
            backward.append(np.var(dy, dtype=np.float64))
    return Audit(
        tuple(name for name, _ in layers),
        tuple(type(layer).__name__ for _, layer in layers),
        np.array(forward),
        np.array(backward[::-1]),
    )


def _layers(model: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The layers that run one after the other, with dotted names."""
    if not hasattr(model, "__iter__"):
        yield name, model
        return
    for child_name, child in model.named_children():
        yield from _layers(child, f"{name}.{child_name}" if name else child_name)


def _ratios(variances: Array, kinds: tuple[str, ...]) -> Array:
    """Each variance over the latest one of its kind, in the order of the pass."""
    ratios = np.full(len(variances), np.nan)
    latest: dict[str, float] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for i, (kind, variance) in enumerate(zip(kinds, variances)):
            ratios[i] = variance / latest.get(kind, np.nan)
            latest[kind] = variance
    return ratios


def _mean(ratios: Array) -> float:
    """The geometric mean of those that are there."""
    known = ratios[~np.isnan(ratios)]
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 after all has vanished
        return float(np.exp(np.log(known).mean())) if known.size else math.nan


def _verdict(ratio: float, variances: Array | float) -> str:
    """What a ratio means, or the variances themselves where they are past having one."""
    if not np.isfinite(variances).all():
        return "exploding"
    if not np.all(variances):
        return "vanishing"
    if math.isnan(ratio):
        return "unknown"
    return "vanishing" if ratio < STEADY[0] else "exploding" if ratio > STEADY[1] else "steady"
