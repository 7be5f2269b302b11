"""What the documents show runs: the Python of README and guide, and every example with the claims that it asserts."""

import importlib
import os
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest

import fastnn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "docs/index.rst", *sorted((ROOT / "docs/guide").glob("*.rst"))]
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


def write_model_and_images(folder):
    """The files that the documents read; the model's classes."""
    model = fastnn.Sequential(
        fastnn.Conv2d(1, 32, 3, padding=1, rng=0),
        *(fastnn.BatchNorm(32), fastnn.ReLU(), fastnn.MaxPool2d(2), fastnn.Flatten()),
        fastnn.Linear(512, 10, rng=0),
    )
    fastnn.save(folder / "model.safetensors", model.state_dict())
    images = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    np.save(folder / "images.npy", images)
    return model.eval()(images).argmax(axis=1)


def test_readme_inference(tmp_path):
    expected = write_model_and_images(tmp_path)
    printed = run(["-W", "error", "-c", code_under("Ten lines of inference")], tmp_path)
    classes = [int(c) for c in re.findall(r"class (\d+)", printed)]
    assert classes == expected.tolist()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_guide(page, tmp_path):
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", page.read_text(), re.MULTILINE)
    write_model_and_images(tmp_path)
    run(["-W", "error", "-c", "".join(map(textwrap.dedent, blocks))], tmp_path)


def test_reference_has_every_public_name():
    shown = []
    for page in (ROOT / "docs/api").glob("*.rst"):
        text = page.read_text()
        module = (
            importlib.import_module(re.search(r"currentmodule:: (\S+)", text)[1]) if "currentmodule" in text else None
        )
        for block in re.findall(r":toctree: generated\n\n((?:   \S+\n)+)", text):
            for name in block.split():
                value = module
                for part in name.split("."):
                    value = getattr(value, part)
                shown.append(value)
    public = [
        fastnn,
        *(value for name in fastnn.__all__ if isinstance(value := getattr(fastnn, name), types.ModuleType)),
    ]
    names = {f"{module.__name__}.{name}": getattr(module, name) for module in public for name in module.__all__}
    assert len(shown) == len({id(value) for value in shown}) > 100
    missing = [
        name
        for name, value in names.items()
        if not (isinstance(value, types.ModuleType) or name.endswith(("_forward", "_backward", "__version__")))
        and not any(value is other for other in shown)
    ]
    assert missing == []


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
