"""linear against float64 sums, and against PyTorch."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import _kernels

U = {np.float32: 2.0**-24, np.float64: 2.0**-53}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 4), (2, 5, 4), (0, 4), (17, 319), (5, 320), (5, 321), (3, 1001)])
@pytest.mark.parametrize("out_features", [1, 7, 64])
def test_value_and_gradients(shape, out_features, dtype):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(dtype)
    w = rng.standard_normal((out_features, shape[-1])).astype(dtype)
    b = rng.standard_normal(out_features).astype(dtype)
    dy = rng.standard_normal((*shape[:-1], out_features)).astype(dtype)
    x64, w64, b64, dy64 = (a.astype(np.float64) for a in (x, w, b, dy))
    y, ctx = F.linear_forward(x, w, b)
    np.testing.assert_array_equal(y, F.linear(x, w, b))
    rows, drows = x64.reshape(-1, shape[-1]), dy64.reshape(-1, out_features)
    true = [
        (
            np.einsum("...i,oi->...o", x64, w64) + b64,
            np.einsum("...i,oi->...o", abs(x64), abs(w64)) + abs(b64),
            shape[-1],
        ),
        (np.einsum("...o,oi->...i", dy64, w64), np.einsum("...o,oi->...i", abs(dy64), abs(w64)), out_features),
        (np.einsum("no,ni->oi", drows, rows), np.einsum("no,ni->oi", abs(drows), abs(rows)), len(rows)),
        (drows.sum(0), abs(drows).sum(0), len(rows)),
    ]
    for mine, (value, size, terms) in zip((y, *F.linear_backward(dy, ctx)), true):
        assert mine.dtype == dtype
        assert mine.shape == value.shape
        # `terms` products and sums, one rounding each, relative to the sum of the terms' absolute values
        assert np.all(abs(mine - value) <= (terms + 2) * U[dtype] * size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [1, 40, 131])
@pytest.mark.parametrize("inputs", [3, 129, 500])
def test_a_sample_has_the_same_bits_in_every_batch(inputs, outputs, dtype):
    rng = np.random.default_rng(4)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((200, inputs), (outputs, inputs), (outputs,)))
    dy = rng.standard_normal((200, outputs)).astype(dtype)
    y, ctx = F.linear_forward(x, w, b)
    dx = F.linear_backward(dy, ctx)[0]
    for rows in (1, 2, 3, 7, 8, 9, 16, 31, 64, 65):
        part, ctx = F.linear_forward(x[:rows], w, b)
        np.testing.assert_array_equal(part, y[:rows])
        np.testing.assert_array_equal(F.linear_backward(dy[:rows], ctx)[0], dx[:rows])
    np.testing.assert_array_equal(F.linear(x, w[:8], b[:8]), y[:, :8])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 8, 9, 65])
@pytest.mark.parametrize("outputs", [7, 33, 130])
def test_the_layer_adds_to_its_gradient(outputs, rows, dtype):
    rng = np.random.default_rng(5)
    layer = fastnn.Linear(67, outputs, rng=0, dtype=dtype)
    x, dy = rng.standard_normal((rows, 67)).astype(dtype), rng.standard_normal((rows, outputs)).astype(dtype)
    layer(x)
    layer.backward(dy)
    once = layer.weight.grad.copy()
    np.testing.assert_array_equal(once, F.linear_backward(dy, F.linear_forward(x, layer.weight.data)[1])[1])
    layer(x)
    layer.backward(dy)
    np.testing.assert_array_equal(layer.weight.grad, once + once)


@pytest.mark.parametrize("rows", [1, 2, 5, 12])
def test_layouts_change_no_bit(rows):
    """Matrices of any strides: contiguous rows, contiguous columns, neither."""
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((rows, 70), np.float32), rng.standard_normal((70, 90), np.float32)
    expected = np.empty((rows, 90), np.float32)
    _kernels.matrix_product(a, b, expected)
    for left in (a, np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2]):
        for right in (b, np.asfortranarray(b), np.repeat(b, 2, axis=1)[:, ::2]):
            for out in (np.empty((rows, 90), np.float32), np.empty((90, rows), np.float32).T):
                _kernels.matrix_product(left, right, out)
                np.testing.assert_array_equal(out, expected)
                _kernels.matrix_product(right.T, left.T, out.T)
                np.testing.assert_array_equal(out, expected)


def test_without_bias():
    y, ctx = F.linear_forward(np.ones((2, 3)), np.ones((4, 3)))
    assert ctx.has_bias is False
    assert F.linear_backward(y, ctx)[2] is None


def test_out():
    rng = np.random.default_rng(2)
    x, w, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 4)), rng.standard_normal(4)
    y = F.linear(x, w, b)
    for out in (np.empty((3, 4)), np.empty((3, 8))[:, ::2], np.empty((4, 3)).T, x.copy()):
        source = out if out.base is None and out.shape == x.shape and np.array_equal(out, x) else x
        assert F.linear(source, w, b, out=out) is out
        np.testing.assert_array_equal(out, y)
    with pytest.raises(ValueError, match="overlap"):
        F.linear_forward(x, w, out=x)
    with pytest.raises(ValueError, match="out must have shape"):
        F.linear(x, w, out=np.empty((4, 3)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones((2, 3)), np.ones((4, 2))), ValueError, "input must have shape"),
        ((np.ones(()), np.ones((4, 2))), ValueError, "input must have shape"),
        ((np.ones((2, 3)), np.ones(3)), ValueError, "weight must have shape"),
        ((np.ones((2, 3)), np.ones((4, 3)), np.ones(3)), ValueError, "bias must have shape"),
        ((np.ones((2, 3), int), np.ones((4, 3))), TypeError, "input must be float32"),
        ((np.ones((2, 3)), np.ones((4, 3), np.float32)), TypeError, "weight must have the same dtype"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        F.linear(*arguments)


def test_gradient_of_the_wrong_shape():
    ctx = F.linear_forward(np.ones((2, 3)), np.ones((4, 3)))[1]
    with pytest.raises(ValueError, match="dy must have"):
        F.linear_backward(np.ones((2, 3)), ctx)


SCRIPT = """
import hashlib, numpy as np, fastnn.functional as F
rng = np.random.default_rng(0)
digest = hashlib.sha256()
sizes = (128, 784, 512), (128, 512, 10), (64, 128, 128), (1, 784, 784), (5, 99, 3000), (512, 2000, 64)
for rows, inputs, outputs in sizes:
    x, w = rng.standard_normal((rows, inputs), np.float32), rng.standard_normal((outputs, inputs), np.float32)
    y, ctx = F.linear_forward(x, w)
    for array in (y, *F.linear_backward(y, ctx)[:2]):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_threads_and_levels_change_nothing():
    levels = [level for level in _kernels.available() if level in ("x86_64_v3", "x86_64_v4")] or [_kernels.ISA]
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"FASTNN_NUM_THREADS": threads, "FASTNN_ISA": level},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
        for level in levels
    }
    assert len(digests) == 1


@pytest.mark.peers
def test_against_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(s) for s in ((5, 2, 6), (3, 6), (3,))]
    tensors = [torch.from_numpy(a).requires_grad_() for a in arrays]
    true = torch.nn.functional.linear(*tensors)
    y, ctx = F.linear_forward(*arrays)
    np.testing.assert_allclose(y, true.detach().numpy(), rtol=0, atol=1e-13)
    true.backward(torch.ones_like(true))
    for mine, tensor in zip(F.linear_backward(np.ones_like(y), ctx), tensors):
        np.testing.assert_allclose(mine, tensor.grad.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("inner", [1, 49])
def test_bits_of_the_bias_gradient_do_not_depend_on_threads(inner):
    # in float64, where the order of the pieces' sums is seen
    x = np.random.default_rng(3).standard_normal((200_000 // inner, 16, inner))
    before, results = fastnn.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastnn.set_num_threads(threads)
            results.append(_kernels.channel_sums(x, *x.shape))
    finally:
        fastnn.set_num_threads(before)
    np.testing.assert_allclose(results[0], x.sum((0, 2)), rtol=1e-9, atol=1e-9)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
