"""Kernels read and write their arrays and not one byte beside them: unreadable pages lie right before and behind."""

import ctypes
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

import fastnn.functional as F
from operations import FUNCTIONS, upstream

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")

PAGE = mmap.PAGESIZE
LENGTHS = range(258)


class Guarded:
    """Memory of `pages` pages between two that may not be touched; arrays lie at its end or at its beginning."""

    def __init__(self, pages):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.size = pages * PAGE
        self.map = mmap.mmap(-1, self.size + 2 * PAGE)
        bytes_ = np.frombuffer(self.map, np.uint8)
        for guard in (bytes_.ctypes.data, bytes_.ctypes.data + PAGE + self.size):
            if libc.mprotect(guard, PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect failed")
        self.bytes = bytes_[PAGE : PAGE + self.size]

    def like(self, array, at_end, offset=0):
        """A copy of the array, `offset` elements away from the guard."""
        gap = offset * array.itemsize
        start = self.size - array.nbytes - gap if at_end else gap
        view = self.bytes[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view


@pytest.fixture(scope="module")
def memories():
    return [Guarded(16) for _ in range(12)]


def test_the_guard_works():
    code = (
        "import sys; sys.path[:0] = {path!r}; import ctypes, numpy as np, test_bounds;"
        "a = test_bounds.Guarded(1).like(np.zeros(3), {end}); print(ctypes.c_char.from_address(a.ctypes.data + {at}))"
    )
    plain = os.environ | {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":handle_segv=0"}  # the signal itself
    for end, at, crashes in ((True, 23, False), (True, 24, True), (False, 0, False), (False, -1, True)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(path=sys.path, end=end, at=at)],
            capture_output=True,
            timeout=60,
            env=plain,
        )
        assert (done.returncode == -11) is crashes, done.stderr


@pytest.mark.parametrize("at_end", [True, False], ids=["before a guard", "behind a guard"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_operation(name, at_end, memories):
    """The table's shapes, with arguments, gradient and `out` beside guards."""
    operation = FUNCTIONS[name]
    for dtype in (np.float32, np.float64):
        for offset in (0, 1, 2, 3, 5, 8):
            free = iter(memories)

            def beside(array, free=free, offset=offset):
                return next(free).like(array, at_end, offset)

            expected = operation.run(operation.arguments(dtype))
            arguments = operation.arguments(dtype)
            arguments = {k: beside(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
            more = {"out": beside(np.zeros_like(expected[0]))} if operation.out else {}
            y, context = operation.forward(arguments, **more)
            dy = upstream(y)
            operation.backward(beside(dy) if np.ndim(dy) else dy, context)
            np.testing.assert_array_equal(y, expected[0])


def rows_of(n, dtype):
    return np.linspace(-2, 3, 3 * n, dtype=dtype).reshape(3, n)


BY_LENGTH = {
    "layer_norm": lambda x, b: F.layer_norm_forward(x, x.shape[1], b(x[0]), b(x[1]), out=b(x * 0)),
    "rms_norm": lambda x, b: F.rms_norm_forward(x, x.shape[1], b(x[0]), out=b(x * 0)),
    "batch_norm": lambda x, b: F.batch_norm_forward(x, None, None, b(x[0]), b(x[1]), training=True, out=b(x * 0)),
    "batch_norm of images": lambda x, b: F.batch_norm_forward(
        x.reshape(1, *x.shape), None, None, b(np.ones(3, x.dtype)), b(np.ones(3, x.dtype)), training=True
    ),
    "group_norm": lambda x, b: F.group_norm_forward(x.reshape(1, *x.shape), 3, b(np.ones(3, x.dtype))),
    "standardize": lambda x, b: F.standardize_forward(x, 0, out=b(x * 0)),
    "gelu": lambda x, b: F.gelu_forward(x, out=b(x * 0)),
    "softmax": lambda x, b: F.softmax_forward(x, 1, out=b(x * 0)),
    "dropout": lambda x, b: F.dropout_forward(x, 0.3, out=b(x * 0)),
    "dropout of rows": lambda x, b: F.dropout_forward(x, 0.3, broadcast_axes=0, out=b(x * 0)),
    "gaussian_noise": lambda x, b: F.gaussian_noise_forward(x, 0.3, out=b(x * 0)),
    "mse_loss": lambda x, b: F.mse_loss_forward(x, b(x + 1)),
    "cross_entropy": lambda x, b: F.cross_entropy_forward(x, b(np.zeros(3, np.int64)), b(x[0])),
    "linear": lambda x, b: F.linear_forward(x, b(x[:2]), b(x[0, :2]), out=b(x[:, :2] * 0)),
    "linear to many": lambda x, b: F.linear_forward(b(x[:2].T), b(np.ones((3, 2), x.dtype)), out=b(x.T * 0)),
    "conv2d": lambda x, b: F.conv2d_forward(x.reshape(1, 1, *x.shape), b(np.ones((2, 1, 2, 1), x.dtype)), padding=1),
    "conv2d, channels last": lambda x, b: F.conv2d_forward(
        x.reshape(1, 3, 1, -1), b(np.ones((3, x.shape[1], 2, 1), x.dtype)), padding=1, channel_axis=-1
    ),
    "max_pool2d": lambda x, b: F.max_pool2d_forward(x.reshape(1, 1, *x.shape), 2, 1, 1),
    "avg_pool2d, channels last": lambda x, b: F.avg_pool2d_forward(x.reshape(1, 3, 1, -1), (2, 1), 1, channel_axis=-1),
}


@pytest.mark.parametrize("at_end", [True, False], ids=["before a guard", "behind a guard"])
@pytest.mark.parametrize("name", BY_LENGTH)
def test_every_length(name, at_end, memories):
    """Lengths 0 to 257, whose rests after whole vectors are handled apart."""
    backward = getattr(F, name.split(",")[0].split(" ")[0] + "_backward")
    for dtype in (np.float32, np.float64):
        for n in LENGTHS:
            free = iter(memories)

            def beside(array, free=free):
                return next(free).like(np.ascontiguousarray(array), at_end)

            try:
                y, context = BY_LENGTH[name](beside(rows_of(n, dtype)), beside)
            except ValueError:
                assert n < 2  # what cannot be normalised, or no class at all
                continue
            assert np.all(np.isfinite(y)) or n == 0
            dy = upstream(y)
            backward(beside(dy) if np.ndim(dy) else dy, context)
