"""One number everywhere: what NumPy does on one thread."""

cimport numpy as cnp
from cython cimport floating

from fastnn._kernels._runtime cimport even_block, parallel_for

cnp.import_array()

__all__ = ["fill_constant"]

cdef enum:
    BLOCK = 16384
    LINE = 16

cdef struct Fill:
    void* out
    Py_ssize_t n
    Py_ssize_t block
    double value
    bint double_precision


cdef inline void fill_block(floating* out, Py_ssize_t n, floating value) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        out[j] = value


cdef void fill_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Fill* p = <Fill*>arguments
    cdef Py_ssize_t start = block * p.block
    cdef Py_ssize_t n = min(p.n - start, p.block)
    if p.double_precision:
        fill_block(<double*>p.out + start, n, p.value)
    else:
        fill_block(<float*>p.out + start, n, <float>p.value)


def fill_constant(cnp.ndarray out, double value):
    """Write `value` everywhere in `out`, a C-contiguous float32 or float64 array."""
    cdef Fill p
    p.out, p.n, p.value = cnp.PyArray_DATA(out), cnp.PyArray_SIZE(out), value
    p.double_precision = cnp.PyArray_TYPE(out) == cnp.NPY_DOUBLE
    p.block = even_block(p.n, BLOCK, LINE)
    with nogil:
        parallel_for(
            fill_task, &p, (p.n + p.block - 1) // p.block, p.n * (8.0 if p.double_precision else 4.0),
        )
