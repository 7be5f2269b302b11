"""From layers to nodes, and `freeze`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import layers
from fastnn.inference.fold import fold
from fastnn.inference.frozen import Frozen
from fastnn.inference.nodes import INPUT, Activation, Node

Array = npt.NDArray[Any]

__all__ = ["freeze"]


def freeze(model: layers.Layer) -> Frozen:
    """An immutable copy of a network for inference, which is quicker than the network itself.

    It answers as the model does in evaluation mode (whatever its mode is now), to within a few units in the last place
    of each layer, and to the last bit where nothing was folded:

    - batch norms (and tracked instance norms, and classic dropout) become part of the weights of the linear layer or
      convolution behind or before them. Not before a convolution that pads, unless the norm has no offset, and not
      across an activation: there they run with the activation;
    - dropout, noise and identities vanish;
    - activations and residual sums run within the step before them, while its result is in cache.

    Parameters
    ----------
    model : Layer
        Of the layers of this package, `Sequential` and `Residual` of such. It stays as it is; later changes to it do
        not reach the frozen network.

    Returns
    -------
    Frozen

    Raises
    ------
    TypeError
        If there is a layer of another type, whose formula is not known.
    ValueError
        If a layer's answer for a sample depends on the batch: a batch norm without running statistics.

    Notes
    -----
    A batch norm over axis 1 behind a linear layer is folded for samples that are vectors, (N, C); the frozen network
    then refuses (N, L, C), where axis 1 is not the layer's outputs.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> block = fastnn.Sequential(fastnn.Conv2d(8, 8, 3, padding=1), fastnn.BatchNorm(8))
    >>> model = fastnn.Sequential(fastnn.Residual(block), fastnn.ReLU(), fastnn.Dropout(), fastnn.AvgPool2d(4))
    >>> fastnn.freeze(model)
    Frozen(
      0: conv2d(8, 8, kernel_size=(3, 3)) + input + relu
      1: avg_pool2d
    )
    """
    nodes: list[Node] = []
    _lower(model, INPUT, nodes)
    if not nodes:
        nodes.append(Node("elementwise", INPUT, {}, {}))
    return Frozen(fold(nodes))


def _lower(layer: layers.Layer, source: int, nodes: list[Node]) -> int:
    """Append the layer's nodes; returns the one with its result."""
    if type(layer) in (layers.Dropout, *_NOTHING):
        if isinstance(layer, layers.Dropout) and layer.mode == "classic" and layer.p > 0:
            nodes.append(Node("scale", source, {"factor": 1 - layer.p}, {}))
            return len(nodes) - 1
        return source
    if type(layer) is layers.Sequential:
        for inner in layer:
            source = _lower(inner, source, nodes)
        return source
    if type(layer) is layers.Residual:
        inside = _lower(layer.layer, source, nodes)
        nodes.append(Node("elementwise", inside, {}, {}, residual=source))
        return len(nodes) - 1
    rule = _RULES.get(type(layer))
    if rule is None:
        known = sorted(
            kind.__name__ for kind in (*_RULES, *_NOTHING, layers.Dropout, layers.Sequential, layers.Residual)
        )
        raise TypeError(f"model must consist of {', '.join(known)}, got {type(layer).__name__}")
    nodes.append(rule(layer)._replace(source=source))
    return len(nodes) - 1


_NOTHING = (
    layers.Identity, layers.DropPath, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise,
)  # fmt: skip


def _arrays(**arrays: Any) -> dict[str, Array]:
    """Copies that nobody can change; parameters that are absent are left out."""
    kept = {}
    for name, value in arrays.items():
        if value is not None:
            array = np.array(value.data if isinstance(value, layers.Parameter) else value, order="C")
            array.flags.writeable = False
            kept[name] = array
    return kept


def _linear(layer: layers.Linear) -> Node:
    return Node("linear", INPUT, {"axes": None}, _arrays(weight=layer.weight, bias=layer.bias))


def _conv2d(layer: layers.Conv2d) -> Node:
    settings = {
        "stride": list(layer.stride),
        "padding": layer.padding if isinstance(layer.padding, str) else list(layer.padding),
        "dilation": list(layer.dilation),
        "groups": layer.groups,
        "channel_axis": layer.channel_axis,
    }
    return Node("conv2d", INPUT, settings, _arrays(weight=layer.weight, bias=layer.bias))


def _channel_norm(layer: layers.BatchNorm | layers.InstanceNorm) -> Node:
    settings = {"eps": layer.eps, "channel_axis": layer.channel_axis}
    if layer.running_mean is not None:
        arrays = _arrays(
            weight=layer.weight, bias=layer.bias, running_mean=layer.running_mean, running_var=layer.running_var
        )
        return Node("batch_norm", INPUT, settings, arrays)
    if isinstance(layer, layers.BatchNorm):
        raise ValueError("model must answer each sample by itself, a batch norm without running statistics does not")
    settings["channels"] = layer.num_features
    return Node("instance_norm", INPUT, settings, _arrays(weight=layer.weight, bias=layer.bias))


def _group_norm(layer: layers.GroupNorm) -> Node:
    settings = {
        "eps": layer.eps,
        "groups": layer.num_groups,
        "channels": layer.num_channels,
        "channel_axis": layer.channel_axis,
    }
    return Node("group_norm", INPUT, settings, _arrays(weight=layer.weight, bias=layer.bias))


def _trailing_norm(layer: layers.LayerNorm | layers.RMSNorm) -> Node:
    kind = "layer_norm" if isinstance(layer, layers.LayerNorm) else "rms_norm"
    settings = {"eps": layer.eps, "shape": list(layer.normalized_shape)}
    return Node(kind, INPUT, settings, _arrays(weight=layer.weight, bias=layer.bias))


def _pool(layer: layers.MaxPool2d | layers.AvgPool2d) -> Node:
    settings: dict[str, Any] = {
        "kernel_size": list(layer.kernel_size),
        "stride": list(layer.stride),
        "padding": list(layer.padding),
        "ceil_mode": layer.ceil_mode,
        "channel_axis": layer.channel_axis,
    }
    if isinstance(layer, layers.MaxPool2d):
        return Node("max_pool2d", INPUT, settings | {"dilation": list(layer.dilation)}, {})
    settings |= {"count_include_pad": layer.count_include_pad, "divisor_override": layer.divisor_override}
    return Node("avg_pool2d", INPUT, settings, {})


def _activation(name: str, *parameters: str) -> Callable[[Any], Node]:
    def rule(layer: Any) -> Node:
        values = (float(getattr(layer, parameter)) for parameter in parameters)
        return Node("elementwise", INPUT, {}, {}, activation=Activation(name, *values))

    return rule


def _gelu(layer: layers.GELU) -> Node:
    return _activation("gelu_tanh" if layer.approximate == "tanh" else "gelu")(layer)


_RULES: Mapping[type[layers.Layer], Callable[[Any], Node]] = {
    layers.Linear: _linear,
    layers.Conv2d: _conv2d,
    layers.BatchNorm: _channel_norm,
    layers.InstanceNorm: _channel_norm,
    layers.GroupNorm: _group_norm,
    layers.LayerNorm: _trailing_norm,
    layers.RMSNorm: _trailing_norm,
    layers.MaxPool2d: _pool,
    layers.AvgPool2d: _pool,
    layers.Flatten: lambda layer: Node("flatten", INPUT, {"start_dim": layer.start_dim, "end_dim": layer.end_dim}, {}),
    layers.Softmax: lambda layer: Node("softmax", INPUT, {"dim": layer.dim}, {}),
    layers.ReLU: _activation("relu"),
    layers.LeakyReLU: _activation("leaky_relu", "negative_slope"),
    layers.ELU: _activation("elu", "alpha"),
    layers.GELU: _gelu,
    layers.SiLU: _activation("silu"),
    layers.Sigmoid: _activation("sigmoid"),
    layers.Tanh: _activation("tanh"),
    layers.Softplus: _activation("softplus", "beta", "threshold"),
}
