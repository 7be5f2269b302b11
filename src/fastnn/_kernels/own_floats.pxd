# Rows of float data in which each place has its own weight, in float's ordinary range: the sums along a row and,
# without a mask, the input's gradient of rows_backward_own, in registers. Gradients and sums down the columns have the
# bits of the loops in own_loops.pxd, since a tile may go either way.

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport FLUSH
from fastnn._kernels.norm cimport Group, claim_lines
from fastnn._kernels.vectors cimport (
    VECTOR, add, add16, d8, f16, fma8, fma16, high_half, load8, load16, load_few, load_first, low_half, multiply8,
    multiply16, narrow, spread, spread16, store8, store16, store_few, store_first, stream16, subtract8, subtract16,
    total, total16, totals, totals16, widen,
)

cdef extern from *:
    """
    /* Vectors of columns whose sums stay in registers, 32 of 64 bytes or 16 smaller ones. */
    #if defined(__AVX512F__)
    enum { FASTNN_SIDE_BY_SIDE = 4 };
    #else
    enum { FASTNN_SIDE_BY_SIDE = 1 };
    #endif
    """
    cdef enum:
        SIDE_BY_SIDE "FASTNN_SIDE_BY_SIDE"

cdef enum:
    TILE_ROWS = 8
    SHORT = 192     # FLUSH vectors, less four: adding the lanes of a vector takes as many steps

# What the rows of a tile need, of all of them side by side: (ROW_PARAMETERS, TILE_ROWS)
cdef enum:
    SHIFT
    SCALE
    RSTD
    SLOPE           # −rstd² · Σgx̂/n
    CONSTANT        # −rstd · Σg/n − lo · SLOPE
    ROW_PARAMETERS

# x̂ in twice the data's precision, for the sums down the columns, of a tile's rows: x·scale·rstd + offset, and of
# double data (x·scale − shift + offset)·rstd.
cdef struct Exact:
    double rstd[TILE_ROWS]
    double offset[TILE_ROWS]
    double rstd_low[TILE_ROWS]  # of double data only

# Σg and Σg·(x·scale − shift), g = dy·weight, of a tile's rows.
cdef struct RowSums:
    double g[TILE_ROWS]
    double gd[TILE_ROWS]
    double g_low[TILE_ROWS]     # of double data only
    double gd_low[TILE_ROWS]


# ---- sums along a row ------------------------------------------------------------------------------------------------

cdef struct Sums:
    # of 16 lanes: Σg, Σg·(x − shift)
    f16 first
    f16 second


cdef inline Sums no_sums() noexcept nogil:
    cdef Sums s
    s.first = s.second = spread16(0)
    return s


cdef inline Sums with_row(Sums s, f16 dy, f16 x, f16 weight, f16 shift) noexcept nogil:
    cdef f16 g = multiply16(dy, weight)
    s.first = add16(s.first, g)
    s.second = fma16(g, subtract16(x, shift), s.second)
    return s


cdef inline d8 widened(f16 a, f16 b, f16 c, f16 d) noexcept nogil:
    cdef f16 s = add16(add16(a, b), add16(c, d))
    return add(low_half(s), high_half(s))


cdef inline Sums with_vector(
    Sums s, const float* dy, const float* x, const float* weight, f16 shift,
) noexcept nogil:
    return with_row(s, load16(dy), load16(x), load16(weight), shift)


cdef inline Sums with_first(
    Sums s, const float* dy, const float* x, const float* weight, f16 shift, Py_ssize_t n,
) noexcept nogil:
    return with_row(s, load_first(dy, n), load_first(x, n), load_first(weight, n), shift)


cdef inline Sums sum_short(
    const float* dy, const float* x, const float* weight, Py_ssize_t n, float about,
) noexcept nogil:
    # additions wait for each other, but not for those of the rows beside
    cdef f16 shift = spread16(about)
    cdef Sums s = no_sums()
    cdef Py_ssize_t i = 0
    while n - i >= VECTOR:
        s = with_vector(s, dy + i, x + i, weight + i, shift)
        i += VECTOR
    if i < n:
        s = with_first(s, dy + i, x + i, weight + i, shift, n - i)
    return s


cdef inline inlined sum_long(
    const float* dy, const float* x, const float* weight, const float* result, Py_ssize_t n, float about,
    d8* sum_g, d8* sum_gd,
) noexcept nogil:
    # whether there is a result is a constant where this is inlined
    cdef f16 shift = spread16(about)
    cdef Sums s0, s1, s2, s3
    cdef d8 all_g = spread(0)
    cdef d8 all_gd = spread(0)
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t end
    while i < n:
        end = min(n, i + 4 * VECTOR * FLUSH)
        s0 = s1 = s2 = s3 = no_sums()
        while end - i >= 4 * VECTOR:
            if result != NULL:
                claim_lines(result + i, 4 * VECTOR)
            s0 = with_vector(s0, dy + i, x + i, weight + i, shift)
            s1 = with_vector(s1, dy + i + 16, x + i + 16, weight + i + 16, shift)
            s2 = with_vector(s2, dy + i + 32, x + i + 32, weight + i + 32, shift)
            s3 = with_vector(s3, dy + i + 48, x + i + 48, weight + i + 48, shift)
            i += 4 * VECTOR
        while end - i >= VECTOR:
            s0 = with_vector(s0, dy + i, x + i, weight + i, shift)
            i += VECTOR
        if i < end:
            s0 = with_first(s0, dy + i, x + i, weight + i, shift, end - i)
            i = end
        all_g = add(all_g, widened(s0.first, s1.first, s2.first, s3.first))
        all_gd = add(all_gd, widened(s0.second, s1.second, s2.second, s3.second))
    sum_g[0] = all_g
    sum_gd[0] = all_gd


cdef inline apart sums_of_short(
    const float* dy, const float* x, const float* weight, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n,
    const Group* groups, Py_ssize_t period, double* sum_g, double* sum_gd,
) noexcept nogil:
    # n ≤ SHORT: so few additions that the lanes too are added in float
    cdef f16 g[TILE_ROWS]
    cdef f16 gd[TILE_ROWS]
    cdef Sums s
    cdef Py_ssize_t r
    for r in range(rows):
        s = sum_short(dy, x, weight, n, <float>groups.shift)
        g[r], gd[r] = s.first, s.second
        dy += stride
        x += stride
        groups += period
    if rows == TILE_ROWS:
        totals16(g, sum_g)
        totals16(gd, sum_gd)
    else:
        for r in range(rows):
            sum_g[r] = total16(g[r])
            sum_gd[r] = total16(gd[r])


cdef inline apart sums_of_long(
    const float* dy, const float* x, const float* weight, const float* result, Py_ssize_t stride, Py_ssize_t rows,
    Py_ssize_t n, const Group* groups, Py_ssize_t period, double* sum_g, double* sum_gd,
) noexcept nogil:
    cdef d8 g[TILE_ROWS]
    cdef d8 gd[TILE_ROWS]
    cdef Py_ssize_t r
    for r in range(rows):
        if result != NULL:
            sum_long(
                dy + r * stride, x + r * stride, weight, result + r * stride, n, <float>groups[r * period].shift, g + r,
                gd + r)
        else:
            sum_long(
                dy + r * stride, x + r * stride, weight, NULL, n, <float>groups[r * period].shift, g + r, gd + r)
    if rows == TILE_ROWS:
        store8(sum_g, totals(g))
        store8(sum_gd, totals(gd))
    else:
        for r in range(rows):
            sum_g[r] = total(g[r])
            sum_gd[r] = total(gd[r])


cdef inline void own_sums(
    const float* dy,            # IN   (rows, n), rows lie `stride` apart
    const float* x,             # IN   likewise
    const float* weight,        # IN   (n)
    const float* result,        # what will be written next and is far away, like dy, or NULL
    Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n,
    const Group* groups,        # IN   (rows), `period` apart
    Py_ssize_t period,
    double* sum_g, double* sum_gd,      # OUT  (rows)
) noexcept nogil:
    # up to TILE_ROWS rows; to claim the lines of short ones costs more than it brings
    if n <= SHORT:
        sums_of_short(dy, x, weight, stride, rows, n, groups, period, sum_g, sum_gd)
    else:
        sums_of_long(dy, x, weight, result, stride, rows, n, groups, period, sum_g, sum_gd)


# ---- the input's gradient, and sums down the columns -----------------------------------------------------------------

cdef struct Row:
    f16 shift
    f16 rstd
    f16 slope
    f16 constant
    d8 exact_rstd
    d8 exact_offset


cdef inline Row row_of(const float* parameters, const Exact* exact, Py_ssize_t r) noexcept nogil:
    cdef Row row
    row.shift = spread16(parameters[SHIFT * TILE_ROWS + r])
    row.rstd = spread16(parameters[RSTD * TILE_ROWS + r])
    row.slope = spread16(parameters[SLOPE * TILE_ROWS + r])
    row.constant = spread16(parameters[CONSTANT * TILE_ROWS + r])
    row.exact_rstd = spread(exact.rstd[r])
    row.exact_offset = spread(exact.offset[r])
    return row


cdef inline f16 gradient16(f16 dy, f16 weight, f16 x, Row row) noexcept nogil:
    return fma16(multiply16(dy, weight), row.rstd, fma16(subtract16(x, row.shift), row.slope, row.constant))


# Where the sums of a tile's columns go.
cdef struct Columns:
    double* sum_dy          # INOUT (n)  Σdy, Σdy·x̂
    double* sum_dyx         # INOUT (n)
    double* low_dy          # INOUT (n)  low parts, of double data only
    double* low_dyx         # INOUT (n)
    bint begun              # False: the sums begin here
    float* dbias            # OUT  (n)   instead, if these rows are all there are; else NULL
    float* dweight          # OUT  (n)


cdef struct Terms:
    # of 16 columns: Σdy and Σdy·x̂ of the first eight and of the last
    d8 dy0
    d8 dy1
    d8 dyx0
    d8 dyx1


# Vectors of a row: the first n < VECTOR places of it where `ragged`, which is a constant where these are inlined.

cdef inline f16 load_part(const float* x, Py_ssize_t n, bint ragged) noexcept nogil:
    return load_first(x, n) if ragged else load16(x)


cdef inline inlined store_part(float* y, f16 a, Py_ssize_t n, bint ragged, bint streamed) noexcept nogil:
    if ragged:
        store_first(y, a, n)
    elif streamed:
        stream16(y, a)
    else:
        store16(y, a)


cdef inline Terms begin(const Columns* to, Py_ssize_t i, Py_ssize_t n, bint ragged) noexcept nogil:
    cdef Terms c
    if not to.begun:
        c.dy0 = c.dy1 = c.dyx0 = c.dyx1 = spread(0)
    elif ragged:
        c.dy0, c.dy1 = load_few(to.sum_dy + i, n), load_few(to.sum_dy + i + 8, n - 8)
        c.dyx0, c.dyx1 = load_few(to.sum_dyx + i, n), load_few(to.sum_dyx + i + 8, n - 8)
    else:
        c.dy0, c.dy1 = load8(to.sum_dy + i), load8(to.sum_dy + i + 8)
        c.dyx0, c.dyx1 = load8(to.sum_dyx + i), load8(to.sum_dyx + i + 8)
    return c


cdef inline inlined finish(const Columns* to, Terms c, Py_ssize_t i, Py_ssize_t n, bint ragged) noexcept nogil:
    if to.dbias != NULL:
        leave(to.dbias + i, c.dy0, c.dy1, n, ragged)
        leave(to.dweight + i, c.dyx0, c.dyx1, n, ragged)
    elif ragged:
        store_few(to.sum_dy + i, c.dy0, n)
        store_few(to.sum_dy + i + 8, c.dy1, n - 8)
        store_few(to.sum_dyx + i, c.dyx0, n)
        store_few(to.sum_dyx + i + 8, c.dyx1, n - 8)
    else:
        store8(to.sum_dy + i, c.dy0)
        store8(to.sum_dy + i + 8, c.dy1)
        store8(to.sum_dyx + i, c.dyx0)
        store8(to.sum_dyx + i + 8, c.dyx1)


cdef inline inlined leave(float* y, d8 a, d8 b, Py_ssize_t n, bint ragged) noexcept nogil:
    cdef float all[VECTOR]
    if ragged:
        narrow(all, a)
        narrow(all + 8, b)
        store_first(y, load16(all), n)
    else:
        narrow(y, a)
        narrow(y + 8, b)


cdef inline Terms with_columns(Terms c, d8 dy0, d8 dy1, d8 x0, d8 x1, Row row) noexcept nogil:
    c.dy0 = add(c.dy0, dy0)
    c.dy1 = add(c.dy1, dy1)
    c.dyx0 = fma8(dy0, fma8(x0, row.exact_rstd, row.exact_offset), c.dyx0)
    c.dyx1 = fma8(dy1, fma8(x1, row.exact_rstd, row.exact_offset), c.dyx1)
    return c


cdef inline Terms step(
    Terms c, const float* dy, const float* x, float* dx, f16 weight, Row row, Py_ssize_t n, bint ragged, bint streamed,
) noexcept nogil:
    # halves are converted where they lie, which takes no operation that moves them
    cdef f16 d = load_part(dy, n, ragged)
    cdef f16 value = load_part(x, n, ragged)
    if ragged:
        c = with_columns(c, low_half(d), high_half(d), low_half(value), high_half(value), row)
    else:
        c = with_columns(c, widen(dy), widen(dy + 8), widen(x), widen(x + 8), row)
    store_part(dx, gradient16(d, weight, value, row), n, ragged, streamed)
    return c


cdef inline inlined own_strip(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, const float* weight,
    const float* parameters, const Exact* exact, const Columns* to, Py_ssize_t i, int count, Py_ssize_t n, bint ragged,
    bint streamed,
) noexcept nogil:
    # `count` vectors of columns from i on, 1, 2 or 4, the last of which has n columns where `ragged`, not for 4:
    # constants, as `streamed`, where this is inlined
    cdef bint r0 = ragged and count == 1
    cdef bint r1 = ragged and count == 2
    cdef Terms c0, c1, c2, c3
    cdef f16 w0, w1, w2, w3
    cdef Row row
    cdef Py_ssize_t r, at
    c0 = c1 = c2 = c3 = begin(to, i, n, r0)
    w0 = w1 = w2 = w3 = load_part(weight + i, n, r0)
    if count > 1:
        c1 = begin(to, i + 16, n, r1)
        w1 = load_part(weight + i + 16, n, r1)
    if count > 2:
        c2, c3 = begin(to, i + 32, n, False), begin(to, i + 48, n, False)
        w2, w3 = load16(weight + i + 32), load16(weight + i + 48)
    for r in range(rows):
        row = row_of(parameters, exact, r)
        at = r * stride + i
        c0 = step(c0, dy + at, x + at, dx + at, w0, row, n, r0, streamed)
        if count > 1:
            c1 = step(c1, dy + at + 16, x + at + 16, dx + at + 16, w1, row, n, r1, streamed)
        if count > 2:
            c2 = step(c2, dy + at + 32, x + at + 32, dx + at + 32, w2, row, n, False, streamed)
            c3 = step(c3, dy + at + 48, x + at + 48, dx + at + 48, w3, row, n, False, streamed)
    finish(to, c0, i, n, r0)
    if count > 1:
        finish(to, c1, i + 16, n, r1)
    if count > 2:
        finish(to, c2, i + 32, n, False)
        finish(to, c3, i + 48, n, False)


cdef inline inlined whole_strips(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, const Exact* exact, const Columns* to, bint streamed,
) noexcept nogil:
    # `streamed` is a constant where this is inlined
    cdef Py_ssize_t i = 0
    while n - i >= SIDE_BY_SIDE * VECTOR:
        own_strip(
            dy, x, dx, stride, rows, weight, parameters, exact, to, i, SIDE_BY_SIDE, VECTOR, False, streamed)
        i += SIDE_BY_SIDE * VECTOR


cdef inline apart plain_strips(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, const Exact* exact, const Columns* to,
) noexcept nogil:
    whole_strips(dy, x, dx, stride, rows, n, weight, parameters, exact, to, False)


cdef inline apart streamed_strips(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, const Exact* exact, const Columns* to,
) noexcept nogil:
    whole_strips(dy, x, dx, stride, rows, n, weight, parameters, exact, to, True)


cdef inline apart last_strip(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, const Exact* exact, const Columns* to,
) noexcept nogil:
    cdef Py_ssize_t i = n // (SIDE_BY_SIDE * VECTOR) * (SIDE_BY_SIDE * VECTOR)
    cdef Py_ssize_t ragged = n % VECTOR
    if n - i >= 2 * VECTOR:
        own_strip(dy, x, dx, stride, rows, weight, parameters, exact, to, i, 2, VECTOR, False, False)
        i += 2 * VECTOR
    if i == n:
        return
    if ragged == 0:
        own_strip(dy, x, dx, stride, rows, weight, parameters, exact, to, i, 1, VECTOR, False, False)
    elif n - i < VECTOR:
        own_strip(dy, x, dx, stride, rows, weight, parameters, exact, to, i, 1, ragged, True, False)
    else:
        own_strip(dy, x, dx, stride, rows, weight, parameters, exact, to, i, 2, ragged, True, False)


cdef inline void own_strips(
    const float* dy, const float* x, float* dx,         # (rows, n), rows lie `stride` apart
    Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, const Exact* exact,        # of a tile, unscaled
    const Columns* to,                                  # += Σdy, Σdy·x̂ down the rows
    bint streamed,                                      # past the caches; every row of dx begins with a cache line
) noexcept nogil:
    if streamed:
        streamed_strips(dy, x, dx, stride, rows, n, weight, parameters, exact, to)
    elif n >= SIDE_BY_SIDE * VECTOR:
        plain_strips(dy, x, dx, stride, rows, n, weight, parameters, exact, to)
    if n % (SIDE_BY_SIDE * VECTOR):
        last_strip(dy, x, dx, stride, rows, n, weight, parameters, exact, to)
