"""Checkpoints against the safetensors package in both directions, and against files that lie."""

import json
import os
import stat
import struct
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as nps
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
from fastnn.checkpoint import CheckpointError

peer = pytest.importorskip("safetensors.numpy")
raw = pytest.importorskip("safetensors")

NUMPY_DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"]


def same(a, b):
    """Equal dtype, shape and bytes (so NaN payloads and signed zeros count)."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def example(dtype, shape=(3, 2), seed=0):
    bits = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    return (bits % 2 if dtype == "?" else bits).view(dtype).reshape(shape)


# -- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 2), (2, 0, 3)])
def test_every_numpy_dtype_both_ways(tmp_path, dtype, shape):
    array = example(dtype, shape)
    fastnn.save(tmp_path / "ours", {"x": array})
    peer.save_file({"x": array}, tmp_path / "theirs")
    assert same(fastnn.load(tmp_path / "theirs")["x"], array)
    assert same(peer.load_file(tmp_path / "ours")["x"], array)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_bytes_equal_the_reference_writer_for_many_arrays(tmp_path):
    sizes = [("é", 2), ("a", 5)]
    arrays = {f"{name}.{dtype}": example(dtype, (size, 3)) for dtype in NUMPY_DTYPES for name, size in sizes}
    arrays['tab\t"quote"\\\x01'] = np.zeros(1, np.float32)
    metadata = {"format": 'pt\n"ü"'}
    fastnn.save(tmp_path / "ours", dict(reversed(arrays.items())), metadata)
    peer.save_file(arrays, tmp_path / "theirs", metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert fastnn.load_metadata(tmp_path / "theirs") == metadata


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__"),
        nps.arrays(st.sampled_from(NUMPY_DTYPES), nps.array_shapes(min_dims=0, min_side=0, max_side=4)),
        max_size=5,
    ),
    metadata=st.none() | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.just("v"), max_size=3),
)
def test_round_trip_of_anything(tmp_path, arrays, metadata):
    path = tmp_path / "any"
    fastnn.save(path, arrays, metadata)
    loaded, theirs = fastnn.load(path), peer.load_file(path)
    assert loaded.keys() == arrays.keys() == theirs.keys()
    assert all(same(loaded[name], arrays[name]) and same(theirs[name], arrays[name]) for name in arrays)
    assert fastnn.load_metadata(path) == (metadata or {})


def test_layouts_byte_orders_and_numbers(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {
        "strided": base[::2, ::-3],
        "fortran": np.asfortranarray(base),
        "swapped": base.astype(">f4"),
        "broadcast": np.broadcast_to(base[0], (3, 6)),
    }
    fastnn.save(tmp_path / "f", arrays | {"int": 7, "float": 0.5, "true": True})
    loaded = fastnn.load(tmp_path / "f")
    for name, array in arrays.items():
        assert same(loaded[name], np.array(array, "=f4", order="C"))
    assert same(loaded["int"], np.array(7))
    assert same(loaded["float"], np.array(0.5))
    assert same(loaded["true"], np.array(True))
    loaded["strided"][0, 0] = 1  # its own, writeable memory


@pytest.mark.parametrize(
    ("dtype", "words"),
    [("bfloat16", "u2"), ("float8_e4m3fn", "u1"), ("float8_e4m3fnuz", "u1"), ("float8_e5m2", "u1"),
     ("float8_e5m2fnuz", "u1"), ("float8_e8m0fnu", "u1")],
)  # fmt: skip
def test_formats_that_numpy_lacks_come_as_float32(tmp_path, dtype, words):
    """All codes there are, written by the safetensors package and by us; ml_dtypes says what they mean."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    codes = np.arange(2 ** (8 * np.dtype(words).itemsize)).astype(words).reshape(-1, 2)
    spec = raw.TensorSpec(dtype=dtype, shape=codes.shape, data_ptr=codes.ctypes.data, data_len=codes.nbytes)
    (tmp_path / "theirs").write_bytes(raw.serialize({"x": spec}, metadata=None))
    expected = codes.view(getattr(ml_dtypes, dtype)).astype(np.float32)
    np.testing.assert_array_equal(fastnn.load(tmp_path / "theirs")["x"], expected)
    number = ~np.isnan(expected)  # the sign of a NaN has no meaning here
    signs = np.signbit(fastnn.load(tmp_path / "theirs")["x"])
    np.testing.assert_array_equal(signs[number], np.signbit(expected)[number])
    fastnn.save(tmp_path / "ours", {"x": codes.view(getattr(ml_dtypes, dtype))})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_f4_packs_two_values_in_a_byte(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    packed = np.arange(256, dtype=np.uint8).reshape(-1, 4)
    spec = raw.TensorSpec(dtype="float4_e2m1fn_x2", shape=packed.shape, data_ptr=packed.ctypes.data, data_len=256)
    (tmp_path / "theirs").write_bytes(raw.serialize({"x": spec}, metadata=None))
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1, 8)
    values = codes.view(ml_dtypes.float4_e2m1fn)
    np.testing.assert_array_equal(fastnn.load(tmp_path / "theirs")["x"], values.astype(np.float32))
    fastnn.save(tmp_path / "ours", {"x": values})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    with pytest.raises(ValueError, match="even number"):
        fastnn.save(tmp_path / "ours", {"x": values[0, :3]})


@pytest.mark.peers
def test_bfloat16_from_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensor = torch.randn(50, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save_file({"x": tensor}, tmp_path / "f")
    assert same(fastnn.load(tmp_path / "f")["x"], tensor.float().numpy())


# -- what save refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "metadata", "error", "message"),
    [
        ({"x": np.zeros(2, complex)}, None, TypeError, "x has dtype complex128"),
        ({"x": np.array(["a"])}, None, TypeError, "x has dtype <U1"),
        ({"x": np.zeros(1, "M8[s]")}, None, TypeError, "x has dtype"),
        ({"x": 2**70}, None, TypeError, "x has dtype object"),
        ({"__metadata__": np.zeros(2)}, None, ValueError, "reserves"),
        ({3: np.zeros(2)}, None, TypeError, "array names must be str, got int"),
        ({"\ud800": np.zeros(2)}, None, ValueError, "valid Unicode"),
        ({}, {"a": 1}, TypeError, r"metadata\['a'\] must be str, got int"),
        ({}, {1: "a"}, TypeError, "metadata keys must be str, got int"),
    ],
)
def test_save_refuses_and_keeps_the_old_file(tmp_path, arrays, metadata, error, message):
    fastnn.save(tmp_path / "f", {"x": np.ones(1)})
    with pytest.raises(error, match=message):
        fastnn.save(tmp_path / "f", arrays, metadata)
    assert fastnn.load(tmp_path / "f")["x"] == 1
    assert os.listdir(tmp_path) == ["f"]


# -- files that lie --------------------------------------------------------------------------------------------------


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def build(header, data=b"\0" * 8, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


RECORD = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
EMPTY = b'{"dtype":"F32","shape":[0],"data_offsets":[8,8]}'

LIES = {
    "empty": b"",
    "seven bytes": b"\2\0\0\0\0\0\0",
    "no header": struct.pack("<Q", 0),
    "header longer than the file": build({"x": entry()}, length=10_000),
    "header over the limit": build({"x": entry()}, length=100_000_001),
    "header of 2**64 - 1 bytes": build({"x": entry()}, length=2**64 - 1),
    "header of 2**63 bytes": build({"x": entry()}, length=2**63),
    "not JSON": build(b"hello..."),
    "a list": build(b"[]      "),
    "a number": build(b"12"),
    "null": build(b"null"),
    "text after the object": build(b"{} {}", data=b""),
    "NUL padding": build(b"{}\0\0", data=b""),
    "byte order mark": build(b"\xef\xbb\xbf{}", data=b""),
    "half an object": build(b'{"x":'),
    "not UTF-8": build(b'{"\xff":' + RECORD + b"}"),
    "lone surrogate": build(b'{"\\ud800":' + RECORD + b"}"),
    "unknown escape": build(b'{"\\q":' + RECORD + b"}"),
    "repeated name": build(b'{"x":' + RECORD + b',"x":' + RECORD + b"}"),
    "repeated name in disguise": build(b'{"x":' + RECORD + b',"\\u0078":' + EMPTY + b"}"),
    "repeated field": build(b'{"x":{"dtype":"F64","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "missing field": build({"x": {"dtype": "F32", "shape": [2]}}),
    "empty record": build({"x": {}}),
    "unknown field": build({"x": entry() | {"strides": [1]}}),
    "text for a record": build({"x": {"dtype": "F32"}}),
    "number for a record": build({"x": 3}),
    "unknown dtype": build({"x": entry("F128")}),
    "dtype in lower case": build({"x": entry("f32")}),
    "dtype as a number": build({"x": entry(3)}),
    "F6": build({"x": entry("F6_E2M3", (4,), (0, 3))}, data=b"123"),
    "F4 of half a byte": build({"x": entry("F4", (3,), (0, 1))}, data=b"1"),
    "negative length": build({"x": entry(shape=(-2,))}),
    "two negative lengths": build({"x": entry(shape=(-1, -2))}),
    "fractional length": build({"x": entry(shape=(2.0,))}),
    "infinite length": build({"x": entry(shape=(float("inf"),))}),
    "true as a length": build(b'{"x":{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}}'),
    "exponent": build(b'{"x":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}'),
    "leading zero": build(b'{"x":{"dtype":"F32","shape":[02],"data_offsets":[0,8]}}'),
    "huge number": build(b'{"x":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}'),
    "shape wraps around 2**64": build({"x": entry("U8", (2**33, 2**31 + 1), (0, 2**33))}),
    "shape wraps to the right size": build({"x": entry("U8", (2**32, 2**32), (0, 0))}, data=b""),
    "huge empty shape": build({"x": entry(shape=(0, 2**40, 2**40), offsets=(0, 0))}, data=b""),
    "too many axes": build({"x": entry(shape=(1,) * 65 + (2,))}),
    "shape and offsets disagree": build({"x": entry(shape=(3,))}),
    "offsets past the end": build({"x": entry(shape=(4,), offsets=(0, 16))}),
    "far past the end": build({"x": entry("U8", (2**50,), (0, 2**50))}),
    "backwards": build({"x": entry(offsets=(8, 0))}),
    "one offset": build({"x": entry(offsets=(8,))}),
    "three offsets": build({"x": entry(offsets=(0, 8, 8))}),
    "negative offset": build({"x": entry(offsets=(-8, 0))}),
    "gap": build({"x": entry(shape=(1,), offsets=(0, 4)), "y": entry(shape=(1,), offsets=(8, 12))}, data=b"\0" * 12),
    "gap at the start": build({"x": entry(shape=(1,), offsets=(4, 8))}),
    "overlap": build({"x": entry(), "y": entry()}),
    "partial overlap": build({"x": entry(), "y": entry(offsets=(4, 12))}, data=b"\0" * 12),
    "bytes left over": build({"x": entry()}, data=b"\0" * 9),
    "bytes without arrays": build({}),
    "bytes missing": build({"x": entry()}, data=b"\0" * 7),
    "metadata not text": build({"__metadata__": {"a": 1}, "x": entry()}),
    "metadata nested": build({"__metadata__": {"a": {"b": "c"}}, "x": entry()}),
    "metadata a record": build({"__metadata__": entry(), "x": entry()}),
    "metadata null": build({"__metadata__": None, "x": entry()}),
    "metadata with a lone surrogate": build(b'{"__metadata__":{"a":"\\udfff"}}', data=b""),
    "deep nesting": build(b'{"x":' + b"[" * 100_000),
    "deep objects": build(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "long name": build({"x" * 100_000: entry("F128")}),
    "truth value 2": build({"x": entry("BOOL", (8,))}, data=b"\0\1\2\0\0\0\0\0"),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_malformed_files_raise_one_sentence(tmp_path, content):
    path = tmp_path / "lie.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"lie\.safetensors") as caught:
        fastnn.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300 + len(str(path))
    if b"BOOL" not in content:  # that one lies in its data, which the metadata's reader leaves alone
        with pytest.raises(CheckpointError):
            fastnn.load_metadata(path)


def test_a_header_beyond_the_file_is_not_even_read(tmp_path):
    (tmp_path / "f").write_bytes(build(b"{}", data=b"", length=99_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="its header would have 99000000 bytes, the file has 10"):
            fastnn.load(tmp_path / "f")
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        build(b"{ }   ", data=b""),
        build(b'{ "x" : {"data_offsets":[ 0 , 8 ],\n"shape":[2] , "dtype":"F32"}}'),
        build(b'{"\\u00e9\\ud83d\\ude00":' + RECORD + b"}"),
        build({"b": entry(shape=(1,), offsets=(4, 8)), "a": entry(shape=(1,), offsets=(0, 4))}),
        build({"a": entry("U8", (1,), (0, 1)), "b": entry("U16", (2,), (1, 5))}, data=b"12345"),
        build({"a": entry(shape=(0,), offsets=(0, 0)), "b": entry()}),
        build({"__metadata__": {"a": "b"}}, data=b""),
    ],
    ids=["spaces", "order of fields", "escapes", "unsorted", "unaligned", "empty array", "metadata only"],
)
def test_variants_of_the_format_load_as_in_the_package(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    ours, theirs = fastnn.load(tmp_path / "f"), peer.load(content)
    assert ours.keys() == theirs.keys()
    assert all(same(ours[key], theirs[key]) for key in ours)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_raise_anything_else(tmp_path, data):
    """Any single byte changed, any cut: what the package reads too, or a CheckpointError."""
    header = {"__metadata__": {"k": "v"}, "x": entry(), "flag": entry("BOOL", (4,), (8, 12))}
    whole = bytearray(build(header, b"\0" * 12))
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    (tmp_path / "f").write_bytes(whole)
    try:
        ours = fastnn.load(tmp_path / "f")
    except CheckpointError:
        return
    theirs = peer.load(bytes(whole))
    assert ours.keys() == theirs.keys()
    assert all(same(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "header",
    [b'{"x":[' + b"[]," * 700_000, b'{"x":{"shape":[' + b"[0]," * 500_000, b"{" * 2_000_000, b'{"' + b"a" * 2_000_000,
     b'{"x":{"dtype":"U8","shape":[' + b"0," * 1_000_000 + b'0],"data_offsets":[0,0]}}'],
    ids=["lists", "list of lists", "objects", "open string", "a million axes"],
)  # fmt: skip
def test_memory_stays_in_proportion_to_the_file(tmp_path, header):
    """A general JSON parser makes 45 MB of the first one; a million axes are a list of references and a tuple."""
    path = tmp_path / "f"
    path.write_bytes(build(header, data=b""))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            fastnn.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * len(header)


def test_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastnn.load(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        fastnn.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        fastnn.save(tmp_path / "absent" / "f", {})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        fastnn.load(tmp_path / "pipe")


# -- replacement -----------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("unnamed", [True, False])
@pytest.mark.parametrize("at", ["write", "fsync", "rename"])
def test_failure_at_any_point_keeps_the_old_file(tmp_path, monkeypatch, unnamed, at):
    """With unnamed temporary files and, as on other systems, with named ones."""
    path = tmp_path / "f"
    fastnn.save(path, {"x": np.zeros(3)})
    before = path.read_bytes()

    def stop(*_, **__):
        raise Stop

    if not unnamed:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(*((fastnn.checkpoint, "_stored") if at == "write" else (os, at)), stop)
    with pytest.raises(Stop):
        fastnn.save(path, {"x": np.ones(1000)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("unnamed", [True, False])
def test_the_file_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch, unnamed):
    """Order of the system calls: file to disk, rename, folder to disk."""
    if not unnamed:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    calls = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def recorded_rename(*args, **kwargs):
        calls.append("rename")
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    fastnn.save(tmp_path / "f", {"x": np.ones(3)})
    assert calls == ["file", "rename", "folder"]
    assert os.listdir(tmp_path) == ["f"]


def test_permissions_and_links(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    umask = os.umask(0o027)
    try:
        fastnn.save(target, {})
    finally:
        os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    target.chmod(0o604)
    link.symlink_to("target")
    fastnn.save(link, {"x": np.ones(1)})
    assert link.is_symlink()
    assert fastnn.load(target)["x"] == 1
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_relative_path_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fastnn.save("f", {"x": np.ones(1)})
    assert fastnn.load(Path("f"))["x"] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: fastnn.save(path, None), "arrays must be a mapping from names to arrays, got NoneType"),
        (lambda path: fastnn.save(path, [np.zeros(1)]), "arrays must be a mapping from names to arrays, got list"),
        (lambda path: fastnn.save(path, {}, ["text"]), "metadata must be a mapping from str to str, got list"),
        (lambda path: fastnn.save(None, {}), "path must be str or path-like, got NoneType"),
        (lambda path: fastnn.save(1, {}), "path must be str or path-like, got int"),
        (lambda path: fastnn.load(0), "path must be str or path-like, got int"),
        (lambda path: fastnn.load_metadata(None), "path must be str or path-like, got NoneType"),
    ],
)
def test_errors_of_the_wrong_kind_of_argument(call, message, tmp_path):
    with pytest.raises(TypeError, match=f"^{message}$"):
        call(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
