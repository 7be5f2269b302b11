"""The command line: what it trains and writes, what it refuses, how it stops, resumes and survives being killed."""

import csv
import gzip
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import _kernels
from fastnn.cli import data, idx, report
from fastnn.cli.augment import moved
from fastnn.cli.errors import Refusal
from fastnn.cli.main import main
from fastnn.train import History

FILES = {"model.safetensors", "checkpoint.safetensors", "history.csv", "loss.png"}


def vectors(n=80, seed=0, labels=(3, 5, 9)):
    """Separable classes with labels that are not 0 … K − 1."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(labels), n)
    return (rng.standard_normal((n, 6)) + 4 * np.eye(len(labels), 6)[y]).astype(np.float32), np.array(labels)[y]


def images(n=60, seed=0, shape=(8, 8)):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.integers(0, 100, (n, *shape))
    x[y == 1, : shape[0] // 2] += 120
    return x.astype(np.uint8), y.astype(np.uint8)


@pytest.fixture
def npz(tmp_path):
    x, y = vectors()
    np.savez(tmp_path / "set.npz", x=x, y=y)
    return tmp_path / "set.npz"


@pytest.fixture
def figures():
    """Ask for it where the picture matters: drawing takes longer than most of these runs."""
    pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def no_figures(request, monkeypatch):
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(report, "write_figure", lambda *arguments: False)


def run(*arguments):
    return main([str(argument) for argument in arguments])


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def refused(capsys, *arguments):
    """The one sentence on stderr; exit code 2, nothing on stdout."""
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastnn: ")
    assert err.count("\n") == 1
    return err[len("fastnn: ") :]


def write_idx(path, array, code=None):
    codes = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    head = struct.pack(">HBB", 0, code or codes[array.dtype.str[1:]], array.ndim)
    content = (
        head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


# -- training --------------------------------------------------------------------------------------------------------


def test_digits(tmp_path, capsys, figures):
    """The whole path on the real data, briefly: 5 epochs reach what a linear model never does."""
    pytest.importorskip("sklearn")
    out = tmp_path / "run"
    assert run("train", "--out", out, "--epochs", 5) == 0
    printed, shown = capsys.readouterr()
    assert {path.name for path in out.iterdir()} == FILES
    accuracy = float(re.search(r"test accuracy +([\d.]+)%", printed)[1])
    assert accuracy > 97
    assert "digits: 1347 training and 450 held-out samples of 1×8×8, 10 classes" in printed
    assert re.search(r"110 steps in [\d.]+ s, \d+ samples/s", printed)
    if "tqdm" in sys.modules:
        assert re.search(r"loss .*accuracy .*lr ", shown)

    rows = table(out / "history.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 111))
    assert [row["epoch"] for row in rows[::22]] == ["1", "2", "3", "4", "5"]
    assert float(rows[-1]["test_accuracy"]) * 100 == pytest.approx(accuracy, abs=0.005)
    assert rows[0]["test_loss"] == ""
    assert float(rows[-1]["training_loss"]) < 0.1 < float(rows[0]["loss"])
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")

    assert run("predict", out / "model.safetensors") == 0
    printed = capsys.readouterr().out
    assert f"accuracy     {accuracy:.2f}%" in printed
    predictions = table(out / "predictions.csv")
    assert len(predictions) == 450
    right = np.mean([row["prediction"] == row["label"] for row in predictions])
    assert right * 100 == pytest.approx(accuracy, abs=0.005)


def test_the_model_file_is_a_plain_state_dict(tmp_path, npz):
    """Names and arrays as PyTorch has them; the architecture as JSON beside them."""
    assert run("train", "--data", npz, "--out", tmp_path / "run", "--quick") == 0
    arrays = fastnn.load(tmp_path / "run" / "model.safetensors")
    assert {"1.weight", "2.running_mean", "2.num_batches_tracked", "9.bias"} <= arrays.keys()
    metadata = fastnn.load_metadata(tmp_path / "run" / "model.safetensors")
    assert metadata["format"] == "pt"
    assert json.loads(metadata["fastnn.architecture"])["widths"] == [128, 128]


@pytest.mark.parametrize(
    "options",
    [
        ["--norm", "layer"], ["--norm", "group"], ["--norm", "rms"], ["--norm", "none", "--lr", "0.02"],
        ["--schedule", "constant", "--warmup", "0"], ["--schedule", "exponential"], ["--constraint", "30"],
        ["--weight-decay", "0", "--dropout", "0"], ["--accumulate", "3", "--batch-size", "5"],
        *(["--init", name] for name in ("default", "kaiming_uniform", "xavier_normal", "xavier_uniform",
                                        "lecun_normal", "orthogonal")),
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_of_the_perceptron(tmp_path, capsys, npz, options):
    assert run("train", "--data", npz, "--out", tmp_path / "run", "--epochs", 8, "--batch-size", 16, *options) == 0
    assert float(re.search(r"test accuracy +([\d.]+)%", capsys.readouterr().out)[1]) > 90


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group", "rms", "none"])
def test_norms_of_the_convolutional_net(tmp_path, norm):
    x, y = images(40)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    assert run("train", "--data", tmp_path / "set.npz", "--out", tmp_path / "run", "--quick", "--norm", norm) == 0


def test_constraint_holds(tmp_path, npz):
    assert run("train", "--data", npz, "--out", tmp_path / "run", "--quick", "--constraint", "5") == 0
    model = fastnn.load(tmp_path / "run" / "model.safetensors")
    parameters = [value for name, value in model.items() if name.endswith((".weight", ".bias"))]
    assert sum(float((value.astype(float) ** 2).sum()) for value in parameters) <= 5 * (1 + 1e-6)


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path, npz):
    """Also for other thread counts."""
    before = fastnn.get_num_threads()
    try:
        for name, seed, threads in [("a", 1, 1), ("b", 1, 2), ("c", 2, 1)]:
            options = ["--seed", seed, "--threads", threads, "--quick"]
            assert run("train", "--data", npz, "--out", tmp_path / name, *options) == 0
    finally:
        fastnn.set_num_threads(before)
    for file in ("model.safetensors", "checkpoint.safetensors", "history.csv"):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b != c


def test_same_bytes_for_every_build_with_fused_multiply_add(tmp_path):
    """And with 1 to 3 threads: a convolutional net, batch norm, dropout and accumulation, at sizes that are shared."""
    builds = [level for level in _kernels.available() if level in ("x86_64_v3", "x86_64_v4")] or [_kernels.ISA]
    x, y = images(160, shape=(14, 14))
    np.savez(tmp_path / "set.npz", x=x, y=y)
    results = set()
    for build, threads in [(builds[0], 1), (builds[0], 3), (builds[-1], 2)]:
        out = tmp_path / f"{build}-{threads}"
        options = ["--data", tmp_path / "set.npz", "--out", out, "--threads", threads, "--epochs", 1, "--accumulate", 2]
        environment = os.environ | {"FASTNN_ISA": build, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "fastnn", "train", *map(str, options)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        results.add(tuple((out / name).read_bytes() for name in ("model.safetensors", "history.csv")))
    assert len(results) == 1


def test_without_matplotlib_and_tqdm(tmp_path, capsys, monkeypatch, npz, figures):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run("train", "--data", npz, "--out", tmp_path / "run", "--quick") == 0
    assert capsys.readouterr().err == "fastnn: no loss.png without matplotlib: pip install 'fastnn[demo]'\n"
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES - {"loss.png"}


def test_without_scikit_learn(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    message = refused(capsys, "train", "--out", tmp_path / "run")
    assert message == "--data digits needs scikit-learn: pip install 'fastnn[demo]'\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("last", [0.0, 1e-30, 1e30, 0.5])
def test_the_figure_holds_losses_of_any_size(tmp_path, figures, last):
    # A loss of 0 has no place on a logarithmic axis; the curve's last value stands beside it all the same.
    falling = np.array([2.0, 0.5, last])
    history = History(falling, np.full(3, 0.1), np.arange(1, 4), falling, falling, falling * 0, falling)
    assert report.write_figure(tmp_path / "loss.png", history, 1, "title", "subtitle")
    assert (tmp_path / "loss.png").stat().st_size > 10_000


def test_divergence_is_one_sentence(tmp_path, capsys, npz):
    assert run("train", "--data", npz, "--out", tmp_path / "run", "--lr", "1e38", "--norm", "none") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"fastnn: the loss became (nan|inf) at step \d+ \(epoch \d+\): use a lower learning rate", message)
    assert not (tmp_path / "run" / "model.safetensors").exists()


# -- data ------------------------------------------------------------------------------------------------------------


def test_split_is_stratified():
    y = np.repeat([7, 1, 4], [101, 40, 3])
    np.random.default_rng(0).shuffle(y)
    kept, held = data.split(y, 4, seed=5)
    assert len(held) == 36
    assert sorted([*kept, *held]) == list(range(144))
    for label, count in [(7, 101), (1, 40), (4, 3)]:
        assert abs((y[held] == label).sum() - count / 4) < 1
    assert (data.split(y, 4, seed=5)[1] == held).all()
    assert (data.split(y, 4, seed=6)[1] != held).any()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_folder_of_idx_files(tmp_path, suffix, dot):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for stem, array in [
        (f"train-images{dot}idx3", images(30)[0]), (f"train-labels{dot}idx1", images(30)[1]),
        (f"t10k-images{dot}idx3", images(12, seed=1)[0]), (f"t10k-labels{dot}idx1", images(12, seed=1)[1]),
    ]:  # fmt: skip
        write_idx(folder / f"{stem}-ubyte{suffix}", array)
    loaded = data.load(str(folder))
    np.testing.assert_array_equal(loaded.whole.x[:, 0], images(30)[0])
    np.testing.assert_array_equal(loaded.whole.y, images(30)[1])
    np.testing.assert_array_equal(loaded.test.x[:, 0], images(12, seed=1)[0])
    assert loaded.whole.x.dtype == np.float32
    assert run("train", "--data", folder, "--out", tmp_path / "run", "--quick") == 0
    assert run("predict", tmp_path / "run" / "model.safetensors", "--data", folder) == 0
    assert len((tmp_path / "run" / "predictions.csv").read_text().splitlines()) == 13


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx_types(tmp_path, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    write_idx(tmp_path / "f", array)
    read = idx.read(tmp_path / "f")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with the bytes"),
        (b"\0\0\x08", "begins with the bytes"),
        (b"\0\1\x08\1\0\0\0\1a", "begins with the bytes"),
        (b"\0\0\x07\1\0\0\0\1a", "begins with the bytes"),
        (b"\0\0\x08\0a", "begins with the bytes"),
        (b"\0\0\x08\2\0\0\0\1", "ends within its header"),
        (b"\0\0\x08\1\0\0\0\3ab", "promises 3 bytes of shape .* it has only 2"),
        (b"\0\0\x08\1\0\0\0\1ab", "it has more"),
        (b"\0\0\x0e\3" + b"\xff" * 12, "it has only 0"),
        (b"\x1f\x8b\x08\0garbage", ""),
        (gzip.compress(b"\0\0\x08\1\0\0\0\3abc")[:-4], ""),
    ],
)
def test_malformed_idx_files(tmp_path, capsys, content, message):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train-images-idx3-ubyte").write_bytes(content)
    said = refused(capsys, "train", "--data", tmp_path / "set", "--out", tmp_path / "run")
    assert "not a readable IDX file" in said
    assert re.search(message, said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(3)}, "needs an array x .* it has z"),
        ({"x": vectors()[0]}, "training needs the labels y"),
        ({"x": vectors()[0], "y": vectors()[1], "x_test": vectors()[0]}, "training needs the labels y_test"),
        ({"x": vectors()[0], "y": vectors()[1][:70]}, "x has 80 samples, y has 70 labels"),
        ({"x": vectors()[0], "y": np.eye(3)[vectors()[1] % 3]}, "one class label .* array of float64 with shape"),
        ({"x": vectors()[0], "y": vectors()[1] + 0.5}, "one class label"),
        ({"x": vectors()[0], "y": np.zeros(80, int)}, "labels of at least two classes, got 1"),
        ({"x": vectors()[0] * np.nan, "y": vectors()[1]}, "NaN"),
        ({"x": vectors()[0].astype(float) * 1e300, "y": vectors()[1]}, "outside the range of float32"),
        ({"x": vectors()[0].astype(complex), "y": vectors()[1]}, "must hold real numbers, its dtype is complex128"),
        ({"x": np.zeros(80), "y": vectors()[1]}, "must have shape"),
        ({"x": np.zeros((0, 6)), "y": np.zeros(0, int)}, "not be empty"),
        ({"x": np.zeros((1, 6)), "y": np.zeros(1, int)}, "one sample is too few"),
        ({"x": vectors()[0], "y": vectors()[1], "x_test": np.zeros((9, 5)), "y_test": np.zeros(9, int)},
         r"x_test has samples of shape \(5,\), x has \(6,\)"),
        ({"x": vectors()[0], "y": vectors()[1], "x_test": vectors()[0], "y_test": vectors()[1] + 1},
         "the label 4 is none of the 3"),
        ({"x": np.array([{}], object), "y": np.zeros(1, int)}, "not a readable .npz file"),
    ],
)  # fmt: skip
def test_refused_arrays(tmp_path, capsys, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    said = refused(capsys, "train", "--data", tmp_path / "set.npz", "--out", tmp_path / "run")
    assert re.search(message, said), said
    assert not (tmp_path / "run").exists()


def test_refused_files(tmp_path, capsys):
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "cut.npz", x=vectors()[0], y=vectors()[1])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:500])
    (tmp_path / "folder").mkdir()
    for name, message in [
        ("absent.npz", "there is no such file or folder"), ("single.npy", "this is a single array"),
        ("text.npz", "not a readable .npz file (it is no whole ZIP archive)"),
        ("empty.npz", "not a readable .npz file"),
        ("cut.npz", "not a readable .npz file"), ("folder", "holds no train-images-idx3-ubyte"),
    ]:  # fmt: skip
        assert message in refused(capsys, "train", "--data", tmp_path / name, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_in_either_layout_and_text_labels(tmp_path, capsys):
    x = np.random.default_rng(0).standard_normal((40, 8, 10, 3))
    y = np.where(x[:, :, :, 0].mean(axis=(1, 2)) > 0, "up", "down")
    x[y == "up"] += 1
    np.savez(tmp_path / "last.npz", x=x, y=y)
    np.savez(tmp_path / "first.npz", x=x.transpose(0, 3, 1, 2), y=y)
    for name in ("last", "first"):
        assert run("train", "--data", tmp_path / f"{name}.npz", "--out", tmp_path / name, "--quick") == 0
    assert "samples of 3×8×10, 2 classes" in capsys.readouterr().out
    last, first = (fastnn.load(tmp_path / name / "model.safetensors") for name in ("last", "first"))
    assert all((last[name] == first[name]).all() for name in last)
    assert run("predict", tmp_path / "last" / "model.safetensors", "--data", tmp_path / "last.npz") == 0
    predictions = table(tmp_path / "last" / "predictions.csv")
    assert len(predictions) == 10  # of the data trained on, what was held out
    assert {row["label"] for row in predictions} == {"up", "down"}


def plane(shape, normal):
    """Images of one linear function of the place, which linear interpolation reproduces, and those places."""
    places = np.indices(shape).astype(np.float64)
    places -= (np.array(shape).reshape(2, 1, 1) - 1) / 2
    return np.tensordot(np.array(normal), places, 1).astype(np.float32), places


def motion(before, after):
    """Matrix and offset that a movement of (two) linear images amounts to, from their middle pixels."""
    middle = np.s_[8:-8, 8:-8]
    places = np.stack([np.ones_like(before[0]), *before])[:, *middle].reshape(3, -1)
    return np.linalg.lstsq(places.T, np.stack([image[middle].ravel() for image in after], 1), rcond=None)[0]


def test_images_are_moved():
    """Rows and columns as images tell where each pixel came from: by a rotation, a magnification and a shift."""
    x = np.stack([plane((40, 31), (1, 0))[0], plane((40, 31), (0, 1))[0]])
    count = 400
    images = moved(np.stack([x] * count), fastnn.Generator(0), 3.0, 20.0, 0.1)
    found = np.stack([motion(x, image) for image in images])
    shift, matrix = found[:, 0], found[:, 1:].transpose(0, 2, 1)
    zoom = np.sqrt(np.linalg.det(matrix))
    np.testing.assert_allclose(matrix @ matrix.transpose(0, 2, 1), zoom[:, None, None] ** 2 * np.eye(2), atol=1e-5)
    angle = np.degrees(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    for values, least, most in ((shift, -3, 3), (angle, -20, 20), (1 / zoom, 0.9, 1.1)):
        width = most - least
        assert least - 1e-4 <= values.min() < least + 0.02 * width  # 400 uniform values leave no larger gap
        assert most - 0.02 * width < values.max() <= most + 1e-4
    drawn = np.stack([*shift.T, angle, zoom])
    assert abs(np.corrcoef(drawn) - np.eye(4)).max() < 4 / count**0.5


def test_images_that_move_by_nothing_stay():
    x = np.random.default_rng(0).standard_normal((3, 2, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(moved(x, fastnn.Generator(0), 0.0, 0.0, 0.0), x)


def test_edges_repeat():
    x = np.zeros((50, 1, 5, 5), np.float32)
    x[..., 0] = 1
    images = moved(x, fastnn.Generator(0), 4.0, 0.0, 0.0)
    assert images.min() == 0
    right = images[:, 0, 0].argmin(axis=1)  # where the edge's pixels end
    assert (right == 5).sum() == 0
    assert {(image[:, : k - 1] == 1).all() for image, k in zip(images[:, 0], right) if k > 0} == {True}


# -- options and folders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is needed"),
        (["fly"], "invalid choice: 'fly'"),
        (["train", "--lr", "0"], "--lr: must be a finite number greater than 0, got '0'"),
        (["train", "--lr", "nan"], "--lr: must be"),
        (["train", "--lr", "inf"], "--lr: must be"),
        (["train", "--lr", "fast"], "--lr: must be"),
        (["train", "--lr"], "--lr: expected one argument"),
        (["train", "--dropout", "1"], "--dropout: must be a number of at least 0 and less than 1"),
        (["train", "--momentum", "-0.1"], "--momentum: must be"),
        (["train", "--shift", "-1"], "--shift: must be a finite number of at least 0"),
        (["train", "--rotate", "180"], "--rotate: must be a number of at least 0 and less than 180"),
        (["train", "--zoom", "1"], "--zoom: must be a number of at least 0 and less than 1"),
        (["train", "--epochs", "0"], "--epochs: must be an integer of at least 1"),
        (["train", "--epochs", "2.5"], "--epochs: must be"),
        (["train", "--batch-size", "0"], "--batch-size: must be"),
        (["train", "--accumulate", "0"], "--accumulate: must be"),
        (["train", "--threads", "0"], "--threads: must be"),
        (["train", "--seed", "-1"], "--seed: must be"),
        (["train", "--seed", str(2**64)], "--seed: must be"),
        (["train", "--norm", "spectral"], "--norm: invalid choice"),
        (["train", "--init", "magic"], "--init: invalid choice"),
        (["train", "--schedule", "magic"], "--schedule: invalid choice"),
        (["train", "--model", "transformer"], "--model: invalid choice"),
        (["train", "--weight-decay", "1", "--constraint", "1"], "not allowed with"),
        (["train", "--resume", "--force"], "not allowed with"),
        (["train", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["train", "digits"], "unrecognized arguments"),
        (["predict"], "required: model"),
        (["info", "more"], "unrecognized arguments"),
    ],
)
def test_bad_options(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_models_that_do_not_fit_the_data(tmp_path, capsys, npz):
    out = tmp_path / "run"
    assert "the conv model needs images" in refused(capsys, "train", "--data", npz, "--model", "conv", "--out", out)
    assert "instance norm needs images" in refused(capsys, "train", "--data", npz, "--norm", "instance", "--out", out)
    assert not out.exists()


def test_folders_are_not_overwritten(tmp_path, capsys, npz):
    out = tmp_path / "run"
    train = ["train", "--data", npz, "--out", out, "--quick"]
    assert run(*train) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "already holds a run" in refused(capsys, *train, "--seed", 1)
    (tmp_path / "file").write_text("mine")
    assert "this is not a folder" in refused(capsys, "train", "--data", npz, "--out", tmp_path / "file")
    assert "Not a directory" in refused(capsys, "train", "--data", npz, "--out", tmp_path / "file" / "below")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert (tmp_path / "file").read_text() == "mine"
    (out / "notes.txt").write_text("mine")
    assert run(*train, "--seed", 1, "--force") == 0
    assert (out / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert (out / "notes.txt").read_text() == "mine"


def test_a_mistake_with_force_costs_nothing(tmp_path, capsys, npz):
    out = tmp_path / "run"
    assert run("train", "--data", npz, "--out", out, "--quick") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for wrong in (["--data", tmp_path / "absent"], ["--data", npz, "--model", "conv"], ["--data", npz, "--lr", "x"]):
        refused(capsys, "train", *wrong, "--out", out, "--force")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# -- stopping, resuming, being killed --------------------------------------------------------------------------------


def start(*arguments, **environment):
    command = [sys.executable, "-m", "fastnn", *map(str, arguments)]
    source = str(Path(fastnn.__file__).parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": path} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(path, process, before=None, seconds=30):
    """Until the process has written the file, or replaced the one that had this inode."""
    deadline = time.monotonic() + seconds
    while not path.exists() or path.stat().st_ino == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


LONG = ["--batch-size", 8, "--epochs", 60]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The data and the folder of a run of 480 steps that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    x, y = vectors()
    np.savez(folder / "set.npz", x=x, y=y)
    assert run("train", "--data", folder / "set.npz", *LONG, "--out", folder / "run") == 0
    return folder / "set.npz", folder / "run"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_runs_resume_to_the_same_bytes(tmp_path, figures, unbroken, number):
    source, whole = unbroken
    out = tmp_path / "broken"
    process = start("train", "--data", source, *LONG, "--out", out)
    wait_for(out / "checkpoint.safetensors", process)
    process.send_signal(number)
    printed, err = process.communicate(timeout=30)
    assert process.returncode == 130, (printed, err)
    said = re.search(r"fastnn: stopped after step (\d+) of 480, saved in (.*); continue with: .* --resume\n$", err)
    assert said, err
    assert said[2] == str(out)
    assert "Traceback" not in err
    assert {path.name for path in out.iterdir()} == FILES
    assert run("predict", out / "model.safetensors", "--data", source, "--out", tmp_path / "some.csv") == 0
    assert run("train", "--out", out, "--resume") == 0
    for path in whole.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


def test_killed_runs_leave_whole_files(tmp_path, unbroken):
    """A few of the kills of a longer campaign: bench/kill_training.py makes as many as one likes."""
    source, whole = unbroken
    out = tmp_path / "killed"
    for attempt in range(3):
        before = (out / "checkpoint.safetensors").stat().st_ino if attempt else None
        process = start("train", "--data", source, *LONG, "--out", out, *(["--resume"] if attempt else []))
        wait_for(out / "checkpoint.safetensors", process, before)
        time.sleep(0.01 * attempt)
        process.kill()
        process.communicate()
        for path in out.iterdir():
            assert path.name in FILES
            if path.suffix == ".safetensors":
                fastnn.load(path)
    assert run("train", "--out", out, "--resume") == 0
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_what_cannot_be_resumed(tmp_path, capsys, npz):
    out = tmp_path / "run"
    assert "there is no checkpoint.safetensors" in refused(capsys, "train", "--out", out, "--resume")
    assert run("train", "--data", npz, "--out", out, "--quick") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    said = refused(capsys, "train", "--out", out, "--resume", "--lr", "0.2")
    assert f"the run in {out} has --lr 0.1, not 0.2" in said
    np.savez(tmp_path / "other.npz", x=vectors(seed=1)[0], y=vectors(seed=1)[1])
    said = refused(capsys, "train", "--out", out, "--resume", "--data", tmp_path / "other.npz")
    assert "these are not the data of the run" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    npz.rename(tmp_path / "moved.npz")
    assert "there is no such file" in refused(capsys, "train", "--out", out, "--resume")
    assert run("train", "--out", out, "--resume", "--data", tmp_path / "moved.npz", "--lr", "0.1") == 0
    assert (out / "model.safetensors").read_bytes() == before["model.safetensors"]
    for content in (b"", before["checkpoint.safetensors"][:-1], before["model.safetensors"]):
        (out / "checkpoint.safetensors").write_bytes(content)
        refused(capsys, "train", "--out", out, "--resume")


# -- predict and info ------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path, npz):
    assert run("train", "--data", npz, "--out", tmp_path / "run", "--quick") == 0
    return tmp_path / "run" / "model.safetensors"


def test_predict_new_data(tmp_path, capsys, trained):
    """All of a file that was not trained on; with labels the accuracy, without them only predictions."""
    x, y = vectors(30, seed=5)
    np.savez(tmp_path / "new.npz", x=x, y=y)
    np.savez(tmp_path / "unlabelled.npz", x=x)
    assert run("predict", trained, "--data", tmp_path / "new.npz", "--out", tmp_path / "a.csv") == 0
    assert re.search(r"accuracy     [\d.]+% \(\d+ of 30\)", capsys.readouterr().out)
    assert run("predict", trained, "--data", tmp_path / "unlabelled.npz", "--out", tmp_path / "b.csv") == 0
    assert "accuracy" not in capsys.readouterr().out
    a, b = (table(tmp_path / name) for name in ("a.csv", "b.csv"))
    assert [row["prediction"] for row in a] == [row["prediction"] for row in b]
    assert [int(row["label"]) for row in a] == y.tolist()
    assert [int(row["sample"]) for row in b] == list(range(30))
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in b)


def test_what_predict_refuses(tmp_path, capsys, trained, npz):
    x, y = vectors(30, seed=5)
    np.savez(tmp_path / "wide.npz", x=np.zeros((4, 7)))
    np.savez(tmp_path / "labels.npz", x=x, y=y + 1)
    (tmp_path / "garbage").write_text("garbage!")
    (tmp_path / "mine.csv").write_text("mine")
    plain = {"1.weight": np.zeros(3)}
    fastnn.save(tmp_path / "plain.safetensors", plain)
    for arguments, message in [
        ([tmp_path / "absent"], "No such file"),
        ([tmp_path], "Is a directory"),
        ([tmp_path / "garbage"], "not a well-formed safetensors file"),
        ([tmp_path / "plain.safetensors"], "no model that fastnn train wrote"),
        ([trained.with_name("checkpoint.safetensors")], "no model that fastnn train wrote"),
        ([trained, "--data", tmp_path / "absent"], "there is no such file or folder"),
        ([trained, "--data", tmp_path / "wide.npz"], r"samples have shape (7,), the model takes (6,)"),
        ([trained, "--data", tmp_path / "labels.npz"], "the label 4 is none of the 3"),
        ([trained, "--data", npz, "--out", tmp_path / "mine.csv"], "exists and holds no predictions"),
        ([trained, "--data", npz, "--out", tmp_path], "this is a folder"),
        ([trained, "--data", npz, "--out", tmp_path / "no" / "where.csv"], "its folder does not exist"),
    ]:
        assert message in refused(capsys, "predict", *arguments)
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert run("predict", trained, "--data", npz) == 0
    assert run("predict", trained, "--data", npz) == 0  # its own file it replaces
    assert run("predict", trained, "--data", npz, "--out", tmp_path / "mine.csv", "--force") == 0


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("architecture", "{}"), ("architecture", "[" * 10_000), ("architecture", "no JSON"),
        ("architecture", {"classes": 10**9}), ("architecture", {"shape": [2**20, 2**20]}),
        ("architecture", {"shape": [2**24]}), ("architecture", {"widths": [2**24]}), ("architecture", {"shape": []}),
        ("architecture", {"kind": "conv"}), ("architecture", {"norm": "instance"}), ("architecture", {"norm": 3}),
        ("architecture", {"dropout": 2.0}), ("architecture", {"widths": [64, 64]}), ("architecture", {"classes": True}),
        ("preparation", {"mean": [0.0]}), ("preparation", {"std": [0.0] * 6}), ("preparation", {"std": ["a"] * 6}),
        ("preparation", {"labels": [1, 2]}), ("preparation", {"labels": [1, 1, 2]}),
        ("preparation", {"labels": [[], 1, 2]}),
        ("preparation", {"split_seed": -1}), ("preparation", {"digest": 3}), ("preparation", "null"),
    ],
)  # fmt: skip
def test_model_files_that_lie(tmp_path, capsys, trained, npz, key, change):
    metadata = fastnn.load_metadata(trained)
    if isinstance(change, dict):
        change = json.dumps(json.loads(metadata[f"fastnn.{key}"]) | change)
    fastnn.save(trained, fastnn.load(trained), metadata | {f"fastnn.{key}": change})
    assert "the model in it is damaged" in refused(capsys, "predict", trained, "--data", npz)


def test_info(capsys):
    assert run("info") == 0
    printed = capsys.readouterr().out
    for line in (r"fastnn +\d", r"ISA build +\w+", r"threads +\d+ \(team: \w+\)", r"Python +3\.", r"numpy +\d"):
        assert re.search(f"^{line}", printed, re.M), printed


def test_module_runs_and_helps():
    process = start("train", "--help")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "--weight-decay" in out
    process = start("predict", "/nowhere/model.safetensors")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (2, "", "fastnn: /nowhere/model.safetensors: No such file or directory\n")


def test_refusal_is_no_value_error():
    """So that no handler of bad data swallows it by mistake."""
    assert not issubclass(Refusal, (ValueError, OSError))
