"""Same bits: whatever the memory layout, the number of threads, the run and the build for AVX2 or AVX-512.

Run as a script this file prints a digest of many results, which is how builds are compared.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fastnn
import fastnn.functional as F
from fastnn import _kernels
from norm_operations import OPERATIONS

# Large enough for four threads, with ragged blocks and lanes.
LARGE = {
    "layer_norm": (3001, 5, 13),
    "layer_norm of two axes": (3001, 5, 13),
    "rms_norm": (3001, 5, 13),
    "batch_norm": (29, 6, 31, 37),
    "batch_norm, channels last": (29, 31, 37, 6),
    "batch_norm, channels in the middle": (29, 31, 6, 37),
    "batch_norm of features": (33331, 6),
    "instance_norm": (29, 6, 31, 37),
    "instance_norm, channels last": (29, 31, 37, 6),
    "group_norm": (29, 6, 31, 37),
    "group_norm, channels last": (29, 31, 37, 6),
    "group_norm of features": (12603, 12),
    "group_norm, each channel": (29, 6, 1111),
    "group_norm, all channels": (29, 1111, 6),
    "layer_norm of everything": (5, 13),
    "standardize the last axis": (7, 11, 2603),
    "standardize the first axis": (2603, 7, 11),
    "standardize the channels": (17, 11, 31, 37),
    "standardize two separate axes": (29, 6, 31, 37),
    "standardize everything": (29, 6, 1111),
}
# Columns of so few rows that threads share the groups first and then the rows.
WIDE = [("standardize the first axis", (61, 17, 59)), ("standardize the first axis", (37, 17, 59))]


def results(name, shape, dtype, masked=False):
    op = OPERATIONS[name]
    x, dy, weight, bias = op.data(3, dtype, shape)
    mask = {"mask": np.random.default_rng(4).random(shape) < 0.8} if masked else {}
    y, context = op.forward(x, weight, bias, **mask)
    return [y, *(g for g in op.backward(dy, context) if g is not None)]


def digest():
    """One hash for each operation and shape, over both dtypes, with and without a mask."""
    lines = []
    for name, shape in (*LARGE.items(), *WIDE):
        state = hashlib.sha256()
        for dtype in (np.float32, np.float64):
            for masked in (False, True) if OPERATIONS[name].masks else (False,):
                for array in results(name, shape, dtype, masked):
                    state.update(np.ascontiguousarray(array).tobytes())
        lines.append(f"{name} {shape}: {state.hexdigest()[:16]}")
    return "\n".join(lines)


def digest_in_a_process(**environment):
    """The digest printed by this file run as a script."""
    return subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()


@pytest.fixture(scope="module")
def with_one_thread():
    before = fastnn.get_num_threads()
    fastnn.set_num_threads(1)
    yield digest()
    fastnn.set_num_threads(before)


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads(threads, with_one_thread):
    before = fastnn.get_num_threads()
    fastnn.set_num_threads(threads)
    try:
        assert digest() == with_one_thread
    finally:
        fastnn.set_num_threads(before)


@pytest.mark.parametrize("build", ["x86_64_v3", "x86_64_v4"])
def test_builds(build, with_one_thread):
    if build not in _kernels.available() or _kernels.ISA not in ("x86_64_v3", "x86_64_v4"):
        pytest.skip("needs the builds for AVX2 and AVX-512 and a processor that runs both")
    assert digest_in_a_process(FASTNN_ISA=build) == with_one_thread


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_memory_layouts(name, dtype):
    op = OPERATIONS[name]
    x, dy, weight, bias = op.data(5, dtype)

    def run(x, dy, weight, bias):
        y, context = op.forward(x, weight, bias)
        return [y, *(g for g in op.backward(dy, context) if g is not None)]

    expected = run(x, dy, weight, bias)
    for kind, change in LAYOUTS.items():
        changed = [None if a is None else change(a) for a in (x, dy, weight, bias)]
        for ours, theirs in zip(run(*changed), expected):
            assert ours.dtype == dtype
            np.testing.assert_array_equal(ours, theirs, err_msg=kind)


def strided(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def misaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a):
    copy = a.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every second element": strided,
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "misaligned": misaligned,
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": read_only,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_group_depends_on_no_neighbour(name, dtype):
    """Not even the sign of a zero, though groups are taken together and some of them in another unit."""
    op = OPERATIONS[name]
    x, dy, weight, bias = op.data(8, dtype)
    view = op.view(x.shape)
    first, last = (
        tuple(slice(None) if k in view.axes else one for k in range(len(view.shape)))
        for one in (slice(0, 1), slice(-1, None))
    )
    others = np.ones(view.shape, bool)
    others[first] = False
    dy.reshape(view.shape)[last] = 0

    def of_the_others():
        y, context = op.forward(x, weight, bias)
        return [a.reshape(view.shape)[others].tobytes() for a in (y, op.backward(dy, context)[0])]

    expected = of_the_others()
    ordinary = x.copy()
    for unit in (np.finfo(dtype).tiny, np.finfo(dtype).max / 16, np.nan):
        x.reshape(view.shape)[first] = ordinary.reshape(view.shape)[first] * dtype(unit)
        assert of_the_others() == expected


@pytest.mark.parametrize("n", [16, 17, 31, 32, 49, 63, 64, 65, 96, 200, 768, 1023, 16_001])
def test_a_row_is_the_same_in_any_company(n):
    """Rows are taken in batches, the sums of one with the values of another; the longest here lie beyond the caches."""
    rng = np.random.default_rng(9)
    x = rng.normal(3, 2, (70, n)).astype(np.float32)
    weight, bias = rng.normal(0, 1, (2, n)).astype(np.float32)
    for parameters in ((weight, bias), (weight, None), (None, bias), (None, None)):
        alone = np.concatenate([F.layer_norm(row[None], n, *parameters) for row in x])
        for first, count in ((0, 70), (1, 69), (0, 1), (2, 7), (3, 8), (4, 9), (5, 32), (6, 33), (7, 40)):
            rows = x[first : first + count].copy()
            assert F.layer_norm(rows, n, *parameters).tobytes() == alone[first : first + count].tobytes()
            F.layer_norm(rows, n, *parameters, out=rows)
            assert rows.tobytes() == alone[first : first + count].tobytes()


@pytest.mark.parametrize("name", OPERATIONS)
def test_zero_strides(name):
    op = OPERATIONS[name]
    x, _, weight, bias = op.data(6, np.float64)
    for repeated in (np.broadcast_to(x[:1], x.shape), np.broadcast_to(x[..., :1], x.shape)):
        np.testing.assert_array_equal(op.plain(repeated, weight, bias), op.plain(repeated.copy(), weight, bias))


# One vector or less, ragged and whole strips, rows in blocks, in fours and in pairs.
@pytest.mark.parametrize("n", [3, 16, 17, 40, 64, 96, 130, 384, 385, 768, 769, 1030, 4096])
def test_rows_of_own_weights(n):
    """A row out of float's range goes another way than the rest, and takes the rows of its block with it.

    No gradient of the others may tell, nor sums to which it adds nothing.
    """
    rng = np.random.default_rng(9)
    rows = 77
    x, dy = (rng.standard_normal((rows, n)).astype(np.float32) for _ in range(2))
    weight, bias = (rng.standard_normal(n).astype(np.float32) for _ in range(2))
    far = [5, 30, 44, 76]
    dy[far] = 0
    others = np.setdiff1d(np.arange(rows), far)

    def run(x, dy):
        _, context = F.layer_norm_forward(x, n, weight, bias)
        return F.layer_norm_backward(dy, context)

    near = run(x, dy)
    for r in range(rows):
        np.testing.assert_array_equal(near[0][r], run(x[r : r + 1], dy[r : r + 1])[0][0])
    x[far] *= np.float32(1e33)
    for ours, theirs in zip(run(x, dy), near):
        np.testing.assert_array_equal(
            ours[others] if ours.ndim == 2 else ours, theirs[others] if ours.ndim == 2 else theirs
        )


@pytest.mark.parametrize("offset", [0, 3])
def test_rows_that_bypass_the_caches(offset):
    """They come out as in a smaller call, whether they begin with a cache line or not."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((16_000, 272), np.float32)
    weight, bias = rng.standard_normal((2, 272), np.float32)
    room = np.empty(x.size + 32, np.float32)
    start = -(room.ctypes.data // 4) % 16 + offset
    out = room[start : start + x.size].reshape(x.shape)
    assert 2 * x.nbytes > 32 << 20
    for parameters in ((weight, bias), (weight, None), (None, bias), (None, None)):
        F.layer_norm(x, 272, *parameters, out=out)
        for part in (slice(5), slice(4000, 4100), slice(-3, None)):
            np.testing.assert_array_equal(out[part], F.layer_norm(x[part], 272, *parameters))


def test_rows_whose_gradient_bypasses_the_caches():
    """They come out as in a smaller call."""
    rng = np.random.default_rng(10)
    x, dy = (rng.standard_normal((8200, 272)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal(272).astype(np.float32)

    def run(part):
        _, context = F.rms_norm_forward(x[part], 272, weight)
        return F.rms_norm_backward(dy[part], context)[0]

    assert 3 * x.nbytes > 24 << 20
    np.testing.assert_array_equal(run(slice(None))[4000:4100], run(slice(4000, 4100)))


if __name__ == "__main__":
    print(digest())


@pytest.mark.parametrize("channels", [64, 8, 6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_that_bypass_the_caches(dtype, channels):
    """Samples of an array larger than the caches come out as each of them alone, which is smaller."""
    samples = 3
    shape = (samples, 6_553_600 // np.dtype(dtype).itemsize // channels + 1, channels)
    rng = np.random.default_rng(5)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, bias, mean = (rng.standard_normal(channels).astype(dtype) for _ in range(3))
    variance = mean * mean + 1

    def run(x, dy):
        y, context = F.instance_norm_forward(x, weight=weight, bias=bias, channel_axis=-1)
        dx = F.instance_norm_backward(dy, context)[0]
        z, context = F.batch_norm_forward(x, mean, variance, weight, bias, channel_axis=-1)
        return y, dx, z, F.batch_norm_backward(dy, context)[0]

    assert 2 * x.nbytes > 32 << 20 > 3 * x[:1].nbytes
    whole = run(x, dy)
    for k in range(samples):
        for large, small in zip(whole, run(x[k : k + 1], dy[k : k + 1])):
            np.testing.assert_array_equal(large[k : k + 1], small)


@pytest.mark.parametrize("pixels", [53_248, 53_249])
def test_channels_that_bypass_the_caches(pixels):
    """Likewise the channels of large images, whether each of them fills whole cache lines or not."""
    rng = np.random.default_rng(6)
    x, dy = rng.standard_normal((2, 5, 16, pixels), np.float32)
    weight, bias, mean = rng.standard_normal((3, 16), np.float32)

    def run(channels):
        part, upstream = np.ascontiguousarray(x[:, channels]), np.ascontiguousarray(dy[:, channels])
        for training in (True, False):
            m, w = mean[channels].copy(), weight[channels]
            y, context = F.batch_norm_forward(part, m, m * m + 1, w, bias[channels], training)
            dx, dweight, dbias = F.batch_norm_backward(upstream, context)
            yield from (y, dx, m[None, :, None], dweight[None, :, None], dbias[None, :, None])

    assert 2 * x.nbytes > 32 << 20
    whole = list(run(slice(None)))
    for first in range(0, 16, 4):
        channels = slice(first, first + 4)
        for large, small in zip(whole, run(channels), strict=True):
            np.testing.assert_array_equal(large[:, channels], small)


@pytest.mark.parametrize("offset", [1, 4, 8])
@pytest.mark.parametrize(("shape", "channel_axis"), [((3, 16, 90_112), 1), ((3, 90_112, 16), -1)])
def test_large_results_may_lie_anywhere(shape, channel_axis, offset):
    """Only whole cache lines bypass the caches: so many numbers behind a line's start there are none."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal(shape, np.float32)
    mean, weight = rng.standard_normal((2, 16), np.float32)
    memory = np.empty(x.size + 32, np.float32)
    start = -(memory.ctypes.data // 4) % 16 + offset
    out = memory[start : start + x.size].reshape(shape)
    assert 2 * x.nbytes > 32 << 20
    for training in (True, False):
        arguments = mean.copy(), mean * mean + 1, weight, None, training
        F.batch_norm(x, *arguments, channel_axis=channel_axis, out=out)
        arguments[0][...], arguments[1][...] = mean, mean * mean + 1
        np.testing.assert_array_equal(out, F.batch_norm(x, *arguments, channel_axis=channel_axis))
