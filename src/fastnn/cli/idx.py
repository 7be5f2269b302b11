"""MNIST's IDX files: two zero bytes, a type code, the number of axes, their lengths, the values; all big-endian."""

import gzip
import math
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FILES", "read"]

_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_CHUNK = 1 << 20


def _names(stem: str, axes: int) -> tuple[str, ...]:
    return tuple(f"{stem}{dot}idx{axes}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz"))


# Array → the file names under which people have it.
FILES = {
    "x": _names("train-images", 3),
    "y": _names("train-labels", 1),
    "x_test": _names("t10k-images", 3),
    "y_test": _names("t10k-labels", 1),
}


def read(path: Path) -> npt.NDArray[Any]:
    """The array in an IDX file, which may be compressed with gzip whatever its name.

    Memory grows with what the file really holds, not with what its header promises.

    Raises
    ------
    ValueError
        If the file is malformed; gzip's own errors are OSError, EOFError and zlib.error.
    """
    with path.open("rb") as plain:
        if plain.peek(2)[:2] != b"\x1f\x8b":
            return _parse(plain)
        with gzip.open(plain) as file:
            return _parse(file)


def _parse(file: BufferedReader | gzip.GzipFile) -> npt.NDArray[Any]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 8:
        raise ValueError(f"it begins with the bytes {head.hex(' ')}, not with an IDX header")
    lengths = file.read(4 * head[3])
    if len(lengths) < 4 * head[3]:
        raise ValueError("it ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4"))
    dtype = np.dtype(_TYPES[head[2]])
    size = math.prod(shape) * dtype.itemsize
    content = bytearray()
    while chunk := file.read(min(_CHUNK, size + 1 - len(content))):
        content += chunk
    if len(content) != size:
        more = "more" if len(content) > size else f"only {len(content)}"
        raise ValueError(f"its header promises {size} bytes of shape {shape}, it has {more}")
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)
