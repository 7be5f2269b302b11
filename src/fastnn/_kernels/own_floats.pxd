# Rows of float data in which each place has its own weight, in float's ordinary range: the sums along a row and,
# without a mask, the input's gradient of rows_backward_own, in registers. Gradients and sums down the columns have the
# bits of the loops there, since a tile may go either way.

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport FLUSH
from fastnn._kernels.norm cimport claim_lines
from fastnn._kernels.vectors cimport (
    VECTOR, add, add16, d8, f16, fma16, high_half, load8, load16, load_first, low_half, multiply16, spread, spread16,
    store8, store16, store_first, subtract16, total,
)

# What a row needs.
cdef enum:
    SHIFT
    SCALE
    RSTD
    OFFSET
    C1              # −rstd · Σg/n
    C2              # −rstd · Σgx̂/n
    ROW_PARAMETERS


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


cdef inline apart own_sums(
    const float* dy,            # IN   (n)
    const float* x,             # IN   (n)
    const float* weight,        # IN   (n)
    const float* result,        # what will be written next, (n), or NULL
    Py_ssize_t n, float about,
    double* sum_g, double* sum_gd,      # OUT  Σg, Σg·(x − shift) with g = dy·weight
) noexcept nogil:
    cdef f16 shift = spread16(about)
    cdef Sums s0, s1, s2, s3
    cdef d8 all_g = spread(0)
    cdef d8 all_gd = spread(0)
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t end
    while True:
        end = min(n, i + 4 * VECTOR * FLUSH)
        s0 = s1 = s2 = s3 = no_sums()
        while end - i >= 4 * VECTOR:
            if result != NULL:
                claim_lines(result + i, 4 * VECTOR)
            s0 = with_row(s0, load16(dy + i), load16(x + i), load16(weight + i), shift)
            s1 = with_row(s1, load16(dy + i + 16), load16(x + i + 16), load16(weight + i + 16), shift)
            s2 = with_row(s2, load16(dy + i + 32), load16(x + i + 32), load16(weight + i + 32), shift)
            s3 = with_row(s3, load16(dy + i + 48), load16(x + i + 48), load16(weight + i + 48), shift)
            i += 4 * VECTOR
        while end - i >= VECTOR:
            s0 = with_row(s0, load16(dy + i), load16(x + i), load16(weight + i), shift)
            i += VECTOR
        if i < end:
            s0 = with_row(
                s0, load_first(dy + i, end - i), load_first(x + i, end - i), load_first(weight + i, end - i), shift)
        all_g = add(all_g, widened(s0.first, s1.first, s2.first, s3.first))
        all_gd = add(all_gd, widened(s0.second, s1.second, s2.second, s3.second))
        if end == n:
            break
    sum_g[0] = total(all_g)
    sum_gd[0] = total(all_gd)


# ---- the input's gradient, and sums down the columns -----------------------------------------------------------------

cdef struct Row:
    f16 shift
    f16 rstd
    f16 offset
    f16 c1
    f16 c2


cdef inline Row row_of(const float* parameters) noexcept nogil:
    cdef Row row
    row.shift = spread16(parameters[SHIFT])
    row.rstd = spread16(parameters[RSTD])
    row.offset = spread16(parameters[OFFSET])
    row.c1 = spread16(parameters[C1])
    row.c2 = spread16(parameters[C2])
    return row


cdef inline f16 normalized16(f16 x, Row row) noexcept nogil:
    return fma16(subtract16(x, row.shift), row.rstd, row.offset)


cdef inline f16 gradient16(f16 dy, f16 weight, f16 xhat, Row row) noexcept nogil:
    return fma16(multiply16(dy, weight), row.rstd, fma16(xhat, row.c2, row.c1))


cdef inline Sums step(
    Sums c, const float* dy, const float* x, float* dx, f16 weight, Row row,
) noexcept nogil:
    cdef f16 d = load16(dy)
    cdef f16 xhat = normalized16(load16(x), row)
    store16(dx, gradient16(d, weight, xhat, row))
    return with_terms(c, d, xhat)


cdef inline inlined add_column(Sums c, double* sum_dy, double* sum_dyx) noexcept nogil:
    store8(sum_dy, add(load8(sum_dy), low_half(c.first)))
    store8(sum_dy + 8, add(load8(sum_dy + 8), high_half(c.first)))
    store8(sum_dyx, add(load8(sum_dyx), low_half(c.second)))
    store8(sum_dyx + 8, add(load8(sum_dyx + 8), high_half(c.second)))


cdef inline inlined last_columns(
    const float* dy, const float* x, float* dx, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters, double* sum_dy, double* sum_dyx,
) noexcept nogil:
    # n < VECTOR columns
    cdef f16 w = load_first(weight, n)
    cdef Sums c = no_sums()
    cdef double sums[2 * VECTOR]
    cdef Row row
    cdef f16 d, xhat
    cdef Py_ssize_t r, j
    for r in range(rows):
        row = row_of(parameters + r * ROW_PARAMETERS)
        d = load_first(dy + r * stride, n)
        xhat = normalized16(load_first(x + r * stride, n), row)
        store_first(dx + r * stride, gradient16(d, w, xhat, row), n)
        c = with_terms(c, d, xhat)
    for j in range(2 * VECTOR):
        sums[j] = 0
    add_column(c, sums, sums + VECTOR)
    for j in range(n):
        sum_dy[j] += sums[j]
        sum_dyx[j] += sums[VECTOR + j]


cdef inline apart own_strips(
    const float* dy, const float* x, float* dx,         # rows lie `stride` apart
    Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t n, const float* weight,
    const float* parameters,                            # (rows, ROW_PARAMETERS), unscaled
    double* sum_dy, double* sum_dyx,                    # INOUT (n)  += Σdy, Σdy·x̂ down the rows
) noexcept nogil:
    cdef Sums c0, c1, c2, c3
    cdef f16 w0, w1, w2, w3
    cdef Row row
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t r, at
    while n - i >= 4 * VECTOR:
        c0 = c1 = c2 = c3 = no_sums()
        w0, w1, w2, w3 = load16(weight + i), load16(weight + i + 16), load16(weight + i + 32), load16(weight + i + 48)
        for r in range(rows):
            row = row_of(parameters + r * ROW_PARAMETERS)
            at = r * stride + i
            c0 = step(c0, dy + at, x + at, dx + at, w0, row)
            c1 = step(c1, dy + at + 16, x + at + 16, dx + at + 16, w1, row)
            c2 = step(c2, dy + at + 32, x + at + 32, dx + at + 32, w2, row)
            c3 = step(c3, dy + at + 48, x + at + 48, dx + at + 48, w3, row)
        add_column(c0, sum_dy + i, sum_dyx + i)
        add_column(c1, sum_dy + i + 16, sum_dyx + i + 16)
        add_column(c2, sum_dy + i + 32, sum_dyx + i + 32)
        add_column(c3, sum_dy + i + 48, sum_dyx + i + 48)
        i += 4 * VECTOR
    while n - i >= VECTOR:
        c0 = no_sums()
        w0 = load16(weight + i)
        for r in range(rows):
            at = r * stride + i
            c0 = step(c0, dy + at, x + at, dx + at, w0, row_of(parameters + r * ROW_PARAMETERS))
        add_column(c0, sum_dy + i, sum_dyx + i)
        i += VECTOR
    if i < n:
        last_columns(
            dy + i, x + i, dx + i, stride, rows, n - i, weight + i, parameters, sum_dy + i, sum_dyx + i)
