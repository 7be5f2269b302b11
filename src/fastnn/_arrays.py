"""The array gate: what enters the kernels is a float32 or float64 array in native byte order, aligned, C-contiguous.

Everything public passes its arrays through here; errors name the parameter, what came and what is allowed.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]  # npt.NDArray[Any]; numpy.typing takes 2 ms to load

FLOATING = (np.dtype(np.float32), np.dtype(np.float64))


def floating(value: Any, name: str, dtype: np.dtype[Any] | None = None) -> Array:
    """`value` as kernels need it: no copy where it already is; float32 and float64 are never converted to each other.

    `dtype` is what the other arrays of the call have; a different one is a TypeError, as in PyTorch.
    """
    array = value if isinstance(value, np.ndarray) else _foreign(value, name, " of float32 or float64")
    native = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    if native not in FLOATING:
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    if dtype is not None and native != dtype:
        raise TypeError(f"{name} must have the same dtype as the other arrays, {dtype}, got {array.dtype}")
    return contiguous(array, native)


def array(value: Any, name: str) -> Array:
    """`value` as an array of whatever dtype: to look at its shape, or where others than floating ones are allowed."""
    return value if isinstance(value, np.ndarray) else _foreign(value, name)


def _foreign(value: Any, name: str, kind: str = "") -> Array:
    """Anything that speaks DLPack, ``__array__`` or the buffer protocol, and plain sequences, as an array."""
    try:
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise TypeError(f"{name} must be an array{kind}, got {type(value).__name__}: {error}") from None


def contiguous(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array itself if it is C-contiguous, aligned and of this dtype, else a copy that is (the shape is kept)."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype == dtype and type(array) is np.ndarray:
        return array
    return np.require(array, dtype, ["C", "A", "E"]).reshape(array.shape)


def number(value: Any, name: str) -> float:
    """A real number as a float; a string of one is none."""
    try:
        return math.ldexp(value, 0)
    except TypeError:
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from None
    except OverflowError:
        raise ValueError(f"{name} must be a number that float64 holds, got a larger integer") from None


def finite(value: Any, name: str) -> float:
    """A finite number as a float."""
    real = number(value, name)
    if not math.isfinite(real):
        raise ValueError(f"{name} must be finite, got {value}")
    return real


def integer(value: Any, name: str) -> int:
    """An integer, Python's or NumPy's; a float of integer value is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


def integers(value: Any, name: str) -> tuple[int, ...]:
    """One integer or a sequence of them."""
    try:
        return (operator.index(value),)
    except TypeError:
        pass
    try:
        return tuple(map(operator.index, value))
    except TypeError:
        raise TypeError(f"{name} must be an integer or a sequence of integers, got {type(value).__name__}") from None


def empty(shape: Any, dtype: np.dtype[Any] | type, make: Callable[..., Array] = np.empty) -> Array:
    """A new array of a shape that a user gave; `make` may be `numpy.zeros`."""
    try:
        return make(shape, dtype)
    except (TypeError, ValueError) as error:
        allowed = "shape must be an integer or a sequence of integers of at least 0, not too many elements in all"
        raise type(error)(f"{allowed}, got {shape!r}: {error}") from None


def vector(value: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
    """A parameter of the given shape and dtype; None stays None."""
    if value is None:
        return None
    array = floating(value, name, dtype)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def mask(value: Any, shape: tuple[int, ...]) -> Array | None:
    """A boolean mask as one byte for each element of an array of `shape`; None stays None."""
    if value is None:
        return None
    marks = array(value, "mask")
    if marks.dtype != np.bool_:
        raise TypeError(f"mask must be boolean, got {marks.dtype}")
    try:
        return np.ascontiguousarray(np.broadcast_to(marks, shape)).reshape(shape)
    except ValueError:
        raise ValueError(f"mask must be broadcastable to the input's shape {shape}, got {marks.shape}") from None


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless `out` can take a result of this shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out must have the input's dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")


def overlaps(a: Array, b: Array) -> bool:
    """Whether two arrays share memory; in doubt, yes."""
    try:
        return bool(np.shares_memory(a, b, max_work=1000))  # type: ignore[arg-type]  # numpy's stub allows only −1, 0
    except np.exceptions.TooHardError:
        return True


def direct_out(out: Array | None, source: Array, others: Sequence[Array | None] = ()) -> Array | None:
    """`out` if a kernel may write its result straight into it, else None: then the caller copies a fresh result.

    A kernel that reads each element of `source` before it writes the same place may write over `source` itself, never
    over a shifted part of it or over another operand.
    """
    if out is None or contiguous(out, source.dtype) is not out:
        return None
    # the addresses come last: asking for one takes longer than all else here
    if out is not source and overlaps(out, source) and out.ctypes.data != source.ctypes.data:
        return None
    return None if any(other is not None and overlaps(out, other) for other in others) else out


def deliver(result: Array, out: Array | None) -> Array:
    """`result`, copied into `out` if the caller gave one that the kernel did not write into."""
    if out is None or result is out:
        return result
    out[...] = result
    return out
