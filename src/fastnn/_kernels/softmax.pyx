"""Softmax and log-softmax of contiguous rows, forward and backward.

Design
  (A) Forward: the largest element m, s = Σ e^(x − m) in float64, then e^(x − m)/s or (x − m) − log s; the row stays in
      cache between the passes. e^(x − m) is computed twice rather than stored: it costs less than the memory.
  (B) Backward needs the result only: y·(dy − Σ dy·y), or dy − e^y·Σ dy; its sum is in float64 too.
"""

cimport numpy as cnp
from cython cimport floating
from libc.math cimport log

from fastnn._kernels._plan cimport Operands, Step
from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.elementary cimport exponential
from fastnn._kernels.row_exponentials cimport LANES, load, merged, row_maximum, row_sum_exp

cnp.import_array()

__all__ = ["SoftmaxStep", "softmax_rows", "softmax_rows_backward"]

cdef enum:
    BLOCK = 8192  # elements that a thread claims at a time, about


cdef struct Softmax:
    const void* x           # IN   (rows, n); the result in backward
    const void* dy          # IN   (rows, n), backward
    void* out               # OUT  (rows, n); may be x, in backward dy
    Py_ssize_t rows
    Py_ssize_t n
    Py_ssize_t rows_per_block
    bint logarithm
    bint double_precision


cdef inline void store(floating* out, const floating* lanes, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    if n >= LANES:
        for j in range(LANES):
            out[j] = lanes[j]
    else:
        for j in range(n):
            out[j] = lanes[j]


cdef inline void forward_row(Softmax* p, Py_ssize_t row, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>p.x + row * p.n
    cdef floating* y = <floating*>p.out + row * p.n
    cdef floating largest = row_maximum(x, p.n)
    cdef double s = row_sum_exp(x, p.n, largest)
    cdef double log_s = log(s)
    cdef floating factor = <floating>(1 / s)
    cdef floating v[LANES]
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    while i < p.n:
        load(x + i, p.n - i, v, <floating>0.0)
        if p.logarithm:
            for j in range(LANES):
                v[j] = <floating>(<double>(v[j] - largest) - log_s)
        else:
            for j in range(LANES):
                v[j] = exponential(v[j] - largest) * factor
        store(y + i, v, p.n - i)
        i += LANES


cdef inline void backward_row(Softmax* p, Py_ssize_t row, floating example) noexcept nogil:
    cdef const floating* y = <const floating*>p.x + row * p.n
    cdef const floating* dy = <const floating*>p.dy + row * p.n
    cdef floating* dx = <floating*>p.out + row * p.n
    cdef double total[LANES]
    cdef floating v[LANES]
    cdef floating g[LANES]
    cdef floating s
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    for j in range(LANES):
        total[j] = 0
    while i < p.n:
        load(dy + i, p.n - i, g, <floating>0.0)
        if p.logarithm:
            for j in range(LANES):
                total[j] += g[j]
        else:
            load(y + i, p.n - i, v, <floating>0.0)
            for j in range(LANES):
                total[j] += <double>g[j] * v[j]
        i += LANES
    s = <floating>merged(total)
    i = 0
    while i < p.n:
        load(dy + i, p.n - i, g, <floating>0.0)
        load(y + i, p.n - i, v, <floating>0.0)
        if p.logarithm:
            for j in range(LANES):
                g[j] = g[j] - exponential(v[j]) * s
        else:
            for j in range(LANES):
                g[j] = v[j] * (g[j] - s)
        store(dx + i, g, p.n - i)
        i += LANES


cdef void forward_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Softmax* p = <Softmax*>arguments
    cdef Py_ssize_t row
    for row in range(block * p.rows_per_block, min(p.rows, (block + 1) * p.rows_per_block)):
        if p.double_precision:
            forward_row(p, row, <double>0)
        else:
            forward_row(p, row, <float>0)


cdef void backward_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Softmax* p = <Softmax*>arguments
    cdef Py_ssize_t row
    for row in range(block * p.rows_per_block, min(p.rows, (block + 1) * p.rows_per_block)):
        if p.double_precision:
            backward_row(p, row, <double>0)
        else:
            backward_row(p, row, <float>0)


def softmax_rows(cnp.ndarray x, cnp.ndarray y, Py_ssize_t rows, Py_ssize_t n, bint logarithm):
    """y from x, both C-contiguous and seen as (rows, n); y may be x."""
    cdef Softmax p
    p.x, p.out = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    p.rows, p.n, p.logarithm = rows, n, logarithm
    p.rows_per_block = max(<Py_ssize_t>1, BLOCK // max(<Py_ssize_t>1, n))
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    with nogil:
        if n > 0:
            parallel_for(
                forward_task, &p, (rows + p.rows_per_block - 1) // p.rows_per_block, 6.0 * cnp.PyArray_NBYTES(x),
            )


def softmax_rows_backward(
    cnp.ndarray dy, cnp.ndarray y, cnp.ndarray dx, Py_ssize_t rows, Py_ssize_t n, bint logarithm,
):
    """dx from dy and the result y, all C-contiguous and seen as (rows, n)."""
    cdef Softmax p
    p.x, p.dy, p.out = cnp.PyArray_DATA(y), cnp.PyArray_DATA(dy), cnp.PyArray_DATA(dx)
    p.rows, p.n, p.logarithm = rows, n, logarithm
    p.rows_per_block = max(<Py_ssize_t>1, BLOCK // max(<Py_ssize_t>1, n))
    p.double_precision = cnp.PyArray_TYPE(y) == cnp.NPY_DOUBLE
    with nogil:
        if n > 0:
            parallel_for(
                backward_task, &p, (rows + p.rows_per_block - 1) // p.rows_per_block, 4.0 * cnp.PyArray_NBYTES(y),
            )


cdef void run_softmax(const void* settings, Operands* o) noexcept nogil:
    cdef Softmax p = (<const Softmax*>settings)[0]
    p.x, p.out = o.x, o.y
    p.rows *= o.samples
    o.each(
        forward_task, &p, (p.rows + p.rows_per_block - 1) // p.rows_per_block,
        p.rows * p.n * (48.0 if p.double_precision else 24.0),
    )


cdef class SoftmaxStep(Step):
    """Softmax as a step of a plan: `rows` of n elements in each sample."""
    cdef Softmax softmax

    def __cinit__(self, Py_ssize_t rows, Py_ssize_t n, bint double_precision):
        self.softmax.rows, self.softmax.n, self.softmax.logarithm = rows, n, False
        self.softmax.rows_per_block = max(<Py_ssize_t>1, BLOCK // max(<Py_ssize_t>1, n))
        self.softmax.double_precision = double_precision
        self.run, self.settings = run_softmax, &self.softmax
