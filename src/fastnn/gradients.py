"""Gradients of many samples from gradients of few: accumulation over microbatches, and what their spread tells."""

import contextlib
import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._losses import companions
from fastnn._parameters import Array, Parameter, Parameters, collect, labels, number, table
from fastnn.random import Generator, as_generator

__all__ = ["GradientAccumulator", "full_gradient"]


class GradientAccumulator:
    r"""The gradient of a large batch from its microbatches, and estimates of how noisy it is.

    Microbatch k of w_k samples has mean gradient g_k; K microbatches hold N = Σ w_k samples. `finish` gives
    ḡ = Σ w_k g_k / N, which is the gradient of the whole batch however it was split: sums are kept in double precision
    (double-double for float64), so the result is good to a unit in the last place, the same for any number of threads.

    With ``statistics=True`` the same pass also estimates, without bias for equal and unequal microbatches, the
    covariance Σ of one sample's gradient:

    * `variance`: diag Σ = Σ_k w_k (g_k − ḡ)² / (K − 1), for each coordinate;
    * `trace_cov`: tr Σ = Σ_k w_k ‖g_k − ḡ‖² / (K − 1);
    * `grad_sq_norm`: ‖∇F‖² = ‖ḡ‖² − tr Σ / N;
    * `noise_scale`: B_simple = tr Σ / ‖∇F‖², the batch size at which noise and gradient are equally large;
    * `noise_scale_average`: the mean of tr Σ over the mean of ‖∇F‖² over all passes, which is far less noisy than
      one pass (a mean of ratios would be biased).

    They describe the latest finished pass and are NaN where it had fewer than two microbatches.

    Parameters
    ----------
    params : iterable of Parameter or of (name, Parameter) pairs
    statistics : bool, default False
        Costs 16 further bytes an element for the pass, and as many for the one before.
    skip_nonfinite : bool, default False
        Leave out a microbatch whose gradient holds NaN or infinity; the weights of the others stay right.

    Attributes
    ----------
    count, weight : int, float
        K and N of the pass so far.
    skipped : int
        Microbatches left out, over all passes.

    Notes
    -----
    An accumulator is for one thread at a time: where several add and finish at once, memory stays whole, but what has
    been added up does not.

    References
    ----------
    McCandlish et al., "An empirical model of large-batch training", arXiv:1812.06162, appendix A.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> p = fastnn.Parameter(np.zeros(2))
    >>> accumulator = fastnn.GradientAccumulator([p], statistics=True)
    >>> for weight, gradient in [(2, [1.0, 0.0]), (1, [4.0, 3.0])]:
    ...     p.grad[:] = gradient
    ...     accumulator.add(weight)
    >>> accumulator.finish()
    >>> p.grad
    array([2., 1.])
    >>> accumulator.variance
    [array([6., 6.])]
    >>> accumulator.trace_cov, accumulator.grad_sq_norm, accumulator.noise_scale
    (12.0, 1.0, 12.0)
    """

    def __init__(self, params: Parameters, statistics: bool = False, *, skip_nonfinite: bool = False) -> None:
        parameters, names = collect(params)
        self.statistics = bool(statistics)
        self.skip_nonfinite = bool(skip_nonfinite)
        self.count = 0
        self.weight = 0.0
        self.skipped = 0
        self.trace_cov = math.nan
        self.grad_sq_norm = math.nan
        self._dtypes = [parameter.data.dtype for parameter in parameters]
        self._shapes = [parameter.data.shape for parameter in parameters]
        self._table = table(parameters, labels(names), [0] * len(names), False)
        self._table.bind(1, [self._wide(k) if dtype == np.float64 else None for k, dtype in enumerate(self._dtypes)])
        self._pass = self._new_pass()
        self._bind()
        self._latest: _Pass | None = None
        self._passes = 0
        self._trace_sum = 0.0
        self._square_sum = 0.0

    def add(self, weight: float) -> None:
        """Take the ``.grad`` of every parameter as the mean gradient of `weight` samples, and fill it with zeros.

        Parameters
        ----------
        weight : float
            Number of samples, at least 0; with 0 (an empty microbatch) the gradients are only cleared.

        Raises
        ------
        ValueError
            If `weight` is negative or not finite, or the sum of weights would leave the range of float64.
        """
        weight = number(weight, "weight")
        total = self.weight + weight
        if weight > 0.0 and not 0.0 < 1.0 / total < math.inf:
            raise ValueError(f"weight must keep the weights' sum and its reciprocal finite, got {weight}")
        if weight == 0.0:
            _kernels.zero_gradients(self._table)
        elif self.skip_nonfinite and not math.isfinite(_kernels.gradient_norm(self._table)):
            _kernels.zero_gradients(self._table)
            self.skipped += 1
        else:
            _kernels.accumulator_add(self._table, weight, self.weight)
            self.weight = total
            self.count += 1

    def finish(self) -> None:
        """Write the weighted mean into every ``.grad``, keep the statistics of this pass and begin the next.

        Raises
        ------
        RuntimeError
            If no microbatch was added.
        """
        count, weight = self.count, self.weight
        if weight == 0.0:
            raise RuntimeError("finish needs at least one microbatch added before it, got none")
        squares, deviations = _kernels.accumulator_finish(self._table, weight)
        if self.statistics:
            self._keep(count, weight, squares, deviations)
        self.count, self.weight = 0, 0.0

    def _keep(self, count: int, weight: float, squares: float, deviations: float) -> None:
        """The statistics of the pass just finished, from K, N, Σ ḡ² and Σ_k w_k ‖g_k − ḡ‖²."""
        self.trace_cov = deviations / (count - 1) if count > 1 else math.nan
        self.grad_sq_norm = squares - self.trace_cov / weight
        if count > 1:
            self._passes += 1
            self._trace_sum += self.trace_cov
            self._square_sum += self.grad_sq_norm
        finished = self._pass._replace(microbatches=count)
        self._pass = self._new_pass() if self._latest is None else self._latest
        self._latest = finished
        self._bind()

    @property
    def noise_scale(self) -> float:
        """B_simple = tr Σ / ‖∇F‖² of the latest pass; negative where the estimate of ‖∇F‖² is."""
        return _ratio(self.trace_cov, self.grad_sq_norm)

    @property
    def noise_scale_average(self) -> float:
        """The mean of tr Σ over the mean of ‖∇F‖², of all passes with at least two microbatches."""
        return _ratio(self._trace_sum, self._square_sum) if self._passes else math.nan

    @property
    def variance(self) -> list[Array]:
        """The diagonal of Σ in the latest pass, an array for each parameter; RuntimeError without statistics."""
        latest = self._finished("variance")
        if latest.microbatches < 2:
            return [np.full(shape, np.nan, dtype) for shape, dtype in zip(self._shapes, self._dtypes)]
        degrees = latest.microbatches - 1
        with np.errstate(over="ignore"):
            return [(square / degrees).astype(dtype) for square, dtype in zip(latest.squares, self._dtypes)]

    def sample(self, generator: "Generator | np.random.Generator | int | None", batch_size: float) -> list[Array]:
        """A minibatch gradient drawn from the latest pass: g ~ N(ḡ, diag Σ / batch_size), an array for each parameter.

        It is x = μ + σ ε with ε ~ N(0, 1), coordinates being independent: the model of the noise in SGD with batches of
        `batch_size` samples, without computing their gradients.

        Parameters
        ----------
        generator : fastnn.Generator, numpy.random.Generator, int or None
            What draws ε; None is the default generator, an integer a fresh one with that seed.
        batch_size : float
            Above 0.

        Raises
        ------
        ValueError
            If `batch_size` is not above 0.
        RuntimeError
            Without statistics or before the first finished pass.
        """
        latest = self._finished("sample")
        size = number(batch_size, "batch_size")
        if size == 0.0:
            raise ValueError("batch_size must be above 0, got 0")
        source = as_generator(generator)
        drawn = []
        for mean, variance, shape, dtype in zip(latest.sums, self.variance, self._shapes, self._dtypes):
            gradient = source.normal(shape, dtype=dtype)
            gradient *= np.sqrt(variance / size)
            gradient += mean
            drawn.append(gradient)
        return drawn

    def _finished(self, what: str) -> "_Pass":
        if self._latest is None:
            reason = "a finished pass" if self.statistics else "GradientAccumulator(…, statistics=True)"
            raise RuntimeError(f"{what} needs {reason}; there is none")
        return self._latest

    def _wide(self, k: int) -> Array:
        return np.empty(self._shapes[k], np.float64)

    def _new_pass(self) -> "_Pass":
        everyone = range(len(self._shapes))
        sums = [self._wide(k) for k in everyone]
        squares = [self._wide(k) for k in everyone] if self.statistics else []
        return _Pass(sums, squares, 0)

    def _bind(self) -> None:
        self._table.bind(0, self._pass.sums)
        if self.statistics:
            self._table.bind(2, self._pass.squares)


class _Pass(NamedTuple):
    """The state of one pass, float64: Σ w g (after `finish` the mean), Σ w (g − ḡ)², and K once finished."""

    sums: list[Array]
    squares: list[Array]
    microbatches: int


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0.0:
        return math.copysign(math.inf, numerator) if numerator != 0.0 else math.nan
    return numerator / denominator


class Model(Protocol):
    """What `full_gradient` needs of a model: the protocol of `fastnn.layers.Layer`."""

    def __call__(self, x: Array, /) -> Array: ...
    def backward_parameters(self, dy: Array, /) -> None: ...
    def parameters(self) -> list[Any]: ...
    def in_mode(self, training: bool) -> contextlib.AbstractContextManager[None]: ...
    def zero_grad(self) -> None: ...


def full_gradient(model: Model, loss: Any, data: tuple[Array, Array], batch_size: int) -> list[Array]:
    """∇F over a whole data set, F(θ) = (1/N) Σ f_i(θ): the gradient that gradient descent follows and SGD estimates.

    The samples go through the model in batches, whose gradients are accumulated with their sample counts: the result
    is the same whatever `batch_size` is. Afterwards it is in every ``.grad`` too, ready for `SGD.step`.

    Parameters
    ----------
    model : Layer
        Run in training mode (dropout is active, and batch norm normalises by each batch); afterwards every layer is in
        the mode that it was in before.
    loss : function or pair of functions
        Such as ``F.cross_entropy``, a `functools.partial` of one, or a pair (forward, backward); a mean over samples.
    data : (inputs, targets)
        Two arrays with the samples along the first axis.
    batch_size : int
        The most samples that go through the model together.

    Returns
    -------
    list of ndarray
        The ``.grad`` of every parameter, in the order of ``model.parameters()``.

    Raises
    ------
    ValueError
        If `batch_size` is less than 1, or inputs and targets are not equally many, at least one.
    TypeError
        If `loss` has no forward and backward companions.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> model = fastnn.Linear(3, 2, dtype=np.float64, rng=0)
    >>> data = np.arange(15.0).reshape(5, 3), np.array([0, 1, 1, 0, 1])
    >>> one = [g.copy() for g in fastnn.full_gradient(model, F.cross_entropy, data, batch_size=5)]
    >>> two = fastnn.full_gradient(model, F.cross_entropy, data, batch_size=2)
    >>> bool(np.allclose(one[0], two[0], rtol=1e-14))
    True
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data must be a pair of arrays (inputs, targets), got {type(data).__name__}")
    inputs, targets = (_arrays.array(part, "data") for part in data)
    if inputs.ndim == 0 or targets.ndim == 0:
        raise ValueError(f"data must have samples along the first axis, got shapes {inputs.shape} and {targets.shape}")
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(f"data must have equally many inputs and targets, got {len(inputs)} and {len(targets)}")
    size = _arrays.integer(batch_size, "batch_size")
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    forward, backward = companions(loss)
    parameters: list[Parameter] = model.parameters()
    accumulator = GradientAccumulator(parameters)
    with model.in_mode(training=True):
        model.zero_grad()
        for start in range(0, len(inputs), size):
            part = slice(start, start + size)
            _, context = forward(model(inputs[part]), targets[part])
            model.backward_parameters(backward(1.0, context))
            accumulator.add(len(inputs[part]))
    accumulator.finish()
    return [parameter.grad for parameter in parameters]
