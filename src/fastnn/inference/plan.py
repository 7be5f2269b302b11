"""From nodes to the kernels' steps, for samples of one shape: what runs, in which order, and where its results lie."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnn import _kernels
from fastnn._arrays import Array
from fastnn.inference.nodes import INPUT, Activation, Node

Shape = tuple[int, ...]

__all__ = ["build"]

# Bytes of results between steps that one chunk of samples may take: they should stay in a core's second-level cache.
CHUNK = 256 * 1024
# Bytes of padded images that one convolution works on at a time.
PLANES = 256 * 1024
MOST_ELEMENTS = 2**36  # of one sample's result: beyond, an array could not be made, and sizes would overflow


class Made(NamedTuple):
    """A step for samples of one shape."""

    step: _kernels.Step | None  # None: the result is the source itself, in another shape
    shape: Shape  # of the result
    work: float = 0.0  # bytes moved, or an equivalent: a core multiplies eight numbers in the time it moves a byte
    python: bool = False


class Form(NamedTuple):
    """What a step is made for."""

    shape: Shape  # of one sample of the source
    dtype: np.dtype[Any]
    packed: dict[int, Any]  # weights as the kernels take them, for all plans of a network
    place: int

    @property
    def double(self) -> bool:
        return self.dtype.itemsize == 8

    def channel(self, axis: int) -> int:
        """A channel axis of the batch as an axis of a sample."""
        ndim = len(self.shape) + 1
        if not -ndim < axis < ndim or axis == 0:
            raise ValueError(f"channel axis {axis} is no axis of samples of shape {self.shape}")
        return axis % ndim - 1

    def check_channels(self, axis: int, channels: int) -> None:
        if self.shape[self.channel(axis)] != channels:
            raise ValueError(f"it takes {channels} channels on axis {axis}, got samples of shape {self.shape}")


def build(nodes: Sequence[Node], dtype: np.dtype[Any], shape: Shape, packed: dict[int, Any]) -> _kernels.Plan:
    """The plan for samples of this shape; ValueError if they do not fit."""
    shapes: dict[int, Shape] = {INPUT: shape}
    made = []
    for place, node in enumerate(nodes):
        try:
            one = _MAKERS[node.kind](node, Form(shapes[node.source], dtype, packed, place))
            if math.prod(one.shape) > MOST_ELEMENTS:
                raise ValueError(f"its result would have the shape {one.shape}")
            if node.residual is not None and shapes[node.residual] != one.shape:
                raise ValueError(f"a residual of shape {shapes[node.residual]} is added to {one.shape}")
        except ValueError as error:
            form = ", ".join(map(str, ("samples", *shape)))
            raise ValueError(f"x of shape ({form}) does not fit {node.kind} {place}: {error}") from None
        shapes[place] = one.shape
        made.append(one)
    return _laid_out(nodes, made, dtype, shape, shapes)


def _laid_out(
    nodes: Sequence[Node], made: list[Made], dtype: np.dtype[Any], shape: Shape, shapes: dict[int, Shape]
) -> _kernels.Plan:
    """Give every result a place: as few slots as the results that are still to be read need."""
    value = {INPUT: INPUT}  # node → the node that computed its result: another one if only the shape changed
    for place, (node, one) in enumerate(zip(nodes, made)):
        value[place] = place if one.step is not None else value[node.source]
    last = value[len(nodes) - 1]
    reads = [value[source] for node in nodes for source in (node.source, node.residual) if source is not None]
    places = {INPUT: 0}
    slots: list[int] = []
    free: list[int] = []
    steps = []
    for place, (node, one) in enumerate(zip(nodes, made)):
        operands = [value[node.source], *(() if node.residual is None else (value[node.residual],))]
        if one.step is not None:
            size = math.prod(one.shape)
            if place == last:
                places[place] = 1
            else:
                slot = max(free, key=lambda k: slots[k], default=None)
                if slot is None:
                    slot = len(slots)
                    slots.append(0)
                else:
                    free.remove(slot)
                slots[slot] = max(slots[slot], size)
                places[place] = slot + 2
            residual = -1 if node.residual is None else places[value[node.residual]]
            steps.append((one.step, places[value[node.source]], residual, places[place]))
        for source in (node.source, node.residual):
            if source is not None:
                reads.remove(value[source])
        free += [places[k] - 2 for k in set(operands) if places[k] >= 2 and k not in reads]
    if last == INPUT:
        steps.append((_kernels.ElementwiseStep(math.prod(shape), None, dtype.itemsize == 8), 0, -1, 1))
    chunk = max(1, CHUNK // max(1, sum(slots) * dtype.itemsize))
    granule = 8 if any(node.kind == "linear" for node in nodes) else 1  # rows of a tile
    return _kernels.Plan(
        dtype, shape, shapes[len(nodes) - 1], steps, slots, sum(one.work for one in made), granule,
        max(granule, chunk // granule * granule), any(one.python for one in made),
    )  # fmt: skip


def _finisher(activation: Activation | None, form: Form) -> Any:
    if activation is None:
        return None
    return _kernels.ActivationFinisher(_kernels.ACTIVATIONS[activation.name], activation.p, activation.q, form.double)


def _moved(form: Form, shape: Shape) -> float:
    return float((math.prod(form.shape) + math.prod(shape)) * form.dtype.itemsize)


# -- kernels ---------------------------------------------------------------------------------------------------------


def _linear(node: Node, form: Form) -> Made:
    weight = node.arrays["weight"]
    if form.shape[-1] != weight.shape[1]:
        raise ValueError(f"it takes {weight.shape[1]} features on the last axis, got samples of shape {form.shape}")
    if node.settings["axes"] not in (None, len(form.shape)):
        raise ValueError(
            f"it was joined with a batch norm over axis 1, which is the last one for samples with "
            f"{node.settings['axes']} axes only, got samples of shape {form.shape}"
        )
    if form.place not in form.packed:
        form.packed[form.place] = _kernels.linear_panels(weight, node.arrays.get("bias"))
    rows = math.prod(form.shape[:-1])
    step = _kernels.LinearStep(form.packed[form.place], len(weight), rows, _finisher(node.activation, form))
    return Made(step, (*form.shape[:-1], len(weight)), rows * weight.size / 8 * (form.dtype.itemsize / 4))


def _conv2d(node: Node, form: Form) -> Made:
    from fastnn.functional._planes import flat, image_strides, result_planes
    from fastnn.functional.conv import geometry

    weight, s = node.arrays["weight"], node.settings
    if len(form.shape) != 3:
        raise ValueError(f"it takes images with three axes, got samples of shape {form.shape}")
    stride, dilation = tuple(s["stride"]), tuple(s["dilation"])
    padding = s["padding"] if isinstance(s["padding"], str) else tuple(s["padding"])
    g = geometry((1, *form.shape), weight.shape, stride, padding, dilation, s["groups"], s["channel_axis"])
    whole, g = g, flat(g)
    planes = result_planes(g, form.dtype.itemsize)
    if form.place not in form.packed:
        form.packed[form.place] = _kernels.convolution_rows(weight, s["groups"])
    bytes_of_image = g.channels * len(planes.starts) * math.prod(planes.form) * form.dtype.itemsize
    step = _kernels.ConvolutionStep(
        form.packed[form.place], node.arrays.get("bias"), g.out_channels // g.groups, g.groups, g.channels,
        *image_strides(g, g.channels, g.h[0], g.w[0]), (g.h[2], g.w[2]), planes.starts, planes.form,
        max(1, PLANES // bytes_of_image), planes.taps, *image_strides(g, g.out_channels, g.h[5], g.w[5]),
        _finisher(node.activation, form),
    )  # fmt: skip
    pixels = g.h[5] * g.w[5]
    return Made(step, whole.out_shape[1:], pixels * weight.size / 8 * (form.dtype.itemsize / 4))


def _trailing_norm(node: Node, form: Form, centered: bool) -> Made:
    shape = tuple(node.settings["shape"])
    if form.shape[-len(shape) :] != shape:
        raise ValueError(f"it takes samples that end with the axes {shape}, got shape {form.shape}")
    eps = node.settings["eps"]
    n = math.prod(shape)
    step = _kernels.NormStep(
        math.prod(form.shape) // n, n, n, 1, node.arrays.get("weight"), node.arrays.get("bias"),
        float(np.finfo(form.dtype).eps) if eps is None else eps, centered, None,
        _finisher(node.activation, form), form.double,
    )  # fmt: skip
    return Made(step, form.shape, _moved(form, form.shape))


def _channel_norm(node: Node, form: Form) -> Made:
    """Instance and group norm. Where the channels come last, a group is no run of memory: rare, and left to Python."""
    s = node.settings
    form.check_channels(s["channel_axis"], s["channels"])
    groups = s.get("groups", s["channels"])
    axis = form.channel(s["channel_axis"])
    after = math.prod(form.shape[axis + 1 :])
    each = s["channels"] // groups
    if math.prod(form.shape[:axis]) != 1 or each * after == 0 or (node.kind == "instance_norm" and after == 1):
        return _in_python(node, form)
    step = _kernels.NormStep(
        groups, each * after, each, groups, node.arrays.get("weight"), node.arrays.get("bias"), s["eps"], True,
        None, _finisher(node.activation, form), form.double,
    )  # fmt: skip
    return Made(step, form.shape, _moved(form, form.shape))


def _batch_norm(node: Node, form: Form) -> Made:
    mean, axis = node.arrays["running_mean"], form.channel(node.settings["channel_axis"])
    form.check_channels(node.settings["channel_axis"], len(mean))
    groups = _kernels.groups_from_running(mean, node.arrays["running_var"], node.settings["eps"])
    after = math.prod(form.shape[axis + 1 :])
    # channels that come last have no runs, and a scale stands for variances near the ends of the number range
    if after == 1 or (groups[:, 3] != 1).any() or 0 in form.shape:
        return _in_python(node, form)
    step = _kernels.NormStep(
        math.prod(form.shape[:axis]), after, 1, len(mean), node.arrays.get("weight"), node.arrays.get("bias"),
        node.settings["eps"], True, groups, _finisher(node.activation, form), form.double,
    )  # fmt: skip
    return Made(step, form.shape, _moved(form, form.shape))


def _pool(node: Node, form: Form, maximum: bool) -> Made:
    from fastnn.functional.pool.windows import geometry

    s = node.settings
    if len(form.shape) != 3:
        raise ValueError(f"it takes images with three axes, got samples of shape {form.shape}")
    windows, shape = geometry(
        (1, *form.shape), tuple(s["kernel_size"]), tuple(s["stride"]), tuple(s["padding"]),
        tuple(s.get("dilation", (1, 1))), s["ceil_mode"], s["channel_axis"], maximum,
        s.get("count_include_pad", True), s.get("divisor_override"),
    )  # fmt: skip
    return Made(_kernels.PoolStep(*windows, form.double), shape[1:], _moved(form, shape[1:]))


def _elementwise(node: Node, form: Form) -> Made:
    step = _kernels.ElementwiseStep(math.prod(form.shape), _finisher(node.activation, form), form.double)
    return Made(step, form.shape, _moved(form, form.shape))


def _flatten(node: Node, form: Form) -> Made:
    ndim = len(form.shape) + 1
    start, end = (dim + ndim if dim < 0 else dim for dim in (node.settings["start_dim"], node.settings["end_dim"]))
    if not 1 <= start <= end < ndim:
        raise ValueError(f"it merges axes {start} to {end}, got samples of shape {form.shape} behind the batch axis 0")
    return Made(None, (*form.shape[: start - 1], math.prod(form.shape[start - 1 : end]), *form.shape[end:]))


def _softmax(node: Node, form: Form) -> Made:
    ndim = len(form.shape) + 1
    dim = node.settings["dim"]
    axis = (0 if ndim == 3 else 1) if dim is None else dim
    if not -ndim <= axis < ndim or axis % ndim == 0:
        raise ValueError(f"it works on axis {axis}, which must be an axis of the samples of shape {form.shape}")
    if axis % ndim != ndim - 1:
        return _in_python(node, form)
    rows, n = math.prod(form.shape[:-1]), form.shape[-1]
    return Made(_kernels.SoftmaxStep(rows, n, form.double), form.shape, 6 * _moved(form, form.shape))


# -- what is rare: the functions, called by a step --------------------------------------------------------------------


def _in_python(node: Node, form: Form) -> Made:
    evaluate = _function(node)
    activation = node.activation

    def run(x: Array, residual: Array | None, y: Array) -> None:
        with np.errstate(all="ignore"):  # the other steps do not warn either
            evaluate(x, y)
            if residual is not None:
                np.add(y, residual, out=y)
        if activation is not None:
            _kernels.activation_forward(_kernels.ACTIVATIONS[activation.name], y, y, activation.p, activation.q)

    step = _kernels.CallStep(run, form.dtype, form.shape, form.shape)
    return Made(step, form.shape, _moved(form, form.shape), python=True)


def _function(node: Node) -> Callable[[Array, Array], Any]:
    from fastnn.functional.norm import batch_norm, group_norm, instance_norm
    from fastnn.functional.softmax import softmax

    s, get = node.settings, node.arrays.get
    weight, bias = get("weight"), get("bias")
    if node.kind == "batch_norm":
        mean, var, axis = get("running_mean"), get("running_var"), s["channel_axis"]
        return lambda x, y: batch_norm(x, mean, var, weight, bias, eps=s["eps"], channel_axis=axis, out=y)
    if node.kind == "instance_norm":
        return lambda x, y: instance_norm(
            x, weight=weight, bias=bias, eps=s["eps"], channel_axis=s["channel_axis"], out=y
        )
    if node.kind == "group_norm":
        return lambda x, y: group_norm(x, s["groups"], weight, bias, s["eps"], channel_axis=s["channel_axis"], out=y)
    if node.kind == "softmax":
        return lambda x, y: softmax(x, s["dim"], out=y)
    return lambda x, y: np.multiply(x, x.dtype.type(s["factor"]), out=y)


_MAKERS: Mapping[str, Callable[[Node, Form], Made]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "instance_norm": _channel_norm,
    "group_norm": _channel_norm,
    "layer_norm": functools.partial(_trailing_norm, centered=True),
    "rms_norm": functools.partial(_trailing_norm, centered=False),
    "elementwise": _elementwise,
    "scale": _in_python,
    "softmax": _softmax,
    "flatten": _flatten,
    "max_pool2d": functools.partial(_pool, maximum=True),
    "avg_pool2d": functools.partial(_pool, maximum=False),
}
