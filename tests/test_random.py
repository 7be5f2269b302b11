"""The generator: known answers of its block function, golden values, distributions, state, and who may share it."""

import copy
import hashlib
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from scipy import stats

import fastnn
from fastnn import _kernels
from fastnn.random import as_generator, default_generator, manual_seed, threefry4x32

# Random123's published vectors (kat_vectors): rounds, counter, key, result.
ZERO, ONES = "00000000 " * 4, "ffffffff " * 4
PI, MORE_PI = "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0 082efa98 ec4e6c89"
KNOWN_ANSWERS = [
    (13, ZERO, ZERO, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
    (13, ONES, ONES, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
    (13, PI, MORE_PI, "4aa71d8f 734738c2 431fc6a8 ae6debf1"),
    (20, ZERO, ZERO, "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
    (20, ONES, ONES, "2a881696 57012287 f6c7446e a16a6732"),
    (20, PI, MORE_PI, "59cd1dbb b8879579 86b5d00c ac8b6d84"),
]
# A chunk is 64 words, a task 64 chunks: sizes about every boundary, for 64 and for 32 numbers to a chunk.
SIZES = [0, 1, 31, 32, 33, 63, 64, 65, 127, 2047, 2048, 2049, 4095, 4096, 4097, 12289]
REALS = [np.float32, np.float64]


def words_of(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("rounds", "counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(rounds, counter, key, answer):
    assert threefry4x32(words_of(counter), words_of(key), rounds) == words_of(answer)


def test_fill_is_the_block_function():
    """Word k of block j of a chunk stands at place 16·k + j; the key is seed and stream, the counter the block."""
    seed, stream = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    words = np.empty(3 * 64, np.uint32)
    _kernels.fill_words(words, seed, stream)
    key = (0x89ABCDEF, 0x01234567, 0x76543210, 0xFEDCBA98)
    for chunk in range(3):
        for lane in range(16):
            block = threefry4x32((16 * chunk + lane, 0, 0, 0), key, 13)
            assert tuple(words[64 * chunk + lane : 64 * (chunk + 1) : 16]) == block


def test_block_function_refuses():
    with pytest.raises(ValueError, match="rounds must be between 0 and 20, got 21"):
        threefry4x32((0,) * 4, (0,) * 4, 21)
    with pytest.raises(ValueError, match="four 32-bit words"):
        threefry4x32((0,) * 3, (0,) * 4)
    with pytest.raises(ValueError, match="rounds must be between 0 and 20, got 1180591620717411303424"):
        threefry4x32((0,) * 4, (0,) * 4, 2**70)
    with pytest.raises(ValueError, match="counter must hold words of at least 0 and below 2\\*\\*32, got 4294967296"):
        threefry4x32((2**32, 0, 0, 0), (0,) * 4)
    with pytest.raises(TypeError, match="counter must be an integer or a sequence of integers, got object"):
        threefry4x32(object(), (0,) * 4)
    with pytest.raises(ValueError, match="key must hold words of at least 0"):
        threefry4x32((0,) * 4, (0, 0, 0, 2**70))


def test_golden():
    """These values may never change: saved runs depend on them."""
    draws = [(draw, {}) for draw in ("words", "uniform", "normal", "permutation")]
    draws += [(draw, {"dtype": np.float64}) for draw in ("uniform", "normal")]
    arrays = [getattr(fastnn.Generator(42), draw)(1000 - len(options), **options) for draw, options in draws]
    digests = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in arrays]
    assert [child.seed for child in fastnn.Generator(42).spawn(2)] == [6126505779956245840, 16938111422259608166]
    assert digests == [
        "ae9aae32544e6987",
        "be0b42ecb462ebfc",
        "18c946cd057e6247",
        "c44a7664a4d8622f",
        "f063fae305397223",
        "abfd0ab5e0117610",
    ]


@pytest.mark.parametrize("dtype", REALS)
def test_uniform_is_its_formula(dtype):
    generator = fastnn.Generator(11)
    words = np.empty(640, np.uint32)
    _kernels.fill_words(words, 11, 0)
    if dtype == np.float32:
        u = (words >> 8).astype(np.float64) / 2**24
    else:
        pairs = words.reshape(-1, 2, 32).astype(np.float64)
        u = ((np.floor(pairs[:, 0] / 32) * 2**26 + np.floor(pairs[:, 1] / 64)) / 2**53).ravel()
    np.testing.assert_array_equal(generator.uniform(u.size, dtype=dtype), u.astype(dtype))


def normal_oracle(words, dtype):
    """The Box–Muller formula in float64 (longer for float64), with NumPy's functions."""
    wide = np.longdouble
    w = words.reshape(-1, 4, 16)
    if dtype == np.float32:
        first, angle = w[:, 0::2], w[:, 1::2]
        u = ((first >> 1).astype(wide) + wide(0.5)) / wide(2**31)
        t = ((angle >> 1 << 2 | 2).astype(np.uint32).view(np.int32)).astype(wide) / wide(2**31)
    else:
        u = ((w[:, 0] >> 5).astype(wide) * 2**26 + (w[:, 1] >> 6).astype(wide) + wide(0.5)) / wide(2**53)
        angle = w[:, 2]
        t = (angle >> 1 << 2).astype(np.uint32).view(np.int32).astype(wide) / wide(2**31)
        t += ((w[:, 3] >> 9).astype(wide) + wide(0.5)) / wide(2**52)
    quarter = np.pi / wide(4)
    r = np.sqrt(-2 * np.log(u)) * np.where(angle & 1, -1, 1)
    pair = r * np.cos(quarter * t), r * np.sin(quarter * t)
    swap = angle >> 31 == 1
    a, b = np.where(swap, pair[1], pair[0]), np.where(swap, pair[0], pair[1])
    return np.stack([a, b], -2).ravel()


@pytest.mark.parametrize("dtype", REALS)
def test_normal_is_its_formula(dtype):
    """Errors: u rounds to half a unit, whose effect on √(−2 ln u) is u'·1/(r²) relative, large only where r is tiny,
    so errors count against max(|x|, 1); the rest is a handful of roundings."""
    words = np.empty(64 * 4096, np.uint32)
    _kernels.fill_words(words, 5, 0)
    expected = normal_oracle(words, dtype)
    got = fastnn.Generator(5).normal(expected.size, dtype=dtype)
    assert got.dtype == dtype
    radius = np.maximum(1, np.abs(expected))
    error = np.abs(got - expected) / radius
    assert error.max() < 2**9 * np.finfo(dtype).eps
    assert np.mean(error) < np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_prefixes_agree(draw, dtype):
    """Element i depends on its place alone: a shorter array is the beginning of a longer one."""
    whole = getattr(fastnn.Generator(2), draw)(max(SIZES), dtype=dtype)
    for size in SIZES:
        np.testing.assert_array_equal(getattr(fastnn.Generator(2), draw)(size, dtype=dtype), whole[:size])


def test_threads_do_not_matter():
    before = fastnn.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            fastnn.set_num_threads(threads)
            g = fastnn.Generator(9)
            results.append([g.words(300_001), g.uniform(300_001), g.normal(300_001), g.normal(300_001, dtype=float)])
    finally:
        fastnn.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


# -- distributions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REALS)
def test_distributions(dtype):
    """Kolmogorov–Smirnov and moments; the seed is fixed, so a pass stays a pass."""
    g = fastnn.Generator(123)
    u, x = g.uniform(2**18, dtype=dtype).astype(float), g.normal(2**18, dtype=dtype).astype(float)
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert stats.kstest(x, "norm").pvalue > 1e-3
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(x**power) - mean) < 4 * np.sqrt(variance / x.size)
    for lag in (1, 16, 32, 64):
        assert abs(np.mean(x[lag:] * x[:-lag])) < 4 / np.sqrt(x.size - lag)
    assert abs(np.mean(x * g.normal(x.size, dtype=dtype))) < 4 / np.sqrt(x.size)


@pytest.mark.parametrize("dtype", REALS)
def test_scaled(dtype):
    g = fastnn.Generator(4)
    x = g.uniform((50, 60), -3, 5, dtype=dtype)
    assert x.shape == (50, 60)
    assert x.dtype == dtype
    assert x.min() >= -3
    assert x.max() < 5
    assert np.ptp(x) > 7.9
    y, z = fastnn.Generator(4).normal(5000, 2, 0.5, dtype=dtype), fastnn.Generator(4).normal(5000, dtype=dtype)
    np.testing.assert_array_equal(y, z * dtype(0.5) + dtype(2))
    assert (g.uniform(3, 2, 2, dtype=dtype) == 2).all()
    assert (g.normal(3, 2, 0, dtype=dtype) == 2).all()


def test_upper_end_is_excluded():
    """1 and the next float32: low + u rounds up for half of all u."""
    one, after = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    assert (fastnn.Generator(0).uniform(10_000, one, after) == one).all()


def test_permutation():
    g = fastnn.Generator(8)
    for n in (0, 1, 2, 63, 64, 65, 1000):
        p = g.permutation(n)
        assert p.dtype == np.int64
        np.testing.assert_array_equal(np.sort(p), np.arange(n))
    counts = np.bincount([int(g.permutation(4) @ [64, 16, 4, 1]) for _ in range(24_000)])
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3
    assert np.count_nonzero(counts) == 24
    before = g.state_dict()
    for bad in (-1, 2**32, 2**70):
        with pytest.raises(ValueError, match="n must be at least 0 and below"):
            g.permutation(bad)
    assert g.state_dict() == before


def test_permutation_is_unbiased():
    """Fisher and Yates with rejection, in Python's integers. About one seed in two rejects a word at this size."""
    n, seed = 150_000, 13
    words = np.empty(2 * n, np.uint32)
    _kernels.fill_words(words, seed, 0)
    stream = iter(words.tolist())
    expected, rejected = list(range(n)), 0
    for m in range(n, 1, -1):
        while (product := next(stream) * m) % 2**32 < 2**32 % m:
            rejected += 1
        i = product >> 32
        expected[m - 1], expected[i] = expected[i], expected[m - 1]
    assert rejected > 0
    np.testing.assert_array_equal(fastnn.Generator(seed).permutation(n), expected)


# -- state ---------------------------------------------------------------------------------------------------------


def test_state_round_trip():
    g = fastnn.Generator(2**64 - 1)
    g.uniform(5)
    state = g.state_dict()
    assert state == {"seed": 2**64 - 1, "stream": 1}
    expected = g.normal(7)
    for other in (copy.deepcopy(g), pickle.loads(pickle.dumps(g)), fastnn.Generator(0)):
        other.load_state_dict({key: np.array(value) for key, value in state.items()})
        np.testing.assert_array_equal(other.normal(7), expected)
    assert copy.deepcopy(g).state_dict() == g.state_dict()


def test_load_changes_nothing_on_error():
    g = fastnn.Generator(3)
    for bad in ({"seed": 1}, {"seed": 1, "stream": 0, "extra": 0}, {"seed": 1, "stream": -1}):
        with pytest.raises(ValueError):
            g.load_state_dict(bad)
    with pytest.raises(TypeError):
        g.load_state_dict({"seed": 1, "stream": 0.5})
    assert g.state_dict() == {"seed": 3, "stream": 0}


def test_spawn():
    parent, again = fastnn.Generator(6), fastnn.Generator(6)
    children = parent.spawn(50) + parent.spawn(50)
    assert len({child.seed for child in children} | {parent.seed}) == 101
    assert [child.seed for child in again.spawn(50)] == [child.seed for child in children[:50]]
    draws = np.stack([child.normal(4000) for child in children])
    correlation = np.corrcoef(draws)[np.triu_indices(100, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_shared_between_threads():
    g = fastnn.Generator(1)
    taken = []

    def work():
        taken.extend([g.take() for _ in range(2000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(8000))


def test_default_generator():
    assert manual_seed(5) is default_generator()
    a = default_generator().uniform(4)
    np.testing.assert_array_equal(fastnn.Generator(5).uniform(4), a)
    fastnn.manual_seed(5)
    np.testing.assert_array_equal(as_generator(None).uniform(4), a)
    np.testing.assert_array_equal(as_generator(np.int64(5)).uniform(4), a)
    g = fastnn.Generator(5)
    assert as_generator(g) is g


@pytest.mark.parametrize("dtype", REALS)
def test_numpy_generator(dtype):
    x = as_generator(np.random.default_rng(0)).uniform((4, 5), 2, 4, dtype=dtype)
    y = as_generator(np.random.default_rng(0)).normal([4, 5], 3, 2, dtype=dtype)
    np.testing.assert_array_equal(x, np.random.default_rng(0).random((4, 5), dtype) * dtype(2) + dtype(2))
    np.testing.assert_array_equal(y, np.random.default_rng(0).standard_normal((4, 5), dtype) * dtype(2) + dtype(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fastnn.Generator(-1), ValueError, "seed must be at least 0 and below 2\\*\\*64, got -1"),
        (lambda: fastnn.Generator(2**64), ValueError, "seed must be"),
        (lambda: fastnn.Generator(1.5), TypeError, "seed must be an integer, got float"),
        (lambda: fastnn.manual_seed("x"), TypeError, "seed must be an integer, got str"),
        (lambda: fastnn.Generator(0).uniform(3, 2, 1), ValueError, "low must not be more than high"),
        (lambda: fastnn.Generator(0).uniform(3, 0, np.nan), ValueError, "low must not be more than high"),
        (lambda: fastnn.Generator(0).uniform(3, -3e38, 3e38), ValueError, "low and high must be finite"),
        (
            lambda: fastnn.Generator(0).uniform(3, dtype=np.int32),
            TypeError,
            "dtype must be float32 or float64, got int32",
        ),
        (lambda: fastnn.Generator(0).uniform(3, "0"), TypeError, "low must be a number, got str"),
        (lambda: fastnn.Generator(0).normal(3, std="1"), TypeError, "std must be a number, got str"),
        (lambda: fastnn.Generator(0).normal(3, std=-1), ValueError, "std must be finite and at least 0, got -1"),
        (lambda: fastnn.Generator(0).normal(3, np.inf), ValueError, "mean must be finite, got inf"),
        (lambda: fastnn.Generator(0).uniform((2, -1)), ValueError, r"shape must be .*, got \(2, -1\): negative"),
        (lambda: fastnn.Generator(0).normal(2.5), TypeError, "shape must be an integer or a sequence .*, got 2.5"),
        (lambda: fastnn.Generator(0).words((2**40, 2**40)), ValueError, "shape must be .*not too many elements"),
        (lambda: fastnn.Generator(0).spawn(-1), ValueError, "n must be at least 0 and below 2\\*\\*32, got -1"),
        (lambda: fastnn.Generator(0).spawn(2.0), TypeError, "n must be an integer, got float"),
        (lambda: fastnn.Generator(0).load_state_dict(None), TypeError, "d must be a mapping .*, got NoneType"),
        (lambda: as_generator("x"), TypeError, "rng must be a fastnn.Generator"),
        (lambda: as_generator(True), TypeError, "rng must be a fastnn.Generator"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_isa_builds_agree():
    """Every build that runs here gives the same bits, in a process of its own."""
    program = (
        "import hashlib, numpy as np, fastnn; g = fastnn.Generator(77); h = hashlib.sha256()\n"
        "for t in (np.float32, np.float64):\n"
        "    for a in (g.uniform(9999, -2, 7, dtype=t), g.normal(9999, 1, 3, dtype=t)): h.update(a.tobytes())\n"
        "h.update(g.permutation(999).tobytes()); print(h.hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"FASTNN_ISA": level, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for level in _kernels.available()
    }
    assert len(digests) == 1
