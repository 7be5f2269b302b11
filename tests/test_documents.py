"""What the documents show runs: the README's Python, and every example with the claims that it asserts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


def run(arguments, folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_under(heading):
    return re.search(rf"## {heading}\n\n```python\n(.*?)```", README, re.DOTALL)[1]


def test_readme_as_a_backend(tmp_path):
    run(["-W", "error", "-c", code_under("Ten lines as a backend")], tmp_path)


def test_readme_inference(tmp_path):
    model = fastnn.Sequential(
        fastnn.Conv2d(1, 32, 3, padding=1, rng=0),
        *(fastnn.BatchNorm(32), fastnn.ReLU(), fastnn.MaxPool2d(2), fastnn.Flatten()),
        fastnn.Linear(512, 10, rng=0),
    )
    fastnn.save(tmp_path / "model.safetensors", model.state_dict())
    images = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    np.save(tmp_path / "images.npy", images)
    printed = run(["-W", "error", "-c", code_under("Ten lines of inference")], tmp_path)
    classes = [int(c) for c in re.findall(r"class (\d+)", printed)]
    assert classes == model.eval()(images).argmax(axis=1).tolist()


def test_readme_links_and_folders_exist():
    places = re.findall(r"\]\(([^)#:]+)\)", README)
    places += re.findall(r"`((?:src|tests|bench|examples|docs)[\w/]*)`", README)
    assert len(places) > 8
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_every_point_of_the_lecture_has_an_example():
    points = {path.name: re.match(r"(\d\d_)+", path.name)[0].split("_")[:-1] for path in EXAMPLES}
    assert {int(point) for numbers in points.values() for point in numbers} == set(range(1, 14))
    rows = re.findall(r"\* - (\d+)\n.*\n     - (.*)", (ROOT / "examples/README.rst").read_text())
    table = {f"{int(point):02}": re.findall(r"``(\w+\.py)``", scripts) for point, scripts in rows}
    assert table == {f"{k:02}": [name for name in points if f"{k:02}" in points[name]] for k in range(1, 14)}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    run([path, tmp_path], ROOT)
    figure = (tmp_path / f"{path.stem}.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    assert len(figure) > 10_000
