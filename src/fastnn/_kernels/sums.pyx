"""Sums over all axes of an array but one: the gradients of biases. And the biases themselves.

Design
  (A) An array is (outer, channels, inner); channels-last data has inner = 1. Terms are added in float64, in fixed
      pieces of the outer axis: the pieces' sums are added in order, so threads decide nothing.
"""

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memset

from fastnn._kernels._runtime cimport parallel_for

cnp.import_array()

__all__ = ["add_bias", "channel_sums"]

cdef enum:
    LANES = 16
    PIECE = 32768  # elements that one task sums, about


cdef struct Sums:
    const void* x       # IN   (outer, channels, inner)
    double* partial     # OUT  (pieces, channels)
    Py_ssize_t outer
    Py_ssize_t channels
    Py_ssize_t inner
    Py_ssize_t rows     # of the outer axis in one piece
    bint double_precision


cdef inline double run_sum(const floating* x, Py_ssize_t n) noexcept nogil:
    cdef double lanes[LANES]
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    memset(lanes, 0, sizeof(lanes))
    while i + LANES <= n:
        for j in range(LANES):
            lanes[j] += x[i + j]
        i += LANES
    for j in range(n - i):
        lanes[j] += x[i + j]
    for j in range(8):
        lanes[j] += lanes[j + 8]
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))


cdef inline void sum_piece(Sums* args, Py_ssize_t piece, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>args.x
    cdef double* partial = args.partial + piece * args.channels
    cdef Py_ssize_t _o, c
    cdef Py_ssize_t end = min(args.outer, (piece + 1) * args.rows)
    memset(partial, 0, args.channels * sizeof(double))
    x += piece * args.rows * args.channels * args.inner
    for _o in range(piece * args.rows, end):
        if args.inner == 1:
            for c in range(args.channels):
                partial[c] += x[c]
        else:
            for c in range(args.channels):
                partial[c] += run_sum(x + c * args.inner, args.inner)
        x += args.channels * args.inner


cdef void sum_task(void* arguments, Py_ssize_t piece) noexcept nogil:
    cdef Sums* args = <Sums*>arguments
    if args.double_precision:
        sum_piece(args, piece, <double>0)
    else:
        sum_piece(args, piece, <float>0)


def channel_sums(cnp.ndarray x, Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner):
    """Σ over outer and inner of a C-contiguous array seen as (outer, channels, inner): (channels), in its dtype."""
    cdef Sums args
    cdef cnp.npy_intp shape[2]
    cdef Py_ssize_t pieces, piece, c
    cdef double total
    args.x = cnp.PyArray_DATA(x)
    args.outer, args.channels, args.inner = outer, channels, inner
    args.rows = max(<Py_ssize_t>1, PIECE // max(<Py_ssize_t>1, channels * inner))
    args.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    pieces = (outer + args.rows - 1) // args.rows
    shape[0] = pieces
    shape[1] = channels
    cdef cnp.ndarray partial = cnp.PyArray_EMPTY(2, shape, cnp.NPY_DOUBLE, 0)
    cdef cnp.ndarray result = cnp.PyArray_EMPTY(1, &shape[1], cnp.PyArray_TYPE(x), 0)
    cdef void* sums = cnp.PyArray_DATA(result)
    args.partial = <double*>cnp.PyArray_DATA(partial)
    with nogil:
        parallel_for(sum_task, &args, pieces, <double>cnp.PyArray_NBYTES(x))
        for c in range(channels):
            total = 0
            for piece in range(pieces):
                total += args.partial[piece * channels + c]
            if args.double_precision:
                (<double*>sums)[c] = total
            else:
                (<float*>sums)[c] = <float>total
    return result


cdef struct Bias:
    void* y             # IN and OUT  (outer, channels, inner)
    const void* bias    # IN          (channels)
    Py_ssize_t outer
    Py_ssize_t channels
    Py_ssize_t inner
    Py_ssize_t rows
    bint double_precision


cdef inline void bias_piece(Bias* args, Py_ssize_t piece, floating example) noexcept nogil:
    cdef floating* y = <floating*>args.y + piece * args.rows * args.channels * args.inner
    cdef const floating* bias = <const floating*>args.bias
    cdef Py_ssize_t _o, c, i
    cdef floating b
    for _o in range(piece * args.rows, min(args.outer, (piece + 1) * args.rows)):
        if args.inner == 1:
            for c in range(args.channels):
                y[c] += bias[c]
        else:
            for c in range(args.channels):
                b = bias[c]
                for i in range(args.inner):
                    y[c * args.inner + i] += b
        y += args.channels * args.inner


cdef void bias_task(void* arguments, Py_ssize_t piece) noexcept nogil:
    cdef Bias* args = <Bias*>arguments
    if args.double_precision:
        bias_piece(args, piece, <double>0)
    else:
        bias_piece(args, piece, <float>0)


def add_bias(cnp.ndarray y, cnp.ndarray bias, Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner):
    """y += bias in place, y C-contiguous and seen as (outer, channels, inner)."""
    cdef Bias args
    args.y = cnp.PyArray_DATA(y)
    args.bias = cnp.PyArray_DATA(bias)
    args.outer, args.channels, args.inner = outer, channels, inner
    args.rows = max(<Py_ssize_t>1, PIECE // max(<Py_ssize_t>1, channels * inner))
    args.double_precision = cnp.PyArray_TYPE(y) == cnp.NPY_DOUBLE
    with nogil:
        parallel_for(bias_task, &args, (outer + args.rows - 1) // args.rows, 2.0 * cnp.PyArray_NBYTES(y))
