"""Matrix products through NumPy's BLAS, summed in blocks that do not depend on BLAS's threads."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# OpenBLAS sums a product's terms in blocks, and where more terms than one block holds meet more than one thread, it
# chooses the blocks by the number of threads: the result's last bits change. A sum no longer than the shortest block
# of its kernels is one block whatever the threads; longer ones are cut here. Items → terms.
BLOCK = {4: 320, 8: 240}


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """``a @ b`` over the last two axes, into `out` if given (C-contiguous rows; neither operand)."""
    terms = a.shape[-1]
    if terms <= BLOCK[a.itemsize]:
        return np.matmul(a, b, out=out)
    blocks = -(-terms // BLOCK[a.itemsize])
    ends = [terms * k // blocks for k in range(blocks + 1)]
    out = np.matmul(a[..., : ends[1]], b[..., : ends[1], :], out=out)
    part = np.empty_like(out)
    for start, end in itertools.pairwise(ends[1:]):
        np.matmul(a[..., start:end], b[..., start:end, :], out=part)
        np.add(out, part, out=out)
    return out
