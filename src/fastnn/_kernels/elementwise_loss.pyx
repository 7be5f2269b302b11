"""Losses of single elements, squared error and binary cross-entropy of logits: value, sum and gradient in one pass.

Design
  (A) A chunk of CHUNK elements is copied into local arrays (padded at the end), the formula runs over them as vector
      code, and the losses are added in LANES float64 sums; or written, where the caller wants each.
  (B) A block's sum is one float64; the entry point adds the blocks' sums in order. Blocks depend on the size only.
  (C) Weights come as full arrays or not at all; a missing weight is 1, so there is one formula.
"""

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memcpy, memset

from fastnn._kernels._runtime cimport even_block, parallel_for
from fastnn._kernels.elementary cimport exponential, log_one_plus, logistic_parts, magnitude

cnp.import_array()

__all__ = ["MSE", "BCE_WITH_LOGITS", "elementwise_loss", "elementwise_loss_backward"]

cdef enum:
    CHUNK = 64
    LANES = 16
    BLOCK = 16384

cdef enum Kind:
    SQUARED
    BINARY

MSE, BCE_WITH_LOGITS = SQUARED, BINARY


cdef struct Loss:
    Kind kind
    const void* x           # IN   (n)
    const void* target      # IN   (n)
    const void* weight      # IN   (n) or NULL
    const void* positive    # IN   (n) or NULL: weight of the positive label
    void* losses            # OUT  (n) or NULL
    double* sums            # OUT  (blocks)
    const void* scales      # IN   (n) or NULL, backward: gradient of each element's loss
    double scale            # the same for all
    void* dx                # OUT  (n), backward
    Py_ssize_t n
    Py_ssize_t block        # elements of a task in backward
    bint double_precision


cdef inline floating binary(floating x, floating t, floating positive) noexcept nogil:
    # (1 − t)·log(1 + e^x) + positive·t·log(1 + e^−x): both logarithms from e^−|x|, nothing cancels
    cdef floating soft = log_one_plus(exponential(-magnitude(x)))
    cdef floating above = (x if x > 0 else <floating>0.0) + soft
    cdef floating below = (<floating>0.0 if x > 0 else -x) + soft
    # an infinite logit on the right side of a certain label costs nothing
    above = <floating>0.0 if t == 1 else (<floating>1.0 - t) * above
    below = <floating>0.0 if t == 0 else positive * t * below
    return above + below


cdef inline floating binary_gradient(floating x, floating t, floating positive) noexcept nogil:
    cdef floating upper, lower
    logistic_parts(x, <floating>0.0, &upper, &lower)
    return (<floating>1.0 - t) * upper - positive * t * lower


cdef inline void load(const void* source, Py_ssize_t i, Py_ssize_t n, floating* chunk, floating fill) noexcept nogil:
    # `fill` where there is no source, and behind its end
    cdef Py_ssize_t j
    if source != NULL and n >= CHUNK:
        memcpy(chunk, <const floating*>source + i, CHUNK * sizeof(floating))
        return
    for j in range(CHUNK):
        chunk[j] = fill
    if source != NULL:
        memcpy(chunk, <const floating*>source + i, n * sizeof(floating))


cdef inline void forward_block(Loss* p, Py_ssize_t block, floating example) noexcept nogil:
    cdef floating x[CHUNK]
    cdef floating t[CHUNK]
    cdef floating w[CHUNK]
    cdef floating positive[CHUNK]
    cdef double total[LANES]
    cdef Py_ssize_t i = block * BLOCK
    cdef Py_ssize_t end = min(p.n, i + BLOCK)
    cdef Py_ssize_t j, k, n
    memset(total, 0, sizeof(total))
    while i < end:
        n = min(<Py_ssize_t>CHUNK, end - i)
        load(p.x, i, n, x, <floating>0.0)
        load(p.target, i, n, t, <floating>0.0)
        load(p.weight, i, n, w, <floating>1.0)
        if p.kind == SQUARED:
            for j in range(CHUNK):
                x[j] = w[j] * ((x[j] - t[j]) * (x[j] - t[j]))
        else:
            load(p.positive, i, n, positive, <floating>1.0)
            for j in range(CHUNK):
                x[j] = w[j] * binary(x[j], t[j], positive[j])
        if p.losses != NULL:
            memcpy(<floating*>p.losses + i, x, n * sizeof(floating))
        for j in range(n, CHUNK):
            x[j] = 0
        for k in range(CHUNK // LANES):
            for j in range(LANES):
                total[j] += x[k * LANES + j]
        i += CHUNK
    for j in range(8):
        total[j] += total[j + 8]
    p.sums[block] = ((total[0] + total[4]) + (total[1] + total[5])) + ((total[2] + total[6]) + (total[3] + total[7]))


cdef inline void backward_block(Loss* p, Py_ssize_t block, floating example) noexcept nogil:
    cdef floating x[CHUNK]
    cdef floating t[CHUNK]
    cdef floating w[CHUNK]
    cdef floating g[CHUNK]
    cdef floating positive[CHUNK]
    cdef Py_ssize_t i = block * p.block
    cdef Py_ssize_t end = min(p.n, i + p.block)
    cdef Py_ssize_t j, n
    while i < end:
        n = min(<Py_ssize_t>CHUNK, end - i)
        load(p.x, i, n, x, <floating>0.0)
        load(p.target, i, n, t, <floating>0.0)
        load(p.weight, i, n, w, <floating>1.0)
        load(p.scales, i, n, g, <floating>p.scale)
        if p.kind == SQUARED:
            for j in range(CHUNK):
                x[j] = g[j] * (w[j] * ((x[j] - t[j]) * <floating>2.0))
        else:
            load(p.positive, i, n, positive, <floating>1.0)
            for j in range(CHUNK):
                x[j] = g[j] * (w[j] * binary_gradient(x[j], t[j], positive[j]))
        memcpy(<floating*>p.dx + i, x, n * sizeof(floating))
        i += CHUNK


cdef void forward_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Loss* p = <Loss*>arguments
    if p.double_precision:
        forward_block(p, block, <double>0)
    else:
        forward_block(p, block, <float>0)


cdef void backward_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Loss* p = <Loss*>arguments
    if p.double_precision:
        backward_block(p, block, <double>0)
    else:
        backward_block(p, block, <float>0)


cdef const void* data_of(object array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef Loss arguments_of(int kind, cnp.ndarray x, cnp.ndarray target, object weight, object positive) noexcept:
    cdef Loss p
    memset(&p, 0, sizeof(Loss))
    p.kind = <Kind>kind
    p.x, p.target = cnp.PyArray_DATA(x), cnp.PyArray_DATA(target)
    p.weight, p.positive = data_of(weight), data_of(positive)
    p.n = cnp.PyArray_SIZE(x)
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    return p


def elementwise_loss(int kind, cnp.ndarray x, cnp.ndarray target, object weight, object positive, object losses):
    """Σ of all elements' losses; each is written into `losses` if that is an array. All arrays are regular, like x."""
    cdef Loss p = arguments_of(kind, x, target, weight, positive)
    cdef cnp.npy_intp blocks = (p.n + BLOCK - 1) // BLOCK
    cdef cnp.ndarray sums = cnp.PyArray_EMPTY(1, &blocks, cnp.NPY_DOUBLE, 0)
    cdef double total = 0
    cdef Py_ssize_t block
    p.sums = <double*>cnp.PyArray_DATA(sums)
    p.losses = <void*>data_of(losses)
    with nogil:
        # of two blocks, whose lengths the sums have fixed, the second may be too short for another thread
        parallel_for(forward_task, &p, blocks, 3.0 * min(2 * (p.n - BLOCK), p.n) * cnp.PyArray_ITEMSIZE(x))
        for block in range(blocks):
            total += p.sums[block]
    return total


def elementwise_loss_backward(
    int kind, cnp.ndarray x, cnp.ndarray target, object weight, object positive, double scale, object scales,
    cnp.ndarray dx,
):
    """dx: each element's gradient times `scale`, or times its own in `scales`. All arrays are regular, like x."""
    cdef Loss p = arguments_of(kind, x, target, weight, positive)
    p.scale = scale
    p.scales = data_of(scales)
    p.dx = cnp.PyArray_DATA(dx)
    with nogil:
        p.block = even_block(p.n, BLOCK, CHUNK)
        parallel_for(backward_task, &p, (p.n + p.block - 1) // p.block, 4.0 * cnp.PyArray_NBYTES(x))
