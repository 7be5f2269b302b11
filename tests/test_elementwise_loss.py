"""Squared error and binary cross-entropy against long double, and against PyTorch."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

REDUCTIONS = ("mean", "sum", "none")


def reference(kind, x, t, w, p, reduction, dy):
    x, t = x.astype(np.longdouble), t.astype(np.longdouble)
    weight = np.longdouble(1) if w is None else w.astype(np.longdouble)
    positive = np.longdouble(1) if p is None else p.astype(np.longdouble)
    if kind == "mse":
        losses, slopes = weight * (x - t) ** 2, 2 * weight * (x - t)
        size = 2 * weight * (abs(x) + abs(t))
    else:
        soft = np.log1p(np.exp(-abs(x)))
        above, below = np.maximum(x, 0) + soft, np.maximum(-x, 0) + soft
        losses = weight * ((1 - t) * above + positive * t * below)
        up, down = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
        slopes = weight * ((1 - t) * up - positive * t * down)
        size = weight * ((1 - t) * up + positive * t * down)
    if reduction == "none":
        return losses, slopes * dy, size * abs(dy)
    count = 1
    if reduction == "mean":
        count = weight.sum() if kind == "mse" and w is not None else x.size
    return losses.sum() / count, slopes * dy / count, size * abs(dy) / count


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (15,), (3, 64), (65,), (2, 3, 5), (40_000,)])
@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_value_and_gradient(kind, shape, dtype):
    rng = np.random.default_rng(1)
    x = (5 * rng.standard_normal(shape)).astype(dtype)
    t = rng.uniform(0, 1, shape).astype(dtype)
    t.flat[::3] = rng.integers(0, 2, t.flat[::3].shape)
    weight, positive = (rng.uniform(0.1, 2, shape).astype(dtype) for _ in range(2))
    u = np.finfo(dtype).eps / 2
    for reduction, w, p in itertools.product(REDUCTIONS, (None, weight), (None, positive)):
        dy = rng.standard_normal(shape).astype(dtype) if reduction == "none" else 1.5
        if kind == "mse":
            if p is not None:
                continue
            loss, ctx = F.mse_loss_forward(x, t, reduction, w)
            assert np.all(loss == F.mse_loss(x, t, reduction, w))
            dx = F.mse_loss_backward(dy, ctx)
        else:
            loss, ctx = F.binary_cross_entropy_with_logits_forward(x, t, w, reduction, p)
            assert np.all(loss == F.binary_cross_entropy_with_logits(x, t, w, reduction, p))
            dx = F.binary_cross_entropy_with_logits_backward(dy, ctx)
        true, gradient, size = reference(kind, x, t, w, p, reduction, dy)
        assert loss.dtype == dx.dtype == dtype
        assert dx.shape == shape
        # each loss: a few roundings, 4 units of softplus; positive terms; the sum is in float64
        assert np.all(abs(loss - true) <= (10 * u + x.size * 2.0**-53) * abs(true))
        assert np.all(abs(dx - gradient) <= 10 * u * size)


def test_extreme_logits():
    x, t = np.array([1e4, -1e4, np.inf, -np.inf, 50.0]), np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    loss, ctx = F.binary_cross_entropy_with_logits_forward(x, t, reduction="none")
    np.testing.assert_allclose(loss, [0, 0, 0, 0, np.exp(-50)], rtol=1e-14)
    np.testing.assert_allclose(
        F.binary_cross_entropy_with_logits_backward(np.ones(5), ctx), [0, 0, 0, 0, -np.exp(-50)], rtol=1e-14
    )
    assert np.isnan(F.binary_cross_entropy_with_logits(np.array([np.nan]), np.array([0.0])))


def test_broadcast_weights():
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((4, 3)), rng.uniform(0, 1, (4, 3))
    weight, positive = rng.uniform(1, 2, (4, 1)), rng.uniform(1, 2, 3)
    full = F.binary_cross_entropy_with_logits(x, t, weight + np.zeros(3), "none", positive + np.zeros((4, 1)))
    np.testing.assert_array_equal(F.binary_cross_entropy_with_logits(x, t, weight, "none", positive), full)


def test_empty():
    x = np.zeros((0, 3))
    assert np.isnan(F.mse_loss(x, x))
    loss, ctx = F.mse_loss_forward(x, x, "sum")
    assert loss == 0
    assert F.mse_loss_backward(1.0, ctx).shape == (0, 3)


def test_threads_change_nothing():
    x = np.random.default_rng(3).standard_normal(300_000, np.float32)
    before, results = fastnn.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastnn.set_num_threads(threads)
            loss, ctx = F.mse_loss_forward(x, x[::-1])
            results.append((loss, F.mse_loss_backward(1.0, ctx)))
    finally:
        fastnn.set_num_threads(before)
    for loss, dx in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(dx, results[0][1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.mse_loss(np.zeros(3), np.zeros((3, 1))), ValueError, "target must have the input's shape"),
        (lambda: F.mse_loss(np.zeros(3), np.zeros(3), weight=np.zeros(1)), ValueError, "weight must have shape"),
        (lambda: F.mse_loss(np.zeros(3), np.zeros(3), "max"), ValueError, "reduction must be"),
        (lambda: F.mse_loss(np.zeros(3), np.zeros(3, int)), TypeError, "target must be float32"),
        (
            lambda: F.binary_cross_entropy_with_logits(np.zeros(3), np.zeros(3), np.zeros(2)),
            ValueError,
            "weight must be broadcastable",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.peers
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_against_torch(reduction):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    x, t, w, p = (rng.uniform(0, 1, (4, 5)) for _ in range(4))
    tensor, target, weight, positive = (torch.from_numpy(a) for a in (x, t, w, p))
    peer = torch.nn.functional
    for mine, backward, theirs in (
        (
            F.mse_loss_forward(x, t, reduction),
            F.mse_loss_backward,
            lambda z: peer.mse_loss(z, target, reduction=reduction),
        ),
        (
            F.mse_loss_forward(x, t, reduction, w),
            F.mse_loss_backward,
            lambda z: peer.mse_loss(z, target, reduction=reduction, weight=weight),
        ),
        (
            F.binary_cross_entropy_with_logits_forward(x, t, w, reduction, p),
            F.binary_cross_entropy_with_logits_backward,
            lambda z: peer.binary_cross_entropy_with_logits(
                z, target, weight, reduction=reduction, pos_weight=positive
            ),
        ),
    ):
        tensor.grad = None
        tensor.requires_grad_()
        true = theirs(tensor)
        loss, ctx = mine
        np.testing.assert_allclose(loss, true.detach().numpy(), rtol=1e-13)
        dy = rng.standard_normal(np.shape(loss))
        true.backward(torch.from_numpy(np.asarray(dy)))
        np.testing.assert_allclose(backward(dy, ctx), tensor.grad.numpy(), rtol=1e-12, atol=1e-14)
