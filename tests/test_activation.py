"""Activations against mpmath or exact values, and against PyTorch."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 15, 63, 64, 65, 1000, 16384, 16385, 50000])
def test_relu(n, dtype):
    x = np.random.default_rng(n).standard_normal(n).astype(dtype)
    y, ctx = F.relu_forward(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(F.relu(x), y)
    np.testing.assert_array_equal(F.relu_backward(x + 1, ctx), np.where(x > 0, x + 1, 0))
    assert y.dtype == dtype


def test_relu_special_values():
    x = np.array([np.nan, -np.inf, np.inf, -0.0, 5e-324])
    y, ctx = F.relu_forward(x)
    np.testing.assert_array_equal(y, [np.nan, 0, np.inf, 0, 5e-324])
    np.testing.assert_array_equal(F.relu_backward(np.full(5, 7.0), ctx), [7, 0, 7, 0, 7])


@pytest.mark.parametrize("op", [F.relu])
def test_any_memory_layout_and_out(op):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 7))
    y = op(x)
    for same in (np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x.astype(">f8"), x.tolist()):
        np.testing.assert_array_equal(op(same), y)
    out = np.empty_like(x)
    assert op(x, out=out) is out
    np.testing.assert_array_equal(out, y)
    strided = np.empty((6, 14))[:, ::2]
    np.testing.assert_array_equal(op(x, out=strided), y)
    np.testing.assert_array_equal(strided, y)
    inplace = x.copy()
    assert op(inplace, out=inplace) is inplace
    np.testing.assert_array_equal(inplace, y)
    line = rng.standard_normal(300)
    expected = op(line[:200])
    op(line[:200], out=line[100:])
    np.testing.assert_array_equal(line[100:], expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input": np.zeros(3, int)}, TypeError, "input must be float32 or float64"),
        ({"input": np.zeros(3), "out": np.zeros(3, np.float32)}, TypeError, "out must have the input's dtype"),
        ({"input": np.zeros(3), "out": np.zeros(4)}, ValueError, "out must have shape"),
        ({"input": np.zeros(3), "out": [0.0] * 3}, TypeError, "out must be a numpy array"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        F.relu(**arguments)


def test_read_only_out():
    out = np.zeros(3)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        F.relu(np.zeros(3), out=out)


def test_gradient_checks():
    ctx = F.relu_forward(np.zeros((2, 3)))[1]
    with pytest.raises(ValueError, match="dy must have"):
        F.relu_backward(np.zeros((3, 2)), ctx)
    with pytest.raises(TypeError, match="dy must have"):
        F.relu_backward(np.zeros((2, 3), np.float32), ctx)
    np.testing.assert_array_equal(F.relu_backward(np.zeros((3, 2)).T, ctx), np.zeros((2, 3)))


def test_threads_change_nothing():
    x = np.random.default_rng(2).standard_normal(300_000, np.float32)
    before, results = fastnn.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastnn.set_num_threads(threads)
            results.append(F.relu(x))
    finally:
        fastnn.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
