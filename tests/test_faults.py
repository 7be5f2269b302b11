"""What cannot be had: memory that is refused, sizes beyond all memory. A MemoryError or ValueError, nothing changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import init

HERE = Path(__file__).parent


def faults(kind, **environment):
    code = [sys.executable, "-X", "faulthandler", str(HERE / "faults.py"), kind]
    paths = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run(code, env=os.environ | paths | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_interpreter_runs_out_of_memory():
    pytest.importorskip("_testcapi")
    assert faults("python") > 500


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="preloads a library over glibc's malloc")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="another library is preloaded")
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_c_library_runs_out_of_memory(tmp_path):
    library = tmp_path / "failing_malloc.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", str(HERE / "failing_malloc.c"), "-o", str(library)], check=True)
    assert faults("malloc", LD_PRELOAD=str(library)) > 100


def huge(*shape, dtype=np.float32):
    """An array of this shape that needs no memory: all elements are one."""
    return np.broadcast_to(np.ones((), dtype), shape)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.relu(huge(2**40, 2**10)),
        lambda: F.layer_norm(huge(2**40, 2**10), 2**10),
        lambda: F.batch_norm(huge(2**20, 3, 2**30), None, None, training=True),
        lambda: F.dropout(huge(2**60)),
        lambda: F.dropout(huge(2**40, 2**10), broadcast_axes=0),
        lambda: F.softmax(huge(2**40, 2**10), 0),
        lambda: F.linear(huge(2**40, 2**10), huge(1, 2**10)),
        lambda: F.conv2d(np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32), padding=2**30),
        lambda: F.avg_pool2d(huge(2**40, 2, 4, 4), 2),
        lambda: F.standardize(huge(2**40, 2**10), 0),
        lambda: F.mse_loss(huge(2**40, 2**10), huge(2**40, 2**10)),
        lambda: F.cross_entropy(huge(2**40, 2**10), np.zeros(3, np.int64)),
        lambda: init.normal((2**40, 2**20)),
        lambda: init.xavier_uniform((2**62, 2**62)),
        lambda: fastnn.Linear(2**40, 2**20),
        lambda: fastnn.BatchNorm(2**60),
        lambda: fastnn.Generator(1).permutation(2**60),
        lambda: fastnn.Generator(1).uniform((2**62, 8)),
    ],
)
def test_sizes_beyond_all_memory(call):
    with pytest.raises((MemoryError, ValueError)):
        call()
