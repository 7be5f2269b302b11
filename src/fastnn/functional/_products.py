"""Matrix products whose bits do not depend on threads."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import _kernels

Array = npt.NDArray[Any]

# With few rows or columns a product reads its matrices once: that is BLAS's matrix-vector territory. OpenBLAS divides
# sums by the number of threads only if they are long; blocks of this many terms it never divides. Bytes → terms.
BLOCK = {4: 320, 8: 240}


def product(a: Array, b: Array, out: Array, bias: Array | None = None, *, add: bool = False) -> None:
    """``out = a @ b + bias`` or, with `add`, ``out += a @ b`` (without bias); two axes each, `out` overlaps nothing.

    From `FEWEST_ROWS` rows and columns on, each result is one sum in the order of the terms.
    """
    m, n = out.shape
    if min(m, n) < _kernels.FEWEST_ROWS or not a.shape[1]:
        _few(a, b, out, bias, add)
    elif _cost(m, n, b) <= _cost(n, m, a.T):
        _kernels.matrix_product(a, b, out, bias, True, add)
    else:
        _kernels.matrix_product(b.T, a.T, out.T, bias, False, add)


def _cost(m: int, n: int, b: Array) -> float:
    """Time of a product for each term, about: tiles of 8 by 32 results, and the copy of `b`, slower if transposed."""
    return -(-m // 8) * -(-n // 32) * 8 + n * (0.5 if b.strides[1] == b.itemsize else 4)


def _few(a: Array, b: Array, out: Array, bias: Array | None, add: bool) -> None:
    terms = a.shape[1]
    blocks = max(1, -(-terms // BLOCK[a.itemsize]))
    ends = [terms * k // blocks for k in range(blocks + 1)]
    for start, end in itertools.pairwise(ends):
        if start == 0 and not add:
            np.matmul(a[:, :end], b[:end], out=out)
        else:
            out += a[:, start:end] @ b[start:end]
    if bias is not None:
        out += bias
