# Channels side by side: the product of weights and planes for SIDE_BY_SIDE result channels and more.
#
#   (a) A tile is PIXELS pixels by `wide` channels in registers: the weights of one term are loaded, and one number of
#       the planes is broadcast for each pixel. Pixels lie anywhere, so the padding of the planes costs nothing.
#   (b) The pixels' sums are written out, and the terms' places are a table that ends with -1: see tiles.pxd.
#   (c) Two tiles make the PAIR of which results are stored. Where pixels are neighbours in memory, it is transposed
#       first; then residual and activation are applied, and whole runs are stored.

from cython cimport floating

from fastnn._kernels.convolution_product cimport Product
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.runs cimport add_run, copy_run
from fastnn._kernels.tiles cimport COLUMNS, HALVES

cdef enum:
    WIDEST = 32
    PIXELS = 8
    PAIR = 16


cdef inline Py_ssize_t wide(bint double_precision) noexcept nogil:
    # channels of a tile: two registers' worth
    return COLUMNS // 2 if double_precision else COLUMNS


cdef inline inlined four_pixels(
    const floating* a, const floating* x, const Py_ssize_t* places, const Py_ssize_t* shifts, const floating* start,
    floating* out, Py_ssize_t n, Py_ssize_t stride,
) noexcept nogil:
    cdef floating s0[WIDEST]
    cdef floating s1[WIDEST]
    cdef floating s2[WIDEST]
    cdef floating s3[WIDEST]
    cdef const floating* x0 = x + places[0]
    cdef const floating* x1 = x + places[1]
    cdef const floating* x2 = x + places[2]
    cdef const floating* x3 = x + places[3]
    cdef floating v
    cdef Py_ssize_t shift, j
    for j in range(n):
        s0[j] = s1[j] = s2[j] = s3[j] = start[j]
    shift = shifts[0]
    while shift >= 0:
        for j in range(n):
            v = a[j]
            s0[j] = multiply_add(x0[shift], v, s0[j])
            s1[j] = multiply_add(x1[shift], v, s1[j])
            s2[j] = multiply_add(x2[shift], v, s2[j])
            s3[j] = multiply_add(x3[shift], v, s3[j])
        a += stride
        shifts += 1
        shift = shifts[0]
    for j in range(n):
        out[j] = s0[j]
        out[stride + j] = s1[j]
        out[2 * stride + j] = s2[j]
        out[3 * stride + j] = s3[j]


cdef inline inlined eight_pixels(
    const floating* a, const floating* x, const Py_ssize_t* places, const Py_ssize_t* shifts, const floating* start,
    floating* out, Py_ssize_t n, Py_ssize_t stride,
) noexcept nogil:
    cdef floating s0[WIDEST]
    cdef floating s1[WIDEST]
    cdef floating s2[WIDEST]
    cdef floating s3[WIDEST]
    cdef floating s4[WIDEST]
    cdef floating s5[WIDEST]
    cdef floating s6[WIDEST]
    cdef floating s7[WIDEST]
    cdef const floating* x0 = x + places[0]
    cdef const floating* x1 = x + places[1]
    cdef const floating* x2 = x + places[2]
    cdef const floating* x3 = x + places[3]
    cdef const floating* x4 = x + places[4]
    cdef const floating* x5 = x + places[5]
    cdef const floating* x6 = x + places[6]
    cdef const floating* x7 = x + places[7]
    cdef floating v
    cdef Py_ssize_t shift, j
    for j in range(n):
        s0[j] = s1[j] = s2[j] = s3[j] = s4[j] = s5[j] = s6[j] = s7[j] = start[j]
    shift = shifts[0]
    while shift >= 0:
        for j in range(n):
            v = a[j]
            s0[j] = multiply_add(x0[shift], v, s0[j])
            s1[j] = multiply_add(x1[shift], v, s1[j])
            s2[j] = multiply_add(x2[shift], v, s2[j])
            s3[j] = multiply_add(x3[shift], v, s3[j])
            s4[j] = multiply_add(x4[shift], v, s4[j])
            s5[j] = multiply_add(x5[shift], v, s5[j])
            s6[j] = multiply_add(x6[shift], v, s6[j])
            s7[j] = multiply_add(x7[shift], v, s7[j])
        a += stride
        shifts += 1
        shift = shifts[0]
    for j in range(n):
        out[j] = s0[j]
        out[stride + j] = s1[j]
        out[2 * stride + j] = s2[j]
        out[3 * stride + j] = s3[j]
        out[4 * stride + j] = s4[j]
        out[5 * stride + j] = s5[j]
        out[6 * stride + j] = s6[j]
        out[7 * stride + j] = s7[j]


cdef inline inlined pixels_by_channels(
    const floating* a,              # IN   (terms, stride)
    const floating* x,
    const Py_ssize_t* places,       # IN   (PIXELS), of the pixels in the planes
    const Py_ssize_t* shifts,       # IN   (terms), then -1
    const floating* start,          # IN   (n)
    floating* out,                  # OUT  (PIXELS, stride), the first n of each row
    Py_ssize_t n,                   # channels: a constant where this is inlined, as stride
    Py_ssize_t stride,
) noexcept nogil:
    if HALVES:
        four_pixels(a, x, places, shifts, start, out, n, stride)
        four_pixels(a, x, places + 4, shifts, start, out + 4 * stride, n, stride)
    else:
        eight_pixels(a, x, places, shifts, start, out, n, stride)


cdef struct Place:
    # of a pixel: its numbers, and where it lies in a plane and in the result
    Py_ssize_t image
    Py_ssize_t row
    Py_ssize_t column


cdef inline void walk(
    const Product* p, Place* place, Py_ssize_t n, Py_ssize_t* sources, Py_ssize_t* targets,
) noexcept nogil:
    # the next n pixels' places; those beyond repeat the last
    cdef Py_ssize_t t
    cdef Py_ssize_t source = (place.image * p.height + place.row) * p.width + place.column
    cdef Py_ssize_t target = (p.first + place.image) * p.at.image + place.row * p.at.row + place.column * p.at.column
    if place.column + PAIR < p.sizes[1] and n == PAIR:
        for t in range(PAIR):
            sources[t] = source + t
            targets[t] = target + t * p.at.column
        place.column += PAIR
        return
    for t in range(n):
        sources[t] = (place.image * p.height + place.row) * p.width + place.column
        targets[t] = (
            (p.first + place.image) * p.at.image + place.row * p.at.row + place.column * p.at.column
        )
        place.column += 1
        if place.column == p.sizes[1]:
            place.column = 0
            place.row += 1
            if place.row == p.sizes[0]:
                place.row = 0
                place.image += 1
    for t in range(n, PAIR):
        sources[t] = sources[n - 1]


cdef inline void exchange_channels(
    floating* values, floating* images, const Py_ssize_t* targets, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t stride,
    bint add,
) noexcept nogil:
    # values (n, stride): each pixel's channels are neighbours in memory
    cdef Py_ssize_t t
    for t in range(n):
        if add:
            add_run(images + targets[t], values + t * stride, rows)
        else:
            copy_run(values + t * stride, images + targets[t], rows)


cdef inline void exchange_pixels(
    floating* values, floating* images, const Py_ssize_t* targets, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t channel,
    bint add,
) noexcept nogil:
    # values (rows, PAIR): some pixels of a channel are neighbours in memory
    cdef Py_ssize_t t = 0
    cdef Py_ssize_t run, m
    cdef floating* d
    while t < n:
        run = n - t if targets[n - 1] - targets[t] == n - 1 - t else 1
        while t + run < n and targets[t + run] == targets[t] + run:
            run += 1
        d = images + targets[t]
        if add:
            for m in range(rows):
                add_run(d + m * channel, values + m * PAIR + t, run)
        elif run == 1:
            for m in range(rows):
                d[m * channel] = values[m * PAIR + t]
        else:
            for m in range(rows):
                copy_run(values + m * PAIR + t, d + m * channel, run)
        t += run
