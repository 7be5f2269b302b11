"""Normalisation: batch, layer, RMS, instance and group norm, and standardisation over any axes.

They are one operation, x̂ = (x − mean) / √(var + eps), over different axes, followed by weight · x̂ + bias; each
function here checks its arguments, chooses the view of the array (`_norm_views`) and calls one pair of kernels.

Accuracy: float32 results lie within 4 units of 2⁻²⁴ of the true value, float64 results within 4 units of 2⁻⁵³, at any
ratio of mean to standard deviation. The bits do not depend on the number of threads.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional._norm_views import View, axes_view, batch_view, group_view, instance_view, trailing_view

__all__ = [
    "NormContext",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_population",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "instance_norm",
    "instance_norm_backward",
    "instance_norm_forward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
    "standardize",
    "standardize_backward",
    "standardize_forward",
]


class NormContext(NamedTuple):
    """What the backward pass of a norm needs: references to the arguments and four numbers for each group."""

    input: Array
    groups: Array
    view: View
    weight: Array | None
    mask: Array | None
    parameter_shape: tuple[int, ...] | None
    """Shape of weight and bias; None where the call had neither."""
    has_weight: bool
    has_bias: bool
    centered: bool
    constant: bool
    """Whether the statistics were given (evaluation), so that they have no gradient."""
    order: tuple[int, ...] | None
    """The axes' order in which `input` is held, where it had to be rearranged."""


class _Call(NamedTuple):
    """One checked call: everything the kernels take."""

    input: Array
    view: View
    weight: Array | None
    bias: Array | None
    parameter_shape: tuple[int, ...]
    eps: float
    mask: Array | None
    centered: bool = True


def _forward(
    call: _Call, *, out: Array | None, keep: bool, population: bool = False, given: Array | None = None
) -> tuple[Array, Array | None, Array | None]:
    """(y, groups, populations) of a call; `given` groups instead of the input's own."""
    x, view = call.input, call.view
    if out is not None:
        _arrays.check_out(out, x.shape, x.dtype)
        if keep and _arrays.overlaps(out, x):
            raise ValueError("out must not overlap the input, which the backward pass needs")
    target = _arrays.direct_out(out, x, (call.weight, call.bias, call.mask))
    if view.rows:
        y, groups, populations = _kernels.rows_forward(
            x, view.shape, view.entries, view.period, call.weight, call.bias, call.eps, call.centered, call.mask,
            given, target, keep, population,
        )  # fmt: skip
    else:
        y, groups, populations = _kernels.columns_forward(
            x, view.shape, call.weight, call.bias, call.eps, call.centered, call.mask, given, target, keep, population
        )
    return _arrays.deliver(y, out), groups, populations


def _context(call: _Call, groups: Array | None, *, constant: bool = False) -> NormContext:
    assert groups is not None
    affine = call.weight is not None or call.bias is not None
    return NormContext(
        call.input, groups, call.view, call.weight, call.mask, call.parameter_shape if affine else None,
        call.weight is not None, call.bias is not None, call.centered, constant, None,
    )  # fmt: skip


def _backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """(dinput, dweight, dbias) with None for the parameters that the call did not have."""
    x, view = ctx.input, ctx.view
    dy = _arrays.floating(dy, "dy", x.dtype)
    if dy.shape != x.shape:
        raise ValueError(f"dy must have the input's shape {x.shape}, got {dy.shape}")
    affine = ctx.parameter_shape is not None
    if view.rows:
        weight = ctx.weight
        if affine and weight is None and view.entries == view.shape[3]:
            weight = np.ones(view.entries * view.period, x.dtype)
        dx, dweight, dbias = _kernels.rows_backward(
            dy, x, ctx.groups, view.shape, view.entries, view.period, weight, ctx.mask, ctx.centered, ctx.constant,
            affine,
        )  # fmt: skip
    else:
        dx, dweight, dbias = _kernels.columns_backward(
            dy, x, ctx.groups, view.shape, ctx.weight, ctx.mask, ctx.centered, ctx.constant, affine
        )
    return (
        dx,
        dweight.reshape(ctx.parameter_shape) if ctx.has_weight and dweight is not None else None,
        dbias.reshape(ctx.parameter_shape) if ctx.has_bias and dbias is not None else None,
    )


# ---- layer and RMS norm ----------------------------------------------------------------------------------------------


def _trailing_call(
    input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float, mask: Any, centered: bool
) -> _Call:
    x = _arrays.floating(input, "input")
    try:
        shape = tuple(map(operator.index, normalized_shape))
    except TypeError:
        shape = (operator.index(normalized_shape),)
    if not shape or x.shape[x.ndim - len(shape) :] != shape or len(shape) > x.ndim:
        raise ValueError(
            f"normalized_shape must be the end of the input's shape {x.shape} and not empty, got {normalized_shape}"
        )
    return _Call(
        x,
        trailing_view(x.shape, len(shape)),
        _arrays.vector(weight, "weight", x.dtype, shape),
        _arrays.vector(bias, "bias", x.dtype, shape),
        shape,
        float(eps),
        _arrays.mask(mask, x.shape),
        centered,
    )


def layer_norm(
    input: Any,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """Layer norm: for each sample, mean and variance over the last axes.

    y = (x − mean) / √(var + eps) · weight + bias, the variance biased (divided by n).

    Parameters
    ----------
    input : array, float32 or float64
        Any shape that ends with `normalized_shape`.
    normalized_shape : int or sequence of int
        The axes that share one mean and variance, by their lengths.
    weight, bias : array of shape `normalized_shape`, optional
        In the input's dtype; None means 1 and 0.
    eps : float, default 1e-5
        Added to the variance inside the root. Keras uses 1e-3, Flax 1e-6.
    mask : bool array, optional
        Broadcastable to `input`; True counts in the statistics. Every element is normalised. A sample of which
        nothing counts gives `bias`. PyTorch and Keras have no masks here; Flax does.
    out : ndarray, optional
        Takes the result and is returned; may be `input` itself.

    Returns
    -------
    ndarray
        Shape and dtype of `input`. A sample of equal elements gives exactly `bias`; NaN and inf spoil their own
        sample only.

    Raises
    ------
    TypeError
        If a dtype is not float32 or float64, or dtypes differ.
    ValueError
        If shapes do not fit.

    References
    ----------
    Ba, Kiros and Hinton, *Layer Normalization*, 2016 (arXiv:1607.06450).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.layer_norm(np.array([[1.0, 2.0, 3.0], [7.0, 7.0, 7.0]]), 3).round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [ 0.    ,  0.    ,  0.    ]])
    """
    if mask is None and out is None:
        y = _kernels.rows_layer_norm(input, normalized_shape, weight, bias, eps, True)
        if y is not None:
            return y
    return _forward(_trailing_call(input, normalized_shape, weight, bias, eps, mask, True), out=out, keep=False)[0]


def layer_norm_forward(
    input: Any,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`layer_norm` and the context for `layer_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.layer_norm_forward(np.array([[1.0, 2.0, 4.0]]), 3)
    >>> ctx.groups.shape
    (1, 4)
    """
    call = _trailing_call(input, normalized_shape, weight, bias, eps, mask, True)
    y, groups, _ = _forward(call, out=out, keep=True)
    return y, _context(call, groups)


def layer_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `layer_norm`; None for a parameter that the call did not have.

    dinput = rstd · (g − Σg/n − x̂·Σ(g·x̂)/n) with g = dy · weight; dweight = Σ dy·x̂ and dbias = Σ dy over the samples.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x, w, b = np.array([[1.0, 2.0, 4.0]]), np.ones(3), np.zeros(3)
    >>> y, ctx = F.layer_norm_forward(x, 3, w, b)
    >>> dx, dw, db = F.layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), ctx)
    >>> db
    array([1., 0., 0.])
    """
    return _backward(dy, ctx)


def _rms_eps(input: Any, eps: float | None) -> float:
    if eps is not None:
        return float(eps)
    return float(np.finfo(_arrays.floating(input, "input").dtype).eps)


def rms_norm(
    input: Any,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: Any = None,
    eps: float | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """RMS norm: y = x / √(mean(x²) + eps) · weight over the last axes.

    Parameters
    ----------
    input, normalized_shape, weight, out
        As in `layer_norm`.
    eps : float, optional
        None is the machine epsilon of the dtype, as in PyTorch; Flax uses 1e-6.

    References
    ----------
    Zhang and Sennrich, *Root Mean Square Layer Normalization*, 2019 (arXiv:1910.07467).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.rms_norm(np.array([[3.0, 4.0]]), 2).round(4)
    array([[0.8485, 1.1314]])
    """
    eps = _rms_eps(input, eps)
    if out is None:
        y = _kernels.rows_layer_norm(input, normalized_shape, weight, None, eps, False)
        if y is not None:
            return y
    return _forward(_trailing_call(input, normalized_shape, weight, None, eps, None, False), out=out, keep=False)[0]


def rms_norm_forward(
    input: Any,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: Any = None,
    eps: float | None = None,
    *,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`rms_norm` and the context for `rms_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.rms_norm_forward(np.array([[3.0, 4.0]]), 2)
    """
    call = _trailing_call(input, normalized_shape, weight, None, _rms_eps(input, eps), None, False)
    y, groups, _ = _forward(call, out=out, keep=True)
    return y, _context(call, groups)


def rms_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None]:
    """Gradients (dinput, dweight) of `rms_norm`; dweight is None where the call had no weight.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.rms_norm_forward(np.array([[3.0, 4.0]]), 2, np.ones(2))
    >>> dx, dw = F.rms_norm_backward(np.ones((1, 2)), ctx)
    >>> dw.round(4)
    array([0.8485, 1.1314])
    """
    return _backward(dy, ctx)[:2]


# ---- norms by channel ------------------------------------------------------------------------------------------------


def _channel_input(input: Any, channel_axis: int, least: int) -> tuple[Array, int]:
    """The input and its channel axis counted from the front; axis 0 is the batch."""
    x = _arrays.floating(input, "input")
    if x.ndim < least:
        raise ValueError(f"input must have at least {least} axes, got shape {x.shape}")
    axis = operator.index(channel_axis)
    if not -x.ndim <= axis < x.ndim or axis % x.ndim == 0:
        raise ValueError(f"channel_axis must be an axis of the input other than the batch axis 0, got {channel_axis}")
    return x, axis % x.ndim


def _channel_call(x: Array, view: View, axis: int, weight: Any, bias: Any, eps: float, mask: Any) -> _Call:
    shape = (x.shape[axis],)
    return _Call(
        x,
        view,
        _arrays.vector(weight, "weight", x.dtype, shape),
        _arrays.vector(bias, "bias", x.dtype, shape),
        shape,
        float(eps),
        _arrays.mask(mask, x.shape),
    )


class _Running(NamedTuple):
    """A pair of running statistics and the arrays that kernels update, which may be copies of them."""

    mean: Array
    var: Array
    mean_buffer: Array
    var_buffer: Array

    def store(self) -> None:
        _arrays.deliver(self.mean_buffer, self.mean)
        _arrays.deliver(self.var_buffer, self.var)


def _running(mean: Any, var: Any, dtype: np.dtype[Any], channels: int, *, updated: bool) -> _Running | None:
    """Both running statistics, or None where neither is given."""
    if (mean is None) != (var is None):
        raise ValueError("running_mean and running_var must be given together or both be None")
    if mean is None:
        return None
    if updated:
        for name, array in (("running_mean", mean), ("running_var", var)):
            if not isinstance(array, np.ndarray) or not array.flags.writeable:
                raise ValueError(f"{name} must be a writeable numpy array, which training updates in place")
        if _arrays.overlaps(mean, var):
            raise ValueError("running_mean and running_var must not overlap")
    mean_buffer = _arrays.vector(mean, "running_mean", dtype, (channels,))
    var_buffer = _arrays.vector(var, "running_var", dtype, (channels,))
    assert mean_buffer is not None
    assert var_buffer is not None
    return _Running(mean, var, mean_buffer, var_buffer)


def _momentum(momentum: float) -> float:
    value = float(momentum)
    if not math.isfinite(value):
        raise ValueError(f"momentum must be a finite number, got {momentum}")
    return value


def _with_running(
    call: _Call, running: _Running | None, use_input_stats: bool, momentum: float, out: Array | None, keep: bool
) -> tuple[Array, NormContext | None]:
    """Batch and instance norm: with the input's statistics, updating the running ones, or with those."""
    if not use_input_stats:
        assert running is not None
        given = _kernels.groups_from_running(running.mean_buffer, running.var_buffer, call.eps)
        y, groups, _ = _forward(call._replace(mask=None), out=out, keep=keep, given=given)
        return y, _context(call._replace(mask=None), given, constant=True) if keep else None
    y, groups, populations = _forward(call, out=out, keep=keep, population=running is not None)
    if running is not None and populations is not None:
        _kernels.update_running(populations, running.mean_buffer, running.var_buffer, momentum)
        running.store()
    return y, _context(call, groups) if keep else None


def _batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, training: bool, momentum: float,
    eps: float, channel_axis: int, mask: Any, out: Array | None, keep: bool,
) -> tuple[Array, NormContext | None]:  # fmt: skip
    x, axis = _channel_input(input, channel_axis, 2)
    channels = x.shape[axis]
    view = batch_view(x.shape, axis)
    call = _channel_call(x, view, axis, weight, bias, eps, mask)
    running = _running(running_mean, running_var, x.dtype, channels, updated=training)
    momentum = _momentum(momentum)
    if training:
        if not call.eps > 0:
            raise ValueError(f"eps must be positive in training, got {eps}")
        if view.group_size == 1 and channels:
            raise ValueError(f"Expected more than 1 value per channel when training, got input shape {x.shape}")
    elif running is None:
        raise ValueError("running_mean and running_var must be given unless training=True")
    if x.size == 0:
        running = None if training else running
    return _with_running(call, running, training, momentum, out, keep)


def batch_norm(
    input: Any,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """Batch norm: for each channel, mean and variance over the batch and all positions.

    y = (x − mean) / √(var + eps) · weight + bias. In training, mean and (biased) variance are the batch's, and the
    running statistics are updated in place: running = (1 − momentum) · running + momentum · batch, the variance
    unbiased (divided by n − 1), as in PyTorch. Otherwise the running statistics take their place.

    Parameters
    ----------
    input : array, float32 or float64
        (N, C), (N, C, …) or, with ``channel_axis=-1``, (N, …, C).
    running_mean, running_var : ndarray of shape (C,) or None
        In the input's dtype. None, allowed in training, keeps no record.
    weight, bias : array of shape (C,), optional
        None means 1 and 0.
    training : bool, default False
        Whether to normalise with the batch's own statistics.
    momentum : float, default 0.1
        The new batch's share, as in PyTorch; Keras, Flax and ONNX call its complement momentum (0.99, 0.9).
    eps : float, default 1e-5
        Added to the variance inside the root; must be positive in training. Keras uses 1e-3.
    channel_axis : int, default 1
        Any axis but the batch axis 0; may be negative.
    mask : bool array, optional
        Broadcastable to `input`; True counts in the statistics, running ones included. Every element is normalised.
    out : ndarray, optional
        Takes the result and is returned; may be `input` itself.

    Raises
    ------
    TypeError
        If a dtype is not float32 or float64, or dtypes differ.
    ValueError
        If shapes do not fit, or in training a channel has one value only.

    References
    ----------
    Ioffe and Szegedy, *Batch Normalization*, 2015 (arXiv:1502.03167).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> F.batch_norm(x, mean, var, training=True).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean, var
    (array([0.2, 2. ]), array([ 1.1, 20.9]))
    """
    return _batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps, channel_axis, mask, out, False
    )[0]


def batch_norm_forward(
    input: Any,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`batch_norm` and the context for `batch_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.batch_norm_forward(np.array([[1.0], [3.0]]), None, None, training=True)
    """
    y, ctx = _batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps, channel_axis, mask, out, True
    )
    assert ctx is not None
    return y, ctx


def batch_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `batch_norm`; None for a parameter that the call did not have.

    In training the statistics depend on the input (see `layer_norm_backward`); otherwise they are constants and
    dinput = dy · weight / √(running_var + eps).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([[1.0], [3.0], [8.0]])
    >>> y, ctx = F.batch_norm_forward(x, None, None, np.ones(1), np.zeros(1), training=True)
    >>> dx, dw, db = F.batch_norm_backward(np.ones_like(x), ctx)
    >>> db
    array([3.])
    """
    return _backward(dy, ctx)


def batch_population(input: Any, weight: Any, bias: Any, eps: float, *, channel_axis: int = 1) -> tuple[Array, Array]:
    """`batch_norm` in training, and mean, biased variance and count of each channel, float64 of shape (channels, 3).

    A single value per channel is no error here: it gives `bias`.
    """
    x, axis = _channel_input(input, channel_axis, 2)
    call = _channel_call(x, batch_view(x.shape, axis), axis, weight, bias, eps, None)
    y, _, populations = _forward(call, out=None, keep=False, population=True)
    assert populations is not None
    return y, populations


def _instance_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, use_input_stats: bool, momentum: float,
    eps: float, channel_axis: int, mask: Any, out: Array | None, keep: bool,
) -> tuple[Array, NormContext | None]:  # fmt: skip
    x, axis = _channel_input(input, channel_axis, 3)
    view = instance_view(x.shape, axis) if use_input_stats else batch_view(x.shape, axis)
    call = _channel_call(x, view, axis, weight, bias, eps, mask)
    running = _running(running_mean, running_var, x.dtype, x.shape[axis], updated=use_input_stats)
    momentum = _momentum(momentum)
    if use_input_stats:
        if view.group_size == 1 and view.groups:
            raise ValueError(f"Expected more than 1 spatial element when training, got input shape {x.shape}")
    elif running is None:
        raise ValueError("running_mean and running_var must be given unless use_input_stats=True")
    if x.size == 0:
        running = None if use_input_stats else running
    return _with_running(call, running, use_input_stats, momentum, out, keep)


def instance_norm(
    input: Any,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """Instance norm: for each sample and channel, mean and variance over all positions.

    y = (x − mean) / √(var + eps) · weight + bias. Running statistics, if given, move towards the mean over the batch
    of the instances' means and unbiased variances, as in PyTorch; with ``use_input_stats=False`` they normalise.

    Parameters
    ----------
    input : array, float32 or float64
        (N, C, …) or, with ``channel_axis=-1``, (N, …, C), with more than one position.
    running_mean, running_var, weight, bias, momentum, eps, channel_axis, mask, out
        As in `batch_norm`; `eps` may be any number here.
    use_input_stats : bool, default True
        Whether to normalise with the input's own statistics.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky, *Instance Normalization*, 2016 (arXiv:1607.08022).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.instance_norm(np.array([[[1.0, 3.0], [20.0, 60.0]]])).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    return _instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis, mask, out, False
    )[0]


def instance_norm_forward(
    input: Any,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`instance_norm` and the context for `instance_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.instance_norm_forward(np.array([[[1.0, 3.0]]]))
    """
    y, ctx = _instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis, mask, out, True
    )
    assert ctx is not None
    return y, ctx


def instance_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `instance_norm`; None for a parameter that the call did not have.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([[[1.0, 3.0, 8.0]]])
    >>> y, ctx = F.instance_norm_forward(x)
    >>> F.instance_norm_backward(np.ones_like(x), ctx)[0].round(12) + 0.0
    array([[[0., 0., 0.]]])
    """
    return _backward(dy, ctx)


def _group_call(input: Any, num_groups: Any, weight: Any, bias: Any, eps: float, channel_axis: int, mask: Any) -> _Call:
    x, axis = _channel_input(input, channel_axis, 2)
    groups = operator.index(num_groups)
    if groups < 1 or x.shape[axis] % groups:
        raise ValueError(f"num_groups must divide the number of channels {x.shape[axis]}, got {groups}")
    view = group_view(x.shape, axis, groups)
    if x.size and x.shape[0] * view.group_size == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input shape {x.shape}")
    return _channel_call(x, view, axis, weight, bias, eps, mask)


def group_norm(
    input: Any,
    num_groups: SupportsIndex,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """Group norm: for each sample and group of neighbouring channels, mean and variance over channels and positions.

    y = (x − mean) / √(var + eps) · weight + bias.

    Parameters
    ----------
    input : array, float32 or float64
        (N, C), (N, C, …) or, with ``channel_axis=-1``, (N, …, C).
    num_groups : int
        Must divide C. Groups are contiguous channels, as in PyTorch; MLX strides them by default.
    weight, bias, eps, channel_axis, mask, out
        As in `batch_norm`; weight and bias are per channel, `eps` may be any number.

    References
    ----------
    Wu and He, *Group Normalization*, 2018 (arXiv:1803.08494).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.group_norm(np.array([[1.0, 3.0, 20.0, 60.0]]), 2).round(3)
    array([[-1.,  1., -1.,  1.]])
    """
    call = _group_call(input, num_groups, weight, bias, eps, channel_axis, mask)
    return _forward(call, out=out, keep=False)[0]


def group_norm_forward(
    input: Any,
    num_groups: SupportsIndex,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`group_norm` and the context for `group_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.group_norm_forward(np.array([[1.0, 3.0, 20.0, 60.0]]), 2)
    """
    call = _group_call(input, num_groups, weight, bias, eps, channel_axis, mask)
    y, groups, _ = _forward(call, out=out, keep=True)
    return y, _context(call, groups)


def group_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `group_norm`; None for a parameter that the call did not have.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.group_norm_forward(np.array([[1.0, 3.0, 20.0, 60.0]]), 2, np.ones(4), np.zeros(4))
    >>> F.group_norm_backward(np.ones((1, 4)), ctx)[2]
    array([1., 1., 1., 1.])
    """
    return _backward(dy, ctx)


# ---- any axes --------------------------------------------------------------------------------------------------------


def _standardize_call(
    input: Any, axis: SupportsIndex | Sequence[SupportsIndex], eps: float, mask: Any
) -> tuple[_Call, tuple[int, ...] | None]:
    """The call, and the order of axes its input is held in where no view of the array as it lies would do."""
    x = _arrays.floating(input, "input")
    axes = np.lib.array_utils.normalize_axis_tuple(axis, x.ndim, "axis")  # type: ignore[arg-type]
    marks = _arrays.mask(mask, x.shape)
    view, order = axes_view(x.shape, axes), None
    if view is None:
        kept = [a for a in range(x.ndim) if a not in axes]
        order = (*kept, *axes)
        x = np.ascontiguousarray(x.transpose(order))
        marks = None if marks is None else np.ascontiguousarray(marks.transpose(order))
        view = axes_view(x.shape, range(len(kept), x.ndim))
        assert view is not None
    return _Call(x, view, None, None, (), float(eps), marks), order


def standardize(
    input: Any,
    axis: SupportsIndex | Sequence[SupportsIndex],
    eps: float = 1e-5,
    *,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """The general form: (x − mean) / √(var + eps), mean and biased variance over any axes.

    Parameters
    ----------
    input : array, float32 or float64
        Any shape.
    axis : int or sequence of int
        The axes that share one mean and variance.
    eps : float, default 1e-5
        Added to the variance inside the root.
    mask : bool array, optional
        Broadcastable to `input`; True counts in the statistics.
    out : ndarray, optional
        Takes the result and is returned; may be `input` itself.

    Examples
    --------
    Over the channel axis of channels-first images:

    >>> import numpy as np, fastnn.functional as F
    >>> x = np.arange(8.0).reshape(1, 2, 2, 2)
    >>> F.standardize(x, 1).round(3)[0, :, 0, 0]
    array([-1.,  1.])
    """
    call, order = _standardize_call(input, axis, eps, mask)
    if order is None:
        return _forward(call, out=out, keep=False)[0]
    if out is not None:
        _arrays.check_out(out, np.shape(input), call.input.dtype)
    y = _forward(call, out=None, keep=False)[0]
    return _arrays.deliver(_in_order(y, order), out)


def standardize_forward(
    input: Any,
    axis: SupportsIndex | Sequence[SupportsIndex],
    eps: float = 1e-5,
    *,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`standardize` and the context for `standardize_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.standardize_forward(np.array([[1.0, 2.0], [3.0, 6.0]]), 0)
    """
    call, order = _standardize_call(input, axis, eps, mask)
    if order is None:
        y, groups, _ = _forward(call, out=out, keep=True)
        return y, _context(call, groups)
    if out is not None:
        _arrays.check_out(out, np.shape(input), call.input.dtype)
        if _arrays.overlaps(out, np.asarray(input)):
            raise ValueError("out must not overlap the input, which the backward pass needs")
    y, groups, _ = _forward(call, out=None, keep=True)
    return _arrays.deliver(_in_order(y, order), out), _context(call, groups)._replace(order=order)


def standardize_backward(dy: Any, ctx: NormContext) -> Array:
    """The input's gradient of `standardize`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.standardize_forward(np.array([[1.0, 2.0], [3.0, 6.0]]), 0)
    >>> F.standardize_backward(np.ones((2, 2)), ctx)
    array([[0., 0.],
           [0., 0.]])
    """
    if ctx.order is None:
        return _backward(dy, ctx)[0]
    dy = _arrays.floating(dy, "dy", ctx.input.dtype)
    shape = tuple(ctx.input.shape[ctx.order.index(a)] for a in range(dy.ndim)) if dy.ndim == len(ctx.order) else None
    if dy.shape != shape:
        raise ValueError(f"dy must have the input's shape, got {dy.shape}")
    return _in_order(_backward(np.ascontiguousarray(dy.transpose(ctx.order)), ctx)[0], ctx.order)


def _in_order(array: Array, order: tuple[int, ...]) -> Array:
    """The array with its axes back in their own order, C-contiguous."""
    return np.ascontiguousarray(array.transpose(np.argsort(order)))
