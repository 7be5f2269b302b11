"""Softmax and log-softmax against long double, and against PyTorch."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

OPS = [
    (F.softmax, F.softmax_forward, F.softmax_backward),
    (F.log_softmax, F.log_softmax_forward, F.log_softmax_backward),
]


def reference(x, dy, axis, logarithm):
    x, dy = x.astype(np.longdouble), dy.astype(np.longdouble)
    shifted = x - x.max(axis, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    y = np.exp(logs)
    if logarithm:
        return logs, dy - y * dy.sum(axis, keepdims=True), abs(dy) + y * abs(dy).sum(axis, keepdims=True)
    inner = (dy * y).sum(axis, keepdims=True)
    return y, y * (dy - inner), y * (abs(dy) + (abs(dy) * y).sum(axis, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 2), (4, 15), (4, 16), (4, 17), (2, 3, 33), (700, 10), (2, 3001), (5, 2, 3, 4)]
)
@pytest.mark.parametrize("logarithm", [False, True])
def test_value_and_gradient(shape, dtype, logarithm):
    rng = np.random.default_rng(1)
    x = (8 * rng.standard_normal(shape)).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    op, forward, backward = OPS[logarithm]
    for axis in range(len(shape)):
        y, ctx = forward(x, axis)
        np.testing.assert_array_equal(y, op(x, dim=axis - len(shape)))
        true, gradient, size = reference(x, dy, axis, logarithm)
        # exponential 2 units and 1 of its rounded argument, whose error is relative to |x − m|; sums in float64
        u = np.finfo(dtype).eps / 2
        reach = np.ptp(x, axis, keepdims=True)
        n = shape[axis] * 2.0**-53
        if logarithm:
            assert np.all(abs(y - true) <= (6 + reach) * u * abs(true) + 4 * n)
        else:
            assert np.all(abs(y - true) <= true * (u * (6 + reach) + 4 * n))
        dx = backward(dy, ctx)
        assert y.dtype == dx.dtype == dtype
        bound = (12 + (2 * abs(true) if logarithm else reach)) * u + 8 * n
        assert np.all(abs(dx - gradient) <= bound * size)


def test_special_values():
    inf, nan = np.inf, np.nan
    x = np.array([[0.0, -inf], [-inf, -inf], [nan, 0.0], [inf, 0.0], [1e308, -1e308]])
    np.testing.assert_array_equal(F.softmax(x, 1), [[1, 0], [nan, nan], [nan, nan], [nan, nan], [1, 0]])
    np.testing.assert_array_equal(F.log_softmax(x[[0, 4]], 1), [[0, -inf], [0, -inf]])


def test_axes_and_out():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 3, 5))
    np.testing.assert_array_equal(F.softmax(x), F.softmax(x, 0))
    np.testing.assert_array_equal(F.softmax(x[0]), F.softmax(x[0], 1))
    assert F.softmax(np.array(3.0)) == 1
    assert F.softmax(np.float64(3.0)).shape == ()
    assert F.softmax(np.zeros((3, 0)), 1).shape == (3, 0)
    assert F.softmax(np.zeros((0, 3)), 0).shape == (0, 3)
    for axis in (0, 2):
        y = F.softmax(x, axis)
        out = np.empty_like(x)
        assert F.softmax(x, axis, out=out) is out
        np.testing.assert_array_equal(out, y)
        inplace = x.copy()
        F.softmax(inplace, axis, out=inplace)
        np.testing.assert_array_equal(inplace, y)
    with pytest.raises(ValueError, match="dim must be from -3 to 2"):
        F.softmax(x, 3)
    ctx = F.softmax_forward(x, 1)[1]
    with pytest.raises(ValueError, match="dy must have"):
        F.softmax_backward(x[0], ctx)


def test_threads_change_nothing():
    x = np.random.default_rng(3).standard_normal((3000, 100), np.float32)
    before, results = fastnn.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastnn.set_num_threads(threads)
            y, ctx = F.softmax_forward(x, 1)
            results.append((y, F.softmax_backward(x, ctx)))
    finally:
        fastnn.set_num_threads(before)
    for other in results[1:]:
        for mine, same in zip(results[0], other):
            np.testing.assert_array_equal(mine, same)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_against_torch(name):
    torch = pytest.importorskip("torch")
    x = 3 * np.random.default_rng(4).standard_normal((5, 4, 6))
    for axis in range(3):
        tensor = torch.from_numpy(x).requires_grad_()
        true = getattr(torch.nn.functional, name)(tensor, axis)
        y, ctx = getattr(F, name + "_forward")(x, axis)
        np.testing.assert_allclose(y, true.detach().numpy(), rtol=1e-13, atol=1e-14)
        true.backward(torch.from_numpy(x))
        np.testing.assert_allclose(getattr(F, name + "_backward")(x, ctx), tensor.grad.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(5, 1), (1, 5, 1), (5, 1, 1)])
@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
def test_the_input_is_never_written(function, shape):
    """Where all other axes have length 1, the slices lie in memory as the kernel wants them."""
    x = np.arange(5.0).reshape(shape)
    function(x, shape.index(5))
    np.testing.assert_array_equal(x.ravel(), np.arange(5.0))
