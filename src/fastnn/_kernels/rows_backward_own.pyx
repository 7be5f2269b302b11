"""Norms whose statistics run along contiguous memory: backward, where each place in a row has its own weight.

The formulas are those of rows_backward: with g = dy·weight,

    dinput = rstd · (g − Σg/n − x̂ · Σ(g·x̂)/n),  dweight = Σ dy·x̂ and dbias = Σ dy down the rows.

Design
  (A) Layer norm, RMS norm, and group norm of arrays without positions. Rows are taken TILE_ROWS at a time: first the
      two sums of each, then, strip by strip of columns, dinput of all of them together with dy and dy·x̂ down the
      columns, while dy and x are still in a near cache and the sums of a strip stay in registers.
  (B) Sums along a row: lanes of the data's precision, double after at most FLUSH additions (double data: double-double
      after FLUSH_DOUBLE). x̂ itself does not enter: Σg·x̂ = rstd·(Σg·(x − shift) − lo·Σg).
  (C) Sums down the columns: the data's precision over TILE_ROWS rows, then double (double-double) over a chunk of
      rows; chunks are added in order and depend on the shape alone.
  (D) x̂ is computed from x and the saved statistics by the same formula as in forward.
  (E) Float data in its own unit, nearly all there is, takes own_floats.pxd, where sums stay in registers: each row for
      the sums along it; for the gradient a tile of such rows without a mask, and its bits are the same either way.
      What is here in loops over local arrays is for the rest.
"""

from cython cimport floating
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport (
    FLUSH, LANES, WIDE, WideSum, add_to_lanes, dd, dd_add, dd_scale, merge,
)
from fastnn._kernels.norm cimport (
    DISTANT, Group, Means, View, claim_lines, count_of, input_gradient, means_of, normalized, offset_of,
)
from fastnn._kernels.norm_call cimport Call, offer
from fastnn._kernels.own_floats cimport (
    C1, C2, OFFSET, ROW_PARAMETERS, RSTD, SCALE, SHIFT, own_strips, own_sums,
)
from fastnn._kernels.rows cimport exact_sum_of, sum_of

__all__ = ["rows_backward_own"]

cdef enum:
    TILE_ROWS = 8
    FLUSH_DOUBLE = 4
    # columns of a strip: its sums fit the registers
    STRIP = 64
    NARROW = 16
    # Rows of a chunk: as many as bring CHUNK elements, within these bounds, but not more than leave some chunks for
    # every thread; and the most chunks. The sums of a chunk are read and written with every tile.
    CHUNK = 262144
    LEAST_ROWS = 8
    MOST_ROWS = 64
    SOME_CHUNKS = 4
    CHUNKS = 32
    # columns whose chunks are added by one task
    REDUCED = 1024


cdef struct Backward:
    View view                   # (1, 1, rows, n)
    const void* dy              # IN   (rows, n)
    const void* x               # IN   the same
    void* dx                    # OUT  the same
    const void* weight          # IN   (period · n)
    const unsigned char* mask   # IN   like x, or NULL
    const Group* groups         # IN   (rows)
    Py_ssize_t period           # row r uses the weights from (r % period) · n on
    bint centered               # False: RMS norm, no mean was taken
    bint double_precision
    bint distant                # the result does not fit a near cache
    Py_ssize_t chunk_rows       # of one residue of the period
    Py_ssize_t chunks
    double* columns             # scratch (chunks, rows of sums, period · n), see below
    void* dweight               # OUT  (period · n)
    void* dbias                 # OUT  likewise


# Sums down the columns: Σdy, Σdy·x̂ and, of double data, their low parts.
cdef enum:
    DY
    DYX
    DY_LOW
    DYX_LOW
    SUMS


cdef inline Py_ssize_t sums_of(Backward* p) noexcept nogil:
    return SUMS if p.double_precision else DY_LOW


# ---- sums along a row ------------------------------------------------------------------------------------------------

cdef inline inlined add_some(
    const floating* dy, const floating* x, const floating* weight, Py_ssize_t n, floating shift, floating scale,
    floating* sums, floating* products,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating g
    for j in range(n):
        g = dy[j] * weight[j]
        sums[j] += g
        products[j] = multiply_add(g, multiply_add(x[j], scale, -shift), products[j])


cdef inline apart row_products(
    const floating* dy,         # IN   (n)
    const floating* x,          # IN   (n)
    const floating* weight,     # IN   (n)
    const floating* result,     # what will be written next, (n), or NULL
    Py_ssize_t n, const Group* group,
    dd* sum_g, dd* sum_gd,      # OUT  Σg, Σg·(x·scale − shift)
) noexcept nogil:
    cdef WideSum total_g, total_gd
    cdef floating sums[LANES]
    cdef floating products[LANES]
    cdef floating shift = <floating>group.shift
    cdef floating scale = <floating>group.scale
    cdef Py_ssize_t j
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t filled = 0
    cdef Py_ssize_t flush = FLUSH
    if floating is double:
        flush = FLUSH_DOUBLE
    for j in range(WIDE):
        total_g.high[j] = total_g.low[j] = 0
        total_gd.high[j] = total_gd.low[j] = 0
    for j in range(LANES):
        sums[j] = 0
        products[j] = 0
    while n - i >= LANES:
        if result != NULL:
            claim_lines(result + i, LANES)
        add_some(dy + i, x + i, weight + i, LANES, shift, scale, sums, products)
        i += LANES
        filled += 1
        if filled == flush:
            merge(sums, &total_g)
            merge(products, &total_gd)
            filled = 0
    while n - i >= NARROW:
        add_some(dy + i, x + i, weight + i, NARROW, shift, scale, sums, products)
        i += NARROW
    add_some(dy + i, x + i, weight + i, n - i, shift, scale, sums, products)
    merge(sums, &total_g)
    merge(products, &total_gd)
    if floating is float:
        sum_g.high = sum_of(total_g.high)
        sum_gd.high = sum_of(total_gd.high)
    else:
        sum_g[0] = exact_sum_of(&total_g)
        sum_gd[0] = exact_sum_of(&total_gd)


cdef inline apart tile_parameters(
    Backward* p, Py_ssize_t first, Py_ssize_t rows, const dd* sums_g, const dd* sums_gd,
    floating* parameters,       # OUT  (TILE_ROWS, ROW_PARAMETERS)
) noexcept nogil:
    # of all rows of a tile side by side: so roots and quotients do not wait for each other
    cdef double sum_g[TILE_ROWS]
    cdef double sum_gx[TILE_ROWS]
    cdef double n[TILE_ROWS]
    cdef double c1[TILE_ROWS]
    cdef double c2[TILE_ROWS]
    cdef Group groups[TILE_ROWS]
    cdef const Group* group
    cdef Means means
    cdef dd total
    cdef Py_ssize_t r
    cdef floating* row
    for r in range(TILE_ROWS):
        n[r] = <double>p.view.inner
        groups[r] = p.groups[first + min(r, rows - 1) * p.period]
    if p.mask != NULL:
        for r in range(rows):
            n[r] = <double>count_of(p.mask + (first + r * p.period) * p.view.inner, &p.view)
    if floating is float:
        for r in range(TILE_ROWS):      # beyond `rows` whatever is there
            sum_g[r] = sums_g[r].high
            sum_gx[r] = sums_gd[r].high
        for r in range(TILE_ROWS):
            sum_gx[r] = (sum_gx[r] - groups[r].lo * sum_g[r]) * groups[r].rstd
    else:
        for r in range(rows):
            group = groups + r
            sum_g[r] = sums_g[r].high
            total = dd_add(sums_gd[r], dd_scale(sums_g[r], -group.lo))
            sum_gx[r] = dd_scale(total, group.rstd).high
    for r in range(TILE_ROWS):
        means = means_of(sum_g[r], sum_gx[r], n[r], p.centered, False)
        c1[r] = -means.g * groups[r].rstd
        c2[r] = -means.gx * groups[r].rstd
    for r in range(rows):
        row = parameters + r * ROW_PARAMETERS
        row[SHIFT] = <floating>groups[r].shift
        row[SCALE] = <floating>groups[r].scale
        row[RSTD] = <floating>groups[r].rstd
        row[OFFSET] = offset_of(groups + r, row[0])
        row[C1] = <floating>c1[r]
        row[C2] = <floating>c2[r]


# ---- the input's gradient, and sums down the columns -----------------------------------------------------------------

cdef inline inlined strip(
    const floating* dy, const floating* x, floating* dx,    # at the strip of the first row; rows lie `stride` apart
    const unsigned char* mask, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width, const floating* weight,
    const floating* parameters,                             # (rows, ROW_PARAMETERS)
    bint cold, double* sums, Py_ssize_t columns,            # INOUT (rows of sums, columns)
) noexcept nogil:
    # `width` and `cold` are constants where this is inlined: without `cold` every scale is 1, and mask NULL
    cdef floating shift, scale, rstd, offset, c1, c2, xhat, d
    cdef floating sum_dy[STRIP]
    cdef floating sum_dyx[STRIP]
    cdef floating out[STRIP]
    cdef Py_ssize_t r, j
    for j in range(width):
        sum_dy[j] = 0
        sum_dyx[j] = 0
    for r in range(rows):
        shift = parameters[r * ROW_PARAMETERS + SHIFT]
        scale = parameters[r * ROW_PARAMETERS + SCALE]
        rstd = parameters[r * ROW_PARAMETERS + RSTD]
        offset = parameters[r * ROW_PARAMETERS + OFFSET]
        c1 = parameters[r * ROW_PARAMETERS + C1]
        c2 = parameters[r * ROW_PARAMETERS + C2]
        for j in range(width):
            d = dy[r * stride + j]
            xhat = normalized(x[r * stride + j], shift, rstd, offset, scale, cold)
            sum_dy[j] += d
            sum_dyx[j] = multiply_add(d, xhat, sum_dyx[j])
            out[j] = input_gradient(
                d * weight[j], xhat, rstd, c1, c2, mask == NULL or mask[r * stride + j] != 0, scale, cold)
        for j in range(width):      # apart, so that nothing that is read can be what is written
            dx[r * stride + j] = out[j]
    add_to_lanes(sum_dy, 0, width, sums + DY * columns, sums + DY_LOW * columns)
    add_to_lanes(sum_dyx, 0, width, sums + DYX * columns, sums + DYX_LOW * columns)


cdef inline apart strips(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, Py_ssize_t stride, Py_ssize_t rows,
    Py_ssize_t n, const floating* weight, const floating* parameters, bint cold, double* sums, Py_ssize_t columns,
) noexcept nogil:
    # all strips of a tile
    cdef Py_ssize_t i = 0
    if cold or mask != NULL:
        while i < n:
            strip(
                dy + i, x + i, dx + i, mask + i if mask != NULL else NULL, stride, rows, min(<Py_ssize_t>STRIP, n - i),
                weight + i, parameters, True, sums + i, columns)
            i += STRIP
        return
    while n - i >= STRIP:
        strip(
            dy + i, x + i, dx + i, NULL, stride, rows, STRIP, weight + i, parameters, False, sums + i, columns)
        i += STRIP
    while n - i >= NARROW:
        strip(
            dy + i, x + i, dx + i, NULL, stride, rows, NARROW, weight + i, parameters, False, sums + i, columns)
        i += NARROW
    if i < n:
        strip(dy + i, x + i, dx + i, NULL, stride, rows, n - i, weight + i, parameters, False, sums + i, columns)


cdef inline void tile(
    Backward* p, Py_ssize_t first, Py_ssize_t rows, double* sums, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    # rows first, first + period, … , `rows` ≤ TILE_ROWS of them
    cdef Py_ssize_t n = p.view.inner
    cdef const floating* weight = <const floating*>p.weight + (first % p.period if p.period > 1 else 0) * n
    cdef floating parameters[TILE_ROWS * ROW_PARAMETERS]
    cdef dd sums_g[TILE_ROWS]
    cdef dd sums_gd[TILE_ROWS]
    cdef Py_ssize_t start = first * n
    cdef Py_ssize_t r, at
    cdef const Group* group
    cdef bint cold = False
    for r in range(rows):
        at = (first + r * p.period) * n
        group = p.groups + first + r * p.period
        if floating is float and group.scale == 1:
            own_sums(
                dy + at, x + at, weight, dx + at if p.distant else NULL, n, <float>group.shift, &sums_g[r].high,
                &sums_gd[r].high)
        else:
            row_products(
                dy + at, x + at, weight, dx + at if p.distant else NULL, n, group, sums_g + r, sums_gd + r)
        cold = cold or group.scale != 1
    tile_parameters(p, first, rows, sums_g, sums_gd, parameters)
    if floating is float and not cold and p.mask == NULL:
        own_strips(
            dy + start, x + start, dx + start, p.period * n, rows, n, weight, parameters, sums,
            sums + DYX * p.period * n)
        return
    strips(
        dy + start, x + start, dx + start, p.mask + start if p.mask != NULL else NULL, p.period * n, rows, n, weight,
        parameters, cold, sums, p.period * n)


# ---- tasks -----------------------------------------------------------------------------------------------------------

cdef inline void chunk(
    Backward* p, Py_ssize_t block, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    cdef Py_ssize_t residue = block % p.period
    cdef Py_ssize_t number = block // p.period
    cdef Py_ssize_t total = p.period * p.view.inner
    cdef double* sums = p.columns + number * sums_of(p) * total + residue * p.view.inner
    cdef Py_ssize_t q
    cdef Py_ssize_t last = min((number + 1) * p.chunk_rows, p.view.groups // p.period)
    cdef Py_ssize_t row = number * p.chunk_rows
    for q in range(sums_of(p)):
        memset(sums + q * total, 0, p.view.inner * sizeof(double))
    while row < last:
        tile(p, row * p.period + residue, min(<Py_ssize_t>TILE_ROWS, last - row), sums, dy, x, dx)
        row += TILE_ROWS


cdef void chunk_block(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    if p.double_precision:
        chunk(p, block, <const double*>p.dy, <const double*>p.x, <double*>p.dx)
    else:
        chunk(p, block, <const float*>p.dy, <const float*>p.x, <float*>p.dx)


cdef void reduce_block(void* arguments, Py_ssize_t block) noexcept nogil:
    # chunks, in order → dweight, dbias of some columns
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t total = p.period * p.view.inner
    cdef Py_ssize_t first = block * REDUCED
    cdef Py_ssize_t last = min(first + REDUCED, total)
    cdef double* sums = p.columns
    cdef double* part
    cdef Py_ssize_t c, j, q
    for c in range(1, p.chunks):
        part = sums + c * sums_of(p) * total
        for q in range(DY_LOW):
            if p.double_precision:
                add_to_lanes(part + q * total, first, last, sums + q * total, sums + (DY_LOW + q) * total)
                for j in range(first, last):
                    sums[(DY_LOW + q) * total + j] += part[(DY_LOW + q) * total + j]
            else:
                for j in range(first, last):
                    sums[q * total + j] += part[q * total + j]
    if p.double_precision:
        for j in range(first, last):
            (<double*>p.dbias)[j] = sums[DY * total + j] + sums[DY_LOW * total + j]
            (<double*>p.dweight)[j] = sums[DYX * total + j] + sums[DYX_LOW * total + j]
    else:
        for j in range(first, last):
            (<float*>p.dbias)[j] = <float>sums[DY * total + j]
            (<float*>p.dweight)[j] = <float>sums[DYX * total + j]


cdef void run_backward(Backward* p) noexcept nogil:
    cdef Py_ssize_t total = p.period * p.view.inner
    cdef double work = 3.0 * p.view.groups * p.view.inner * (8 if p.double_precision else 4)
    p.distant = work >= DISTANT
    parallel_for(chunk_block, p, p.chunks * p.period, work)
    # a fourth of the bytes that the sums have: in a few of them another thread, which would fetch them, is no help
    parallel_for(reduce_block, p, (total + REDUCED - 1) // REDUCED, 4.0 * p.chunks * total)


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef int backward(const Call* call) noexcept nogil:
    # the view is (1, 1, rows, n), and weight not NULL
    cdef Backward p
    cdef Py_ssize_t rows = call.view.groups // call.period
    p.view = call.view
    p.dy, p.x, p.dx, p.weight, p.mask = call.dy, call.x, call.y, call.weight, call.mask
    p.groups = call.groups
    p.dweight, p.dbias = call.dweight, call.dbias
    p.period, p.centered, p.double_precision = call.period, call.centered, call.double_precision
    p.chunk_rows = min(<Py_ssize_t>MOST_ROWS, CHUNK // p.view.inner, (rows + SOME_CHUNKS - 1) // SOME_CHUNKS)
    p.chunk_rows = max((p.chunk_rows + 7) // 8 * 8, <Py_ssize_t>LEAST_ROWS, (rows + CHUNKS - 1) // CHUNKS)
    p.chunks = (rows + p.chunk_rows - 1) // p.chunk_rows
    p.columns = <double*>malloc(p.chunks * sums_of(&p) * p.period * p.view.inner * sizeof(double))
    if p.columns == NULL:
        return -1
    run_backward(&p)
    free(p.columns)
    return 0


rows_backward_own = offer(backward)
