"""Accumulation and gradient statistics against direct sums in long double and against per-sample gradients."""

import copy
import functools
import math
import pickle

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import gradients

Real = np.longdouble
DTYPES = (np.float32, np.float64)
SHAPES = [(), (1,), (1023,), (1024,), (1025,), (16_385,), (40, 33), (0,), (7, 3, 5)]


def make(dtype, shapes=SHAPES):
    return [fastnn.Parameter(np.zeros(shape, dtype)) for shape in shapes]


def accumulate(accumulator, parameters, microbatches):
    """Add (weight, gradients of all parameters) pairs."""
    for weight, gs in microbatches:
        for p, g in zip(parameters, gs):
            p.grad[...] = g
        accumulator.add(weight)
        assert not any(p.grad.any() for p in parameters)


def draw(rng, dtype, shapes, weights, scale=1.0):
    return [(w, [(scale * (1 + rng.standard_normal(shape))).astype(dtype) for shape in shapes]) for w in weights]


def direct(microbatches, k):
    """(ḡ, Σ w (g − ḡ)²) of parameter k in long double."""
    total = sum(Real(w) for w, _ in microbatches)
    mean = sum(Real(w) * gs[k].astype(Real) for w, gs in microbatches) / total
    return mean, sum(Real(w) * (gs[k].astype(Real) - mean) ** 2 for w, gs in microbatches)


def close(actual, expected, units):
    """Within `units` roundings of the float64 arithmetic behind Python floats."""
    return abs(actual - expected) <= units * 2.0**-53 * abs(expected)


# ---- the mean --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("weights", [(5,), (3, 3), (1, 2, 3, 4, 5, 6), (32,) * 9 + (7,), (0.5, 1.25)], ids=str)
def test_mean_is_exact_to_a_unit(dtype, statistics, weights):
    parameters = make(dtype)
    microbatches = draw(np.random.default_rng(0), dtype, SHAPES, weights)
    accumulator = fastnn.GradientAccumulator(parameters, statistics)
    for _ in range(2):  # the second pass starts afresh
        accumulate(accumulator, parameters, microbatches)
        accumulator.finish()
        for k, p in enumerate(parameters):
            mean, _ = direct(microbatches, k)
            assert np.all(np.abs(p.grad - mean) <= np.finfo(dtype).eps / 2 * 1.01 * np.abs(mean))


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_survives_cancellation(dtype):
    """Terms 2⁴⁰ (float64: 2⁸⁰) times as large as the result, and products that do not fit in a double."""
    big = 2.0**40 if dtype == np.float32 else 2.0**80
    p = fastnn.Parameter(np.zeros(1, dtype))
    accumulator = fastnn.GradientAccumulator([p])
    third = dtype(1 / 3)
    accumulate(accumulator, [p], [(3, [third]), (1, [big]), (1, [third]), (1, [-big])])
    accumulator.finish()
    exact = Real(third) * 4 / 6
    tolerance = 1e-3 if dtype == np.float32 else 2.0**-50
    assert abs(p.grad[0] - exact) <= tolerance * exact


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(64,), (32, 32), (1,) * 64, (10, 20, 34), (63, 1), (7,) * 9 + (1,)], ids=str)
def test_any_split_gives_the_full_batch_gradient(dtype, sizes):
    """Σ over the samples of a microbatch in long double, rounded once as a microbatch gradient is."""
    rng = np.random.default_rng(1)
    samples = rng.standard_normal((64, 300)).astype(dtype)
    p = fastnn.Parameter(np.zeros(300, dtype))
    accumulator = fastnn.GradientAccumulator([p])
    start = 0
    for size in sizes:
        p.grad[...] = samples[start : start + size].astype(Real).mean(axis=0)
        accumulator.add(size)
        start += size
    accumulator.finish()
    largest = np.abs(samples).mean(axis=0)  # bounds the weighted mean of the microbatch gradients
    assert np.all(np.abs(p.grad - samples.astype(Real).mean(axis=0)) <= 4 * np.finfo(dtype).eps / 2 * largest)


def test_infinities_stay_in_their_place():
    for dtype in DTYPES:
        p = fastnn.Parameter(np.zeros(3, dtype))
        accumulator = fastnn.GradientAccumulator([p])
        accumulate(accumulator, [p], [(1, [[np.inf, 1, np.nan]]), (1, [[1, 1, 1]])])
        accumulator.finish()
        assert np.array_equal(p.grad, [np.inf, 1, np.nan], equal_nan=True)


def test_an_empty_microbatch_counts_nothing():
    p = fastnn.Parameter(np.zeros(2))
    accumulator = fastnn.GradientAccumulator([p], statistics=True)
    accumulate(accumulator, [p], [(2, [[1, 2]]), (0, [[np.nan, np.nan]]), (2, [[3, 4]])])
    assert (accumulator.count, accumulator.weight) == (2, 4.0)
    accumulator.finish()
    assert np.array_equal(p.grad, [2, 3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_microbatch_is_skipped_and_the_weights_stay_right(dtype, bad):
    parameters = make(dtype)
    good = draw(np.random.default_rng(2), dtype, SHAPES, (3, 5, 8))
    spoilt = draw(np.random.default_rng(3), dtype, SHAPES, (4,))
    spoilt[0][1][5][-1] = bad
    accumulator = fastnn.GradientAccumulator(parameters, statistics=True, skip_nonfinite=True)
    accumulate(accumulator, parameters, spoilt + good[:1] + spoilt + good[1:])
    assert (accumulator.count, accumulator.weight, accumulator.skipped) == (3, 16.0, 2)
    accumulator.finish()
    results = [p.grad.copy() for p in parameters]
    plain = fastnn.GradientAccumulator(parameters, statistics=True)
    accumulate(plain, parameters, good)
    plain.finish()
    assert all(np.array_equal(p.grad, r) for p, r in zip(parameters, results))
    assert plain.noise_scale == accumulator.noise_scale


def test_awkward_gradients_are_read_and_cleared():
    p, plain = fastnn.Parameter(np.zeros((4, 6))), fastnn.Parameter(np.zeros((4, 6)))
    p.grad = np.zeros((6, 4)).T
    for q in (p, plain):
        accumulator = fastnn.GradientAccumulator([q])
        accumulate(accumulator, [q], draw(np.random.default_rng(0), np.float64, [(4, 6)], (2, 3)))
        accumulator.finish()
    assert np.array_equal(p.grad, plain.grad)


def test_bits_do_not_depend_on_threads():
    before = fastnn.get_num_threads()
    results = set()
    try:
        for threads in (1, 2, 5):
            fastnn.set_num_threads(threads)
            parameters = make(np.float32, [(300, 301), (7,), (50_000,), (200_000,)])
            microbatches = draw(
                np.random.default_rng(0), np.float32, [(300, 301), (7,), (50_000,), (200_000,)], (3, 5, 7)
            )
            accumulator = fastnn.GradientAccumulator(parameters, statistics=True)
            accumulate(accumulator, parameters, microbatches)
            accumulator.finish()
            numbers = np.array([accumulator.trace_cov, accumulator.grad_sq_norm])
            arrays = [p.grad for p in parameters] + accumulator.variance + accumulator.sample(0, 4)
            results.add(numbers.tobytes() + b"".join(a.tobytes() for a in arrays))
    finally:
        fastnn.set_num_threads(before)
    assert len(results) == 1


# ---- the statistics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", [(4, 4), (1, 2, 3, 4, 5, 6), (32,) * 9 + (7,)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_statistics_are_their_formulas(dtype, weights, scale):
    parameters = make(dtype)
    accumulator = fastnn.GradientAccumulator(parameters, statistics=True)
    traces, squares = [], []
    for seed in range(3):
        microbatches = draw(np.random.default_rng(seed), dtype, SHAPES, weights, scale)
        accumulate(accumulator, parameters, microbatches)
        accumulator.finish()
        pairs = [direct(microbatches, k) for k in range(len(SHAPES))]
        trace = sum(deviations.sum() for _, deviations in pairs) / (len(weights) - 1)
        square = sum((mean**2).sum() for mean, _ in pairs)
        traces.append(trace)
        squares.append(square - trace / sum(weights))
        assert close(accumulator.trace_cov, trace, 100)
        assert abs(accumulator.grad_sq_norm - squares[-1]) <= 100 * 2.0**-53 * square
        assert accumulator.noise_scale == accumulator.trace_cov / accumulator.grad_sq_norm
        for variance, (_, deviations), p in zip(accumulator.variance, pairs, parameters):
            assert (variance.shape, variance.dtype) == (p.data.shape, p.data.dtype)
            expected = deviations / (len(weights) - 1)
            # roundings of the result and of double arithmetic, and of deviations from means of the gradients' size
            slack = 2.0**-53 * 6 * scale * np.sqrt(sum(weights) * deviations) / (len(weights) - 1)
            assert np.all(np.abs(variance - expected) <= 4 * np.finfo(dtype).eps * expected + 6 * slack)
    assert close(accumulator.noise_scale_average, sum(traces) / sum(squares), 1000)


def test_variance_survives_a_large_mean():
    """The deviations of gradients 10⁶ ± 1 (sums of squares would lose all digits in float32)."""
    p = fastnn.Parameter(np.zeros(2, np.float32))
    accumulator = fastnn.GradientAccumulator([p], statistics=True)
    accumulate(accumulator, [p], [(2, [[1e6, 1e6 + 1]]), (2, [[1e6 + 1, 1e6]]), (2, [[1e6 - 1, 1e6 - 1]])])
    accumulator.finish()
    assert np.array_equal(accumulator.variance[0], np.array([2.0, 2.0], np.float32))


def test_without_two_microbatches_statistics_are_nan():
    p = fastnn.Parameter(np.zeros(2))
    accumulator = fastnn.GradientAccumulator([p], statistics=True)
    numbers = ("trace_cov", "grad_sq_norm", "noise_scale", "noise_scale_average")
    assert all(math.isnan(getattr(accumulator, name)) for name in numbers)
    accumulate(accumulator, [p], [(5, [[1, 2]])])
    accumulator.finish()
    assert all(math.isnan(getattr(accumulator, name)) for name in numbers)
    assert np.all(np.isnan(accumulator.variance[0]))
    assert np.array_equal(p.grad, [1, 2])
    accumulate(accumulator, [p], [(1, [[2, 0]]), (1, [[4, 0]])])
    accumulator.finish()
    assert accumulator.noise_scale == accumulator.noise_scale_average == 2.0 / 8.0


def test_statistics_are_of_the_latest_finished_pass():
    p = fastnn.Parameter(np.zeros(1))
    accumulator = fastnn.GradientAccumulator([p], statistics=True)
    accumulate(accumulator, [p], [(1, [[1.0]]), (1, [[3.0]])])
    accumulator.finish()
    kept = accumulator.variance[0]
    accumulate(accumulator, [p], [(1, [[10.0]]), (1, [[50.0]])])
    assert accumulator.variance[0] == kept == 2.0
    assert np.mean(accumulator.sample(0, 1e12)) == pytest.approx(2.0, abs=1e-4)
    accumulator.finish()
    assert accumulator.variance[0] == 800.0
    assert kept == 2.0
    accumulate(accumulator, [p], [(1, [[4.0]]), (1, [[4.0]])])
    accumulator.finish()
    assert accumulator.variance[0] == 0.0
    assert accumulator.noise_scale == 0.0


@pytest.mark.parametrize("kind", ["linear", "logistic"])
@pytest.mark.parametrize("sizes", [(16,) * 8, (4, 28) * 4], ids=["equal", "unequal"])
def test_statistics_estimate_the_per_sample_covariance(kind, sizes):
    """Regression on a fixed data set; batches with replacement, so that microbatch means are independent."""
    rng = np.random.default_rng(5)
    x, theta = rng.standard_normal((2000, 6)), rng.standard_normal(6)
    noise = rng.standard_normal(2000)
    if kind == "linear":
        residual = x @ theta + noise
    else:
        residual = 1 / (1 + np.exp(-x @ theta)) - (noise > 0)
    samples = residual[:, None] * x  # the gradients of all samples
    centre = samples.mean(axis=0)
    variance = samples.var(axis=0)
    p = fastnn.Parameter(np.zeros(6))
    accumulator = fastnn.GradientAccumulator([p], statistics=True)
    results = []
    for _ in range(400):
        for size in sizes:
            p.grad[...] = samples[rng.integers(0, 2000, size)].mean(axis=0)
            accumulator.add(size)
        accumulator.finish()
        results.append([accumulator.trace_cov, accumulator.grad_sq_norm, *accumulator.variance[0]])
    estimate, spread = np.mean(results, axis=0), np.std(results, axis=0, ddof=1) / math.sqrt(len(results))
    expected = [variance.sum(), centre @ centre, *variance]
    assert np.all(np.abs(estimate - expected) <= 4.5 * spread)
    assert accumulator.noise_scale_average == pytest.approx(estimate[0] / estimate[1], rel=1e-12)
    ratio_error = math.hypot(spread[0] / expected[0], spread[1] / expected[1])
    assert accumulator.noise_scale_average == pytest.approx(expected[0] / expected[1], rel=4.5 * ratio_error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("generator", [fastnn.Generator(3), np.random.default_rng(3), 3], ids=["own", "numpy", "int"])
def test_samples_have_the_mean_and_variance_asked_for(dtype, generator):
    shapes = [(30_000,), (200, 100)]
    parameters = make(dtype, shapes)
    microbatches = draw(np.random.default_rng(0), dtype, shapes, (2, 4, 6, 8))
    accumulator = fastnn.GradientAccumulator(parameters, statistics=True)
    accumulate(accumulator, parameters, microbatches)
    accumulator.finish()
    drawn = accumulator.sample(generator, 16)
    for k, (g, variance) in enumerate(zip(drawn, accumulator.variance)):
        assert (g.shape, g.dtype) == (shapes[k], dtype)
        standard = (g - direct(microbatches, k)[0]) / np.sqrt(variance / 16)
        assert abs(standard.mean()) <= 5 / math.sqrt(g.size)
        assert abs(standard.var() - 1) <= 5 * math.sqrt(2 / g.size)


# ---- misuse ----------------------------------------------------------------------------------------------------------


def test_misuse():
    p = fastnn.Parameter(np.zeros(2))
    accumulator = fastnn.GradientAccumulator([p])
    with pytest.raises(RuntimeError, match="finish needs at least one microbatch"):
        accumulator.finish()
    p.grad[...] = 1.0
    for weight in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="weight must be finite and at least 0"):
            accumulator.add(weight)
    assert np.all(p.grad == 1.0)
    assert accumulator.count == 0
    with pytest.raises(RuntimeError, match=r"variance needs GradientAccumulator\(…, statistics=True\)"):
        _ = accumulator.variance
    statistics = fastnn.GradientAccumulator([p], statistics=True)
    with pytest.raises(RuntimeError, match="sample needs a finished pass"):
        statistics.sample(0, 1)
    accumulate(statistics, [p], [(1, [[1, 2]])])
    statistics.finish()
    with pytest.raises(ValueError, match="batch_size must be above 0, got 0"):
        statistics.sample(0, 0)
    with pytest.raises(TypeError, match="params must be a list of Parameters"):
        fastnn.GradientAccumulator(p)


# ---- the full gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_size", [1, 7, 60, 100])
@pytest.mark.parametrize("loss", [F.cross_entropy, functools.partial(F.cross_entropy, label_smoothing=0.1)])
def test_full_gradient(dtype, batch_size, loss):
    """Softmax regression: dW = (softmax − targets)ᵀ x / N in long double."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)).astype(dtype), rng.integers(0, 3, 60)
    model = fastnn.Sequential(fastnn.Linear(5, 3, dtype=dtype, rng=0))
    model.eval()
    weight, bias = (p.data.astype(Real) for p in model.parameters())
    for p in model.parameters():
        p.grad[...] = 1e3
    grads = fastnn.full_gradient(model, loss, (x, y), batch_size)
    logits = x.astype(Real) @ weight.T + bias
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    smoothing = 0.1 if isinstance(loss, functools.partial) else 0.0
    delta = (softmax - (1 - smoothing) * np.eye(3)[y] - smoothing / 3) / 60
    for grad, terms in zip(grads, (delta[:, :, None] * x[:, None, :], delta)):
        assert np.all(np.abs(grad - terms.sum(axis=0)) <= 30 * np.finfo(dtype).eps * np.abs(terms).sum(axis=0))
    assert all(g is p.grad for g, p in zip(grads, model.parameters()))
    assert not model.training


def test_full_gradient_checks_its_arguments():
    model, data = fastnn.Linear(2, 2, rng=0), (np.ones((4, 2), np.float32), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="equally many inputs and targets, got 4 and 3"):
        gradients.full_gradient(model, F.cross_entropy, (data[0], data[1][:3]), 2)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        gradients.full_gradient(model, F.cross_entropy, data, 0)
    with pytest.raises(TypeError, match="loss must be a function with companions"):
        gradients.full_gradient(model, np.sum, data, 2)
    for size in (None, 2.5, "2"):
        with pytest.raises(TypeError, match="batch_size must be an integer, got"):
            gradients.full_gradient(model, F.cross_entropy, data, size)
    with pytest.raises(TypeError, match="data must be a pair of arrays"):
        gradients.full_gradient(model, F.cross_entropy, data[0], 2)
    with pytest.raises(ValueError, match=r"samples along the first axis, got shapes \(4, 2\) and \(\)"):
        gradients.full_gradient(model, F.cross_entropy, (data[0], 3), 2)


def test_two_that_finish_at_once(monkeypatch):
    """The second while the first one's kernel is at work: no division by the weight that it has put back to 0."""
    p = fastnn.Parameter(np.zeros(2))
    accumulator = fastnn.GradientAccumulator([p], statistics=True)
    for gradient in ([1.0, 0.0], [4.0, 3.0]):
        p.grad[:] = gradient
        accumulator.add(1)
    kernel = gradients._kernels.accumulator_finish

    def slow(table, weight):
        monkeypatch.setattr(gradients._kernels, "accumulator_finish", kernel)
        result = kernel(table, weight)
        accumulator.finish()
        return result

    monkeypatch.setattr(gradients._kernels, "accumulator_finish", slow)
    accumulator.finish()
    assert (accumulator.trace_cov, accumulator.count) == (9.0, 0)
    with pytest.raises(RuntimeError, match="finish needs at least one microbatch"):
        accumulator.finish()


@pytest.mark.parametrize("weights", [(1e308, 1e308), (5e-324,)])
def test_weights_beyond_their_range(weights):
    p = fastnn.Parameter(np.ones(3))
    accumulator = fastnn.GradientAccumulator([p], statistics=True)
    for weight in weights[:-1]:
        accumulator.add(weight)
    p.grad[:] = 2
    with pytest.raises(ValueError, match="weight must keep the weights' sum and its reciprocal finite, got"):
        accumulator.add(weights[-1])
    assert (p.grad == 2).all()
    assert accumulator.weight == sum(weights[:-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_goes_on_by_itself(dtype, copied):
    """In the middle of a pass, with the statistics of one before."""
    rng = np.random.default_rng(2)
    microbatches = draw(rng, dtype, [(5,), (2, 3)], [1, 2, 3, 4])
    parameters = make(dtype, [(5,), (2, 3)])
    accumulator = fastnn.GradientAccumulator(parameters, statistics=True)
    accumulate(accumulator, parameters, microbatches[:2])
    accumulator.finish()
    accumulate(accumulator, parameters, microbatches[1:3])
    twins, twin = copied((parameters, accumulator))
    for these, one in ((parameters, accumulator), (twins, twin)):
        accumulate(one, these, microbatches[3:])
        one.finish()
    for p, q in zip(parameters, twins):
        assert p.grad is not q.grad
        np.testing.assert_array_equal(p.grad, q.grad)
        assert p.grad.any()
    assert (twin.trace_cov, twin.noise_scale_average) == (accumulator.trace_cov, accumulator.noise_scale_average)
