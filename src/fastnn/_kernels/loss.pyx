"""Cross-entropy of rows of logits, forward and backward, without an array of probabilities.

Design
  (A) A row is one position, its classes contiguous: loss = Σ_c w_c·q_c·(log s − (x_c − m)), m the largest logit and
      s = Σ e^(x − m). m is exact and s is a sum of numbers in [0, 1] added in float64, so nothing overflows or
      cancels. Backward needs m and s only: dx_c = g·(e^(x_c − m)/s · Σ_k w_k·q_k − w_c·q_c).
  (B) Labels are class indices, or probabilities q; smoothing replaces q by (1 − ε)·q + ε/C without an array.
  (C) Each row writes its own loss (float64); they are added in one order, with the rounding errors carried along.
"""

cimport numpy as cnp
from cython cimport floating
from libc.math cimport isfinite, log
from libc.stdint cimport int64_t

from fastnn._kernels._runtime cimport even_block, parallel_for
from fastnn._kernels.elementary cimport exponential
from fastnn._kernels.row_exponentials cimport LANES, load, row_maximum, row_sum_exp
from fastnn._kernels.runs cimport copy_run

cnp.import_array()

__all__ = ["cross_entropy_rows", "cross_entropy_rows_backward"]

cdef enum:
    BLOCK = 8192  # logits that a thread claims at a time, about


cdef struct CrossEntropy:
    const void* x               # IN   (rows, classes)
    const int64_t* labels       # IN   (rows) or NULL
    const void* probabilities   # IN   (rows, classes) or NULL
    const void* weight          # IN   (classes) or NULL
    double* statistics          # OUT  (rows, 2): m and s; IN in backward
    double* losses              # OUT  (rows)
    double* norms               # OUT  (rows): the weight with which a row counts in the mean
    void* dx                    # OUT  (rows, classes), backward
    const double* scales        # IN   (rows), backward: the gradient of each row's loss; or NULL
    double scale                # the same for all rows
    double weight_sum           # Σ_c w_c
    double smoothing
    int64_t ignore
    Py_ssize_t rows
    Py_ssize_t classes
    Py_ssize_t rows_per_block
    bint double_precision


cdef inline void forward_row(CrossEntropy* p, Py_ssize_t row, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>p.x + row * p.classes
    cdef const floating* weight = <const floating*>p.weight
    cdef const floating* q
    cdef floating largest = row_maximum(x, p.classes)
    cdef double s = row_sum_exp(x, p.classes, largest)
    cdef double log_s = log(s)
    cdef double even = p.smoothing / p.classes
    cdef double total = 0
    cdef double w, label
    cdef Py_ssize_t c
    cdef int64_t target
    p.statistics[2 * row] = largest
    p.statistics[2 * row + 1] = s
    p.norms[row] = 1
    if p.labels == NULL:
        q = <const floating*>p.probabilities + row * p.classes
        for c in range(p.classes):
            w = weight[c] if weight != NULL else 1
            label = (1 - p.smoothing) * q[c] + even
            # a class that does not count adds nothing, be its logit −inf
            if label * w != 0:
                total += label * w * (log_s - (<double>x[c] - largest))
        p.losses[row] = total
        return
    target = p.labels[row]
    if target == p.ignore:
        p.losses[row] = 0
        p.norms[row] = 0
        return
    w = weight[target] if weight != NULL else 1
    p.norms[row] = w
    if p.smoothing != 0:
        for c in range(p.classes):
            total += (weight[c] if weight != NULL else 1) * (log_s - (<double>x[c] - largest))
        total *= even
    p.losses[row] = total + (1 - p.smoothing) * w * (log_s - (<double>x[target] - largest))


cdef inline void backward_row(CrossEntropy* p, Py_ssize_t row, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>p.x + row * p.classes
    cdef floating* dx = <floating*>p.dx + row * p.classes
    cdef const floating* weight = <const floating*>p.weight
    cdef const floating* q = NULL
    cdef floating largest = <floating>p.statistics[2 * row]
    cdef double g = p.scales[row] if p.scales != NULL else p.scale
    cdef double even = p.smoothing / p.classes
    cdef double mass = 0
    cdef double w, label
    cdef floating factor
    cdef floating v[LANES]
    cdef Py_ssize_t j, c, n
    cdef Py_ssize_t i = 0
    cdef int64_t target = -1
    if p.labels != NULL:
        target = p.labels[row]
        if target == p.ignore:
            for c in range(p.classes):
                dx[c] = 0
            return
        mass = (1 - p.smoothing) * (weight[target] if weight != NULL else 1) + even * p.weight_sum
    else:
        q = <const floating*>p.probabilities + row * p.classes
        for c in range(p.classes):
            mass += ((1 - p.smoothing) * q[c] + even) * (weight[c] if weight != NULL else 1)
    factor = <floating>(g * mass / p.statistics[2 * row + 1])
    while i < p.classes:
        n = min(<Py_ssize_t>LANES, p.classes - i)
        load(x + i, n, v, <floating>(-1.0 / 0.0))
        for j in range(LANES):
            v[j] = exponential(v[j] - largest) * factor
        if q != NULL or p.smoothing != 0:
            for j in range(n):
                w = weight[i + j] if weight != NULL else 1
                label = (1 - p.smoothing) * q[i + j] + even if q != NULL else even
                v[j] = <floating>(v[j] - g * w * label)
        copy_run(v, dx + i, n)
        i += LANES
    if q == NULL:
        dx[target] = <floating>(dx[target] - g * (1 - p.smoothing) * (weight[target] if weight != NULL else 1))


cdef void forward_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef CrossEntropy* p = <CrossEntropy*>arguments
    cdef Py_ssize_t row
    for row in range(block * p.rows_per_block, min(p.rows, (block + 1) * p.rows_per_block)):
        if p.double_precision:
            forward_row(p, row, <double>0)
        else:
            forward_row(p, row, <float>0)


cdef void backward_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef CrossEntropy* p = <CrossEntropy*>arguments
    cdef Py_ssize_t row
    for row in range(block * p.rows_per_block, min(p.rows, (block + 1) * p.rows_per_block)):
        if p.double_precision:
            backward_row(p, row, <double>0)
        else:
            backward_row(p, row, <float>0)


# ---- entry points ----------------------------------------------------------------------------------------------------

cdef void describe(
    CrossEntropy* p, cnp.ndarray x, cnp.ndarray target, object weight, int64_t ignore, double smoothing,
) except *:
    cdef cnp.ndarray w
    cdef Py_ssize_t c
    p.x = cnp.PyArray_DATA(x)
    p.rows, p.classes = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    p.rows_per_block = even_block(p.rows, max(<Py_ssize_t>1, BLOCK // max(<Py_ssize_t>1, p.classes)), 1)
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    p.labels = NULL
    p.probabilities = NULL
    if cnp.PyArray_TYPE(target) == cnp.NPY_INT64:
        p.labels = <const int64_t*>cnp.PyArray_DATA(target)
    else:
        p.probabilities = cnp.PyArray_DATA(target)
    p.weight = NULL
    p.weight_sum = <double>p.classes
    if weight is not None:
        w = <cnp.ndarray>weight
        p.weight = cnp.PyArray_DATA(w)
        p.weight_sum = 0
        for c in range(p.classes):
            p.weight_sum += (<double*>p.weight)[c] if p.double_precision else (<float*>p.weight)[c]
    p.ignore = ignore
    p.smoothing = smoothing


def cross_entropy_rows(
    cnp.ndarray x, cnp.ndarray target, object weight, int64_t ignore, double smoothing, cnp.ndarray statistics,
    cnp.ndarray losses,
):
    """Fill statistics (rows, 2) and losses (rows), both float64; return (Σ losses, Σ weights of the rows).

    x (rows, classes); target int64 (rows) or probabilities (rows, classes); all C-contiguous. Returns the first label
    that is neither a class nor `ignore`, as an int, and fills nothing, if there is one.
    """
    cdef CrossEntropy p
    cdef Py_ssize_t row
    cdef double total = 0
    cdef double lost = 0
    cdef double norm = 0
    cdef double larger
    describe(&p, x, target, weight, ignore, smoothing)
    cdef cnp.npy_intp rows = p.rows
    if p.labels != NULL:
        for row in range(p.rows):
            if not 0 <= p.labels[row] < p.classes and p.labels[row] != ignore:
                return p.labels[row]
    cdef cnp.ndarray norms = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_DOUBLE, 0)
    p.statistics = <double*>cnp.PyArray_DATA(statistics)
    p.losses = <double*>cnp.PyArray_DATA(losses)
    p.norms = <double*>cnp.PyArray_DATA(norms)
    with nogil:
        parallel_for(
            forward_task, &p, (p.rows + p.rows_per_block - 1) // p.rows_per_block, 8.0 * cnp.PyArray_NBYTES(x),
        )
        for row in range(p.rows):
            larger = total + p.losses[row]
            if isfinite(larger):
                lost += (total - larger) + p.losses[row] if total > p.losses[row] else (p.losses[row] - larger) + total
            total = larger
            norm += p.norms[row]
    return total + lost, norm


def cross_entropy_rows_backward(
    cnp.ndarray x, cnp.ndarray target, object weight, int64_t ignore, double smoothing, cnp.ndarray statistics,
    double scale, object scales, cnp.ndarray dx,
):
    """Fill dx (rows, classes); each row's loss has the gradient `scale`, or its own in `scales`, float64 (rows)."""
    cdef CrossEntropy p
    describe(&p, x, target, weight, ignore, smoothing)
    p.statistics = <double*>cnp.PyArray_DATA(statistics)
    p.scale = scale
    p.scales = NULL
    if scales is not None:
        p.scales = <const double*>cnp.PyArray_DATA(<cnp.ndarray>scales)
    p.dx = cnp.PyArray_DATA(dx)
    with nogil:
        parallel_for(
            backward_task, &p, (p.rows + p.rows_per_block - 1) // p.rows_per_block, 8.0 * cnp.PyArray_NBYTES(x),
        )
