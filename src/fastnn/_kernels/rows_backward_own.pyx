"""Norms whose statistics run along contiguous memory: backward, where each place in a row has its own weight.

The formulas are those of rows_backward: with g = dy·weight,

    dinput = rstd · (g − Σg/n − x̂ · Σ(g·x̂)/n),  dweight = Σ dy·x̂ and dbias = Σ dy down the rows.

Design
  (A) Layer norm, RMS norm, and group norm of arrays without positions. Rows are taken in tiles: first the two sums of
      each, then, strip by strip of columns, dinput of all of them together with dy and dy·x̂ down the columns, while dy
      and x are still in a near cache and the sums of a strip stay in registers.
  (B) Sums along a row: lanes of the data's precision, double after at most FLUSH additions (double data: double-double
      after FLUSH_DOUBLE). x̂ itself does not enter: Σg·x̂ = rstd·(Σg·(x − shift) − lo·Σg).
  (C) Sums down the columns: twice the data's precision, row after row over a chunk of them, with an x̂ of that
      precision. Many rows may be alike, as encodings of few categories are: what float takes off their x̂, off products
      or off sums of a few, is taken off again and again, 500 units of the result in 10⁵ rows. Chunks are added in order
      and depend on the shape alone.
  (D) dinput = fma(g, rstd, fma(x − shift, slope, constant)), with slope = −rstd²·Σgx̂/n and constant = −rstd·Σg/n −
      lo·slope.
  (E) Float data without a mask and in its own unit, nearly all there is, takes own_floats.pxd, where sums stay in
      registers. A tile is then TILE_ROWS rows, or several times as many narrow ones, so that the latencies of
      horizontal sums and of quotients hide behind each other, or two or four very wide ones. Loops over local arrays,
      in own_loops.pxd, are for the rest, with the same bits down the columns.
  (F) Large results bypass the caches, which the next tiles then have for themselves.
"""

from cython cimport floating
from libc.math cimport NAN, isfinite
from libc.stdlib cimport free, malloc

from fastnn._kernels._runtime cimport less_shared, parallel_for
from fastnn._kernels.fused cimport EXACT_PRODUCTS
from fastnn._kernels.inlining cimport apart
from fastnn._kernels.lanes cimport WIDE, add_to_lanes, dd, dd_add, dd_scale, dd_times
from fastnn._kernels.norm cimport DISTANT, LINE, Group, Tangent, View, count_of, lo_of, rstd_of, tangent_of
from fastnn._kernels.norm_call cimport Call, offer
from fastnn._kernels.own_doubles cimport own_double_strips, own_double_sums
from fastnn._kernels.own_floats cimport (
    CONSTANT, ROW_PARAMETERS, RSTD, SCALE, SHIFT, SLOPE, TILE_ROWS, Columns, Exact, RowSums, own_strips, own_sums,
)
from fastnn._kernels.own_loops cimport Masked, exact_row_products, put_exact, row_products, strips
from fastnn._kernels.rows cimport even
from fastnn._kernels.streaming cimport stream_end
from fastnn._kernels.vectors cimport (
    add, between, d8, divide8, larger8, load8, multiply8, narrow, spread, store8, subtract8, transpose8,
)
from fastnn._kernels.wide cimport all_at_mean, has_extremes, wide_gradient

__all__ = ["rows_backward_own"]

cdef enum:
    # Rows of a chunk: as many as bring CHUNK elements, within these bounds, but not more than leave some chunks for
    # every thread, unless these are FEW_ROWS, of FEW elements: then their sums take longer to fetch than another thread
    # saves. And the most chunks; if there are more than two, a number that two or four threads share evenly. The sums
    # of a chunk are read and written with every tile.
    CHUNK = 262144
    FEW = 65536
    FEW_ROWS = 32
    LEAST_ROWS = 8
    MOST_ROWS = 64
    SOME_CHUNKS = 4
    CHUNKS = 32
    # columns whose chunks are added by one task
    REDUCED = 1024
    # Rows of a tile in registers: as many blocks as bring MANY elements, or one; half of one if that is NEAR, in the
    # first-level cache, and a whole is not. Very wide rows that are too FAR for the second are taken together all the
    # same, for the sums down their columns would go through it with each row; but not if even those do not fit.
    PAIR = 2
    NEAR = 3072
    FAR = 1048576
    MANY = 2048
    MOST_TILE_ROWS = 64
    MOST_BLOCKS = 8         # of TILE_ROWS rows in a tile
    # bytes read and written together that the caches do not hold
    BEYOND = 24 << 20


cdef struct Backward:
    const Call* call
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
    bint beyond                 # it fits none
    bint streamed               # it goes past them
    Py_ssize_t tile_rows        # of a tile in registers
    Py_ssize_t chunk_rows       # of one residue of the period
    Py_ssize_t chunks
    size_t shared               # bytes of several chunks' sums
    double* columns             # scratch (chunks, rows of sums, period · n), see below; NULL if a tile is all there is
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


# ---- what the rows of a tile need ------------------------------------------------------------------------------------

cdef inline void exact_parameters(
    const RowSums* sums, Py_ssize_t row, const Group* group, double n, bint centered,
    double* parameters,         # OUT  (ROW_PARAMETERS, TILE_ROWS) at the row
    Exact* exact,               # OUT  at the row
    Masked* masked,             # OUT  or NULL
) noexcept nogil:
    cdef dd rstd = rstd_of(group)
    cdef dd sum_g, sum_gx
    cdef Tangent tangent
    sum_g.high, sum_g.low = sums.g[row], sums.g_low[row]
    sum_gx.high, sum_gx.low = sums.gd[row], sums.gd_low[row]
    sum_gx = dd_times(dd_add(sum_gx, dd_scale(dd_times(sum_g, lo_of(group)), -1)), rstd)
    tangent = tangent_of(sum_g, sum_gx, n, centered, False, group.lo, rstd, parameters[0])
    parameters[SLOPE * TILE_ROWS] = tangent.slope
    parameters[CONSTANT * TILE_ROWS] = tangent.constant
    exact.rstd_low[row] = rstd.low
    exact.offset[row] = -group.lo
    if masked != NULL:
        masked.rstd = rstd
        masked.tangent = tangent


cdef inline void gather(
    Backward* p, Py_ssize_t first, Py_ssize_t rows,
    double* fields,             # OUT  (4, TILE_ROWS): shift, lo, rstd, scale
    RowSums* sums,              # INOUT
) noexcept nogil:
    # what follows the last row repeats it
    cdef Py_ssize_t row = sizeof(Group) // sizeof(double)
    cdef Group few[TILE_ROWS]
    cdef Py_ssize_t r
    if rows == TILE_ROWS:
        transpose8(&p.groups[first].shift, p.period * row, fields)
        return
    for r in range(TILE_ROWS):
        few[r] = p.groups[first + min(r, rows - 1) * p.period]
        sums.g[r] = sums.g[min(r, rows - 1)]
        sums.gd[r] = sums.gd[min(r, rows - 1)]
    transpose8(&few[0].shift, row, fields)


cdef inline apart tile_parameters(
    Backward* p, Py_ssize_t first, Py_ssize_t rows,
    RowSums* sums,              # INOUT, filled up
    floating* parameters,       # OUT  (ROW_PARAMETERS, TILE_ROWS)
    Exact* exact,               # OUT
    Masked* masked,             # OUT  (TILE_ROWS), of double data under a mask
) noexcept nogil:
    # side by side, so that quotients do not wait for each other; of double data exact_parameters has the last word
    cdef double fields[4 * TILE_ROWS]
    cdef double counts[TILE_ROWS]
    cdef d8 n = spread(<double>p.view.inner)
    cdef d8 shift, lo, rstd, scale, mean_g, mean_gx, slope
    cdef Py_ssize_t r, row
    gather(p, first, rows, fields, sums)
    shift, lo = load8(fields), load8(fields + TILE_ROWS)
    rstd, scale = load8(fields + 2 * TILE_ROWS), load8(fields + 3 * TILE_ROWS)
    if p.mask != NULL:
        for r in range(TILE_ROWS):
            row = first + min(r, rows - 1) * p.period
            counts[r] = <double>count_of(p.mask + row * p.view.inner, &p.view)
        n = larger8(load8(counts), spread(1))       # without any, nothing is taken off any gradient
    mean_g = divide8(load8(sums.g), n) if p.centered else spread(0)
    mean_gx = divide8(multiply8(subtract8(load8(sums.gd), multiply8(lo, load8(sums.g))), rstd), n)
    slope = multiply8(multiply8(mean_gx, rstd), rstd)
    put(shift, parameters + SHIFT * TILE_ROWS)
    put(scale, parameters + SCALE * TILE_ROWS)
    put(rstd, parameters + RSTD * TILE_ROWS)
    put(subtract8(spread(-0.0), slope), parameters + SLOPE * TILE_ROWS)
    put(subtract8(multiply8(slope, lo), multiply8(mean_g, rstd)), parameters + CONSTANT * TILE_ROWS)
    store8(exact.rstd, rstd)
    store8(exact.offset, multiply8(subtract8(spread(-0.0), add(shift, lo)), rstd))
    if floating is double:
        for r in range(rows):
            exact_parameters(
                sums, r, p.groups + first + r * p.period, counts[r] if p.mask != NULL else <double>p.view.inner,
                p.centered, parameters + r, exact, masked + r if p.mask != NULL else NULL)


cdef inline void put(d8 values, floating* parameters) noexcept nogil:
    if floating is float:
        narrow(parameters, values)
    else:
        store8(parameters, values)


# ---- rows that need more range ---------------------------------------------------------------------------------------

cdef inline double most_of_sums(floating example) noexcept nogil:
    return 1e15 if floating is float else 1e150


cdef inline bint suspect(d8 sum_g, d8 sum_gd, d8 rstd, floating example) noexcept nogil:
    # whether sums of rows are so small or so large that terms of them, or of the gradient, may have left the range
    cdef double most = most_of_sums(example)
    cdef d8 term = multiply8(multiply8(sum_gd, rstd), rstd)
    return not (
        between(sum_g, -most, most)
        and between(multiply8(sum_gd, sum_gd), 1 / most / most, most * most)
        and between(multiply8(term, term), 1 / most / most, most * most))


cdef inline bint suspect_row(
    Backward* p, const Group* group, double sum_g, double sum_gd, floating example,
) noexcept nogil:
    # The same of any row: products with what a mask leaves out may hide how small the gradients are, and of double
    # data rstd·weight is a number of its own then.
    return group.scale != 1 or suspect(spread(sum_g), spread(sum_gd), spread(group.rstd), example) or (
        p.mask != NULL and (floating is double or suspect(spread(0), spread(sum_g), spread(1), example)))


cdef inline apart find_wide(
    Backward* p, Py_ssize_t first, Py_ssize_t rows, const RowSums* sums, const floating* dy, const floating* x,
    bint* wide,                 # OUT  (rows)
    Exact* exact,               # INOUT
) noexcept nogil:
    # What such a row adds down the columns is NaN, with which repair_parameters takes those sums again. NaN of float
    # data without a mask is the answer already. Of float rows at their mean x̂ is made exactly 0.
    cdef Py_ssize_t r, row, at
    for r in range(rows):
        row = first + r * p.period
        at = row * p.view.inner
        if floating is float and sums.gd[r] == 0 and all_at_mean(dy + at, x + at, p.view.inner, p.groups + row):
            exact.rstd[r] = exact.offset[r] = 0
        wide[r] = suspect_row(p, p.groups + row, sums.g[r], sums.gd[r], x[0]) and (
            has_extremes(p.call, row, dy, x, p.groups[row].scale) or (p.mask != NULL and not isfinite(sums.gd[r])))
        if wide[r]:
            exact.offset[r] = NAN


cdef inline apart write_wide(
    Backward* p, Py_ssize_t first, Py_ssize_t rows, const bint* wide, const floating* dy, const floating* x,
    floating* dx,
) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(rows):
        if wide[r]:
            wide_gradient(p.call, first + r * p.period, dy, x, dx)


# ---- tiles in loops --------------------------------------------------------------------------------------------------

cdef inline const floating* weights_of(Backward* p, Py_ssize_t row, floating example) noexcept nogil:
    return <const floating*>p.weight + (row % p.period if p.period > 1 else 0) * p.view.inner


cdef inline void tile(
    Backward* p, Py_ssize_t first, Py_ssize_t rows, Columns* to, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    # rows first, first + period, … , `rows` ≤ TILE_ROWS of them
    cdef Py_ssize_t n = p.view.inner
    cdef const floating* weight = weights_of(p, first, dy[0])
    cdef floating parameters[ROW_PARAMETERS * TILE_ROWS]
    cdef RowSums sums
    cdef Exact exact
    cdef Masked masked[TILE_ROWS]
    cdef dd sum_g, sum_gd
    cdef Py_ssize_t start = first * n
    cdef Py_ssize_t r, at
    cdef const Group* group
    cdef bint wide[TILE_ROWS]
    cdef bint suspected
    cdef bint cold = False
    for r in range(rows):
        at = (first + r * p.period) * n
        group = p.groups + first + r * p.period
        if p.mask != NULL:
            exact_row_products(dy + at, x + at, weight, n, group, &sums, r)
        elif floating is float and group.scale == 1:
            own_sums(dy + at, x + at, weight, NULL, 0, 1, n, group, 0, sums.g + r, sums.gd + r)
        elif floating is double and group.scale == 1 and n >= WIDE:
            own_double_sums(
                dy + at, x + at, weight, dx + at if p.distant else NULL, n, group.shift, &sum_g, &sum_gd)
            put_exact(sum_g, sum_gd, &sums, r)
        else:
            row_products(dy + at, x + at, weight, dx + at if p.distant else NULL, n, group, &sums, r)
        cold = cold or group.scale != 1
    tile_parameters(p, first, rows, &sums, parameters, &exact, masked)
    suspected = cold or p.mask != NULL or suspect(load8(sums.g), load8(sums.gd), load8(exact.rstd), x[0])
    if suspected:
        find_wide(p, first, rows, &sums, dy, x, wide, &exact)
    if floating is double and EXACT_PRODUCTS and not cold and p.mask == NULL:
        own_double_strips(dy + start, x + start, dx + start, p.period * n, rows, n, weight, parameters, &exact, to)
    else:
        strips(
            dy + start, x + start, dx + start, p.mask + start if p.mask != NULL else NULL, p.period * n, rows, n,
            weight, parameters, &exact, masked, cold, to)
    to.begun = True
    if suspected:
        write_wide(p, first, rows, wide, dy, x, dx)


# ---- tiles in registers ----------------------------------------------------------------------------------------------

cdef inline bint own_unit(Backward* p, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    # rows first, first + period, …
    cdef Py_ssize_t r
    cdef bint own = p.mask == NULL
    for r in range(rows):
        own = own and p.groups[first + r * p.period].scale == 1
    return own


cdef inline void own_tile(
    Backward* p, Py_ssize_t first, Py_ssize_t rows, Columns* to, const float* dy, const float* x, float* dx,
) noexcept nogil:
    # rows first, first + period, …: up to TILE_ROWS, or several times as many
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t stride = p.period * n
    cdef Py_ssize_t blocks = (rows + TILE_ROWS - 1) // TILE_ROWS
    cdef const float* weight = weights_of(p, first, <float>0)
    cdef float parameters[MOST_TILE_ROWS * ROW_PARAMETERS]
    cdef RowSums sums[MOST_BLOCKS]
    cdef Exact exact[MOST_BLOCKS]
    cdef bint suspected[MOST_BLOCKS]
    cdef bint wide[MOST_TILE_ROWS]
    cdef Py_ssize_t b, row, count, at
    for b in range(blocks):
        row = first + b * TILE_ROWS * p.period
        count = min(<Py_ssize_t>TILE_ROWS, rows - b * TILE_ROWS)
        at = row * n
        own_sums(
            dy + at, x + at, weight, dx + at if p.beyond and not p.streamed else NULL, stride, count, n,
            p.groups + row, p.period, sums[b].g, sums[b].gd)
    for b in range(blocks):
        row = first + b * TILE_ROWS * p.period
        count = min(<Py_ssize_t>TILE_ROWS, rows - b * TILE_ROWS)
        tile_parameters(p, row, count, sums + b, parameters + b * TILE_ROWS * ROW_PARAMETERS, exact + b, NULL)
        suspected[b] = suspect(load8(sums[b].g), load8(sums[b].gd), load8(exact[b].rstd), <float>0)
        if suspected[b]:
            find_wide(p, row, count, sums + b, dy, x, wide + b * TILE_ROWS, exact + b)
    for b in range(blocks):
        count = min(<Py_ssize_t>TILE_ROWS, rows - b * TILE_ROWS)
        at = (first + b * TILE_ROWS * p.period) * n
        own_strips(
            dy + at, x + at, dx + at, stride, count, n, weight, parameters + b * TILE_ROWS * ROW_PARAMETERS, exact + b,
            to, p.streamed)
        to.begun = True
        if suspected[b]:
            write_wide(p, first + b * TILE_ROWS * p.period, count, wide + b * TILE_ROWS, dy, x, dx)


# ---- tasks -----------------------------------------------------------------------------------------------------------

cdef inline Columns columns_of(Backward* p, Py_ssize_t number, Py_ssize_t residue) noexcept nogil:
    # of one chunk
    cdef Py_ssize_t total = p.period * p.view.inner
    cdef Py_ssize_t start = residue * p.view.inner
    cdef Columns to
    to.begun = False
    to.dbias = to.dweight = NULL
    if p.columns == NULL:
        to.dbias, to.dweight = <float*>p.dbias + start, <float*>p.dweight + start
        return to
    to.sum_dy = p.columns + number * sums_of(p) * total + start
    to.sum_dyx = to.sum_dy + DYX * total
    to.low_dy, to.low_dyx = to.sum_dy + DY_LOW * total, to.sum_dy + DYX_LOW * total
    return to


cdef inline void chunk(
    Backward* p, Py_ssize_t block, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    cdef Py_ssize_t residue = block % p.period
    cdef Py_ssize_t number = block // p.period
    cdef Py_ssize_t row = number * p.chunk_rows
    cdef Py_ssize_t last = min(row + p.chunk_rows, p.view.groups // p.period)
    cdef Py_ssize_t count
    cdef Columns to = columns_of(p, number, residue)
    while row < last:
        if floating is float:
            count = min(p.tile_rows, last - row)
            if own_unit(p, row * p.period + residue, count):
                own_tile(p, row * p.period + residue, count, &to, dy, x, dx)
                row += count
                continue
        count = min(<Py_ssize_t>TILE_ROWS, last - row)
        tile(p, row * p.period + residue, count, &to, dy, x, dx)
        row += count
    if p.streamed:
        stream_end()


cdef void chunk_block(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    if p.double_precision:
        chunk(p, block, <const double*>p.dy, <const double*>p.x, <double*>p.dx)
    else:
        chunk(p, block, <const float*>p.dy, <const float*>p.x, <float*>p.dx)


cdef inline void add_chunks(
    Backward* p, Py_ssize_t first, Py_ssize_t last, Py_ssize_t which, floating* y,
) noexcept nogil:
    # chunks, in order, into the first one's sums → y (period · n), dweight or dbias, from the first to the last column
    cdef Py_ssize_t total = p.period * p.view.inner
    cdef double* sums = p.columns + which * total
    cdef double* low = sums + DY_LOW * total
    cdef const double* part
    cdef Py_ssize_t c, j
    for c in range(1, p.chunks):
        part = sums + c * sums_of(p) * total
        if floating is double:
            add_to_lanes(part, first, last, sums, low)
        for j in range(first, last):
            if floating is double:
                low[j] += part[DY_LOW * total + j]
            else:
                sums[j] += part[j]
    for j in range(first, last):
        y[j] = <floating>(sums[j] + (low[j] if floating is double else 0))


cdef void reduce_block(void* arguments, Py_ssize_t block) noexcept nogil:
    # chunks → dweight, dbias of some columns
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t first = block * REDUCED
    cdef Py_ssize_t last = min(first + REDUCED, p.period * p.view.inner)
    if p.double_precision:
        add_chunks(p, first, last, DY, <double*>p.dbias)
        add_chunks(p, first, last, DYX, <double*>p.dweight)
    else:
        add_chunks(p, first, last, DY, <float*>p.dbias)
        add_chunks(p, first, last, DYX, <float*>p.dweight)


cdef void run_backward(Backward* p) noexcept nogil:
    cdef Py_ssize_t total = p.period * p.view.inner
    cdef double work = 3.0 * p.view.groups * p.view.inner * (8 if p.double_precision else 4)
    p.distant = work >= DISTANT
    p.beyond = work >= BEYOND
    p.streamed = (
        p.beyond and not p.double_precision and <size_t>p.dx % LINE == 0
        and p.view.inner * sizeof(float) % LINE == 0 and p.mask == NULL)
    parallel_for(chunk_block, p, p.chunks * p.period, less_shared(work, p.shared))
    if p.columns == NULL:
        return
    # a fourth of the bytes that the sums have: in a few of them another thread, which would fetch them, is no help
    parallel_for(reduce_block, p, (total + REDUCED - 1) // REDUCED, 4.0 * p.chunks * total)


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t tile_rows_of(Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t rows = TILE_ROWS
    if n * TILE_ROWS <= NEAR:
        return min(<Py_ssize_t>MOST_TILE_ROWS, max(rows, MANY // (TILE_ROWS * n) * TILE_ROWS))
    if n * TILE_ROWS <= 2 * NEAR:
        return TILE_ROWS // 2
    while rows > PAIR and rows * n > FAR:
        rows //= 2
    return rows


cdef int backward(const Call* call) noexcept nogil:
    # the view is (1, 1, rows, n), and weight not NULL
    cdef Backward p
    cdef Py_ssize_t rows = call.view.groups // call.period
    cdef Py_ssize_t some
    cdef void* scratch
    p.call, p.view = call, call.view
    p.dy, p.x, p.dx, p.weight, p.mask = call.dy, call.x, call.y, call.weight, call.mask
    p.groups = call.groups
    p.dweight, p.dbias = call.dweight, call.dbias
    p.period, p.centered, p.double_precision = call.period, call.centered, call.double_precision
    p.tile_rows = tile_rows_of(p.view.inner)
    some = min(rows, max((rows + SOME_CHUNKS - 1) // SOME_CHUNKS, min(<Py_ssize_t>FEW_ROWS, FEW // p.view.inner)))
    p.chunk_rows = min(<Py_ssize_t>MOST_ROWS, CHUNK // p.view.inner, some)
    p.chunk_rows = max((p.chunk_rows + 7) // 8 * 8, <Py_ssize_t>LEAST_ROWS, (rows + CHUNKS - 1) // CHUNKS)
    p.chunks = (rows + p.chunk_rows - 1) // p.chunk_rows
    if p.chunks > 2:
        p.chunk_rows = (rows + even(p.chunks) - 1) // even(p.chunks)
        p.chunks = (rows + p.chunk_rows - 1) // p.chunk_rows
    p.columns = NULL
    p.shared = 0
    if rows <= min(<Py_ssize_t>TILE_ROWS, p.tile_rows) and not p.double_precision:
        run_backward(&p)
        return 0
    p.shared = p.chunks * p.period * p.view.inner * sums_of(&p) * sizeof(double)
    scratch = malloc(p.shared + LINE)
    if scratch == NULL:
        return -1
    p.columns = <double*>(<char*>scratch + -<size_t>scratch % LINE)
    run_backward(&p)
    free(scratch)
    return 0


rows_backward_own = offer(backward)
