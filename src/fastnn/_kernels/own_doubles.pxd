# Rows of double data in which each place has its own weight, without a mask and in their own unit: the sums along a
# row of rows_backward_own, in registers.

from fastnn._kernels.inlining cimport apart
from fastnn._kernels.lanes cimport WIDE, WideSum, dd
from fastnn._kernels.norm cimport claim_lines
from fastnn._kernels.rows cimport exact_sum_of
from fastnn._kernels.vectors cimport add, d8, fma8, lanes_from, load8, multiply8, spread, store8, subtract8

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


cdef struct Exact:
    # a sum of lanes in double-double
    d8 high
    d8 low


cdef inline Exact with_lanes(Exact sum, d8 lanes) noexcept nogil:
    cdef Exact s
    cdef d8 part
    s.high = add(sum.high, lanes)
    part = subtract8(s.high, sum.high)
    s.low = add(sum.low, add(subtract8(sum.high, subtract8(s.high, part)), subtract8(lanes, part)))
    return s


cdef inline dd total_of(Exact sum) noexcept nogil:
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
    cdef Exact all_g, all_gd
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
        all_g = with_lanes(with_lanes(with_lanes(with_lanes(all_g, s0.g), s1.g), s2.g), s3.g)
        all_gd = with_lanes(with_lanes(with_lanes(with_lanes(all_gd, s0.gd), s1.gd), s2.gd), s3.gd)
    sum_g[0] = total_of(all_g)
    sum_gd[0] = total_of(all_gd)
