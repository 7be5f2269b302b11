"""The serving example: CSV lines on standard input, and arrays from a thread pool."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn

SERVE = Path(__file__).parent.parent / "examples" / "serve.py"


@pytest.fixture
def path(tmp_path):
    model = fastnn.Sequential(fastnn.Linear(4, 8, rng=0), fastnn.ReLU(), fastnn.Linear(8, 3, rng=1), fastnn.Softmax())
    path = tmp_path / "net.safetensors"
    fastnn.freeze(model).save(path)
    return path


def serve(*arguments, text=""):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", str(SERVE), *map(str, arguments)]
    done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return np.array([[float(number) for number in line.split(",")] for line in done.stdout.splitlines()], np.float32)


def test_lines_of_csv(path):
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    text = "".join(",".join(map(repr, row)) + "\n" for row in x.tolist())
    np.testing.assert_allclose(serve(path, text=text), fastnn.load_frozen(path)(x), rtol=1e-6)


def test_arrays_in_a_thread_pool(path, tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 5, 4)).astype(np.float32)
    files = []
    for k, part in enumerate(x):
        files.append(tmp_path / f"{k}.npy")
        np.save(files[-1], part)
    np.testing.assert_allclose(serve(path, *files), fastnn.load_frozen(path)(x.reshape(100, 4)), rtol=1e-6)


def test_it_is_short():
    assert len(SERVE.read_text().splitlines()) <= 25
