"""Activations against mpmath in units in the last place, their gradients, special values, and PyTorch."""

import os
import subprocess
import sys

import mpmath
import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import _kernels

mpmath.mp.prec = 140
FUSED = _kernels.ISA != "x86_64_v2"  # whether the build in use has fused multiply-adds
ONE = mpmath.mpf(1)


def sigma(x):
    return ONE / (ONE + mpmath.exp(-x))


def tanh_argument(x):
    return 2 * mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)


def gelu_tanh_slope(x):
    w = tanh_argument(x)
    return sigma(w) + x * sigma(w) * sigma(-w) * 2 * mpmath.sqrt(2 / mpmath.pi) * (
        1 + 3 * mpmath.mpf("0.044715") * x * x
    )


# name → operation's arguments, value and slope, largest error of the value in units in the last place, and of the slope
# in units of max(1, |slope|). The bounds are measured ones, rounded up.
EXACT = {
    "relu": ((), lambda x: max(x, 0), lambda x: ONE * (x > 0), 0, 0),
    "leaky_relu": ((0.25,), lambda x: x if x > 0 else x / 4, lambda x: ONE if x > 0 else ONE / 4, 0, 0),
    "elu": (
        (1.5,),
        lambda x: x if x > 0 else 1.5 * mpmath.expm1(x),
        lambda x: ONE if x > 0 else 1.5 * mpmath.exp(x),
        2,
        2,
    ),
    "gelu": (("none",), lambda x: x * mpmath.ncdf(x), lambda x: mpmath.ncdf(x) + x * mpmath.npdf(x), 6, 2),
    "gelu tanh": (("tanh",), lambda x: x * sigma(tanh_argument(x)), gelu_tanh_slope, 5, 2.5),
    "silu": ((), lambda x: x * sigma(x), lambda x: sigma(x) * (1 + x * sigma(-x)), 3, 2.5),
    "sigmoid": ((), sigma, lambda x: sigma(x) * sigma(-x), 2.5, 2),
    "tanh": ((), mpmath.tanh, lambda x: 1 - mpmath.tanh(x) ** 2, 2.5, 4),
    "softplus": ((0.5, 1e9), lambda x: 2 * mpmath.log1p(mpmath.exp(x / 2)), lambda x: sigma(x / 2), 4, 2),
}


def functions(name):
    base = name.split()[0]
    return getattr(F, base), getattr(F, f"{base}_forward"), getattr(F, f"{base}_backward")


def points(dtype):
    rng = np.random.default_rng(1)
    limit, tiny = (80, 1e-37) if dtype is np.float32 else (700, 1e-300)
    signs = rng.choice([-1, 1], 200)
    parts = [rng.uniform(-limit, limit, 150), rng.uniform(-10, 10, 300), rng.uniform(-1, 1, 200)]
    parts += [signs * np.exp(rng.uniform(np.log(tiny), 3, 200)), [0.0, 1.0, -1.0]]
    return np.concatenate(parts).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EXACT)
def test_value_and_slope(name, dtype):
    arguments, value, slope, units, slope_units = EXACT[name]
    op, forward, backward = functions(name)
    x = points(dtype)
    y, ctx = forward(x, *arguments)
    np.testing.assert_array_equal(y, op(x, *arguments))
    dx = backward(np.ones_like(x), ctx)
    assert y.dtype == dx.dtype == dtype
    smallest = np.finfo(dtype).tiny
    for at, mine, mine_slope in zip(x, y, dx):
        exact = mpmath.mpf(float(at))
        true, true_slope = value(exact), slope(exact)
        unit = np.spacing(max(dtype(abs(float(true))), smallest))
        if not FUSED and "gelu" in name:  # the exponent, x²/2 or about 1.6·x + 0.07·x³, keeps its rounding error
            unit *= max(1, float(at) ** 2, abs(float(at)) ** 3 / 10)
        if abs(true) > 1e5 * smallest:  # below, a factor may be subnormal and short of digits
            assert abs(float(mine) - true) <= units * unit, at
        assert abs(float(mine_slope) - true_slope) <= slope_units * np.finfo(dtype).eps * max(1, abs(true_slope)), at


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 1000, 16384, 16385])
@pytest.mark.parametrize("name", EXACT)
def test_sizes_give_the_bits_of_single_elements(name, n, dtype):
    x = 4 * np.random.default_rng(n).standard_normal(n).astype(dtype)
    arguments = EXACT[name][0]
    _, forward, backward = functions(name)
    y, ctx = forward(x, *arguments)
    dx = backward(x + 1, ctx)
    assert y.shape == dx.shape == (n,)
    for i in {0, 1, n // 2, n - 2, n - 1} & set(range(n)):
        one, one_ctx = forward(x[i : i + 1].copy(), *arguments)
        np.testing.assert_array_equal(y[i], one[0])
        np.testing.assert_array_equal(dx[i], backward(x[i : i + 1] + 1, one_ctx)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_results_past_the_caches_have_the_bits_of_small_ones(name, dtype):
    n = (32 << 20) // np.dtype(dtype).itemsize + 77  # more than 32 MB, and neither whole chunks nor blocks
    x = np.random.default_rng(n).standard_normal(n + 1).astype(dtype)[1:]  # off the lines of the caches
    op, forward, backward = functions(name)
    y, ctx = forward(x)
    dx = backward(x, ctx)
    for start in range(0, n, 1 << 20):
        part = slice(start, start + (1 << 20))
        small, small_ctx = forward(x[part])
        np.testing.assert_array_equal(y[part], small)
        np.testing.assert_array_equal(dx[part], backward(x[part], small_ctx))
    op(x, out=x)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    inf, nan = np.inf, np.nan
    x = np.array([nan, -inf, inf, 0.0, -0.0, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    big = np.finfo(dtype).max
    expected = {
        "relu": [nan, 0, inf, 0, 0, big, 0],
        "elu": [nan, -1.5, inf, 0, 0, big, -1.5],
        "gelu": [nan, nan, inf, 0, 0, big, 0],
        "gelu tanh": [nan, nan, inf, 0, 0, big, 0],
        "silu": [nan, nan, inf, 0, 0, big, 0],
        "sigmoid": [nan, 0, 1, 0.5, 0.5, 1, 0],
        "tanh": [nan, -1, 1, 0, 0, 1, -1],
        "softplus": [nan, 0, inf, dtype(2 * np.log(2)), dtype(2 * np.log(2)), big, 0],
    }
    slopes = {
        "relu": [1, 0, 1, 0, 0, 1, 0],
        "elu": [nan, 0, 1, 1.5, 1.5, 1, 0],
        "gelu": [nan, 0, 1, 0.5, 0.5, 1, 0],
        "gelu tanh": [nan, 0, 1, 0.5, 0.5, 1, 0],
        "silu": [nan, 0, 1, 0.5, 0.5, 1, 0],
        "sigmoid": [nan, 0, 0, 0.25, 0.25, 0, 0],
        "tanh": [nan, 0, 0, 1, 1, 0, 0],
        "softplus": [nan, 0, 1, 0.5, 0.5, 1, 0],
    }
    for name, values in expected.items():
        _, forward, backward = functions(name)
        y, ctx = forward(x, *EXACT[name][0])
        np.testing.assert_array_equal(y, np.array(values, dtype), err_msg=name)
        np.testing.assert_array_equal(backward(np.ones_like(x), ctx), np.array(slopes[name], dtype), err_msg=name)


def test_softplus_beyond_the_threshold():
    x = np.array([9.0, 10.0, 10.5])
    y, ctx = F.softplus_forward(x, 2.0, 20.0)
    assert y[2] == 10.5
    assert np.all(y[:2] > x[:2])
    dx = F.softplus_backward(np.ones(3), ctx)
    assert dx[2] == 1
    assert np.all(dx[:2] < 1)


@pytest.mark.parametrize("name", EXACT)
def test_any_memory_layout_and_out(name):
    op, forward, backward = functions(name)
    arguments = EXACT[name][0]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 7))
    y = op(x, *arguments)
    for same in (np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x.astype(">f8"), x.tolist()):
        np.testing.assert_array_equal(op(same, *arguments), y)
    out = np.empty_like(x)
    assert op(x, *arguments, out=out) is out
    np.testing.assert_array_equal(out, y)
    strided = np.empty((6, 14))[:, ::2]
    assert op(x, *arguments, out=strided) is strided
    np.testing.assert_array_equal(strided, y)
    inplace = x.copy()
    assert op(inplace, *arguments, out=inplace) is inplace
    np.testing.assert_array_equal(inplace, y)
    line = rng.standard_normal(300)
    expected = op(line[:200], *arguments)
    op(line[:200], *arguments, out=line[100:])
    np.testing.assert_array_equal(line[100:], expected)
    dy = rng.standard_normal((7, 6)).T
    kept = x.copy()
    if name in ("relu", "sigmoid", "tanh"):  # backward needs the result only
        _, ctx = forward(kept, *arguments, out=kept)
    else:
        with pytest.raises(ValueError, match="overlap"):
            forward(kept, *arguments, out=kept)
        _, ctx = forward(kept, *arguments, out=strided)
    expected = backward(np.ascontiguousarray(dy), forward(x, *arguments)[1])
    np.testing.assert_array_equal(backward(dy, ctx), expected)


@pytest.mark.parametrize(
    ("op", "arguments", "error", "message"),
    [
        (F.relu, {"input": np.zeros(3, int)}, TypeError, "input must be float32 or float64"),
        (F.relu, {"input": np.zeros(3), "out": np.zeros(3, np.float32)}, TypeError, "out must have the input's dtype"),
        (F.relu, {"input": np.zeros(3), "out": np.zeros(4)}, ValueError, "out must have shape"),
        (F.relu, {"input": np.zeros(3), "out": [0.0] * 3}, TypeError, "out must be a numpy array"),
        (F.gelu, {"input": np.zeros(3), "approximate": "erf"}, ValueError, "approximate must be"),
        (F.softplus, {"input": np.zeros(3), "beta": 0}, ValueError, "beta must not be 0"),
        (F.softplus_forward, {"input": np.zeros(3), "beta": 0}, ValueError, "beta must not be 0"),
        (F.softplus, {"input": np.zeros(3), "beta": np.nan}, ValueError, "beta must be finite, got nan"),
        (F.softplus_forward, {"input": np.zeros(3), "beta": -np.inf}, ValueError, "beta must be finite, got -inf"),
        (F.softplus, {"input": np.zeros(3), "threshold": np.nan}, ValueError, "threshold must be a number, got nan"),
        (F.leaky_relu, {"input": np.zeros(3), "negative_slope": np.nan}, ValueError, "negative_slope must be finite"),
        (F.leaky_relu_forward, {"input": np.zeros(3), "negative_slope": np.inf}, ValueError, "negative_slope must be"),
        (F.elu, {"input": np.zeros(3), "alpha": np.inf}, ValueError, "alpha must be finite, got inf"),
        (F.elu_forward, {"input": np.zeros(3), "alpha": np.nan}, ValueError, "alpha must be finite, got nan"),
    ],
)
def test_errors(op, arguments, error, message):
    with pytest.raises(error, match=message):
        op(**arguments)


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
            results.append(F.gelu(x))
    finally:
        fastnn.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


SCRIPT = """
import hashlib, numpy as np, fastnn.functional as F
digest, rng = hashlib.sha256(), np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    x = (20 * rng.standard_normal((300, 37))).astype(dtype)
    labels = rng.integers(0, 37, 300)
    for name in ("elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax", "log_softmax"):
        y, ctx = getattr(F, name + "_forward")(x)
        digest.update(y.tobytes() + getattr(F, name + "_backward")(x, ctx).tobytes())
    y, ctx = F.gelu_forward(x, "tanh")
    digest.update(y.tobytes() + F.gelu_backward(x, ctx).tobytes())
    for forward, backward, target in (
        (F.cross_entropy_forward, F.cross_entropy_backward, labels),
        (F.mse_loss_forward, F.mse_loss_backward, abs(x)),
        (F.binary_cross_entropy_with_logits_forward, F.binary_cross_entropy_with_logits_backward, abs(x) / 100),
    ):
        loss, ctx = forward(x, target)
        digest.update(loss.tobytes() + backward(1.0, ctx).tobytes())
    images = x[:, :36].reshape(25, 3, 6, 24)
    for axis in (1, 3):
        for forward, backward in (
            (F.max_pool2d_forward, F.max_pool2d_backward), (F.avg_pool2d_forward, F.avg_pool2d_backward)
        ):
            y, ctx = forward(images, 3, 2, 1, channel_axis=axis)
            digest.update(y.tobytes() + backward(y, ctx).tobytes())
    kernel, bias, weight = x[:6, :27].reshape(6, 3, 3, 3), x[0, :6].copy(), x[:20].copy()
    for axis, batch in ((1, images), (3, images.transpose(0, 2, 3, 1))):
        y, ctx = F.conv2d_forward(batch, kernel, bias, 2, 1, channel_axis=axis)
        for array in (y, *F.conv2d_backward(y, ctx)):
            digest.update(array.tobytes())
    y, ctx = F.linear_forward(x, weight)
    for array in (y, *F.linear_backward(y, ctx)[:2]):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_builds_with_fused_multiply_add_agree():
    builds = [build for build in _kernels.available() if build != "x86_64_v2"]
    if len(builds) < 2:
        pytest.skip("needs two such builds")
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"FASTNN_ISA": build},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for build in builds
    }
    assert len(digests) == 1


@pytest.mark.peers
@pytest.mark.parametrize("name", EXACT)
def test_against_torch(name):
    torch = pytest.importorskip("torch")
    base, arguments = name.split()[0], EXACT[name][0]
    _, forward, backward = functions(name)
    x = 3 * np.random.default_rng(3).standard_normal((5, 40))
    tensor = torch.from_numpy(x).requires_grad_()
    theirs = getattr(torch.nn.functional, base)
    true = theirs(tensor, approximate=arguments[0]) if base == "gelu" else theirs(tensor, *arguments)
    y, ctx = forward(x, *arguments)
    np.testing.assert_allclose(y, true.detach().numpy(), rtol=1e-12, atol=1e-14)
    true.backward(torch.from_numpy(x))
    np.testing.assert_allclose(backward(x, ctx), tensor.grad.numpy(), rtol=1e-11, atol=1e-13)
    default = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(functions(name)[0](x), default, rtol=1e-12, atol=1e-14)
