"""Batch and instance norm: norms with running statistics, and their exact recalibration."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import _arrays
from fastnn._arrays import Array
from fastnn.functional.norm import (
    NormContext,
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    batch_population,
    instance_norm,
    instance_norm_backward,
    instance_norm_forward,
)
from fastnn.layers._affine import AffineNorm, at_least_one, data_of, floating_dtype
from fastnn.layers.base import Layer

__all__ = ["BatchNorm", "InstanceNorm", "recalibrate"]


class RunningNorm(AffineNorm):
    """A norm by channel that can record running statistics: PyTorch's buffers under PyTorch's names."""

    _buffers: tuple[str, ...] = ("running_mean", "running_var", "num_batches_tracked")
    _optional_buffers = ("num_samples_tracked",)

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        channel_axis: int,
        dtype: npt.DTypeLike,
    ) -> None:
        super().__init__()
        self.num_features = at_least_one(num_features, "num_features")
        self.eps = _arrays.number(eps, "eps")
        self.momentum = None if momentum is None else _arrays.finite(momentum, "momentum")
        self.channel_axis = _arrays.integer(channel_axis, "channel_axis")
        self.track_running_stats = bool(track_running_stats)
        self._set_parameters((self.num_features,), affine, affine, dtype)
        kind = floating_dtype(dtype)
        tracked = self.track_running_stats
        self.running_mean = np.zeros(self.num_features, kind) if tracked else None
        self.running_var = np.ones(self.num_features, kind) if tracked else None
        self.num_batches_tracked = np.zeros((), np.int64) if tracked else None
        if tracked and momentum is None:
            self.num_samples_tracked = np.zeros((), np.int64)
            self._buffers = (*self._buffers, *self._optional_buffers)

    def _before(self, samples: int) -> int:
        """Samples seen so far; a state that others saved has no count of them: its batches were as large as this."""
        return int(self.num_samples_tracked) or int(self.num_batches_tracked or 0) * samples

    def _share(self, samples: int) -> float:
        """A batch's share of the running statistics."""
        if self.num_batches_tracked is None or samples == 0:
            return 0.0
        return samples / (self._before(samples) + samples) if self.momentum is None else self.momentum

    def _count(self, samples: int) -> None:
        """Count a batch that has gone into the running statistics."""
        if self.num_batches_tracked is not None and samples:
            if self.momentum is None:
                self.num_samples_tracked[...] = self._before(samples) + samples
            self.num_batches_tracked[...] = int(self.num_batches_tracked) + 1  # a ninth of the time of +=

    def _checked(self, x: Any) -> Any:
        """`x`, an array whose channels fit, if its axes allow to tell: the function refuses the others."""
        try:
            if x.shape[self.channel_axis] == self.num_features:
                return x
        except (AttributeError, IndexError, TypeError):
            pass
        x = _arrays.array(x, "input")
        shape = x.shape
        if not shape:
            raise ValueError("input must have a batch axis and a channel axis, got shape ()")
        if -len(shape) <= self.channel_axis < len(shape) and shape[self.channel_axis] != self.num_features:
            raise ValueError(
                f"input must have num_features = {self.num_features} channels on axis {self.channel_axis}, "
                f"got shape {shape}"
            )
        return x

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_features}, eps={self.eps}, momentum={self.momentum})"


class InstanceNorm(RunningNorm):
    """Instance norm; see `fastnn.functional.instance_norm`.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float, default 1e-5
    momentum : float or None, default 0.1
        The new batch's share of the running statistics; None weighs all samples so far equally.
    affine : bool, default False
        Whether there are a weight and a bias for each channel.
    track_running_stats : bool, default False
        Whether to record running statistics, which then normalise in evaluation.
    channel_axis : int, default 1
    dtype : default float32

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.InstanceNorm(1)(np.array([[[1, 3]]], np.float32)).round(3)
    array([[[-1.,  1.]]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        channel_axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, channel_axis, dtype)

    def _evaluate(self, x: Array) -> Array:
        x = self._checked(x)
        return instance_norm(
            x, self.running_mean, self.running_var, data_of(self.weight), data_of(self.bias),
            not self.track_running_stats, 0.0, self.eps, channel_axis=self.channel_axis,
        )  # fmt: skip

    def _forward(self, x: Array) -> tuple[Array, NormContext]:
        x = self._checked(x)
        result = instance_norm_forward(
            x, self.running_mean, self.running_var, data_of(self.weight), data_of(self.bias), True,
            self._share(len(x)), self.eps, channel_axis=self.channel_axis,
        )  # fmt: skip
        self._count(len(x))
        return result

    def _backward(self, dy: Array, context: NormContext) -> Array:
        dx, dweight, dbias = instance_norm_backward(dy, context)
        self._accumulate(dweight, dbias)
        return dx


class BatchNorm(RunningNorm):
    """Batch norm of tables, sequences and images; see `fastnn.functional.batch_norm`.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float, default 1e-5
    momentum : float or None, default 0.1
        The new batch's share of the running statistics, as in PyTorch (Keras and Flax: the old ones' share). None is
        the average over all batches so far, each weighted by its number of samples (PyTorch: equally); for the exact
        statistics of a training set, see `recalibrate`.
    affine : bool, default True
        Whether there are a weight and a bias for each channel.
    track_running_stats : bool, default True
        Whether to record running statistics, which then normalise in evaluation; without them evaluation uses the
        batch's own.
    channel_axis : int, default 1
    virtual_batch_size : int, optional
        Ghost batch norm: in training, each run of so many samples is normalised by itself, and the last, shorter one
        too; the running statistics take them in one after the other.
    dtype : default float32

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,), or None
        Ones and zeros at first; exempt from weight decay.
    running_mean, running_var : ndarray, shape (num_features,), or None
    num_batches_tracked : int64 array of no axes, or None

    References
    ----------
    Ioffe and Szegedy, *Batch Normalization*, 2015 (arXiv:1502.03167); ghost batches: Hoffer, Hubara and Soudry,
    *Train longer, generalize better*, 2017 (arXiv:1705.08741).

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> layer = fastnn.BatchNorm(1)
    >>> layer(np.array([[1], [3]], np.float32)).round(3).ravel()
    array([-1.,  1.], dtype=float32)
    >>> layer.running_mean, layer.running_var
    (array([0.2], dtype=float32), array([1.1], dtype=float32))
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        channel_axis: int = 1,
        virtual_batch_size: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, channel_axis, dtype)
        if not self.eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.virtual_batch_size = (
            None if virtual_batch_size is None else at_least_one(virtual_batch_size, "virtual_batch_size")
        )
        self._recorder: Recorder | None = None

    def _evaluate(self, x: Array) -> Array:
        x = self._checked(x)
        if self._recorder is not None:
            y, population = batch_population(
                x, data_of(self.weight), data_of(self.bias), self.eps, channel_axis=self.channel_axis
            )
            self._recorder.add(population)
            return y
        return batch_norm(
            x, self.running_mean, self.running_var, data_of(self.weight), data_of(self.bias),
            not self.track_running_stats, 0.0, self.eps, channel_axis=self.channel_axis,
        )  # fmt: skip

    def _forward(self, x: Array) -> tuple[Array, tuple[NormContext, ...]]:
        x = self._checked(x)
        size = self.virtual_batch_size
        if size is None or len(x) <= size:
            y, context = self._one_batch(x, None)
            return y, (context,)
        values = len(x) % size * (math.prod(x.shape) // (len(x) * self.num_features))
        if values == 1:  # found before the batches in front of it change the running statistics
            raise ValueError(
                f"input must leave the last virtual batch of {size} more than one value per channel, "
                f"got shape {x.shape}"
            )
        y = np.empty_like(x, order="C", subok=False)
        contexts = [self._one_batch(x[i : i + size], y[i : i + size])[1] for i in range(0, len(x), size)]
        return y, tuple(contexts)

    def _one_batch(self, x: Array, out: Array | None) -> tuple[Array, NormContext]:
        result = batch_norm_forward(
            x, self.running_mean, self.running_var, data_of(self.weight), data_of(self.bias), True,
            self._share(len(x)), self.eps, channel_axis=self.channel_axis, out=out,
        )  # fmt: skip
        self._count(len(x))
        return result

    def _backward(self, dy: Array, context: tuple[NormContext, ...]) -> Array:
        if len(context) == 1:
            return self._one_backward(dy, context[0])
        ends = list(itertools.accumulate(len(one.input) for one in context))
        dy = _arrays.array(dy, "dy")
        if dy.shape[:1] != (ends[-1],):
            raise ValueError(f"dy must have as many samples as the input, {ends[-1]}, got shape {dy.shape}")
        starts = [0, *ends]
        return np.concatenate([self._one_backward(dy[i:j], one) for i, j, one in zip(starts, ends, context)])

    def _one_backward(self, dy: Array, context: NormContext) -> Array:
        dx, dweight, dbias = batch_norm_backward(dy, context)
        self._accumulate(dweight, dbias)
        return dx


class Recorder:
    """Merges counts, means and variances of batches into those of all, by Chan's formula in float64."""

    def __init__(self, channels: int) -> None:
        self.count = np.zeros(channels)
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)

    def add(self, population: Array) -> None:
        """`population` is (channels, 3): mean, biased variance, count."""
        mean, variance, count = population.T
        total = self.count + count
        share = np.divide(count, total, out=np.zeros_like(total), where=total > 0)
        delta = mean - self.mean
        self.squares += variance * count + delta**2 * self.count * share
        self.mean += delta * share
        self.count = total


def recalibrate(model: Layer, batches: Iterable[Any]) -> None:
    """Set the running statistics of every `BatchNorm` to the exact mean and unbiased variance of the whole set.

    The model sees each batch once, in evaluation mode except that batch norms use the batch's statistics, as in
    training; counts, means and variances are merged in float64, so batches may be ragged. (PyTorch's `update_bn`
    weighs every batch equally and is wrong when the last one is short.)

    Parameters
    ----------
    model : Layer
        Its mode and parameters stay as they are.
    batches : iterable of array, or of tuples that start with one
        What the model is called with. Nothing changes if one of them fails.

    Raises
    ------
    ValueError
        If `batches` is empty, or a layer saw fewer than two values for a channel.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> model = fastnn.BatchNorm(1)
    >>> x = np.arange(5, dtype=np.float32).reshape(5, 1)
    >>> fastnn.recalibrate(model, [x[:3], x[3:]])
    >>> model.running_mean, model.running_var
    (array([2.], dtype=float32), array([2.5], dtype=float32))
    """
    norms = [layer for _, layer in model.named_layers() if isinstance(layer, BatchNorm) and layer.track_running_stats]
    modes = [(layer, layer.training) for _, layer in model.named_layers()]
    try:
        for layer, _ in modes:
            layer.training = False
        for norm in norms:
            norm._recorder = Recorder(norm.num_features)
        for batch in batches:
            model(batch[0] if isinstance(batch, tuple) else batch)
        recorders = [norm._recorder for norm in norms]
    finally:
        for norm in norms:
            norm._recorder = None
        for layer, training in modes:
            layer.training = training
    if any(recorder is None or not (recorder.count > 1).all() for recorder in recorders):
        raise ValueError("batches must give every batch norm at least two values for each channel")
    for norm, recorder in zip(norms, recorders):
        assert recorder is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean[...] = recorder.mean
        norm.running_var[...] = recorder.squares / (recorder.count - 1)
