"""Frozen networks in files: what is written comes back, and whatever else a file says is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastnn
from fastnn.inference import FrozenError
from fastnn.inference.file import KEY


def network(dtype=np.float32):
    """One node of nearly every kind."""
    return fastnn.Sequential(
        fastnn.BatchNorm(2, dtype=dtype), fastnn.Conv2d(2, 6, 3, padding=1, groups=2, rng=0, dtype=dtype),
        fastnn.GroupNorm(3, 6, dtype=dtype), fastnn.ELU(0.5), fastnn.InstanceNorm(6, dtype=dtype),
        fastnn.Residual(fastnn.Conv2d(6, 6, 1, rng=1, dtype=dtype)), fastnn.BatchNorm(6, dtype=dtype),
        fastnn.MaxPool2d(2), fastnn.AvgPool2d(3, padding=1, stride=1), fastnn.Residual(fastnn.Tanh()), fastnn.Flatten(),
        fastnn.Linear(24, 10, rng=2, dtype=dtype), fastnn.LayerNorm(10, dtype=dtype), fastnn.Softplus(2.0),
        fastnn.RMSNorm(10, dtype=dtype), fastnn.Dropout(0.5, mode="classic"), fastnn.Softmax(1),
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.safetensors"
    model = network()
    model[0].running_mean[...] = 0.25  # so that it is not folded
    fastnn.freeze(model).save(path)
    return path


X = np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(np.float32)


def rewritten(path, description=None, arrays=None):
    """The file with another description or other arrays."""
    metadata = {KEY: description if isinstance(description, str) else json.dumps(description)}
    fastnn.save(path, fastnn.load(path) if arrays is None else arrays, metadata)
    return path


def description_of(path):
    return json.loads(fastnn.load_metadata(path)[KEY])


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_bits(self, tmp_path, dtype):
        frozen = fastnn.freeze(network(dtype))
        frozen.save(tmp_path / "net")
        again = fastnn.load_frozen(tmp_path / "net")
        assert repr(again) == repr(frozen)
        assert again.dtype == dtype
        np.testing.assert_array_equal(again(X.astype(dtype)), frozen(X.astype(dtype)))

    def test_the_same_network_gives_the_same_bytes(self, path, tmp_path):
        fastnn.load_frozen(path).save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == path.read_bytes()

    def test_its_arrays_are_arrays_of_an_ordinary_file(self, path):
        arrays = fastnn.load(path)
        assert arrays["1.weight"].shape == (6, 1, 3, 3)

    def test_what_was_loaded_does_not_change(self, path):
        frozen = fastnn.load_frozen(path)
        assert not any(array.flags.writeable for node in frozen._nodes for array in node.arrays.values())

    def test_loading_imports_neither_layers_nor_training(self, path):
        code = (
            "import sys, numpy as np, fastnn\n"
            f"y = fastnn.load_frozen({str(path)!r})(np.zeros((1, 2, 4, 5), np.float32))\n"
            "print(sorted(name for name in sys.modules if name.startswith(('fastnn.train', 'fastnn.cli', 'pickle'))))"
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.stdout.split() in (["[]"], ["['pickle']"]), done.stderr


NASTY = [
    None, True, -1, 0, 1, 7, 2**15, 2**31, 2**63, -(2**70), 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "relu", "linear", "same", "\x00" * 50, [], [0], [1, 1], [2**15, 2**15], [[]], ["relu", 0, 0], ["softplus", 0, 0],
    [1] * 40, {}, {"eps": 1},
]  # fmt: skip


def places(value, where=()):
    """The ways to every part of a JSON value."""
    yield where
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*where, key))


def changed(value, where, new):
    if not where:
        return new
    copy = value.copy()
    copy[where[0]] = changed(value[where[0]], where[1:], new)
    return copy


class TestHostileFiles:
    def test_every_part_of_the_description_replaced(self, path, monkeypatch):
        """An error of the promised type at loading, or at the call; or an answer of the right form. Never a crash."""
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # thousands of files
        good = description_of(path)
        rng = np.random.default_rng(0)
        refused = answered = 0
        for where in places(good):
            for nasty in (NASTY[k] for k in rng.permutation(len(NASTY))[:9]):
                rewritten(path, changed(good, where, nasty))
                try:
                    frozen = fastnn.load_frozen(path)
                except FrozenError as error:
                    refused += str(path) in str(error) and len(str(error)) < 1000
                    continue
                try:
                    y = frozen(X)
                except (ValueError, MemoryError):
                    continue
                assert y.shape[0] == 3
                answered += 1
        assert refused > 800
        assert answered > 10  # some changes are harmless

    @pytest.mark.parametrize(
        "text",
        ["", "[", "[" * 100_000, "{}", "[]", "null", '{"version": 1, "nodes": []}', '{"version": 2, "nodes": [1]}'],
    )
    def test_no_description(self, path, text):
        with pytest.raises(FrozenError):
            fastnn.load_frozen(rewritten(path, text))

    @pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
    def test_another_version(self, path, version):
        with pytest.raises(FrozenError, match=r"has version .*, this fastnn reads 1"):
            fastnn.load_frozen(rewritten(path, description_of(path) | {"version": version}))

    def test_too_many_nodes(self, path):
        one = {"kind": "elementwise", "source": -1, "residual": None, "activation": None, "settings": {}, "arrays": []}
        with pytest.raises(FrozenError, match="10000 nodes"):
            fastnn.load_frozen(rewritten(path, {"version": 1, "nodes": [one] * 10_001}))

    def test_arrays_that_are_missing_or_too_many_or_of_other_forms(self, path):
        good, arrays = description_of(path), fastnn.load(path)
        for name, array in arrays.items():
            for other in (array.astype(np.float64), array.astype(np.int32), array[:-1], array[None]):
                with pytest.raises(FrozenError):
                    fastnn.load_frozen(rewritten(path, good, arrays | {name: other}))
            with pytest.raises(FrozenError, match="not there"):
                fastnn.load_frozen(rewritten(path, good, {key: arrays[key] for key in arrays if key != name}))
        with pytest.raises(FrozenError, match="does not use all arrays"):
            fastnn.load_frozen(rewritten(path, good, arrays | {"99.weight": np.zeros(2)}))

    def test_an_ordinary_state_dict(self, tmp_path):
        fastnn.save(tmp_path / "state", network().state_dict())
        with pytest.raises(FrozenError, match="holds no frozen network"):
            fastnn.load_frozen(tmp_path / "state")

    def test_no_safetensors_file(self, tmp_path):
        (tmp_path / "text").write_text("hello")
        with pytest.raises(fastnn.checkpoint.CheckpointError):
            fastnn.load_frozen(tmp_path / "text")
        with pytest.raises(FileNotFoundError):
            fastnn.load_frozen(tmp_path / "nowhere")
