"""Data sets for the command line: scikit-learn's digits, the user's .npz files, folders of MNIST's IDX files."""

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn.cli import idx
from fastnn.cli.errors import Refusal
from fastnn.random import Generator

Array = npt.NDArray[Any]

__all__ = ["Dataset", "Samples", "load", "split"]


class Samples(NamedTuple):
    """Inputs as float32, (N, features) or (N, channels, height, width), and labels as they came, or None."""

    x: Array
    y: Array | None


class Dataset(NamedTuple):
    """What a source holds: all samples in one piece, or a training and a test part."""

    name: str
    whole: Samples
    test: Samples | None  # where the source comes with a test part, `whole` is its training part
    digest: str  # of the contents: says whether two sources are the same data


def load(source: str) -> Dataset:
    """The data set named on the command line: ``digits``, a .npz file or a folder with IDX files."""
    if source == "digits":
        name, arrays = "digits", _digits()
    else:
        path = Path(source)
        name = path.stem
        if path.is_dir():
            arrays = _folder(path)
        elif path.is_file():
            arrays = _npz(path)
        else:
            raise Refusal(f"--data {source}: there is no such file or folder (the built-in set is called digits)")
    whole = _samples(arrays["x"], arrays.get("y"), source, "x", "y")
    test = None
    if "x_test" in arrays:
        test = _samples(arrays["x_test"], arrays.get("y_test"), source, "x_test", "y_test")
        if test.x.shape[1:] != whole.x.shape[1:]:
            raise Refusal(f"--data {source}: x_test has samples of shape {test.x.shape[1:]}, x has {whole.x.shape[1:]}")
    return Dataset(name, whole, test, _digest(whole, test))


def split(y: Array, parts: int, seed: int) -> tuple[Array, Array]:
    """Indices of the kept and of the held-out samples: one in `parts` of every class, up to rounding.

    In an order that is random within each class and sorted by class, every `parts`-th sample is held out.
    """
    n = len(y)
    held = -(-n // parts)
    order = Generator(seed).permutation(n)
    order = order[np.argsort(y[order], kind="stable")]
    position = np.arange(n)
    chosen = (position + 1) * held // n > position * held // n
    return np.sort(order[~chosen]), np.sort(order[chosen])


def _digits() -> dict[str, Array]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise Refusal("--data digits needs scikit-learn: pip install 'fastnn[demo]'") from None
    digits = load_digits()
    return {"x": digits.images, "y": digits.target}


def _npz(path: Path) -> dict[str, Array]:
    """The arrays x, y, x_test and y_test of the file, those that it has; no pickled objects."""
    try:
        with path.open("rb") as stream:
            if stream.peek(6)[:6] != b"\x93NUMPY" and not zipfile.is_zipfile(stream):
                raise ValueError("it is no whole ZIP archive")  # NumPy would suspect pickled objects
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise Refusal(f"--data {path}: this is a single array; save x and y with numpy.savez")
            names = file.files
            arrays = {name: file[name] for name in ("x", "y", "x_test", "y_test") if name in names}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise Refusal(f"--data {path}: not a readable .npz file ({_first_line(error)})") from None
    if "x" not in arrays:
        raise Refusal(f"--data {path}: needs an array x (and y, x_test, y_test), it has {', '.join(names) or 'none'}")
    return arrays


def _folder(path: Path) -> dict[str, Array]:
    """MNIST's four files, or the first two; each may be compressed with gzip."""
    arrays = {}
    for key, names in idx.FILES.items():
        found = [path / name for name in names if (path / name).is_file()]
        if found:
            try:
                arrays[key] = idx.read(found[0])
            except (OSError, ValueError, EOFError, MemoryError, zlib.error) as error:
                raise Refusal(f"--data {found[0]}: not a readable IDX file ({_first_line(error)})") from None
    if "x" not in arrays:
        raise Refusal(f"--data {path}: the folder holds no {idx.FILES['x'][0]} (or .gz), as MNIST names its files")
    return arrays


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _samples(x: Array, y: Array | None, source: str, x_name: str, y_name: str) -> Samples:
    """Checked, as float32, images with their channels first."""
    if x.dtype.kind not in "iufb":
        raise Refusal(f"--data {source}: {x_name} must hold real numbers, its dtype is {x.dtype}")
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise Refusal(
            f"--data {source}: {x_name} must have shape (samples, features), (samples, height, width), (samples, "
            f"channels, height, width) or (samples, height, width, channels) and not be empty, it has {x.shape}"
        )
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise Refusal(f"--data {source}: {x_name} holds NaN, infinite values or values outside the range of float32")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        x = x.transpose(0, 3, 1, 2)
    if y is not None:
        if y.dtype.kind not in "iubU" or y.ndim != 1:
            raise Refusal(
                f"--data {source}: {y_name} must be one class label (an integer or text) for each sample, it is an "
                f"array of {y.dtype} with shape {y.shape}"
            )
        if len(y) != len(x):
            raise Refusal(f"--data {source}: {x_name} has {len(x)} samples, {y_name} has {len(y)} labels")
        y = y if y.dtype.kind == "U" else y.astype(np.int64)
    return Samples(np.ascontiguousarray(x), y)


def _digest(*parts: Samples | None) -> str:
    sha = hashlib.sha256()
    for array in [array for part in parts if part is not None for array in part]:
        if array is not None:
            sha.update(f"{array.dtype.str}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
