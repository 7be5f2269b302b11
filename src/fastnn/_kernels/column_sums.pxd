# The sums of column norms, forward: Σ(x − shift) and Σ(x − shift)² down each lane of some rows, in twice the data's
# precision. Rows are taken some at a time, strip by strip; see columns_forward.pyx for why.

from cython cimport floating

from fastnn._kernels.column_parameters cimport SCALE, SHIFT
from fastnn._kernels.columns cimport (
    FIRST, FIRST_LOW, SECOND, SECOND_LOW, SLIM, STRIP, Layout, strip_of, widen,
)
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport (
    add_number, add_product, add_product_of_numbers, add_term, dd, wide_deviation,
)

cdef enum:
    # lanes under a mask that are taken at a time
    KEPT = 512


cdef inline inlined strip_sums(
    const floating* x, const unsigned char* mask, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t skip, Py_ssize_t width, bint cold, double* totals,
) noexcept nogil:
    # some rows, added to totals (rows of sums, stride) from lane `skip` on; `width` and `cold` are constants where this
    # is inlined: without `cold` every scale is 1 and every shift 0
    cdef Py_ssize_t stride = layout.stride
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t j
    cdef dd d
    cdef double sums[STRIP]
    cdef double squares[STRIP]
    cdef double sums_low[STRIP]
    cdef double squares_low[STRIP]
    cdef double shift[STRIP]
    cdef double scale[STRIP]
    cdef double wide[STRIP]
    if cold:
        widen(parameters + SHIFT * stride, shift, width)
        widen(parameters + SCALE * stride, scale, width)
    for j in range(width):
        sums[j] = totals[FIRST * stride + j]
        squares[j] = totals[SECOND * stride + j]
        if floating is double:
            sums_low[j] = totals[FIRST_LOW * stride + j]
            squares_low[j] = totals[SECOND_LOW * stride + j]
    while rows > 0:
        widen(x, wide, width)
        for j in range(width):
            if not cold:
                add_number(&sums[j], &sums_low[j], wide[j], x[0])
                add_product_of_numbers(&squares[j], &squares_low[j], wide[j], wide[j], x[0])
                continue
            d = wide_deviation(wide[j], shift[j], scale[j], True, x[0])
            if mask != NULL and not mask[j]:
                d.high = 0
                d.low = 0
            add_term(&sums[j], &sums_low[j], d, x[0])
            add_product(&squares[j], &squares_low[j], d, d, x[0])
        x += lanes
        if mask != NULL:
            mask += lanes
        rows -= 1
    for j in range(skip, width):
        totals[FIRST * stride + j] = sums[j]
        totals[SECOND * stride + j] = squares[j]
        if floating is double:
            totals[FIRST_LOW * stride + j] = sums_low[j]
            totals[SECOND_LOW * stride + j] = squares_low[j]


cdef inline void sum_rows(
    const floating* x, const floating* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t first,
    Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    # Lanes first … last − 1 of some rows. Slim strips of float data always have their shift: GCC 12 takes so short a
    # loop without one apart into single numbers. The bits are the same.
    cdef Py_ssize_t strip = strip_of(x[0])
    cdef Py_ssize_t at = first
    cdef Py_ssize_t start, lane
    if floating is float and STRIP == SLIM:
        cold = True
    if not cold:
        while last - at >= strip:
            strip_sums(x + at, NULL, parameters + at, layout, rows, 0, strip_of(x[0]), False, totals + at)
            at += strip
    elif floating is float:
        while last - at >= strip:
            strip_sums(x + at, NULL, parameters + at, layout, rows, 0, STRIP, True, totals + at)
            at += strip
    while at < last:
        start = min(at, max(first, last - SLIM))
        if last - start < SLIM:
            for lane in range(start, last):
                strip_sums(x + lane, NULL, parameters + lane, layout, rows, 0, 1, True, totals + lane)
        elif cold or floating is float:
            strip_sums(x + start, NULL, parameters + start, layout, rows, at - start, SLIM, True, totals + start)
        else:
            strip_sums(x + start, NULL, parameters + start, layout, rows, at - start, SLIM, False, totals + start)
        at = start + SLIM


cdef inline apart keep_counted(
    const floating* x, const unsigned char* mask, const floating* shift, Py_ssize_t n, floating* kept,
) noexcept nogil:
    # the shift, whose deviation is 0, in place of what does not count
    cdef Py_ssize_t j
    cdef floating value, instead
    for j in range(n):
        value = x[j]
        instead = shift[j]
        kept[j] = value if mask[j] else instead


cdef inline void sum_masked_rows(
    const floating* x, const unsigned char* mask, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t first, Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    cdef floating kept[KEPT]
    cdef Py_ssize_t at, n
    while rows > 0:
        if floating is double and cold:     # shift / scale might not be exact
            for at in range(first, last):
                strip_sums(x + at, mask + at, parameters + at, layout, 1, 0, 1, True, totals + at)
        else:
            at = first
            while at < last:
                n = min(last - at, <Py_ssize_t>KEPT)
                keep_counted(x + at, mask + at, parameters + SHIFT * layout.stride + at, n, kept)
                if cold:
                    sum_rows(kept, parameters + at, layout, 1, 0, n, True, totals + at)
                else:
                    sum_rows(kept, parameters + at, layout, 1, 0, n, False, totals + at)
                at += n
        x += layout.lanes
        mask += layout.lanes
        rows -= 1


cdef inline void some_sums(
    const floating* x, const unsigned char* mask, const floating* parameters, Layout* layout, Py_ssize_t row,
    Py_ssize_t rows, Py_ssize_t first, Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    # of `rows` rows from `row` on; x and mask at the outer index's start
    if mask != NULL:
        sum_masked_rows(
            x + row * layout.lanes, mask + row * layout.lanes, parameters, layout, rows, first, last, cold, totals)
    else:
        sum_rows(x + row * layout.lanes, parameters, layout, rows, first, last, cold, totals)
