# Rows of double data in which each place has its own weight, without a mask and in their own unit: the sums along a
# row, and the input's gradient with the sums down the columns of rows_backward_own, in registers.

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport WIDE, WideSum, dd
from fastnn._kernels.norm cimport claim_lines
from fastnn._kernels.own_floats cimport CONSTANT, SHIFT, SLOPE, TILE_ROWS, Columns, Exact
from fastnn._kernels.rows cimport exact_sum_of
from fastnn._kernels.vectors cimport (
    add, d8, fma8, fms8, lanes_from, load8, load_few, multiply8, spread, store8, store_few, subtract8,
)

cdef extern from *:
    """
    #if defined(__AVX512F__)
    enum { FASTNN_DOUBLES_SIDE_BY_SIDE = 2 };
    #else
    enum { FASTNN_DOUBLES_SIDE_BY_SIDE = 1 };
    #endif
    """
    cdef enum:
        # vectors of columns whose sums stay in registers
        SIDE_BY_SIDE "FASTNN_DOUBLES_SIDE_BY_SIDE"

cdef enum:
    # additions that a lane may take before it is added to the sums in double-double
    FLUSH_DOUBLE = 4


cdef struct Sums:
    # of eight lanes: Σg, Σg·(x − shift)
    d8 g
    d8 gd


cdef inline Sums no_sums() noexcept nogil:
    cdef Sums s
    s.g = s.gd = spread(0)
    return s


cdef inline Sums with_vector(
    Sums s, const double* dy, const double* x, const double* weight, d8 shift, Py_ssize_t skip,
) noexcept nogil:
    # without the first `skip` lanes, a constant of 0 where this is inlined but for the end of a row
    cdef d8 g = multiply8(load8(dy), load8(weight))
    if skip != 0:
        g = lanes_from(g, skip)
    s.g = add(s.g, g)
    s.gd = fma8(g, subtract8(load8(x), shift), s.gd)
    return s


cdef struct dd8:
    # eight numbers in double-double
    d8 high
    d8 low


cdef inline dd8 two_sum(d8 a, d8 b) noexcept nogil:
    cdef dd8 s
    cdef d8 part
    s.high = add(a, b)
    part = subtract8(s.high, a)
    s.low = add(subtract8(a, subtract8(s.high, part)), subtract8(b, part))
    return s


cdef inline dd8 with_numbers(dd8 sum, d8 numbers) noexcept nogil:
    cdef dd8 s = two_sum(sum.high, numbers)
    s.low = add(sum.low, s.low)
    return s


cdef inline dd total_of(dd8 sum) noexcept nogil:
    cdef WideSum parts
    store8(parts.high, sum.high)
    store8(parts.low, sum.low)
    return exact_sum_of(&parts)


cdef inline apart own_double_sums(
    const double* dy,           # IN   (n)
    const double* x,            # IN   (n)
    const double* weight,       # IN   (n)
    const double* result,       # what will be written next, (n), or NULL
    Py_ssize_t n, double about,
    dd* sum_g, dd* sum_gd,      # OUT  Σg, Σg·(x − shift), g = dy·weight
) noexcept nogil:
    # n ≥ WIDE
    cdef d8 shift = spread(about)
    cdef Sums s0, s1, s2, s3
    cdef dd8 all_g, all_gd
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t end
    all_g.high = all_g.low = all_gd.high = all_gd.low = spread(0)
    while i < n:
        end = min(n, i + 4 * WIDE * FLUSH_DOUBLE)
        s0 = s1 = s2 = s3 = no_sums()
        while end - i >= 4 * WIDE:
            if result != NULL:
                claim_lines(result + i, 4 * WIDE)
            s0 = with_vector(s0, dy + i, x + i, weight + i, shift, 0)
            s1 = with_vector(s1, dy + i + 8, x + i + 8, weight + i + 8, shift, 0)
            s2 = with_vector(s2, dy + i + 16, x + i + 16, weight + i + 16, shift, 0)
            s3 = with_vector(s3, dy + i + 24, x + i + 24, weight + i + 24, shift, 0)
            i += 4 * WIDE
        while end - i >= WIDE:
            s1 = with_vector(s1, dy + i, x + i, weight + i, shift, 0)
            i += WIDE
        if i < end:     # the last WIDE elements again, without those that have been added
            s2 = with_vector(s2, dy + n - WIDE, x + n - WIDE, weight + n - WIDE, shift, WIDE - (n - i))
            i = end
        all_g = with_numbers(with_numbers(with_numbers(with_numbers(all_g, s0.g), s1.g), s2.g), s3.g)
        all_gd = with_numbers(with_numbers(with_numbers(with_numbers(all_gd, s0.gd), s1.gd), s2.gd), s3.gd)
    sum_g[0] = total_of(all_g)
    sum_gd[0] = total_of(all_gd)


# ---- the input's gradient, and sums down the columns -----------------------------------------------------------------

# The steps of own_loops.strip, for builds with EXACT_PRODUCTS.

cdef struct Row:
    d8 minus            # the shift, negated
    d8 offset
    d8 rstd
    d8 rstd_low
    d8 slope
    d8 constant


cdef struct Terms:
    # of eight columns: Σdy, Σdy·x̂
    dd8 dy
    dd8 dyx


cdef inline Row row_of(const double* parameters, const Exact* exact, Py_ssize_t r) noexcept nogil:
    cdef Row row
    row.minus = spread(-parameters[SHIFT * TILE_ROWS + r])
    row.slope = spread(parameters[SLOPE * TILE_ROWS + r])
    row.constant = spread(parameters[CONSTANT * TILE_ROWS + r])
    row.rstd, row.rstd_low = spread(exact.rstd[r]), spread(exact.rstd_low[r])
    row.offset = spread(exact.offset[r])
    return row


cdef inline dd8 with_terms(dd8 sum, dd8 terms) noexcept nogil:
    cdef dd8 s = two_sum(sum.high, terms.high)
    s.low = add(sum.low, add(s.low, terms.low))
    return s


cdef inline dd8 normalized(d8 deviation, d8 low, Row row) noexcept nogil:
    # x̂ of x − shift
    cdef dd8 xhat
    xhat.high = multiply8(deviation, row.rstd)
    xhat.low = fma8(
        add(low, row.offset), row.rstd, fma8(deviation, row.rstd_low, fms8(deviation, row.rstd, xhat.high)))
    return xhat


cdef inline dd8 times(d8 number, dd8 a) noexcept nogil:
    cdef dd8 product
    product.high = multiply8(number, a.high)
    product.low = fma8(number, a.low, fms8(number, a.high, product.high))
    return product


cdef inline d8 load_part(const double* x, Py_ssize_t n, bint ragged) noexcept nogil:
    # the first n where `ragged`, a constant where these are inlined
    return load_few(x, n) if ragged else load8(x)


cdef inline inlined store_part(double* y, d8 a, Py_ssize_t n, bint ragged) noexcept nogil:
    if ragged:
        store_few(y, a, n)
    else:
        store8(y, a)


cdef inline Terms begin(const Columns* to, Py_ssize_t i, Py_ssize_t n, bint ragged) noexcept nogil:
    cdef Terms c
    c.dy.high = c.dy.low = c.dyx.high = c.dyx.low = spread(0)
    if to.begun:
        c.dy.high, c.dy.low = load_part(to.sum_dy + i, n, ragged), load_part(to.low_dy + i, n, ragged)
        c.dyx.high, c.dyx.low = load_part(to.sum_dyx + i, n, ragged), load_part(to.low_dyx + i, n, ragged)
    return c


cdef inline inlined finish(const Columns* to, Terms c, Py_ssize_t i, Py_ssize_t n, bint ragged) noexcept nogil:
    store_part(to.sum_dy + i, c.dy.high, n, ragged)
    store_part(to.low_dy + i, c.dy.low, n, ragged)
    store_part(to.sum_dyx + i, c.dyx.high, n, ragged)
    store_part(to.low_dyx + i, c.dyx.low, n, ragged)


cdef inline Terms step(
    Terms c, const double* dy, const double* x, double* dx, d8 weight, Row row, Py_ssize_t n, bint ragged,
) noexcept nogil:
    cdef d8 d = load_part(dy, n, ragged)
    cdef dd8 deviation = two_sum(load_part(x, n, ragged), row.minus)
    cdef d8 through = fma8(deviation.high, row.slope, row.constant)
    c.dy = with_numbers(c.dy, d)
    c.dyx = with_terms(c.dyx, times(d, normalized(deviation.high, deviation.low, row)))
    store_part(dx, fma8(multiply8(d, weight), row.rstd, through), n, ragged)
    return c


cdef inline inlined own_strip(
    const double* dy, const double* x, double* dx, Py_ssize_t stride, Py_ssize_t rows, const double* weight,
    const double* parameters, const Exact* exact, const Columns* to, Py_ssize_t i, int count, Py_ssize_t n,
    bint ragged,
) noexcept nogil:
    # one vector of columns from i on, of n columns where `ragged`, or two: constants where this is inlined
    cdef Terms c0, c1
    cdef d8 w0, w1
    cdef Row row
    cdef Py_ssize_t r, at
    c0 = c1 = begin(to, i, n, ragged)
    w0 = w1 = load_part(weight + i, n, ragged)
    if count > 1:
        c1 = begin(to, i + WIDE, n, False)
        w1 = load8(weight + i + WIDE)
    for r in range(rows):
        row = row_of(parameters, exact, r)
        at = r * stride + i
        c0 = step(c0, dy + at, x + at, dx + at, w0, row, n, ragged)
        if count > 1:
            c1 = step(c1, dy + at + WIDE, x + at + WIDE, dx + at + WIDE, w1, row, n, False)
    finish(to, c0, i, n, ragged)
    if count > 1:
        finish(to, c1, i + WIDE, n, False)


cdef inline apart own_double_strips(
    const double* dy, const double* x, double* dx,      # (rows, n), rows lie `stride` apart
    Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const double* weight,
    const double* parameters, const Exact* exact,       # of a tile, unscaled
    const Columns* to,                                  # += Σdy, Σdy·x̂ down the rows
) noexcept nogil:
    cdef Py_ssize_t i = 0
    while n - i >= SIDE_BY_SIDE * WIDE:
        own_strip(dy, x, dx, stride, rows, weight, parameters, exact, to, i, SIDE_BY_SIDE, WIDE, False)
        i += SIDE_BY_SIDE * WIDE
    while n - i >= WIDE:
        own_strip(dy, x, dx, stride, rows, weight, parameters, exact, to, i, 1, WIDE, False)
        i += WIDE
    if i < n:
        own_strip(dy, x, dx, stride, rows, weight, parameters, exact, to, i, 1, n - i, True)
