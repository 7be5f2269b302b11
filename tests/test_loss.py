"""Losses against float64 formulas, and against PyTorch."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

U = {np.float32: 2.0**-24, np.float64: 2.0**-53}


def reference(x, target, weight, ignore, reduction, smoothing, dy):
    """Loss and gradient of rows, in long double; target: indices or probabilities."""
    x = x.astype(np.longdouble)
    classes = x.shape[1]
    w = np.ones(classes, np.longdouble) if weight is None else weight.astype(np.longdouble)
    counts = np.ones(len(x), np.longdouble)
    if target.ndim == 1:
        q = np.zeros(x.shape, np.longdouble)
        for row, label in enumerate(target):
            if label == ignore:
                counts[row] = 0
            else:
                q[row, label] = 1
                counts[row] = w[label]
    else:
        q = target.astype(np.longdouble)
    wq = w * ((1 - smoothing) * q + smoothing / classes) * (counts != 0)[:, None]
    shifted = x - x.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    losses = -(wq * log_softmax).sum(1)
    gradient = np.exp(log_softmax) * wq.sum(1, keepdims=True) - wq
    if reduction == "none":
        return losses, gradient * np.asarray(dy)[:, None]
    divisor = counts.sum() if reduction == "mean" else 1
    return losses.sum() / divisor, gradient * dy / divisor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 2), (7, 10), (3, 15), (3, 16), (3, 17), (64, 33), (900, 10), (2, 5000)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(shape, dtype, reduction):
    rng = np.random.default_rng(1)
    x = (10 * rng.standard_normal(shape)).astype(dtype)
    weight = rng.uniform(0.1, 2, shape[1]).astype(dtype)
    labels = rng.integers(0, shape[1], shape[0])
    labels[shape[0] // 2 :: 3] = -100
    labels[0] = 0
    probabilities = rng.dirichlet(np.ones(shape[1]), shape[0]).astype(dtype)
    dy = rng.standard_normal(shape[0]) if reduction == "none" else 1.5
    for target, w, smoothing in itertools.product((labels, probabilities), (None, weight), (0.0, 0.1, 1.0)):
        loss, ctx = F.cross_entropy_forward(x, target, w, reduction=reduction, label_smoothing=smoothing)
        dx = F.cross_entropy_backward(dy, ctx)
        true, gradient = reference(x, target, w, -100, reduction, smoothing, dy)
        assert loss.dtype == dtype
        assert dx.dtype == dtype
        # a row's loss is about as large as its logits' range: their subtraction, the exponentials (2 units), and the
        # sums over classes, which are in float64 whatever the dtype
        scale = 1 if reduction != "sum" else shape[0]
        units = 4 * U[dtype] + shape[1] * 2.0**-53
        assert np.all(abs(loss - true) <= units * np.maximum(abs(true), 4 * scale))
        # a probability times a mass, and a label; each within a few units, relative to the largest
        largest = 2 * np.max(abs(np.asarray(dy))) / (max(1, shape[0] / 3) if reduction == "mean" else 1)
        units = 12 * U[dtype] + shape[1] * 2.0**-53
        assert np.all(abs(dx - gradient) <= units * np.maximum(abs(gradient), largest))


def test_more_axes():
    rng = np.random.default_rng(2)
    x, labels = rng.standard_normal((2, 5, 3, 4)), rng.integers(0, 5, (2, 3, 4))
    rows = np.moveaxis(x, 1, -1).reshape(-1, 5)
    loss, ctx = F.cross_entropy_forward(x, labels, reduction="none")
    flat, flat_ctx = F.cross_entropy_forward(rows, labels.ravel(), reduction="none")
    np.testing.assert_array_equal(loss.ravel(), flat)
    dy = rng.standard_normal(labels.shape)
    dx = F.cross_entropy_backward(dy, ctx)
    expected = F.cross_entropy_backward(dy.ravel(), flat_ctx)
    np.testing.assert_array_equal(np.moveaxis(dx, 1, -1).reshape(-1, 5), expected)
    probabilities = rng.dirichlet(np.ones(5), (2, 3, 4))
    np.testing.assert_array_equal(
        F.cross_entropy(x, np.moveaxis(probabilities, -1, 1)), F.cross_entropy(rows, probabilities.reshape(-1, 5))
    )


def test_one_sample_without_batch_axis():
    x = np.array([1.0, 2.0, 3.0])
    loss, ctx = F.cross_entropy_forward(x, np.array(2))
    assert loss == F.cross_entropy(x[None], np.array([2]))
    assert F.cross_entropy_backward(1.0, ctx).shape == (3,)
    assert F.cross_entropy(x, np.array(2), reduction="none").shape == ()


def test_cross_entropy_extremes():
    x = np.array([[1e30, -1e30], [3e38, 3e38], [0.0, -np.inf]], np.float32)
    np.testing.assert_array_equal(
        F.cross_entropy(x, np.array([0, 1, 0]), reduction="none"), np.array([0, np.log(2), 0], np.float32)
    )
    assert F.cross_entropy(x[2:], np.array([1]), reduction="none")[0] == np.inf
    assert np.isnan(F.cross_entropy(x, np.array([-100, -100, -100])))
    assert F.cross_entropy(x, np.array([-100, -100, -100]), reduction="sum") == 0
    spoiled = np.array([[np.nan, 0.0], [1.0, 2.0]])
    loss, ctx = F.cross_entropy_forward(spoiled, np.array([0, 0]), reduction="none")
    assert np.isnan(loss[0])
    assert np.isfinite(loss[1])
    dx = F.cross_entropy_backward(np.ones(2), ctx)
    assert np.isnan(dx[0]).all()
    assert np.isfinite(dx[1]).all()


def test_empty_batch():
    loss, ctx = F.cross_entropy_forward(np.zeros((0, 3)), np.zeros(0, int), reduction="sum")
    assert loss == 0
    assert F.cross_entropy_backward(1.0, ctx).shape == (0, 3)
    assert np.isnan(F.cross_entropy(np.zeros((0, 3)), np.zeros(0, int)))


def test_threads_change_nothing():
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((4096, 100), np.float32), rng.integers(0, 100, 4096)
    before, results = fastnn.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastnn.set_num_threads(threads)
            loss, ctx = F.cross_entropy_forward(x, labels)
            results.append((loss, F.cross_entropy_backward(1.0, ctx)))
    finally:
        fastnn.set_num_threads(before)
    for loss, dx in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(dx, results[0][1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": np.array([0, 3])}, ValueError, "target must hold classes from 0 to 2"),
        ({"target": np.array([0, -1])}, ValueError, "target must hold classes from 0 to 2"),
        ({"target": np.array([0])}, ValueError, "target must have shape"),
        ({"target": np.zeros((2, 2))}, ValueError, "target must have the input's shape"),
        ({"target": np.zeros((2, 3), np.float32)}, TypeError, "target must have the same dtype"),
        ({"target": np.array(["a", "b"])}, TypeError, "target must hold"),
        ({"weight": np.ones(2)}, ValueError, "weight must have shape"),
        ({"reduction": "max"}, ValueError, "reduction must be"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing must be"),
        ({"input": np.float64(1.0)}, ValueError, "class axis"),
    ],
)
def test_cross_entropy_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        F.cross_entropy(**{"input": np.zeros((2, 3)), "target": np.array([0, 1])} | arguments)


@pytest.mark.peers
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5), (2, 4, 3, 2)])
def test_cross_entropy_against_torch(shape, reduction):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    x, weight = rng.standard_normal(shape), rng.uniform(0.5, 2, 4)
    labels = rng.integers(0, 4, (shape[0], *shape[2:]))
    labels.flat[::4] = 1
    probabilities = np.moveaxis(rng.dirichlet(np.ones(4), labels.shape), -1, 1).copy()
    for target, w, smoothing, ignore in itertools.product(
        (labels, probabilities), (None, weight), (0.0, 0.2), (-100, 1)
    ):
        if target is probabilities and ignore >= 0:
            continue
        tensor = torch.from_numpy(x).requires_grad_()
        their_weight = None if w is None else torch.from_numpy(w)
        true = torch.nn.functional.cross_entropy(
            tensor,
            torch.from_numpy(target),
            their_weight,
            ignore_index=ignore,
            reduction=reduction,
            label_smoothing=smoothing,
        )
        loss, ctx = F.cross_entropy_forward(x, target, w, ignore, reduction, smoothing)
        np.testing.assert_allclose(loss, true.detach().numpy(), rtol=1e-12, atol=1e-14)
        dy = rng.standard_normal(np.shape(loss))
        true.backward(torch.from_numpy(np.asarray(dy)))
        np.testing.assert_allclose(F.cross_entropy_backward(dy, ctx), tensor.grad.numpy(), rtol=1e-11, atol=1e-14)
        tensor.grad = None
