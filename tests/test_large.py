"""Arrays of more than 2³¹ elements, by hand: ``python -m pytest tests/test_large.py -m large``; 10 GB, minutes."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

pytestmark = pytest.mark.large

SIZE = 2**31 + 4096 + 7


@pytest.fixture(scope="module")
def memory():
    return np.empty(SIZE, np.float32)


def fill(x):
    """A period that is no divisor of 2³², so that an index that wraps around reads another value."""
    x[:] = 0
    x[::4096] = 1.5
    x[-11:] = np.arange(11) - 5.0
    return x


def test_relu(memory):
    x = fill(memory)
    assert F.relu(x, out=x) is x
    np.testing.assert_array_equal(x[-11:], [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5])
    assert x[2**31] == x[4096] == 1.5


def test_dropout(memory):
    memory[:] = 1
    F.dropout(memory, 0.5, generator=fastnn.Generator(7), out=memory)
    # the mask far out is the one of the generator's far positions
    _, context = F.dropout_forward(np.ones(1, np.float32), 0.5, generator=fastnn.Generator(7))
    context = context._replace(shape=(SIZE,))
    np.testing.assert_array_equal(memory[-3000:] != 0, F.dropout_mask(context, SIZE - 3000, SIZE))


@pytest.mark.parametrize("shape", [(SIZE // 1001, 1001), (3, SIZE // 3)], ids=["short rows", "long rows"])
def test_layer_norm(memory, shape):
    x = memory[: shape[0] * shape[1]].reshape(shape)
    x[:] = 0
    x[:, ::2] = 2
    expected = F.layer_norm(x[:1].copy(), shape[1])[0, -5:] if shape[1] < 2**20 else None
    F.layer_norm(x, shape[1], out=x)
    for row in (x[0], x[-1]):
        np.testing.assert_allclose(np.abs(row[-5:]), 1, rtol=2e-3 if expected is not None else 1e-4)
    np.testing.assert_array_equal(x[0, -5:], x[-1, -5:])


def test_batch_norm_channels_last(memory):
    x = memory[: SIZE // 64 * 64].reshape(-1, 64)
    x[:] = np.arange(64, dtype=np.float32)
    x[::2] += 1
    mean, var = np.zeros(64, np.float32), np.zeros(64, np.float32)
    F.batch_norm(x, mean, var, training=True, momentum=1.0, eps=1e-12, out=x)
    np.testing.assert_allclose(mean, np.arange(64) + 0.5, rtol=1e-6)
    np.testing.assert_allclose(var, 0.25, rtol=1e-6)
    np.testing.assert_allclose(
        x[-2:], np.array([[1.0], [-1.0]]) * np.ones(64) * (1 if len(x) % 2 == 0 else -1), rtol=1e-5
    )
