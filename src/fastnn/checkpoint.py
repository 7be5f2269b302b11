"""Named arrays to and from files in the safetensors format: a JSON header, then the bytes; no pickle anywhere.

The format: 8 bytes with the header's length n (little-endian), n bytes of JSON, padded with spaces to a multiple of 8,
``{"__metadata__": {str: str}, name: {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, ...}``, then the
arrays, little-endian, C order, without gaps. https://github.com/safetensors/safetensors

What a file says is believed only after it is checked against the file's size, so that reading takes memory in
proportion to the file, whatever the header claims.
"""

import functools
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from fastnn import _files, _minifloat

Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["CheckpointError", "load", "load_metadata", "save"]

MAX_HEADER = 100_000_000  # the format's own limit

# Arrays are stored by falling alignment, as the reference writer does: every array starts at a multiple of its size.
_ORDER = (
    "U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16",
    "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "F4", "BOOL",
)  # fmt: skip

_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip

# NumPy's name of a type → the format's. The last ones are those of ml_dtypes, which is not needed to read them back.
_NAMES = {np.dtype(code).name: name for name, code in _NUMPY.items()} | {
    "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn": "F4",
}  # fmt: skip


@functools.cache  # compiled when the first file is read: it takes longer than all the rest of this module's import
def _grammar() -> re.Pattern[bytes]:
    """The header's JSON as a regular expression that never backtracks.

    It runs in linear time and in no memory, so that text of another form (deep nesting, long lists of lists, huge
    numbers) is refused before a parser builds objects from it.
    """
    space = rb"[ \t\n\r]*+"
    string = rb'"(?:[^"\\\x00-\x1f]|\\.)*+"'
    colon = space + rb":" + space

    def several(item: bytes, begin: bytes, end: bytes) -> bytes:
        # `item` stands here once: nested, twice would make eight times as long an expression to compile.
        comma = rb"(?:," + space + rb"(?!" + end + rb")|(?=" + end + rb"))"
        return begin + space + rb"(?:" + item + space + comma + rb")*+" + end

    integers = several(rb"(?:0|[1-9][0-9]{0,18}+)", rb"\[", rb"\]")
    field = rb'(?:"dtype"' + colon + string + rb'|"(?:shape|data_offsets)"' + colon + integers + rb")"
    record = several(field, rb"\{", rb"\}")
    texts = several(string + colon + string, rb"\{", rb"\}")
    return re.compile(several(string + colon + rb"(?:" + record + rb"|" + texts + rb")", rb"\{", rb"\}") + space)


class CheckpointError(ValueError):
    """A file that is not a well-formed safetensors file, or that does not hold what is needed of it.

    Examples
    --------
    >>> import fastnn
    >>> issubclass(fastnn.checkpoint.CheckpointError, ValueError)
    True
    """


class _Record(NamedTuple):
    """Where one array lies in the file and what it is."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int  # offsets into the part after the header
    end: int


# -- writing ---------------------------------------------------------------------------------------------------------


def save(path: str | os.PathLike[str], arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays to a file in the safetensors format.

    The file is replaced as a whole: until the new one is complete and on the disk, the old one stays, whenever the
    process is killed. The same arrays and metadata give the same bytes, in any order of the names.

    Parameters
    ----------
    path : str or path-like
        In an existing folder; an existing file is replaced.
    arrays : mapping of str to array
        bool, integers, float16, float32, float64, complex64, ml_dtypes' bfloat16, float8 and float4_e2m1fn; any
        layout and byte order. Python numbers are stored as 0-d arrays (int64, float64, bool).
    metadata : mapping of str to str, optional
        Free text.

    Raises
    ------
    TypeError
        For a dtype that the format lacks, for names and texts that are not strings, and for anything but mappings.
    ValueError
        For the name ``__metadata__``, which the format reserves, and for text that is not valid Unicode.

    Examples
    --------
    >>> import numpy as np, fastnn, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "two.safetensors")
    >>> fastnn.save(path, {"weight": np.ones((2, 3), np.float32), "step": 7}, {"made by": "me"})
    >>> fastnn.load(path)["weight"].shape
    (2, 3)
    """
    _check_path(path)
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays must be a mapping from names to arrays, got {type(arrays).__name__}")
    named: list[tuple[str, str, Array]] = []
    for name, value in arrays.items():
        _check_text(name, "array names")
        if name == "__metadata__":
            raise ValueError("array names must not be '__metadata__', which the format reserves")
        array = np.asarray(value)
        dtype = _NAMES.get(array.dtype.name)
        if dtype is None:
            raise TypeError(f"{name} has dtype {array.dtype}, which the safetensors format does not have")
        if dtype == "F4" and array.size % 2:
            raise ValueError(f"{name} must have an even number of 4-bit elements, got shape {array.shape}")
        named.append((name, dtype, array))
    named.sort(key=lambda item: (_ORDER.index(item[1]), item[0].encode()))

    header: dict[str, Any] = {}
    if metadata is not None:
        check_metadata(metadata)
        header["__metadata__"] = {key: metadata[key] for key in sorted(metadata)}
    offset = 0
    for name, dtype, array in named:
        size = array.nbytes // 2 if dtype == "F4" else array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"names, shapes and metadata must fit into {MAX_HEADER} bytes, they take {len(text)}")

    def write(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, dtype, array in named:
            file.write(_stored(array, dtype))

    _files.replace(path, write)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise unless it maps text to text, as `save` demands."""
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping from str to str, got {type(metadata).__name__}")
    for key in metadata:
        _check_text(key, "metadata keys")
        _check_text(metadata[key], f"metadata[{key!r}]")


def _check_path(path: Any) -> None:
    if not isinstance(path, str | os.PathLike):  # an integer would be an open file
        raise TypeError(f"path must be str or path-like, got {type(path).__name__}")


def _check_text(value: Any, what: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be str, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be valid Unicode, got {value!r}") from None


def _stored(array: Array, dtype: str) -> memoryview:
    """The array's bytes as they stand in the file."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype in _NUMPY:
        flat = flat.astype(_NUMPY[dtype], copy=False)
    elif dtype == "F4":
        flat = _minifloat.pack_f4(flat.view(np.uint8))
    else:
        flat = flat.view(_word(dtype).newbyteorder("=")).astype(_word(dtype))
    return flat.view(np.uint8).data


# -- reading ---------------------------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read all arrays of a safetensors file, each with its own writeable memory.

    Formats that NumPy lacks (bfloat16, the 8-bit floats, F4) come as float32, which holds their values exactly; the
    safetensors package's NumPy reader refuses them.

    Parameters
    ----------
    path : str or path-like
        Of the file.

    Raises
    ------
    CheckpointError
        A `ValueError`: the file is not a well-formed safetensors file. Memory stays in proportion to the file's size,
        whatever its header claims.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import numpy as np, fastnn, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "one.safetensors")
    >>> fastnn.save(path, {"a": np.arange(3)})
    >>> fastnn.load(path)
    {'a': array([0, 1, 2])}
    """
    with _open(path) as file:
        _, records = _read_header(file, path)
        start = file.tell()
        return {record.name: _read_array(file, start, record, path) for record in records}


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read only the free text of a safetensors file; empty if it has none.

    Parameters
    ----------
    path : str or path-like
        Of the file.

    Raises
    ------
    CheckpointError, OSError
        As `load`.

    Examples
    --------
    >>> import numpy as np, fastnn, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "one.safetensors")
    >>> fastnn.save(path, {"a": np.arange(3)}, {"license": "CC0"})
    >>> fastnn.load_metadata(path)
    {'license': 'CC0'}
    """
    with _open(path) as file:
        return _read_header(file, path)[0]


def _quote(text: str) -> str:
    """A name for a message; a hostile one may have millions of characters."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _fail(path: str | os.PathLike[str], what: str) -> NoReturn:
    raise CheckpointError(f"{os.fspath(path)} is not a well-formed safetensors file: {what}") from None


def _open(path: str | os.PathLike[str]) -> BufferedReader:
    """Only what has a size can be checked against it; and opening a pipe would wait for its other end."""
    _check_path(path)
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open() has its own error for a folder
        _fail(path, "it is not a regular file")
    return open(path, "rb")


def _read_header(file: BufferedReader, path: str | os.PathLike[str]) -> tuple[dict[str, str], list[_Record]]:
    """Metadata and records in the order of their bytes; the file is left where these begin."""
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        _fail(path, f"it has {size} bytes, too few for a header")
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        _fail(path, f"its header would have {length} bytes, the limit is {MAX_HEADER}")
    if length > size - 8:
        _fail(path, f"its header would have {length} bytes, the file has {size}")
    text = file.read(length)
    if _grammar().fullmatch(text) is None:
        _fail(path, "its header is not a JSON object of array records")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            _fail(path, "its header repeats a name")
        return found

    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except ValueError as error:  # UnicodeDecodeError, or an escape that JSON does not have
        _fail(path, f"its header is not valid JSON ({error})")
    metadata = header.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in metadata.values()):
        _fail(path, "its metadata is not text")
    records = sorted((_record(name, entry, path) for name, entry in header.items()), key=lambda r: (r.begin, r.end))
    for value in _texts(metadata, records):
        try:
            value.encode()
        except UnicodeEncodeError:
            _fail(path, f"{_quote(value)} is not valid Unicode")
    end = 0
    for record in records:
        if record.begin != end:
            _fail(path, f"{_quote(record.name)} begins at byte {record.begin}, the array before it ends at {end}")
        end = record.end
    if end != size - 8 - length:
        _fail(path, f"its arrays take {end} bytes, {size - 8 - length} follow the header")
    return metadata, records


def _texts(metadata: dict[str, str], records: list[_Record]) -> Iterator[str]:
    yield from metadata
    yield from metadata.values()
    yield from (record.name for record in records)


def _record(name: str, entry: dict[str, Any], path: str | os.PathLike[str]) -> _Record:
    """One entry of the header, checked by itself."""
    if entry.keys() != {"dtype", "shape", "data_offsets"} or len(entry["data_offsets"]) != 2:
        _fail(path, f"{_quote(name)} needs dtype, shape and two data_offsets")
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype in ("F6_E2M3", "F6_E3M2"):
        raise CheckpointError(
            f"{os.fspath(path)}: {_quote(name)} is {dtype}, whose packing into bytes no standard defines"
        )
    if dtype not in _ORDER:
        _fail(path, f"{_quote(name)} has the unknown dtype {_quote(dtype)}")
    bits = 4 if dtype == "F4" else 8 * _word(dtype).itemsize
    # NumPy wants the product of the nonzero lengths to be a size that memory could have, even of an empty array.
    if len(shape) > 32 or bits * math.prod(n or 1 for n in shape) >= 2**60:
        _fail(path, f"{_quote(name)} has more elements or axes than an array can have")
    if bits * math.prod(shape) != 8 * (end - begin):
        _fail(path, f"{_quote(name)} has {end - begin} bytes, {dtype} of shape {list(shape)} takes another number")
    return _Record(name, dtype, shape, begin, end)


def _word(dtype: str) -> np.dtype[Any]:
    return np.dtype(_NUMPY[dtype]) if dtype in _NUMPY else _minifloat.DECODERS[dtype][0]


def _read_array(file: BufferedReader, start: int, record: _Record, path: str | os.PathLike[str]) -> Array:
    word = _word(record.dtype)
    words = np.empty((record.end - record.begin) // word.itemsize, word)
    file.seek(start + record.begin)
    if file.readinto(words.view(np.uint8).data) != record.end - record.begin:
        _fail(path, "it became shorter while it was read")
    if record.dtype == "BOOL" and words.view(np.uint8).max(initial=0) > 1:
        _fail(path, f"{_quote(record.name)} holds a truth value that is neither 0 nor 1")
    if record.dtype in _minifloat.DECODERS:
        words = _minifloat.DECODERS[record.dtype][1](words)
    return words.astype(words.dtype.newbyteorder("="), copy=False).reshape(record.shape)
