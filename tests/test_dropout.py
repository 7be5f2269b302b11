"""Dropout and its relatives: the mask against its definition, gradients, layouts, probabilities, same bits."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import _kernels
from fastnn.functional.dropout import DropoutContext
from fastnn.functional.dropout.alpha import SELU_FLOOR
from fastnn.random import threefry4x32

REALS = [np.float32, np.float64]
# A chunk decides 128 elements, ties are looked for in runs of 1024, a task has 8192.
SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 8191, 8192, 8193, 70_001]
PS = [0.0, 1e-6, 0.1, 0.25, 0.5, 0.9, 1 - 1e-6, 1.0]


def sixteen_bits(seed, stream, size):
    """The number of 16 bits that decides each element: the definition, from the raw words."""
    words = np.empty(-(-size // 128) * 64, np.uint32)
    _kernels.fill_words(words, seed, stream)
    words = words.reshape(-1, 64)
    return np.concatenate([(words >> 16) ^ 0x8000, words & 0xFFFF], axis=1).ravel()[:size].astype(np.int64)


def mask_oracle(seed, stream, size, p):
    """True where kept. Ties are settled in Python's integers by 48 bits of block (position, 1)."""
    bits = sixteen_bits(seed, stream, size)
    whole = math.floor(p * 2**16)
    rest = math.floor((p * 2**16 - whole) * 2**48)
    mask = bits >= whole
    key = (seed % 2**32, seed >> 32, stream % 2**32, stream >> 32)
    for i in np.flatnonzero(bits == whole):
        a, b, _, _ = threefry4x32((int(i), 0, 1, 0), key, 13)
        mask[i] = ((a & 0xFFFF) << 32 | b) >= rest
    return mask


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("mode", ["inverted", "classic"])
def test_against_definition(p, mode, dtype):
    rng = np.random.default_rng(0)
    scale = (1 / (1 - p) if p < 1 else 0) if mode == "inverted" else 1
    for number, size in enumerate(SIZES):
        seed = 2**40 + number
        x = rng.standard_normal(size).astype(dtype)
        y, ctx = F.dropout_forward(x, p, mode=mode, generator=fastnn.Generator(seed))
        mask = mask_oracle(seed, 0, size, p) if p < 1 else np.zeros(size, bool)
        np.testing.assert_array_equal(y, np.where(mask, x * dtype(scale), 0))
        assert y.dtype == dtype
        np.testing.assert_array_equal(F.dropout(x, p, mode=mode, generator=fastnn.Generator(seed)), y)
        np.testing.assert_array_equal(F.dropout_backward(x, ctx), y)
        np.testing.assert_array_equal(F.dropout_mask(ctx), mask)


def test_ties_are_settled():
    """p = 2⁻¹⁷: only ties, one element in 2¹⁶, can drop, and half of them do."""
    p, size = 2.0**-17, 2**21
    x = np.ones(size, np.float32)
    y, _ = F.dropout_forward(x, p, generator=fastnn.Generator(3))
    mask = mask_oracle(3, 0, size, p)
    np.testing.assert_array_equal(y != 0, mask)
    ties = int((sixteen_bits(3, 0, size) == 0).sum())
    dropped = size - int(mask.sum())
    assert 16 < ties < 64
    assert abs(dropped - ties / 2) < 4 * math.sqrt(ties / 4)


def test_ties_at_the_end_are_settled():
    """In a group that the end of the array cuts."""
    p, size = 2.0**-17, 2**21
    ends = np.flatnonzero(~mask_oracle(3, 0, size, p)) + 1
    assert (ends % 128 != 0).any()
    for end in ends.tolist():
        assert F.dropout(np.ones(end, np.float32), p, generator=fastnn.Generator(3))[-1] == 0


def test_far_positions():
    """Beyond 2**32 blocks of random words, where the counter's second word counts on."""
    first = (2**32 + 2**20) // 16
    y = _kernels.dropout(np.ones(128, np.float32), 0.5, 1.0, 7, 9, first=first)
    blocks = np.array([threefry4x32((2**20 + lane, 1, 0, 0), (7, 0, 9, 0), 13) for lane in range(16)])
    words = blocks.T.ravel()
    kept = np.concatenate([(words >> 16) ^ 0x8000, words & 0xFFFF]) >= 2**15
    np.testing.assert_array_equal(y != 0, kept)


def test_large_results_are_the_same():
    """From 32 MB on results bypass the caches, unless they go in place; at every alignment."""
    size = 2**23 + 1000
    x = np.arange(size, dtype=np.float32)
    y = F.dropout(x, 0.3, generator=fastnn.Generator(1))
    shifted = np.full(size + 2, -1, np.float32)
    F.dropout(x, 0.3, generator=fastnn.Generator(1), out=shifted[1:-1])
    F.dropout(x, 0.3, generator=fastnn.Generator(1), out=x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(shifted[1:-1], x)
    assert shifted[0] == shifted[-1] == -1


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.3, 0.5, 0.9, 1 - 1e-6])
def test_probability(p):
    """The number of drops within 4 standard deviations, and no correlation between neighbours at several lags."""
    n = 2**22
    y = F.dropout(np.ones(n, np.float32), p, mode="classic", generator=fastnn.Generator(1000))
    dropped = y == 0
    assert abs(dropped.sum() - n * p) < 4 * math.sqrt(n * p * (1 - p)) + 1
    variance = p * (1 - p)
    for lag in (1, 16, 64, 128):
        pairs = int((dropped[lag:] & dropped[:-lag]).sum())
        covariance = pairs / (n - lag) - p * p
        assert abs(covariance) < 4 * variance / math.sqrt(n - lag) + 4 / n


@pytest.mark.parametrize("mode", ["inverted", "classic"])
def test_expectation_is_evaluation(mode):
    """The mean over many masks tends to the result in evaluation, element by element."""
    x = np.linspace(-2, 2, 101)
    p, n = 0.3, 4000
    g = fastnn.Generator(5)
    mean = sum(F.dropout(x, p, mode=mode, generator=g) for _ in range(n)) / n
    scale = 1 / (1 - p) if mode == "inverted" else 1
    sigma = np.abs(x) * scale * math.sqrt(p * (1 - p) / n)
    assert (np.abs(mean - F.dropout(x, p, False, mode=mode)) <= 4.5 * sigma).all()


def test_special_values():
    x = np.array([np.inf, -np.inf, np.nan, -0.0] * 64, np.float32)
    np.testing.assert_array_equal(F.dropout(x, 1.0), np.zeros_like(x))
    y, ctx = F.dropout_forward(x, 0.5, generator=fastnn.Generator(2))
    mask = F.dropout_mask(ctx)
    assert (y[~mask] == 0).all()
    np.testing.assert_array_equal(y[mask], x[mask])
    np.testing.assert_array_equal(np.signbit(y[mask]), np.signbit(x[mask]))
    np.testing.assert_array_equal(F.dropout_backward(x, ctx)[~mask], 0)
    copy = F.dropout(x, 0.0)
    assert copy is not x
    assert copy.tobytes() == x.tobytes()


# -- layouts, out, broadcasting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("axes", [(), (0, 2), (1,)])
def test_layouts_give_the_same_bits(dtype, axes):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 50, 7)).astype(dtype)
    expected = F.dropout(x, 0.4, generator=fastnn.Generator(8), broadcast_axes=axes)
    strided = np.empty((6, 100, 14), dtype)[:, ::2, ::2]
    strided[...] = x
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(dtype).reshape(x.shape)
    constant = x.copy()
    constant.flags.writeable = False
    for other in (strided, shifted, constant, np.asfortranarray(x), x.astype(x.dtype.newbyteorder())):
        got = F.dropout(other, 0.4, generator=fastnn.Generator(8), broadcast_axes=axes)
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == dtype


@pytest.mark.parametrize("axes", [(), (1,)])
@pytest.mark.parametrize(
    "op",
    [
        lambda x, axes, out: F.dropout(x, 0.4, generator=fastnn.Generator(8), broadcast_axes=axes, out=out),
        lambda x, axes, out: F.alpha_dropout(x, 0.4, True, generator=fastnn.Generator(8), out=out),
        lambda x, axes, out: F.gaussian_dropout(x, 0.4, generator=fastnn.Generator(8), out=out),
        lambda x, axes, out: F.gaussian_noise(x, 0.4, generator=fastnn.Generator(8), out=out),
        lambda x, axes, out: F.drop_path(x, 0.4, generator=fastnn.Generator(8), out=out),
        lambda x, axes, out: F.dropout(x, 0.4, False, mode="classic", out=out),
        lambda x, axes, out: F.dropout(x, 0.4, False, out=out),
    ],
)
def test_out(op, axes):
    x = np.random.default_rng(2).standard_normal((40, 500)).astype(np.float32)
    expected = op(x, axes, None)
    out = np.empty_like(x)
    assert op(x, axes, out) is out
    np.testing.assert_array_equal(out, expected)
    strided = np.empty((40, 1000), np.float32)[:, ::2]
    assert op(x, axes, strided) is strided
    np.testing.assert_array_equal(strided, expected)
    inplace = x.copy()
    assert op(inplace, axes, inplace) is inplace
    np.testing.assert_array_equal(inplace, expected)
    buffer = np.empty(x.size + 3, np.float32)
    buffer[:-3] = x.ravel()
    shifted_out = buffer[3:].reshape(x.shape)
    op(buffer[:-3].reshape(x.shape), axes, shifted_out)
    np.testing.assert_array_equal(shifted_out, expected)
    for bad, error in ((np.empty(3, np.float32), ValueError), (np.empty(x.shape), TypeError), ([1.0], TypeError)):
        with pytest.raises(error, match="out must"):
            op(x, axes, bad)


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5, 7), (1,)),
        ((5, 7), (-1,)),
        ((5, 7), 0),
        ((5, 7), np.int64(0)),
        ((5, 7), [0]),
        ((5, 7), (0, 1)),
        ((4, 6, 20), (2,)),  # channels first and last, 1-d, 2-d, 3-d
        ((4, 20, 6), (1,)),
        ((4, 6, 9, 9), (2, 3)),
        ((4, 9, 9, 6), (1, 2)),
        ((2, 3, 4, 5, 6), (2, 3, 4)),
        ((2, 4, 5, 6, 3), (1, 2, 3)),
        ((2, 3, 4, 5, 6, 2), (0, 2, 4)),  # more alternations than the kernel's view has
        ((3, 1, 4), (0, 1)),
        ((0, 3), (1,)),
        ((3, 0), (1,)),
        ((2, 20_000), (1,)),  # lines longer than a task
        ((300, 40), (0,)),
        ((3, 20_000), (0,)),
    ],
)
def test_broadcast_axes(shape, axes, dtype):
    """The mask is the one of an array with 1 along these axes, stretched; that one is tested above."""
    x = np.random.default_rng(3).standard_normal(shape).astype(dtype)
    y, ctx = F.dropout_forward(x, 0.4, generator=fastnn.Generator(21), broadcast_axes=axes)
    listed = {axis % len(shape) for axis in np.atleast_1d(axes).tolist()}
    small = [1 if axis in listed else n for axis, n in enumerate(shape)]
    mask = np.broadcast_to(mask_oracle(21, 0, math.prod(small), 0.4).reshape(small), shape)
    np.testing.assert_array_equal(y, np.where(mask, x * dtype(1 / 0.6), 0))
    np.testing.assert_array_equal(F.dropout_backward(x, ctx), y)
    np.testing.assert_array_equal(F.dropout_mask(ctx), mask)
    np.testing.assert_array_equal(F.dropout_mask(ctx, 2, 11), mask.ravel()[2:11])


def test_mask_slices():
    x = np.ones((90, 113), np.float32)
    _, ctx = F.dropout_forward(x, 1e-3 + 0.3, generator=fastnn.Generator(4))
    whole = F.dropout_mask(ctx)
    assert whole.shape == x.shape
    rng = np.random.default_rng(0)
    for start, stop in [*np.sort(rng.integers(0, x.size, (50, 2))).tolist(), (127, 129), (5, 5), (9, 2), (0, 10**9)]:
        np.testing.assert_array_equal(F.dropout_mask(ctx, start, stop), whole.ravel()[start:stop])
    np.testing.assert_array_equal(F.dropout_mask(ctx, -40), whole.ravel()[-40:])
    with pytest.raises(TypeError, match="ctx must be the context of a dropout with a mask"):
        F.dropout_mask(F.gaussian_dropout_forward(x)[1])


def test_context_is_small():
    """Its size does not depend on the input's, and a second draw from one generator is another mask."""
    g = fastnn.Generator(1)
    contexts = [F.dropout_forward(np.ones(n, np.float32), 0.5, generator=g)[1] for n in (10, 10**6)]
    for ctx in contexts:
        assert not any(isinstance(value, np.ndarray) for value in ctx)
    assert [ctx.stream for ctx in contexts] == [0, 1]
    first, second = F.dropout_mask(contexts[0]), F.dropout_mask(contexts[1], 0, 10)
    assert (first != second).any()


def test_errors_take_no_stream():
    g = fastnn.Generator(1)
    for call in (
        lambda: F.dropout([1, 2], 0.5, generator=g),
        lambda: F.dropout(np.ones(3), 0.5, generator=g, broadcast_axes=(1,)),
        lambda: F.dropout(np.ones(3), 0.5, generator=g, out=np.empty(2)),
        lambda: F.gaussian_dropout(np.ones(3, int), 0.5, generator=g),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert g.stream == 0


# -- the others ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("p", [0.0, 0.2, 0.7])
def test_alpha_dropout(p, dtype):
    x = np.random.default_rng(0).standard_normal(200_001).astype(dtype)
    y, ctx = F.alpha_dropout_forward(x, p, True, generator=fastnn.Generator(6))
    mask = F.dropout_mask(ctx)
    a = ((1 - p) * (1 + p * SELU_FLOOR**2)) ** -0.5
    b = -a * p * SELU_FLOOR
    expected = np.where(mask, a * x.astype(float) + b, a * SELU_FLOOR + b)
    np.testing.assert_allclose(y, expected, rtol=0, atol=4 * np.finfo(dtype).eps * np.abs(expected).max())
    np.testing.assert_array_equal(mask, F.dropout_mask(F.dropout_forward(x, p, generator=fastnn.Generator(6))[1]))
    np.testing.assert_allclose(
        F.alpha_dropout_backward(x, ctx), np.where(mask, a * x, 0), rtol=2 * np.finfo(dtype).eps, atol=0
    )
    assert abs(y.mean()) < 5 / math.sqrt(x.size)
    assert abs(y.var() - 1) < 5 * math.sqrt(3 / x.size)
    assert (F.alpha_dropout(x * np.inf, 1.0, True) == 0).all()
    assert F.alpha_dropout(x) is x


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 63, 64, 65, 4095, 4096, 4097, 10_007])
def test_gaussian(size, dtype):
    """The noise is the fill of the same stream."""
    x = np.random.default_rng(0).standard_normal(size).astype(dtype)
    p = 0.36
    sigma = math.sqrt(p / (1 - p))
    y, ctx = F.gaussian_dropout_forward(x, p, generator=fastnn.Generator(6))
    np.testing.assert_array_equal(y, x * fastnn.Generator(6).normal(size, 1, sigma, dtype=dtype))
    np.testing.assert_array_equal(F.gaussian_dropout_backward(x, ctx), y)
    z, ctx = F.gaussian_noise_forward(x, 0.3, generator=fastnn.Generator(6))
    np.testing.assert_array_equal(z, x + fastnn.Generator(6).normal(size, 0, 0.3, dtype=dtype))
    np.testing.assert_array_equal(F.gaussian_noise_backward(y, ctx), y)
    assert F.gaussian_dropout(x, training=False) is x
    assert F.gaussian_noise(x, 0.1, False) is x


@pytest.mark.parametrize("shape", [(7,), (64, 3, 5), (3, 40_000)])
def test_drop_path(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    y, ctx = F.drop_path_forward(x, 0.5, generator=fastnn.Generator(2))
    kept = mask_oracle(2, 0, shape[0], 0.5).reshape(-1, *[1] * (len(shape) - 1))
    np.testing.assert_array_equal(y, np.where(kept, 2 * x, 0))
    np.testing.assert_array_equal(F.drop_path_backward(x, ctx), y)
    assert F.drop_path(x, training=False) is x
    with pytest.raises(ValueError, match="input must have a batch axis"):
        F.drop_path(np.array(1.0))


# -- same bits -----------------------------------------------------------------------------------------------------

PROGRAM = """
import hashlib, numpy as np, fastnn, fastnn.functional as F
digest = hashlib.sha256()
for dtype in (np.float32, np.float64):
    x = np.random.default_rng(0).standard_normal((31, 10_007)).astype(dtype)
    for p in (1e-4, 0.1, 0.5):
        g = fastnn.Generator(5)
        for op in (F.dropout, F.drop_path, F.alpha_dropout, F.gaussian_dropout):
            digest.update(op(x, p, True, generator=g).tobytes())
        digest.update(F.dropout(x, p, generator=g, broadcast_axes=0).tobytes())
print(digest.hexdigest())
"""


def test_threads_and_builds_agree():
    """1, 2, 3 and 7 threads and every build that runs here."""
    settings = [(level, threads) for level in _kernels.available() for threads in (1, 3)]
    settings += [(_kernels.ISA, 2), (_kernels.ISA, 7)]
    digests = set()
    for level, threads in settings:
        environment = {"FASTNN_ISA": level, "FASTNN_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=os.environ | environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_golden():
    """These values may never change: saved runs depend on them."""
    packed = np.packbits(F.dropout_mask(DropoutContext(42, 7, 0.3, 1.0, (), (256,), np.dtype(np.float32))))
    assert packed.tobytes().hex() == "e737eb4bf63fbf7bc7ffd3747dfc6be01bdffadeef73356c537f63bdab979555"


# -- layers and errors ---------------------------------------------------------------------------------------------


LAYERS = [
    (fastnn.Dropout, F.dropout_forward, F.dropout_backward, {"p": 0.3}),
    (fastnn.Dropout, F.dropout_forward, F.dropout_backward, {"p": 0.3, "mode": "classic", "broadcast_axes": (1,)}),
    (fastnn.DropPath, F.drop_path_forward, F.drop_path_backward, {"p": 0.3}),
    (fastnn.AlphaDropout, F.alpha_dropout_forward, F.alpha_dropout_backward, {"p": 0.3}),
    (fastnn.GaussianDropout, F.gaussian_dropout_forward, F.gaussian_dropout_backward, {"p": 0.3}),
    (fastnn.GaussianNoise, F.gaussian_noise_forward, F.gaussian_noise_backward, {"sigma": 0.3}),
]


@pytest.mark.parametrize(("layer", "forward", "backward", "parameters"), LAYERS)
def test_layers(layer, forward, backward, parameters):
    x, dy = np.random.default_rng(0).standard_normal((2, 30, 40))
    module, g = layer(**parameters, generator=fastnn.Generator(9)), fastnn.Generator(9)
    y, z = module(x), module(x)
    np.testing.assert_array_equal(y, forward(x, **parameters, training=True, generator=g)[0])
    second, ctx = forward(x, **parameters, training=True, generator=g)
    np.testing.assert_array_equal(z, second)
    np.testing.assert_array_equal(module.backward(dy), backward(dy, ctx))
    module.eval()
    evaluated = module(x)
    if "mode" in parameters:
        np.testing.assert_array_equal(evaluated, x * 0.7)
    else:
        assert evaluated is x
    assert module.state_dict() == {}


def test_default_generator_is_used():
    x = np.ones(100)
    fastnn.manual_seed(3)
    y = fastnn.Dropout()(x)
    fastnn.manual_seed(3)
    np.testing.assert_array_equal(F.dropout(x), y)
    np.testing.assert_array_equal(F.dropout(x, generator=fastnn.Generator(3)), y)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("make", [fastnn.Dropout, fastnn.DropPath, fastnn.AlphaDropout, fastnn.GaussianDropout])
def test_bad_p(make, bad):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1"):
        make(bad)
    for op in (F.dropout, F.drop_path, F.alpha_dropout, F.gaussian_dropout, F.dropout_forward):
        for training in (True, False):
            with pytest.raises(ValueError, match=r"p must be in \[0, 1"):
                op(np.ones(3), bad, training)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.dropout(np.ones(3), "x"), TypeError, "p must be a number, got str"),
        (lambda: F.dropout(np.ones(3), mode="other"), ValueError, "mode must be 'inverted' or 'classic', got 'other'"),
        (lambda: fastnn.Dropout(mode="other"), ValueError, "mode must be"),
        (lambda: F.dropout(np.ones(3), broadcast_axes=1), ValueError, "broadcast_axes must be axes of the input"),
        (
            lambda: F.dropout(np.ones(3), generator=3),
            TypeError,
            "generator must be a fastnn.Generator or None, got int",
        ),
        (lambda: F.dropout(np.ones(3, int)), TypeError, "input must be float32 or float64, got int64"),
        (lambda: F.dropout(np.ones(3, int), training=False), TypeError, "input must be float32 or float64, got int64"),
        (lambda: F.gaussian_dropout(np.ones(3), 1.0), ValueError, r"p must be in \[0, 1\), got 1"),
        (lambda: F.gaussian_noise(np.ones(3), -1), ValueError, "sigma must be finite and at least 0, got -1"),
        (lambda: fastnn.GaussianNoise(math.nan), ValueError, "sigma must be"),
        (lambda: fastnn.GaussianNoise("x"), TypeError, "sigma must be a number, got str"),
        (
            lambda: F.dropout_backward(np.ones(3, np.float32), F.dropout_forward(np.ones(3))[1]),
            TypeError,
            "dy must have the same dtype",
        ),
        (
            lambda: F.dropout_backward(np.ones(4), F.dropout_forward(np.ones(3))[1]),
            ValueError,
            "dy must have the result's",
        ),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.peers
def test_against_torch():
    """Scale and special cases are PyTorch's; the masks are not comparable."""
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    ours = F.dropout(x, 0.3, generator=fastnn.Generator(1))
    theirs = torch.nn.functional.dropout(torch.from_numpy(x), 0.3).numpy()
    both = (ours != 0) & (theirs != 0)
    np.testing.assert_allclose(ours[both], theirs[both], rtol=2e-7)
    alpha = torch.nn.functional.alpha_dropout(torch.zeros(1000), 0.3, training=True).numpy()
    values = np.unique(F.alpha_dropout(np.zeros(1000, np.float32), 0.3, True))
    np.testing.assert_allclose(values, np.unique(alpha), rtol=1e-6)
    assert (torch.nn.functional.alpha_dropout(torch.ones(9), 1.0, training=True).numpy() == 0).all()


def test_axes_of_a_layer_are_checked_when_it_is_made():
    assert fastnn.Dropout(broadcast_axes=[2, 3]).broadcast_axes == (2, 3)
    with pytest.raises(TypeError, match="broadcast_axes must be an integer or a sequence of integers, got str"):
        fastnn.Dropout(broadcast_axes="x")
