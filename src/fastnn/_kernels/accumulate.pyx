"""Weighted sums of microbatch gradients, and their spread, over a table of parameters.

State arrays of a parameter of n elements, all float64: 0 the sum Σ w·g; 1 for float64 parameters what the sum's
rounding lost; 2 with statistics the sum of squared deviations M2 = Σ w·(g − ḡ)².

Design
  (A) float32 gradients are summed in double, float64 gradients in double-double (exact product, exact sum): the mean
      is good to a unit in the last place of the gradients' precision, whatever the split and the order of magnitude.
  (B) One pass adds a gradient, updates M2 and clears the gradient. The first microbatch of a pass writes the state
      instead of adding to it: nothing is cleared beforehand, and reading is saved.
  (C) M2 grows by w·W/(W + w)·(g − S/W)² with W and S = Σ w·g before the addition (Welford; West 1979): no
      cancellation, and a sum of positive terms.
  (D) Everything is elementwise but the two sums in `accumulator_finish`, which are formed piece by piece.
"""

cimport numpy as cnp
from cython cimport floating
from libc.math cimport fma  # exact on every level
from libc.string cimport memset

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels._tensors cimport Piece, Pieces, Tensor, TensorTable, stream_work
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.squares cimport plain_sum, square_sum

cnp.import_array()

__all__ = ["accumulator_add", "accumulator_finish"]

cdef enum:
    STRIP = 1024  # elements whose gradient and state stay in the first-level cache between loops

cdef struct Addition:
    Pieces table
    double weight     # w
    double shrink     # 1/W, 0 for the first microbatch
    double spread     # w·W/(W + w)
    bint first

cdef struct Finish:
    Pieces table
    double weight     # N


# ---- mathematics on pointers ---------------------------------------------------------------------------------------

cdef inline void add_strip(floating* g, double* s, double* low, double* m2, const Addition* addition,
                           Py_ssize_t n) noexcept nogil:
    # g INOUT (n,) gradient, cleared; s, low, m2 INOUT (n,) state; m2 is NULL without statistics
    cdef double weight = addition.weight, shrink = addition.shrink, spread = addition.spread
    cdef double x, product, deviation, total, part
    cdef Py_ssize_t j
    if addition.first:
        for j in range(n):
            x = <double>g[j]
            s[j] = weight * x
            if floating is double:
                low[j] = fma(weight, x, -s[j])
        if m2 != NULL:
            memset(m2, 0, n * sizeof(double))
    else:
        if m2 != NULL:
            for j in range(n):
                deviation = multiply_add(-s[j], shrink, <double>g[j])
                m2[j] = multiply_add(spread * deviation, deviation, m2[j])
        for j in range(n):
            x = <double>g[j]
            if floating is float:
                s[j] = multiply_add(weight, x, s[j])
            else:
                product = weight * x
                total = s[j] + product
                part = total - s[j]
                low[j] += ((s[j] - (total - part)) + (product - part)) + fma(weight, x, -product)
                s[j] = total
    memset(g, 0, n * sizeof(floating))


cdef inline void add(floating* g, double* s, double* low, double* m2, Py_ssize_t n,
                     const Addition* addition) noexcept nogil:
    cdef Py_ssize_t i, k
    for k in range((n + STRIP - 1) // STRIP):
        i = k * STRIP
        add_strip(g + i, s + i, low + i, m2 + i if m2 != NULL else NULL, addition, min(<Py_ssize_t>STRIP, n - i))


cdef inline void finish(floating* g, double* s, const double* low, const double* m2, Py_ssize_t n, double weight,
                        double* partial) noexcept nogil:
    # g OUT (n,) the mean; s INOUT (n,) becomes the mean; low, m2 IN (n,); partial OUT (2,) Σ mean², Σ m2
    cdef double mean, corrected
    cdef Py_ssize_t j
    for j in range(n):
        mean = s[j] / weight
        if floating is double:
            # the exact remainder and what the sum lost; where the sum is infinite both are NaN
            corrected = mean + (fma(-mean, weight, s[j]) + low[j]) / weight
            mean = corrected if corrected == corrected else mean
        s[j] = mean
    for j in range(n):
        g[j] = <floating>s[j]
    if m2 != NULL:
        partial[0] = square_sum(s, n, 1)
        partial[1] = plain_sum(m2, n)


# ---- tasks ---------------------------------------------------------------------------------------------------------

cdef inline double* state(const Tensor* tensor, int slot, Py_ssize_t start) noexcept nogil:
    return <double*>tensor.state[slot] + start if tensor.state[slot] != NULL else NULL


cdef void add_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef const Addition* this = <const Addition*>arguments
    cdef const Tensor* tensor
    cdef const Piece* piece
    cdef Py_ssize_t k, n
    cdef double* s
    cdef double* low
    cdef double* m2
    for k in range(this.table.first[block], this.table.first[block + 1]):
        piece = &this.table.pieces[k]
        tensor = &this.table.tensors[piece.tensor]
        n = piece.stop - piece.start
        s, low, m2 = (state(tensor, 0, piece.start), state(tensor, 1, piece.start), state(tensor, 2, piece.start))
        if tensor.wide:
            add(<double*>tensor.grad + piece.start, s, low, m2, n, this)
        else:
            add(<float*>tensor.grad + piece.start, s, low, m2, n, this)


cdef void finish_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef const Finish* this = <const Finish*>arguments
    cdef const Tensor* tensor
    cdef const Piece* piece
    cdef Py_ssize_t k, n
    cdef double* s
    cdef double* low
    cdef double* m2
    for k in range(this.table.first[block], this.table.first[block + 1]):
        piece = &this.table.pieces[k]
        tensor = &this.table.tensors[piece.tensor]
        n = piece.stop - piece.start
        s, low, m2 = (state(tensor, 0, piece.start), state(tensor, 1, piece.start), state(tensor, 2, piece.start))
        if tensor.wide:
            finish(<double*>tensor.grad + piece.start, s, low, m2, n, this.weight, &this.table.partial[2 * k])
        else:
            finish(<float*>tensor.grad + piece.start, s, low, m2, n, this.weight, &this.table.partial[2 * k])


# ---- entry points --------------------------------------------------------------------------------------------------

def accumulator_add(TensorTable table, double weight, double before):
    """Take the gradients as the mean of `weight` samples, after microbatches of `before` samples, and clear them."""
    cdef Addition this
    table = table.ready(False, True)
    this.table, this.weight, this.first = table.table, weight, before == 0
    this.shrink = 0 if this.first else 1 / before
    this.spread = 0 if this.first else weight * (before / (weight + before))
    with nogil:
        parallel_for(add_task, &this, table.blocks, stream_work(6 * table.nbytes))
    table.done()


def accumulator_finish(TensorTable table, double weight):
    """Write the mean over `weight` samples into the gradients and the sums; (Σ ḡ², Σ M2) with statistics."""
    cdef Finish this
    cdef double squares, deviations
    table = table.ready(False, True)
    this.table, this.weight = table.table, weight
    with nogil:
        parallel_for(finish_task, &this, table.blocks, stream_work(4 * table.nbytes))
        squares, deviations = table.total(0), table.total(1)
    table.done()
    return squares, deviations
