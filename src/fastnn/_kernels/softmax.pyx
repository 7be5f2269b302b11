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
from fastnn._kernels.inlining cimport apart, inlined
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
    for j in range(min(n, <Py_ssize_t>LANES)):
        out[j] = lanes[j]


# Each of the following takes LANES elements, read before any is written, and `logarithm` as a constant.

cdef inline inlined forward_lanes(
    const floating* x, floating* y, floating largest, floating factor, double log_s, bint logarithm,
) noexcept nogil:
    cdef floating v[LANES]
    cdef Py_ssize_t j
    for j in range(LANES):
        if logarithm:
            v[j] = <floating>(<double>(x[j] - largest) - log_s)
        else:
            v[j] = exponential(x[j] - largest) * factor
    for j in range(LANES):
        y[j] = v[j]


cdef inline inlined add_lanes(const floating* dy, const floating* y, double* total, bint logarithm) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(LANES):
        total[j] += <double>dy[j] if logarithm else <double>dy[j] * y[j]


cdef inline inlined backward_lanes(
    const floating* dy, const floating* y, floating* dx, floating s, bint logarithm,
) noexcept nogil:
    cdef floating g[LANES]
    cdef Py_ssize_t j
    for j in range(LANES):
        g[j] = dy[j] - exponential(y[j]) * s if logarithm else y[j] * (dy[j] - s)
    for j in range(LANES):
        dx[j] = g[j]


cdef inline inlined forward_run(const floating* x, floating* y, Py_ssize_t n, bint logarithm) noexcept nogil:
    cdef floating largest = row_maximum(x, n)
    cdef double s = row_sum_exp(x, n, largest)
    cdef double log_s = log(s)
    cdef floating factor = <floating>(1 / s)
    cdef floating v[LANES]
    cdef Py_ssize_t i = 0
    while n - i >= LANES:
        forward_lanes(x + i, y + i, largest, factor, log_s, logarithm)
        i += LANES
    if i < n:
        load(x + i, n - i, v, <floating>0.0)
        forward_lanes(v, v, largest, factor, log_s, logarithm)
        store(y + i, v, n - i)


cdef inline inlined backward_run(
    const floating* y, const floating* dy, floating* dx, Py_ssize_t n, bint logarithm,
) noexcept nogil:
    cdef double total[LANES]
    cdef floating v[LANES]
    cdef floating g[LANES]
    cdef floating s
    cdef Py_ssize_t whole = n - n % LANES
    cdef Py_ssize_t i, j
    for j in range(LANES):
        total[j] = 0
    load(y + whole, n - whole, v, <floating>0.0)
    load(dy + whole, n - whole, g, <floating>0.0)
    i = 0
    while i < whole:
        add_lanes(dy + i, y + i, total, logarithm)
        i += LANES
    if whole < n:
        add_lanes(g, v, total, logarithm)
    s = <floating>merged(total)
    i = 0
    while i < whole:
        backward_lanes(dy + i, y + i, dx + i, s, logarithm)
        i += LANES
    if whole < n:
        backward_lanes(g, v, g, s, logarithm)
        store(dx + whole, g, n - whole)


cdef inline apart forward_row(Softmax* p, Py_ssize_t row, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>p.x + row * p.n
    cdef floating* y = <floating*>p.out + row * p.n
    if p.logarithm:
        forward_run(x, y, p.n, True)
    else:
        forward_run(x, y, p.n, False)


cdef inline apart backward_row(Softmax* p, Py_ssize_t row, floating example) noexcept nogil:
    cdef const floating* y = <const floating*>p.x + row * p.n
    cdef const floating* dy = <const floating*>p.dy + row * p.n
    cdef floating* dx = <floating*>p.out + row * p.n
    if p.logarithm:
        backward_run(y, dy, dx, p.n, True)
    else:
        backward_run(y, dy, dx, p.n, False)


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
