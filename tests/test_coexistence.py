"""What importing fastnn does to the process around it: nothing; and that it works beside others in any order."""

import importlib.util
import os
import subprocess
import sys

import pytest

from fastnn import _kernels


def run(code, **environment):
    """What a fresh process prints, which has to end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


ENVIRONMENT = """
import ctypes, os, numpy
def environment():  # as Python holds it and as C does
    library = ctypes.CDLL(None)
    return dict(os.environ), [library.getenv(name) for name in (b"OMP_NUM_THREADS", b"GOMP_SPINCOUNT")]
before = environment()
import fastnn, fastnn.train, fastnn.functional as F
F.relu(numpy.ones((1024, 1024), numpy.float32))
assert environment() == before, before
print("fine")
"""


def test_the_environment_is_left_as_it_was():
    assert run(ENVIRONMENT) == ["fine"]


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")
def test_import_starts_no_thread():
    code = (
        "import os, numpy; before = len(os.listdir('/proc/self/task'));"
        "import fastnn, fastnn.train, fastnn.schedules, fastnn.checkpoint;"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    assert run(code) == ["0"]


FLOATING_POINT = """
import ctypes, ctypes.util, numpy
def state():  # x87 control word; MXCSR without its six sticky flags: rounding, masks, flushing of subnormals
    buffer = ctypes.create_string_buffer(64)
    assert ctypes.CDLL(ctypes.util.find_library("m")).fegetenv(buffer) == 0
    return int.from_bytes(buffer.raw[0:2], "little"), int.from_bytes(buffer.raw[28:32], "little") & ~0x3F
before = state()
import fastnn, fastnn.functional as F
assert state() == before, (before, state())
x = numpy.random.default_rng(0).standard_normal((4, 8, 16, 16)).astype(numpy.float32)
y, ctx = F.batch_norm_forward(x, None, None, training=True)
F.batch_norm_backward(y, ctx), F.dropout(x), F.gelu(x), F.conv2d(x, x[:, :, :3, :3])
assert state() == before, (before, state())
print(before[1] & 0x8040)
"""


@pytest.mark.skipif("x86_64" not in _kernels.ISA, reason="the layout of fenv_t on x86-64")
def test_floating_point_state_is_left_alone():
    assert run(FLOATING_POINT) == ["0"]  # neither flush-to-zero nor denormals-are-zero


# A computation with each neighbour that uses its threads, so that a clash of run-time libraries would show.
NEIGHBOURS = {
    "torch": "import torch; assert torch.layer_norm(torch.ones(512, 768), (768,)).abs().max() == 0",
    "jax": "import jax; assert jax.jit(lambda a: (a @ a).sum())(jax.numpy.ones((256, 256))) == 256**3",
    "sklearn": "from sklearn.cluster import KMeans; KMeans(3, n_init=1).fit(x[:300, :8])",
    "scipy": "import scipy.linalg; scipy.linalg.svd(x[:64, :64])",
}
OURS = "import fastnn.functional as F; y = F.layer_norm(x, 768); assert abs(float(y.mean())) < 1e-6"
DATA = "import numpy; x = numpy.random.default_rng(0).standard_normal((2048, 768)).astype(numpy.float32)"


@pytest.mark.peers
@pytest.mark.parametrize("first", [True, False], ids=["fastnn first", "fastnn last"])
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_beside_other_libraries(neighbour, first):
    if importlib.util.find_spec(neighbour) is None:
        pytest.skip(f"{neighbour} is not installed")
    theirs = NEIGHBOURS[neighbour]
    order = [OURS, theirs] if first else [theirs, OURS]
    code = "\n".join([DATA, *order, *order, "print('fine')"])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["fine"], done.stderr
