# Rows of float data in which each place has its own weight, in float's ordinary range: the sums along a row and,
# without a mask, the input's gradient of rows_backward_own, in registers. Gradients and sums down the columns have the
# bits of the loops there, since a tile may go either way.

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport FLUSH
from fastnn._kernels.norm cimport Group, claim_lines
from fastnn._kernels.vectors cimport (
    VECTOR, add, add16, add_first, d8, f16, fma16, high_half, load8, load16, load_first, low_half, multiply16, spread,
    spread16, store8, store16, store_first, stream16, subtract16, total, total16, totals, totals16,
)

cdef enum:
    TILE_ROWS = 8   # so many rows are added in float
    SHORT = 192     # FLUSH vectors, less four: adding the lanes of a vector takes as many steps

# What the rows of a tile need, of all of them side by side: (ROW_PARAMETERS, TILE_ROWS)
cdef enum:
    SHIFT
    SCALE
    RSTD
    OFFSET
    C1              # −rstd · Σg/n
    C2              # −rstd · Σgx̂/n
    ROW_PARAMETERS

# Σg and Σg·(x·scale − shift), g = dy·weight, of a tile's rows.
cdef struct RowSums:
    double g[TILE_ROWS]
    double gd[TILE_ROWS]
    double g_low[TILE_ROWS]     # of double data only
    double gd_low[TILE_ROWS]


# ---- sums along a row ------------------------------------------------------------------------------------------------

cdef struct Sums:
    # of 16 lanes: Σa, Σa·b; along a row of g and x − shift, down the columns of dy and x̂
    f16 first
    f16 second


cdef inline Sums no_sums() noexcept nogil:
    cdef Sums s
    s.first = s.second = spread16(0)
    return s


cdef inline Sums with_terms(Sums s, f16 a, f16 b) noexcept nogil:
    s.first = add16(s.first, a)
    s.second = fma16(a, b, s.second)
    return s


cdef inline Sums with_row(Sums s, f16 dy, f16 x, f16 weight, f16 shift) noexcept nogil:
    return with_terms(s, multiply16(dy, weight), subtract16(x, shift))


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
        sum_long(
            dy + r * stride, x + r * stride, weight, result + r * stride if result != NULL else NULL, n,
            <float>groups[r * period].shift, g + r, gd + r)
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
    f16 offset
    f16 c1
    f16 c2


cdef inline Row row_of(const float* parameters) noexcept nogil:
    # at the row of a tile's parameters
    cdef Row row
    row.shift = spread16(parameters[SHIFT * TILE_ROWS])
    row.rstd = spread16(parameters[RSTD * TILE_ROWS])
    row.offset = spread16(parameters[OFFSET * TILE_ROWS])
    row.c1 = spread16(parameters[C1 * TILE_ROWS])
    row.c2 = spread16(parameters[C2 * TILE_ROWS])
    return row


cdef inline f16 normalized16(f16 x, Row row) noexcept nogil:
    return fma16(subtract16(x, row.shift), row.rstd, row.offset)


cdef inline f16 gradient16(f16 dy, f16 weight, f16 xhat, Row row) noexcept nogil:
    return fma16(multiply16(dy, weight), row.rstd, fma16(xhat, row.c2, row.c1))


# Where the sums of a tile's columns go. Tiles of fewer rows than TILE_ROWS share a block of sums in float.
cdef struct Columns:
    float* block_dy         # INOUT (n)  the block; only where sums are begun or left in it
    float* block_dyx        # INOUT (n)
    double* sum_dy          # INOUT (n)  += Σdy, Σdy·x̂; NULL where all sums are left in blocks
    double* sum_dyx         # INOUT (n)
    double* low_dy          # INOUT (n)  low parts, of double data only
    double* low_dyx         # INOUT (n)


# Which part of a block a tile is.
cdef struct Part:
    bint begun              # some rows are in the block already
    bint left               # the sums are left in the block


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


cdef inline Sums begin(Columns to, Part part, Py_ssize_t i, Py_ssize_t n, bint ragged) noexcept nogil:
    cdef Sums c = no_sums()
    if part.begun:
        c.first = load_part(to.block_dy + i, n, ragged)
        c.second = load_part(to.block_dyx + i, n, ragged)
    return c


cdef inline inlined add_part(double* sums, f16 c, Py_ssize_t n, bint ragged) noexcept nogil:
    if ragged:
        add_first(sums, c, n)
    else:
        store8(sums, add(load8(sums), low_half(c)))
        store8(sums + 8, add(load8(sums + 8), high_half(c)))


cdef inline inlined finish(Columns to, Part part, Sums c, Py_ssize_t i, Py_ssize_t n, bint ragged) noexcept nogil:
    if part.left:
        store_part(to.block_dy + i, c.first, n, ragged, False)
        store_part(to.block_dyx + i, c.second, n, ragged, False)
    else:
        add_part(to.sum_dy + i, c.first, n, ragged)
        add_part(to.sum_dyx + i, c.second, n, ragged)


cdef inline Sums step(
    Sums c, const float* dy, const float* x, float* dx, f16 weight, Row row, Py_ssize_t n, bint ragged, bint streamed,
) noexcept nogil:
    cdef f16 d = load_part(dy, n, ragged)
    cdef f16 xhat = normalized16(load_part(x, n, ragged), row)
    store_part(dx, gradient16(d, weight, xhat, row), n, ragged, streamed)
    return with_terms(c, d, xhat)


cdef inline inlined own_strip(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, const float* weight,
    const float* parameters, Columns to, Part part, Py_ssize_t i, int count, Py_ssize_t n, bint ragged, bint streamed,
) noexcept nogil:
    # `count` vectors of columns from i on, 1 … 4, the last of which has n columns where `ragged`: constants, as
    # `streamed`, where this is inlined
    cdef bint r0 = ragged and count == 1
    cdef bint r1 = ragged and count == 2
    cdef bint r2 = ragged and count == 3
    cdef bint r3 = ragged and count == 4
    cdef Sums c0, c1, c2, c3
    cdef f16 w0, w1, w2, w3
    cdef Row row
    cdef Py_ssize_t r, at
    c0 = begin(to, part, i, n, r0)
    w0 = w1 = w2 = w3 = load_part(weight + i, n, r0)
    c1 = c2 = c3 = c0
    if count > 1:
        c1 = begin(to, part, i + 16, n, r1)
        w1 = load_part(weight + i + 16, n, r1)
    if count > 2:
        c2 = begin(to, part, i + 32, n, r2)
        w2 = load_part(weight + i + 32, n, r2)
    if count > 3:
        c3 = begin(to, part, i + 48, n, r3)
        w3 = load_part(weight + i + 48, n, r3)
    for r in range(rows):
        row = row_of(parameters + r)
        at = r * stride + i
        c0 = step(c0, dy + at, x + at, dx + at, w0, row, n, r0, streamed)
        if count > 1:
            c1 = step(c1, dy + at + 16, x + at + 16, dx + at + 16, w1, row, n, r1, streamed)
        if count > 2:
            c2 = step(c2, dy + at + 32, x + at + 32, dx + at + 32, w2, row, n, r2, streamed)
        if count > 3:
            c3 = step(c3, dy + at + 48, x + at + 48, dx + at + 48, w3, row, n, r3, streamed)
    finish(to, part, c0, i, n, r0)
    if count > 1:
        finish(to, part, c1, i + 16, n, r1)
    if count > 2:
        finish(to, part, c2, i + 32, n, r2)
    if count > 3:
        finish(to, part, c3, i + 48, n, r3)


cdef inline inlined whole_strips(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, Columns to, bint begun, bint left, bint streamed,
) noexcept nogil:
    # the last three are constants where this is inlined
    cdef Part part
    cdef Py_ssize_t i = 0
    part.begun, part.left = begun, left
    while n - i >= 4 * VECTOR:
        own_strip(dy, x, dx, stride, rows, weight, parameters, to, part, i, 4, 0, False, streamed)
        i += 4 * VECTOR


cdef inline apart last_strip(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, Columns to, Part part,
) noexcept nogil:
    cdef Py_ssize_t i = n // (4 * VECTOR) * (4 * VECTOR)
    cdef Py_ssize_t ragged = n % VECTOR
    if ragged == 0:
        if n - i == 3 * VECTOR:
            own_strip(dy, x, dx, stride, rows, weight, parameters, to, part, i, 3, 0, False, False)
        elif n - i == 2 * VECTOR:
            own_strip(dy, x, dx, stride, rows, weight, parameters, to, part, i, 2, 0, False, False)
        else:
            own_strip(dy, x, dx, stride, rows, weight, parameters, to, part, i, 1, 0, False, False)
    elif n - i > 3 * VECTOR:
        own_strip(dy, x, dx, stride, rows, weight, parameters, to, part, i, 4, ragged, True, False)
    elif n - i > 2 * VECTOR:
        own_strip(dy, x, dx, stride, rows, weight, parameters, to, part, i, 3, ragged, True, False)
    elif n - i > VECTOR:
        own_strip(dy, x, dx, stride, rows, weight, parameters, to, part, i, 2, ragged, True, False)
    else:
        own_strip(dy, x, dx, stride, rows, weight, parameters, to, part, i, 1, ragged, True, False)


cdef inline inlined strips_of_part(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, Columns to, Part part, bint streamed,
) noexcept nogil:
    # `streamed` is a constant where this is inlined, and then what the part is
    if part.begun and part.left:
        whole_strips(dy, x, dx, stride, rows, n, weight, parameters, to, True, True, streamed)
    elif part.begun:
        whole_strips(dy, x, dx, stride, rows, n, weight, parameters, to, True, False, streamed)
    elif part.left:
        whole_strips(dy, x, dx, stride, rows, n, weight, parameters, to, False, True, streamed)
    else:
        whole_strips(dy, x, dx, stride, rows, n, weight, parameters, to, False, False, streamed)


cdef inline apart plain_strips(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, Columns to, Part part,
) noexcept nogil:
    strips_of_part(dy, x, dx, stride, rows, n, weight, parameters, to, part, False)


cdef inline apart streamed_strips(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, Columns to, Part part,
) noexcept nogil:
    strips_of_part(dy, x, dx, stride, rows, n, weight, parameters, to, part, True)


cdef inline void own_strips(
    const float* dy, const float* x, float* dx,         # (rows, n), rows lie `stride` apart
    Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters,                            # of a tile, unscaled
    Columns to, Part part,                              # += Σdy, Σdy·x̂ down the rows
    bint streamed,                                      # past the caches; every row of dx begins with a cache line
) noexcept nogil:
    if streamed:
        streamed_strips(dy, x, dx, stride, rows, n, weight, parameters, to, part)
    elif n >= 4 * VECTOR:
        plain_strips(dy, x, dx, stride, rows, n, weight, parameters, to, part)
    if n % (4 * VECTOR):
        last_strip(dy, x, dx, stride, rows, n, weight, parameters, to, part)
