"""The training loop: shuffled minibatches, accumulation, evaluation, a history of plain arrays, exact resumption."""

import collections.abc
import contextlib
import itertools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn._bar import Bar
from fastnn._losses import Companions, companions
from fastnn._run import History, Position, Recorder, Run, check_target, generators
from fastnn.gradients import GradientAccumulator
from fastnn.layers.base import Layer
from fastnn.optim import SGD
from fastnn.random import Generator, default_generator

Array = npt.NDArray[Any]
Data = tuple[Array, Array]

__all__ = ["DivergenceError", "Evaluation", "Event", "History", "evaluate", "fit", "predict", "steps_per_epoch"]


class DivergenceError(FloatingPointError):
    """The loss became NaN or infinite, or a parameter is so when it would be saved.

    In the first case the parameters are those before the step of that loss. The checkpoint stays as it was.

    Attributes
    ----------
    history : History
        Up to the step before.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> x = np.array([[np.nan]], np.float32)
    >>> model = fastnn.Linear(1, 1, rng=0)
    >>> try:
    ...     fastnn.train.fit(model, F.mse_loss, fastnn.SGD(model.parameters()), (x, x), 1, progress=False)
    ... except fastnn.train.DivergenceError as error:
    ...     print(error)
    the loss became nan at step 0 (epoch 0): use a lower learning rate, a warm-up or clip_norm, and look for NaN in ...
    """

    def __init__(self, message: str, history: "History") -> None:
        super().__init__(message)
        self.history = history


class Evaluation(NamedTuple):
    """A data set's mean loss, and the share of its samples that are classified right (NaN without class targets).

    Examples
    --------
    >>> import fastnn
    >>> fastnn.train.Evaluation(loss=0.25, accuracy=0.9).accuracy
    0.9
    """

    loss: float
    accuracy: float


_ADVICE = "use a lower learning rate, a warm-up or clip_norm, and look for NaN in the data"
_NOT_ASKED = Evaluation(math.nan, math.nan)


class Event(NamedTuple):
    """What the callback of `fit` sees: after each step, and once more after each epoch with the evaluations.

    Attributes
    ----------
    epoch : int
        From 0.
    step : int
        Optimiser steps done.
    loss, lr : float
        Mean over the step's samples, before the step; its learning rate.
    training, validation : Evaluation
        After an epoch, if asked for; NaN otherwise.
    epoch_done : bool
        Whether this is the call after an epoch.

    Examples
    --------
    A callback that stops once the held-out set is classified well enough:

    >>> import fastnn
    >>> def stop(event: fastnn.train.Event) -> bool:
    ...     return event.epoch_done and event.validation.accuracy > 0.99
    """

    epoch: int
    step: int
    loss: float
    lr: float
    training: Evaluation = _NOT_ASKED
    validation: Evaluation = _NOT_ASKED
    epoch_done: bool = False


def _check_data(data: Any, name: str) -> Data:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"{name} must be a pair of arrays (inputs, targets), got {type(data).__name__}")
    x, y = np.asarray(data[0]), np.asarray(data[1])
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{name} must have equally many inputs and targets, at least one, got {x.shape} and {y.shape}")
    return x, y


def _check_kind(value: Any, name: str, kind: Any) -> None:
    if not isinstance(value, kind):
        expected = "function" if kind == Callable | None else f"fastnn.{kind.__name__}"
        # with the module, since NumPy has a Generator too
        got = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise TypeError(f"{name} must be a {expected}, got {got}")


def _check_count(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return int(value)


def _count_parts(n: int, size: int) -> int:
    return -(-n // size)


def _parts(n: int, size: int) -> list[slice]:
    """0 … n cut into the fewest ranges of at most `size`, equally long up to one, as `numpy.array_split` cuts.

    So no pass ends with a tiny batch, whose batch statistics would be worthless or, of one sample, undefined.
    """
    count = _count_parts(n, size)
    length, longer = divmod(n, count)
    bounds = [k * length + min(k, longer) for k in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def _check_finite(model: Layer, epoch: int, recorder: Recorder) -> None:
    """A step may spoil the parameters although its loss was finite; nobody should keep them."""
    for name, parameter in model.named_parameters():
        if not np.isfinite(parameter.data).all():
            raise DivergenceError(
                f"{name} is not finite after step {len(recorder.steps) - 1} (epoch {epoch}): {_ADVICE}",
                recorder.history(),
            )


def _correct(output: Array, target: Array) -> float:
    """How many samples have their greatest score at the target class; NaN unless targets are classes."""
    if output.ndim != 2 or target.ndim != 1 or target.dtype.kind not in "iu":
        return math.nan
    return int(np.count_nonzero(output.argmax(axis=1) == target))


def predict(model: Layer, x: Array, batch_size: int = 256) -> Array:
    """The model's outputs for all of `x` in evaluation mode, computed in batches; each layer's mode is restored after.

    Parameters
    ----------
    model : Layer
    x : ndarray
        Inputs, samples along the first axis, at least one.
    batch_size : int, default 256
        The most samples that go through the model together.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.train
    >>> fastnn.train.predict(fastnn.Linear(3, 2), np.zeros((5, 3), np.float32)).shape
    (5, 2)
    """
    return np.concatenate([output for _, output in _outputs(model, x, batch_size)])


def _outputs(model: Layer, x: Array, batch_size: int) -> collections.abc.Generator[tuple[slice, Array], None, None]:
    size = _check_count(batch_size, "batch_size")
    if np.ndim(x) == 0 or len(x) == 0:
        raise ValueError(f"x must hold at least one sample, got shape {np.shape(x)}")
    with model.in_mode(training=False):
        for part in _parts(len(x), size):
            yield part, model(x[part])


def evaluate(model: Layer, loss: Any, data: Data, batch_size: int = 256) -> Evaluation:
    """Mean loss and accuracy over a data set in evaluation mode.

    Parameters
    ----------
    model : Layer
    loss : function or pair of functions
        As in `fit`.
    data : (x, y)
    batch_size : int, default 256

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F, fastnn.train
    >>> x, y = np.eye(3, dtype=np.float32), np.arange(3)
    >>> fastnn.train.evaluate(fastnn.Sequential(), F.cross_entropy, (x, y))
    Evaluation(loss=0.5514..., accuracy=1.0)
    """
    forward = companions(loss).forward
    x, y = _check_data(data, "data")
    total, correct = 0.0, 0.0
    with contextlib.closing(_outputs(model, x, batch_size)) as outputs:  # restores the modes also where the loss fails
        for part, output in outputs:
            total += float(forward(output, y[part])[0]) * len(output)
            correct += _correct(output, y[part])
    return Evaluation(total / len(x), correct / len(x))


def steps_per_epoch(samples: int, batch_size: int, accumulation: int = 1) -> int:
    """How many optimiser steps `fit` makes in one pass over the data: the fewest that suffice.

    Parameters
    ----------
    samples : int
        Of the data.
    batch_size : int
        The most samples that go through the model together.
    accumulation : int, default 1
        Minibatches per step.

    Raises
    ------
    ValueError
        If one of them is no integer of at least 1.

    Examples
    --------
    >>> import fastnn.train
    >>> fastnn.train.steps_per_epoch(1347, 64)
    22
    """
    size = _check_count(batch_size, "batch_size") * _check_count(accumulation, "accumulation")
    return _count_parts(_check_count(samples, "samples"), size)


def fit(
    model: Layer,
    loss: Any,
    optimizer: SGD,
    data: Data,
    epochs: int,
    *,
    batch_size: int = 64,
    accumulation: int = 1,
    validation: Data | None = None,
    evaluate_training: bool = False,
    augment: Callable[[Array, Generator], Array] | None = None,
    generator: Generator | None = None,
    callback: Callable[[Event], bool | None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Train a model by minibatch gradient descent and return the course of the loss.

    Each epoch visits every sample once in a new random order. It is cut into the fewest steps of at most
    ``batch_size · accumulation`` samples, all of equal size up to one; each step averages the gradients of its
    minibatches, weighted by their samples, and updates the parameters once.

    Parameters
    ----------
    model : Layer
        Trained in place, all layers in training mode; afterwards each is in the mode that it was in before.
    loss : function or pair of functions
        The mean loss of a minibatch: a function of `fastnn.functional` such as ``F.cross_entropy``, a
        `functools.partial` of one, or ``(forward, backward)`` with ``forward(output, target) -> (loss, ctx)`` and
        ``backward(1.0, ctx) -> gradient of the output``.
    optimizer : SGD
        Over the model's parameters.
    data : (x, y)
        Inputs and targets, samples along the first axis.
    epochs : int
        Passes over the data in all, those before a resumption included.
    batch_size : int, default 64
        The most samples that go through the model together.
    accumulation : int, default 1
        Minibatches per optimiser step.
    validation : (x, y), optional
        A held-out set to evaluate after each epoch.
    evaluate_training : bool, default False
        Whether to evaluate the whole training set too after each epoch, in evaluation mode.
    augment : function, optional
        ``augment(x, generator) -> x``, applied to each minibatch of inputs.
    generator : Generator, optional
        For the order of the samples and `augment`; default: the default generator.
    callback : function, optional
        Called with an `Event` after each step and each epoch; if it returns True, training saves and stops there.
    checkpoint : path, optional
        A file that is replaced after each epoch and at a stop, each time as a whole. It holds model, optimiser,
        generators, position and history.
    metadata : mapping of str to str, optional
        Goes into the checkpoint.
    resume : bool, default False
        Continue from `checkpoint`. With the same arguments, the run ends with the very bytes of an unbroken one,
        also where it was stopped in the middle of an epoch.
    progress : bool, default True
        Whether to show a bar with loss, accuracy and learning rate, if tqdm is installed.

    Returns
    -------
    History

    Raises
    ------
    DivergenceError
        If the loss of a minibatch is NaN or infinite, or a parameter when an epoch or the training ends.
    CheckpointError
        If the file to resume from is malformed or belongs to another model, data size or batch size.
    TypeError, ValueError
        Before the first step, if an argument is not as described; `checkpoint` must lie in an existing folder.

    Notes
    -----
    The same seed gives the same bytes for any number of threads, and on AVX2 and AVX-512 alike: no sum depends on who
    computes it, those of matrix products and convolutions included.

    Examples
    --------
    A line through noisy points:

    >>> import numpy as np, fastnn, fastnn.functional as F, fastnn.train
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 1)).astype(np.float32)
    >>> y = 3 * x + 1
    >>> model = fastnn.Linear(1, 1, rng=0)
    >>> history = fastnn.train.fit(model, F.mse_loss, fastnn.SGD(model.parameters(), lr=0.1), (x, y), 30,
    ...                            batch_size=20, generator=fastnn.Generator(0), progress=False)
    >>> model.weight.data.round(3), model.bias.data.round(3)
    (array([[3.]], dtype=float32), array([1.], dtype=float32))
    >>> history.loss.shape
    (300,)
    """
    pair = companions(loss)
    _check_kind(model, "model", Layer)
    _check_kind(optimizer, "optimizer", SGD)
    x, y = _check_data(data, "data")
    held_out = None if validation is None else _check_data(validation, "validation")
    batch_size, accumulation = _check_count(batch_size, "batch_size"), _check_count(accumulation, "accumulation")
    epochs = _check_count(epochs, "epochs")
    source = default_generator() if generator is None else generator
    _check_kind(source, "generator", Generator)
    _check_kind(augment, "augment", Callable | None)
    _check_kind(callback, "callback", Callable | None)
    parameters = model.parameters()
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if trained.isdisjoint(map(id, parameters)):
        raise ValueError("optimizer must hold parameters of the model, got none of them")
    recorder, position = Recorder(), Position()
    settings = {"samples": len(x), "batch_size": batch_size, "accumulation": accumulation}
    run = Run(model, optimizer, generators(model, source), recorder, settings)
    if checkpoint is not None:
        check_target(checkpoint, metadata)
    if resume:
        if checkpoint is None:
            raise ValueError("resume needs the path of a checkpoint")
        position = run.restore(checkpoint)

    def save(position: Position) -> None:
        if checkpoint is not None:
            run.save(checkpoint, position, metadata)

    accumulator = GradientAccumulator(parameters)
    steps = _parts(len(x), batch_size * accumulation)
    bar = Bar(progress, total=epochs * len(steps), done=len(recorder.steps))
    with contextlib.closing(bar), model.in_mode(training=True):
        for epoch in range(position.epoch, epochs):
            order = source.permutation(len(x)) if position.order is None else position.order
            for index in range(position.step, len(steps)):
                value, right = _gradient(
                    model, pair, accumulator, x, y, order[steps[index]], batch_size, augment, source
                )
                if not math.isfinite(value):
                    raise DivergenceError(
                        f"the loss became {value} at step {len(recorder.steps)} (epoch {epoch}): {_ADVICE}",
                        recorder.history(),
                    )
                recorder.steps.append((value, float(optimizer.step())))
                bar.step(*recorder.steps[-1], right)
                if callback is not None and callback(Event(epoch, len(recorder.steps), *recorder.steps[-1])):
                    _check_finite(model, epoch, recorder)
                    save(Position(epoch, index + 1, order))
                    return recorder.history()
            _check_finite(model, epoch, recorder)
            position = Position(epoch + 1)
            training = evaluate(model, loss, (x, y)) if evaluate_training else _NOT_ASKED
            validated = evaluate(model, loss, held_out) if held_out is not None else _NOT_ASKED
            recorder.epochs.append((len(recorder.steps), *training, *validated))
            if held_out is not None:
                bar.epoch(*validated)
            event = Event(epoch, len(recorder.steps), *recorder.steps[-1], training, validated, epoch_done=True)
            stop = callback is not None and callback(event)
            save(position)
            if stop:
                break
    return recorder.history()


def _gradient(
    model: Layer,
    loss: Companions,
    accumulator: GradientAccumulator,
    x: Array,
    y: Array,
    indices: Array,
    batch_size: int,
    augment: Callable[[Array, Generator], Array] | None,
    source: Generator,
) -> tuple[float, Callable[[], float]]:
    """Leave the mean gradient over the samples in every ``.grad``; their mean loss, and the last batch's accuracy.

    If the loss is not finite, it is returned at once and the gradients are worth nothing.
    """
    model.zero_grad()
    parts = _parts(len(indices), batch_size)
    total = 0.0
    for part in parts:
        chosen = indices[part]
        inputs, targets = x[chosen], y[chosen]
        output = model(inputs if augment is None else augment(inputs, source))
        value, context = loss.forward(output, targets)
        total += float(value) * len(chosen)
        if not math.isfinite(total):
            return total, lambda: math.nan
        model.backward_parameters(loss.backward(1.0, context))
        if len(parts) > 1:
            accumulator.add(len(chosen))
    if len(parts) > 1:
        accumulator.finish()
    return total / len(indices), lambda: _correct(output, targets) / len(targets)
