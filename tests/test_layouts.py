"""Every operation gives the same bits for every memory layout of its arguments, of the gradient and of `out`."""

import re
import tempfile

import numpy as np
import pytest

import operations
from operations import FUNCTIONS, OPERATIONS, upstream


def framed(a):
    """The middle of a larger array, every axis."""
    whole = np.full([n + 2 for n in a.shape], np.nan if a.dtype.kind == "f" else 1).astype(a.dtype)
    middle = whole[tuple(slice(1, -1) for _ in a.shape)]
    middle[...] = a
    return middle


def strided(a):
    """Every second element of a larger array, every axis."""
    whole = np.full([2 * n for n in a.shape], np.nan if a.dtype.kind == "f" else 1).astype(a.dtype)
    view = whole[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def backwards(a):
    """Negative strides on every axis."""
    every = tuple(slice(None, None, -1) for _ in a.shape)
    return a[every].copy()[every]


def rotated(a):
    """The first axis lies innermost in memory."""
    return np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0)


def misaligned(a):
    """One byte beyond an aligned address."""
    place = np.zeros(a.nbytes + 65, np.uint8)
    start = -place.ctypes.data % 64 + 1
    view = place[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def a_field(a):
    """A field of packed records: misaligned, and a stride that is no multiple of the element."""
    records = np.zeros(a.shape, np.dtype([("before", np.int8), ("value", a.dtype), ("after", np.int16)]))
    records["value"] = a
    return records["value"]


def swapped(a):
    """The other byte order."""
    return a.astype(a.dtype.newbyteorder())


def mapped(a):
    """A file mapped into memory, privately."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(a.tobytes() or b"\0")
        file.flush()
        return np.memmap(file.name, a.dtype, "c", 0, a.shape)


def read_only(a):
    view = a.copy()
    view.flags.writeable = False
    return view


def mapped_read_only(a):
    with tempfile.NamedTemporaryFile() as file:
        file.write(a.tobytes() or b"\0")
        file.flush()
        return np.memmap(file.name, a.dtype, "r", 0, a.shape)


def repeated(a):
    """Zero stride along the first axis: all its elements are the first one."""
    return np.broadcast_to(a[:1], a.shape)


def one_value(a):
    """Zero strides everywhere."""
    return np.broadcast_to(a.ravel()[:1].reshape([1] * a.ndim), a.shape)


WRITEABLE = {
    "Fortran": np.asfortranarray,
    "framed": framed,
    "strided": strided,
    "backwards": backwards,
    "rotated": rotated,
    "misaligned": misaligned,
    "a field": a_field,
    "swapped": swapped,
    "swapped, backwards": lambda a: backwards(swapped(a)),
    "swapped, misaligned": lambda a: misaligned(swapped(a)),
    "mapped": mapped,
}
LAYOUTS = WRITEABLE | {
    "read-only": read_only,
    "mapped read-only": mapped_read_only,
    "repeated": repeated,
    "one value": one_value,
}


def plainly(a):
    """A contiguous copy in native order."""
    return np.array(a, a.dtype.newbyteorder("="), order="C", subok=False)


def laid(operation, arguments, layout):
    """The arguments in this layout; what is written into only if it can be. Parameters keep the native order."""
    result = dict(arguments)
    for name in operation.arrays:
        written, change = name in operation.updates, LAYOUTS[layout]
        if written and layout not in WRITEABLE:
            continue
        if operation.call is not None and "data" in operation.arrays and "swapped" in layout:
            continue  # Parameter refuses it
        result[name] = change(arguments[name])
    return result


def assert_same_bits(actual, expected):
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        assert ours.dtype.newbyteorder("=") == theirs.dtype.newbyteorder("=")
        assert ours.shape == theirs.shape
        assert plainly(ours).tobytes() == plainly(theirs).tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits(name, layout):
    operation, lay = OPERATIONS[name], LAYOUTS[layout]
    for dtype in (np.float32, np.float64):
        arguments = laid(operation, operation.arguments(dtype), layout)
        copies = {k: plainly(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        before = {k: v.copy() for k, v in copies.items() if isinstance(v, np.ndarray) and k not in operation.updates}
        expected = operation.run(copies, lambda dy: plainly(lay(dy)))
        assert_same_bits(operation.run(arguments, lay), expected)
        for name, array in before.items():
            assert plainly(arguments[name]).tobytes() == array.tobytes(), f"{name} was changed"


WITH_OUT = [name for name, operation in FUNCTIONS.items() if operation.out]


@pytest.mark.parametrize("layout", WRITEABLE)
@pytest.mark.parametrize("name", WITH_OUT)
def test_out_of_any_layout(name, layout):
    operation = FUNCTIONS[name]
    for dtype in (np.float32, np.float64):
        expected = operation.run(operation.arguments(dtype))
        arguments = operation.arguments(dtype)
        out, another = (WRITEABLE[layout](np.full_like(expected[0], np.nan)) for _ in range(2))
        assert operation.plain(arguments, out=out) is out
        y, context = operation.forward(arguments, out=another)
        assert y is another
        gradients = operation.backward(upstream(expected[0]), context)  # what forward kept may be in that layout
        updated = [arguments[name] for name in sorted(operation.updates)]
        assert_same_bits(operations.flat(out, y, gradients, updated), expected)


@pytest.mark.parametrize("name", [name for name in WITH_OUT if not re.match("linear|conv|max|avg", name)])
def test_out_overlapping_the_input(name):
    """Results are as if the input had been copied first: out is the input, a shifted part of it, or lies backwards."""
    operation = FUNCTIONS[name]
    for dtype in (np.float32, np.float64):
        arguments = operation.arguments(dtype)
        expected = operation.plain(arguments)
        shape, size = arguments["input"].shape, arguments["input"].size
        for shift in (0, 1, -1, shape[-1]):
            memory = np.zeros(size + 2 * shape[-1], dtype)
            middle = memory[shape[-1] : shape[-1] + size]
            middle[...] = arguments["input"].ravel()
            out = memory[shape[-1] + shift :][:size].reshape(shape)
            fresh = operation.arguments(dtype) | {"input": middle.reshape(shape)}
            assert_same_bits([operation.plain(fresh, out=out)], [expected])
        reversed_input = arguments["input"].copy()
        fresh = operation.arguments(dtype) | {"input": reversed_input}
        every = tuple(slice(None, None, -1) for _ in shape)
        assert_same_bits([operation.plain(fresh, out=reversed_input[every])], [expected])


def test_every_function_is_in_the_table():
    import fastnn.functional as F

    plain = {name for name in F.__all__ if not name.endswith(("_forward", "_backward"))}
    assert plain - {operation.name for operation in FUNCTIONS.values()} == {"dropout_mask"}  # takes no array
