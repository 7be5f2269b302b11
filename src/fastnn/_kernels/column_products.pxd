# The sums of column norms, backward: Σ dy and Σ dy·(x − shift) down each lane of some rows, in twice the data's
# precision; as those of column_sums.pxd. Where the statistics are constants, the gradients with them.

from cython cimport floating

from fastnn._kernels.column_gradients cimport gradient_rows
from fastnn._kernels.column_parameters cimport FACTOR, SCALE, SHIFT
from fastnn._kernels.columns cimport (
    FIRST, FIRST_LOW, SECOND, SECOND_LOW, SLIM, STRIP, Layout, put, strip_of, widen,
)
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.lanes cimport add_multiple, add_number, wide_deviation
from fastnn._kernels.streaming cimport stream_end


cdef inline inlined strip_products(
    const floating* dy, const floating* x, floating* dx, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t skip, Py_ssize_t width, bint written, bint streamed, bint cold, double* totals,
) noexcept nogil:
    # some rows, added to totals (rows of sums, stride) from lane `skip` on, and if the statistics are constants their
    # gradients; from `width` to `cold` all are constants where this is inlined: without `cold` every scale is 1
    cdef Py_ssize_t stride = layout.stride
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t j
    cdef double sums[STRIP]
    cdef double products[STRIP]
    cdef double sums_low[STRIP]
    cdef double products_low[STRIP]
    cdef double shift[STRIP]
    cdef double scale[STRIP]
    cdef double wide[STRIP]
    cdef double upstream[STRIP]
    cdef floating factor[STRIP]
    cdef floating out[STRIP]
    for j in range(width):
        factor[j] = parameters[FACTOR * stride + j]
    widen(parameters + SHIFT * stride, shift, width)
    widen(parameters + SCALE * stride, scale, width)
    for j in range(width):
        sums[j] = totals[FIRST * stride + j]
        products[j] = totals[SECOND * stride + j]
        if floating is double:
            sums_low[j] = totals[FIRST_LOW * stride + j]
            products_low[j] = totals[SECOND_LOW * stride + j]
    while rows > 0:
        if written:
            for j in range(width):
                out[j] = dy[j] * factor[j]
            put(out, dx, width, streamed)
            dx += lanes
        widen(x, wide, width)
        widen(dy, upstream, width)
        for j in range(width):
            add_number(&sums[j], &sums_low[j], upstream[j], x[0])
            add_multiple(
                &products[j], &products_low[j], upstream[j], wide_deviation(wide[j], shift[j], scale[j], cold, x[0]),
                x[0])
        dy += lanes
        x += lanes
        rows -= 1
    for j in range(skip, width):
        totals[FIRST * stride + j] = sums[j]
        totals[SECOND * stride + j] = products[j]
        if floating is double:
            totals[FIRST_LOW * stride + j] = sums_low[j]
            totals[SECOND_LOW * stride + j] = products_low[j]


cdef inline void sum_rows(
    const floating* dy, const floating* x, floating* dx, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t first, Py_ssize_t last, bint streamed, bint cold, double* totals,
) noexcept nogil:
    # lanes first … last − 1 of some rows; what is left beside whole strips as in column_sums.pxd. With dx, gradients of
    # constant statistics too.
    cdef Py_ssize_t strip = strip_of(x[0])
    cdef Py_ssize_t at = first
    cdef Py_ssize_t start
    if cold:
        pass
    elif dx == NULL:
        while last - at >= strip:
            strip_products(
                dy + at, x + at, NULL, parameters + at, layout, rows, 0, strip_of(x[0]), False, False, False,
                totals + at)
            at += strip
    elif streamed:
        while last - at >= strip:
            strip_products(
                dy + at, x + at, dx + at, parameters + at, layout, rows, 0, strip_of(x[0]), True, True, False,
                totals + at)
            at += strip
        stream_end()
    else:
        while last - at >= strip:
            strip_products(
                dy + at, x + at, dx + at, parameters + at, layout, rows, 0, strip_of(x[0]), True, False, False,
                totals + at)
            at += strip
    if dx != NULL and at < last:
        gradient_rows(dy + at, x + at, dx + at, NULL, parameters + at, layout, rows, last - at, True, False, cold)
    while at < last:
        start = min(at, max(first, last - SLIM))
        if last - start < SLIM:
            strip_products(
                dy + start, x + start, NULL, parameters + start, layout, rows, 0, last - start, False, False, True,
                totals + start)
        elif cold:
            strip_products(
                dy + start, x + start, NULL, parameters + start, layout, rows, at - start, SLIM, False, False, True,
                totals + start)
        else:
            strip_products(
                dy + start, x + start, NULL, parameters + start, layout, rows, at - start, SLIM, False, False, False,
                totals + start)
        at = start + SLIM
