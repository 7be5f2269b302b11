"""Softmax and log-softmax of contiguous rows, forward and backward.

Design
  (A) Forward: the largest element m, s = Σ e^(x − m) in float64, then e^(x − m)/s or (x − m) − log s; the row stays in
      cache between the passes. e^(x − m) waits in the result for its factor.
  (B) Backward needs the result only: y·(dy − Σ dy·y), or dy − e^y·Σ dy; its sum is in float64 too.
"""

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cython cimport floating
from libc.math cimport log

from fastnn._kernels._plan cimport Operands, Step
from fastnn._kernels._runtime cimport even_block, parallel_for, task
from fastnn._kernels.elementary cimport exponential, scale_back
from fastnn._kernels.gate cimport like, regular, same_form, shifted
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.row_exponentials cimport LANES, load, merged, row_exponentials, row_maximum, row_sum_exp
from fastnn._kernels.runs cimport copy_run

cnp.import_array()

__all__ = ["SoftmaxStep", "softmax", "softmax_backward"]

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


# Each of the following takes LANES elements, read before any is written; `logarithm` is a constant.

cdef inline inlined shift_lanes(const floating* x, floating* y, floating largest, double log_s) noexcept nogil:
    cdef floating v[LANES]
    cdef Py_ssize_t j
    for j in range(LANES):
        v[j] = <floating>(<double>(x[j] - largest) - log_s)
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


cdef inline inlined softmax_run(const floating* x, floating* y, Py_ssize_t n) noexcept nogil:
    cdef double s = row_exponentials(x, y, n, row_maximum(x, n))
    cdef floating factor = scale_back(<floating>(1 / s))
    cdef Py_ssize_t i
    for i in range(n):
        y[i] *= factor


cdef inline inlined log_softmax_run(const floating* x, floating* y, Py_ssize_t n) noexcept nogil:
    cdef floating largest = row_maximum(x, n)
    cdef double log_s = log(row_sum_exp(x, n, largest))
    cdef floating v[LANES]
    cdef Py_ssize_t i = 0
    while n - i >= LANES:
        shift_lanes(x + i, y + i, largest, log_s)
        i += LANES
    if i < n:
        load(x + i, n - i, v, <floating>0.0)
        shift_lanes(v, v, largest, log_s)
        copy_run(v, y + i, n - i)


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
        copy_run(g, dx + whole, n - whole)


cdef inline apart forward_row(Softmax* p, Py_ssize_t row, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>p.x + row * p.n
    cdef floating* y = <floating*>p.out + row * p.n
    if p.logarithm:
        log_softmax_run(x, y, p.n)
    else:
        softmax_run(x, y, p.n)


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


cdef void run(Softmax* p, task function, cnp.ndarray x, double work) noexcept:
    # over all rows of x, its last axis; `work` as a multiple of its bytes
    if cnp.PyArray_SIZE(x) == 0:
        return
    p.n = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
    p.rows = cnp.PyArray_SIZE(x) // p.n
    p.rows_per_block = even_block(p.rows, max(<Py_ssize_t>1, BLOCK // p.n), 1)
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    with nogil:
        parallel_for(
            function, p, (p.rows + p.rows_per_block - 1) // p.rows_per_block, work * cnp.PyArray_NBYTES(x))


cdef inline bint last_axis(object x, object dim) noexcept:
    # whether the array is regular, and `dim` its last axis; None is the first of 1 or 3 axes, else the second
    cdef int beyond = 0
    cdef int axes
    cdef long long axis
    if not regular(x):
        return False
    axes = cnp.PyArray_NDIM(<cnp.ndarray>x)
    if dim is None:
        return 1 <= axes <= 2
    if type(dim) is not int:
        return False
    axis = PyLong_AsLongLongAndOverflow(dim, &beyond)
    return axes > 0 and beyond == 0 and (axis == -1 or axis == axes - 1)


def softmax(object x, object dim, bint logarithm, object out=None):
    """Softmax along the last axis; None for another one, and if the array gate has to see x or out first."""
    cdef Softmax p
    if not last_axis(x, dim):
        return None
    if out is None:
        out = like(<cnp.ndarray>x)
    elif not (
        same_form(<cnp.ndarray>x, out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)
        and not shifted(<cnp.ndarray>x, <cnp.ndarray>out)
    ):
        return None
    p.x, p.out, p.logarithm = cnp.PyArray_DATA(<cnp.ndarray>x), cnp.PyArray_DATA(<cnp.ndarray>out), logarithm
    run(&p, forward_task, <cnp.ndarray>x, 6)
    return out


def softmax_backward(object dy, object y, object dim, bint logarithm):
    """The input's gradient from the result y, which had its softmax along the last axis; None likewise."""
    cdef Softmax p
    if not last_axis(y, dim) or not same_form(<cnp.ndarray>y, dy):
        return None
    dx = like(<cnp.ndarray>y)
    p.x, p.dy, p.out = (
        cnp.PyArray_DATA(<cnp.ndarray>y), cnp.PyArray_DATA(<cnp.ndarray>dy), cnp.PyArray_DATA(<cnp.ndarray>dx))
    p.logarithm = logarithm
    run(&p, backward_task, <cnp.ndarray>y, 4)
    return dx


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
