"""Depthwise convolutions of images whose channels come last, and their gradient with respect to the input.

Design
  (A) out[n, i, j, c] = bias[c] + Σ w[k, l, c]·x[n, rows[i, k], columns[j, l], c] over the kernel elements (k, l) in
      order. Which row and column of x each of them meets is in two small tables, with −1 in the padding: result and
      gradient of the input differ in these tables alone.
  (B) Vectors are of channels, x is read where it lies, and a pixel's sums stay in registers over all kernel elements.
      All channels of a pixel come before the next pixel: rows of x are read from end to end.
  (C) The sums are those of convolution.pyx, one fused multiply-add each in the same order, less the padding's zeros.
"""

cimport numpy as cnp
from cython cimport floating

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.inlining cimport apart, inlined

cnp.import_array()

__all__ = ["depthwise_products"]

cdef enum:
    CHANNELS = 64   # of a pixel, at a time; in float64 half as many
    SOME = 16

cdef struct Depthwise:
    const void* x               # IN   (images, H, W, channels)
    const void* w               # IN   (KH, KW, channels)
    const void* bias            # IN   (channels), or NULL
    void* out                   # OUT  (images, OH, OW, channels)
    const Py_ssize_t* rows      # IN   (OH, KH)
    const Py_ssize_t* columns   # IN   (OW, KW)
    Py_ssize_t sizes[2]         # H, W
    Py_ssize_t outs[2]          # OH, OW
    Py_ssize_t kernel[2]
    Py_ssize_t channels
    bint double_precision


cdef inline inlined pixel_sums(
    const Depthwise* p, const floating* x, const floating* w, const floating* bias, const Py_ssize_t* rows,
    const Py_ssize_t* columns, floating* out, Py_ssize_t n,
) noexcept nogil:
    # n channels, a constant, of one pixel; the pointers are at the first of them
    cdef floating s[CHANNELS]
    cdef const floating* line
    cdef const floating* v
    cdef const floating* a
    cdef Py_ssize_t k, m, j
    for j in range(n):
        s[j] = bias[j] if bias != NULL else <floating>0.0
    for k in range(p.kernel[0]):
        if rows[k] < 0:
            continue
        line = x + rows[k] * p.sizes[1] * p.channels
        a = w + k * p.kernel[1] * p.channels
        for m in range(p.kernel[1]):
            if columns[m] >= 0:
                v = line + columns[m] * p.channels
                for j in range(n):
                    s[j] = multiply_add(a[j], v[j], s[j])
            a += p.channels
    for j in range(n):
        out[j] = s[j]


cdef apart many_channels(
    const Depthwise* p, const floating* x, const floating* w, const floating* bias, const Py_ssize_t* rows,
    const Py_ssize_t* columns, floating* out,
) noexcept nogil:
    if floating is float:
        pixel_sums(p, x, w, bias, rows, columns, out, CHANNELS)
    else:
        pixel_sums(p, x, w, bias, rows, columns, out, CHANNELS // 2)


cdef apart some_channels(
    const Depthwise* p, const floating* x, const floating* w, const floating* bias, const Py_ssize_t* rows,
    const Py_ssize_t* columns, floating* out,
) noexcept nogil:
    pixel_sums(p, x, w, bias, rows, columns, out, SOME)


cdef apart one_channel(
    const Depthwise* p, const floating* x, const floating* w, const floating* bias, const Py_ssize_t* rows,
    const Py_ssize_t* columns, floating* out,
) noexcept nogil:
    pixel_sums(p, x, w, bias, rows, columns, out, 1)


cdef inline void row_of_results(Depthwise* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef const floating* x = (
        <const floating*>p.x + task // p.outs[0] * p.sizes[0] * p.sizes[1] * p.channels
    )
    cdef const floating* w = <const floating*>p.w
    cdef const floating* bias = <const floating*>p.bias
    cdef const floating* b
    cdef const Py_ssize_t* rows = p.rows + task % p.outs[0] * p.kernel[0]
    cdef const Py_ssize_t* columns = p.columns
    cdef floating* out = <floating*>p.out + task * p.outs[1] * p.channels
    cdef Py_ssize_t many = CHANNELS if floating is float else CHANNELS // 2
    cdef Py_ssize_t _j, c, n
    for _j in range(p.outs[1]):
        c = 0
        while c < p.channels:
            n = many if c + many <= p.channels else (SOME if p.channels >= SOME else 1)
            c = min(c, p.channels - n)  # the last ones start early and repeat some
            b = bias + c if bias != NULL else NULL
            if n == many:
                many_channels(p, x + c, w + c, b, rows, columns, out + c)
            elif n == SOME:
                some_channels(p, x + c, w + c, b, rows, columns, out + c)
            else:
                one_channel(p, x + c, w + c, b, rows, columns, out + c)
            c += n
        columns += p.kernel[1]
        out += p.channels


cdef void row_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Depthwise* p = <Depthwise*>arguments
    if p.double_precision:
        row_of_results(p, task, <double>0)
    else:
        row_of_results(p, task, <float>0)


def depthwise_products(
    cnp.ndarray x, cnp.ndarray weight, object bias, cnp.ndarray rows, cnp.ndarray columns, cnp.ndarray out,
):
    """out (images, OH, OW, channels) from x (images, H, W, channels), both C-contiguous; see the design.

    weight (KH, KW, channels), C-contiguous; bias (channels) or None; rows (OH, KH), columns (OW, KW), intp.
    """
    cdef Depthwise p
    cdef Py_ssize_t k
    cdef double item = cnp.PyArray_ITEMSIZE(x)
    p.x, p.w, p.out = cnp.PyArray_DATA(x), cnp.PyArray_DATA(weight), cnp.PyArray_DATA(out)
    p.bias = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray?>bias)
    p.rows, p.columns = <const Py_ssize_t*>cnp.PyArray_DATA(rows), <const Py_ssize_t*>cnp.PyArray_DATA(columns)
    for k in range(2):
        p.sizes[k], p.outs[k] = cnp.PyArray_DIM(x, k + 1), cnp.PyArray_DIM(out, k + 1)
        p.kernel[k] = cnp.PyArray_DIM(weight, k)
    p.channels = cnp.PyArray_DIM(x, 3)
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    with nogil:
        # work in bytes: a core multiplies about three numbers in the time it moves a byte; here it also loads them
        parallel_for(
            row_task, &p, cnp.PyArray_DIM(out, 0) * p.outs[0],
            cnp.PyArray_SIZE(out) * item * (1.0 + p.kernel[0] * p.kernel[1] / 1.5),
        )
