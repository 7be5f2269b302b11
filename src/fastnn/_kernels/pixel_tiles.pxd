# Pixels side by side: the product of weights and planes for few result channels.
#
#   (a) A tile (tiles.pxd) is ROWS results m by COLUMNS neighbours q in registers: out[m, q] = bias[m] +
#       Σ a[m, k]·planes[shift(k) + q].
#   (b) One or two channels, as in depthwise convolutions, are taken one by one, with LONG neighbours q in registers.
#   (c) Rows of a plane are `width` long, so a few q at the end of each row belong to no result; they are computed and
#       not stored.

from cython cimport floating
from libc.string cimport memset

from fastnn._kernels.convolution_product cimport Product, blocks_of
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.planes cimport span_of
from fastnn._kernels.runs cimport copy_run
from fastnn._kernels.tiles cimport COLUMNS, ROWS, tile

cdef enum:
    RUN = 256       # results q of one task
    LONG = 4 * COLUMNS
    LONG_RUN = 4096


cdef inline void add_columns(
    floating* values, const floating* d, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t column, Py_ssize_t channel,
) noexcept nogil:
    cdef Py_ssize_t t, m
    for m in range(rows):
        for t in range(n):
            values[m * COLUMNS + t] += d[m * channel + t * column]


cdef inline void exchange_tile(
    Product* p, floating* values, floating* images, Py_ssize_t q, Py_ssize_t n, Py_ssize_t row, Py_ssize_t rows,
    bint add,
) noexcept nogil:
    # The tile's results that are in the image go into `images`, or if `add`, a constant where this is inlined, what
    # is there is added to them. `row` is the first one's channel.
    cdef Py_ssize_t image = q // (p.height * p.width)
    cdef Py_ssize_t oh = q // p.width % p.height
    cdef Py_ssize_t ow = q % p.width
    cdef Py_ssize_t j = 0
    cdef Py_ssize_t run, m, t
    cdef floating* d
    while j < n and image < p.images:
        run = min(n - j, p.width - ow)
        if oh < p.sizes[0] and ow < p.sizes[1]:
            t = min(run, p.sizes[1] - ow)
            d = (
                images + (p.first + image) * p.at.image + row * p.at.channel + oh * p.at.row + ow * p.at.column
            )
            if add:
                add_columns(values + j, d, t, rows, p.at.column, p.at.channel)
            elif p.at.column == 1:
                for m in range(rows):
                    copy_run(values + m * COLUMNS + j, d + m * p.at.channel, t)
            else:
                store_columns(values + j, d, t, rows, p.at.column, p.at.channel)
        j += run
        ow = 0
        oh += 1
        if oh == p.height:
            oh = 0
            image += 1


cdef inline void store_columns(
    const floating* values, floating* d, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t column, Py_ssize_t channel,
) noexcept nogil:
    cdef Py_ssize_t t, m
    if channel == 1 and rows == ROWS:
        for t in range(n):
            for m in range(ROWS):
                d[t * column + m] = values[m * COLUMNS + t]
    else:
        for t in range(n):
            for m in range(rows):
                d[t * column + m * channel] = values[m * COLUMNS + t]


cdef inline void pixels_block(Product* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t group = task // p.chunks
    cdef Py_ssize_t first = task % p.chunks * p.chunk
    cdef Py_ssize_t end = min(first + p.chunk, span_of(p.images, p.height, p.width, p.sizes))
    cdef Py_ssize_t blocks = blocks_of(p)
    cdef const floating* planes = <const floating*>p.planes + group * p.group
    cdef const floating* a = <const floating*>p.a + group * blocks * p.terms * ROWS
    cdef const floating* bias = <const floating*>p.bias
    cdef floating values[ROWS * COLUMNS]
    cdef floating start[ROWS]
    cdef Py_ssize_t block, q, m, rows, row, n
    memset(values, 0, sizeof(values))
    if floating is float:
        n = COLUMNS
    else:
        n = COLUMNS // 2
    for block in range(blocks):
        rows = min(<Py_ssize_t>ROWS, p.rows - block * ROWS)
        row = group * p.rows + block * ROWS
        for m in range(ROWS):
            start[m] = bias[row + m] if bias != NULL and m < rows else <floating>0.0
        q = first
        while q < end:
            tile(a, 1, ROWS, planes + q, p.shifts, start, values, n)
            if p.residual != NULL:
                exchange_tile(p, values, <floating*>p.residual, q, min(n, end - q), row, rows, True)
            if p.finish.apply != NULL:
                p.finish.apply(&p.finish, values, ROWS * COLUMNS)
            exchange_tile(p, values, <floating*>p.out, q, min(n, end - q), row, rows, False)
            q += n
        a += p.terms * ROWS


cdef inline void pixels_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Product* p = <Product*>arguments
    if p.double_precision:
        pixels_block(p, task, <double>0)
    else:
        pixels_block(p, task, <float>0)


cdef inline inlined one_row(
    const floating* a, const floating* b, const Py_ssize_t* shifts, floating start, floating* out, Py_ssize_t n,
) noexcept nogil:
    # out[j] = start + Σ a[k]·b[shifts[k] + j] for j < n, a constant; n numbers are eight registers
    cdef floating s[LONG]
    cdef const floating* x
    cdef Py_ssize_t shift, j
    for j in range(n):
        s[j] = start
    shift = shifts[0]
    while shift >= 0:
        x = b + shift
        for j in range(n):
            s[j] = multiply_add(a[0], x[j], s[j])
        a += 1
        shifts += 1
        shift = shifts[0]
    for j in range(n):
        out[j] = s[j]


cdef inline void singles_block(Product* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t group = task // p.chunks
    cdef Py_ssize_t first = task % p.chunks * p.chunk
    cdef Py_ssize_t end = min(first + p.chunk, span_of(p.images, p.height, p.width, p.sizes))
    cdef const floating* planes = <const floating*>p.planes + group * p.group
    cdef const floating* a = <const floating*>p.a + group * p.rows * p.terms
    cdef floating values[LONG]
    cdef floating start
    cdef Py_ssize_t row, q, n
    for row in range(group * p.rows, (group + 1) * p.rows):
        start = (<const floating*>p.bias)[row] if p.bias != NULL else <floating>0.0
        q = first
        while q < end:
            n = LONG if floating is float else LONG // 2
            if q + n <= end:
                if floating is float:
                    one_row(a, planes + q, p.shifts, start, values, LONG)
                else:
                    one_row(a, planes + q, p.shifts, start, values, LONG // 2)
            else:  # no further behind the plane than its margin
                n = COLUMNS if floating is float else COLUMNS // 2
                if floating is float:
                    one_row(a, planes + q, p.shifts, start, values, COLUMNS)
                else:
                    one_row(a, planes + q, p.shifts, start, values, COLUMNS // 2)
            if p.residual != NULL:
                exchange_tile(p, values, <floating*>p.residual, q, min(n, end - q), row, 1, True)
            if p.finish.apply != NULL:
                p.finish.apply(&p.finish, values, n)
            exchange_tile(p, values, <floating*>p.out, q, min(n, end - q), row, 1, False)
            q += n
        a += p.terms


cdef inline void singles_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Product* p = <Product*>arguments
    if p.double_precision:
        singles_block(p, task, <double>0)
    else:
        singles_block(p, task, <float>0)
