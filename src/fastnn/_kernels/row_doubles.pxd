# Runs of double data as it mostly is: without a mask, in its own unit, neither short nor of a few values far apart.
#
# A sum that shall be good to far less than a unit costs six additions for each term if it is to hold whatever comes.
# Here elements are cut at a fixed place instead: with a power of two, the step, some 2⁻¹⁷ of their standard deviation,
#
#     x = shift + h + l,  h a multiple of the step, |l| ≤ step/2, and the shift, near the mean, a multiple of it too,
#
# all of which is exact. So are Σh and Σh², since they have no more than 53 bits; and what is left, Σl and Σl·(2h + l),
# is so small that it may be summed as it is: n/16 terms one after the other come to n/16·2⁻¹⁸ units.
#
# The step is a guess from a few elements. Whether it was fit, Σh² tells afterwards: if it is below 2⁵² steps², no h was
# larger than 2²⁶, and nothing was rounded; if h is coarse beside the standard deviation, or anything is not finite, the
# guess was bad. Then the sums of rows.pxd are taken, which fit all data.

from libc.math cimport fabs

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport WIDE, dd, dd_add, two_sum
from fastnn._kernels.norm cimport View, claim_lines
from fastnn._kernels.vectors cimport (
    add, d8, fma8, lanes_from, load8, spread, total,
)

cdef extern from *:
    """
    /* 2^⌊e/2⌋ for 2^e ≤ square < 2^(e + 1), a normal number */
    static inline double fastnn_root_power(double square) {
      unsigned long long bits;
      memcpy(&bits, &square, sizeof bits);
      long long half = ((long long)(bits >> 52) - 1023) >> 1;
      bits = (unsigned long long)(half + 1023) << 52;
      memcpy(&square, &bits, sizeof bits);
      return square;
    }
    #define FASTNN_STEP 0x1p-17         /* of the standard deviation, about */
    #define FASTNN_ANCHOR 0x1.8p+52     /* steps: a sum with it is rounded to multiples of the step */
    #define FASTNN_SQUARES 0x1p+52      /* steps², that squares may add up to */
    #define FASTNN_FINE 0x1p+20         /* steps², the least variance */
    #define FASTNN_CLOSE 0x1p+33        /* standard deviations, that a shift may have */
    """
    double root_power "fastnn_root_power" (double square) noexcept nogil
    const double STEP "FASTNN_STEP"
    const double ANCHOR "FASTNN_ANCHOR"
    const double SQUARES "FASTNN_SQUARES"
    const double FINE "FASTNN_FINE"
    const double CLOSE "FASTNN_CLOSE"

cdef enum:
    # shortest run
    LEAST = 32
    # elements whose rest is summed as it is
    PART = 8192
    SAMPLED = 4


# ---- where elements are cut ------------------------------------------------------------------------------------------

cdef struct Grid:
    double step         # 0 if there is none
    double shift


cdef inline Grid no_grid() noexcept nogil:
    cdef Grid grid
    grid.step = grid.shift = 0
    return grid


cdef inline d8 load_scaled(const double* x, double scale) noexcept nogil:
    # `scale` is a constant of 1 where this is inlined, or any power of two
    return fma8(load8(x), spread(scale), spread(0)) if scale != 1 else load8(x)


cdef inline Grid grid_of(const double* x, View* view, bint centered, double scale) noexcept nogil:
    # from four vectors here and there in a group, x at its start
    cdef Grid grid = no_grid()
    cdef d8 v[SAMPLED]
    cdef d8 about = spread(0)
    cdef double mean, square, deviation
    cdef Py_ssize_t k
    for k in range(SAMPLED):
        v[k] = load_scaled(
            x + (k * view.reduced // SAMPLED) * view.groups * view.inner + (view.inner - WIDE) * k // 3, scale)
    mean = total(add(add(v[0], v[1]), add(v[2], v[3]))) * 0.03125 if centered else 0
    about = spread(-mean)
    for k in range(SAMPLED):
        v[k] = add(v[k], about)
        v[k] = fma8(v[k], v[k], spread(0))
    square = total(add(add(v[0], v[1]), add(v[2], v[3]))) * 0.03125
    if not 1e-250 <= square <= 1e250:
        return grid
    deviation = root_power(square)
    if not fabs(mean) <= CLOSE * deviation:
        return grid
    grid.step = deviation * STEP
    grid.shift = (mean + ANCHOR * grid.step) - ANCHOR * grid.step
    return grid


cdef inline bint is_fine(const Grid* grid, dd s1, dd s2, double n, bint centered) noexcept nogil:
    # whether the step was small enough for the standard deviation
    cdef double lo = s1.high / n if centered else 0
    return s2.high / n - lo * lo >= FINE * grid.step * grid.step


# ---- sums ------------------------------------------------------------------------------------------------------------

cdef struct Cut:
    # constants of a grid
    d8 anchor
    d8 minus_anchor
    d8 minus_origin     # −anchor − shift
    d8 one
    d8 minus_one
    d8 two


cdef inline Cut cut_of(double step, double shift) noexcept nogil:
    cdef Cut cut
    cut.anchor, cut.minus_anchor = spread(ANCHOR * step), spread(-ANCHOR * step)
    cut.minus_origin = spread(-ANCHOR * step - shift)
    cut.one, cut.minus_one, cut.two = spread(1), spread(-1), spread(2)
    return cut


cdef struct Halves:
    d8 high
    d8 low


cdef inline Halves cut_at(d8 x, Cut cut) noexcept nogil:
    # x − shift in two parts; a multiply-add by one leaves the adders to the rest
    cdef Halves halves
    cdef d8 rounded = fma8(x, cut.one, cut.anchor)
    halves.high = add(rounded, cut.minus_origin)
    halves.low = fma8(add(rounded, cut.minus_anchor), cut.minus_one, x)
    return halves


cdef inline Halves halves_from(Halves halves, Py_ssize_t first) noexcept nogil:
    halves.high = lanes_from(halves.high, first)
    halves.low = lanes_from(halves.low, first)
    return halves


cdef struct Sums:
    # of some lanes: exact, and the rest
    d8 first
    d8 first_rest
    d8 second
    d8 second_rest


cdef inline Sums no_sums() noexcept nogil:
    cdef Sums s
    s.first = s.first_rest = s.second = s.second_rest = spread(0)
    return s


cdef inline Sums with_squares(Sums s, Halves x, Cut cut) noexcept nogil:
    s.first = add(s.first, x.high)
    s.first_rest = add(s.first_rest, x.low)
    s.second = fma8(x.high, x.high, s.second)
    s.second_rest = fma8(x.low, fma8(cut.two, x.high, x.low), s.second_rest)
    return s


cdef inline bint put_sums(Sums a, Sums b, double step, dd* s1, dd* s2) noexcept nogil:
    # whether Σh² was exact, and with it everything
    cdef double squares = total(add(a.second, b.second))
    s1[0] = dd_add(s1[0], two_sum(total(add(a.first, b.first)), total(add(a.first_rest, b.first_rest))))
    s2[0] = dd_add(s2[0], two_sum(squares, total(add(a.second_rest, b.second_rest))))
    return squares <= SQUARES * step * step


cdef inline bint square_part(
    const double* x, const double* result, Py_ssize_t n, Cut cut, double step, double scale, dd* s1, dd* s2,
) noexcept nogil:
    # n ≥ WIDE; whether there is a result to claim is a constant where this is inlined
    cdef Sums a = no_sums()
    cdef Sums b = no_sums()
    cdef Py_ssize_t i = 0
    while n - i >= 2 * WIDE:
        if result != NULL:
            claim_lines(result + i, 2 * WIDE)
        a = with_squares(a, cut_at(load_scaled(x + i, scale), cut), cut)
        b = with_squares(b, cut_at(load_scaled(x + i + WIDE, scale), cut), cut)
        i += 2 * WIDE
    if n - i >= WIDE:
        a = with_squares(a, cut_at(load_scaled(x + i, scale), cut), cut)
        i += WIDE
    if i < n:       # the last WIDE elements again, without those that have been added
        b = with_squares(b, halves_from(cut_at(load_scaled(x + n - WIDE, scale), cut), WIDE - (n - i)), cut)
    return put_sums(a, b, step, s1, s2)


cdef inline bint sum_of_squares(
    const double* x,            # IN   (n)
    const double* result,       # what will be written next, likewise, or NULL
    Py_ssize_t n, const Grid* grid, double scale,
    dd* s1, dd* s2,             # INOUT  += Σ(x·scale − shift), Σ(x·scale − shift)²
) noexcept nogil:
    # n ≥ LEAST; False if the grid was not fit
    cdef Cut cut = cut_of(grid.step, grid.shift)
    cdef bint fit = True
    cdef Py_ssize_t part
    while n > 0:
        part = PART if n >= PART + WIDE else n
        if result != NULL:
            fit &= square_part(x, result, part, cut, grid.step, scale, s1, s2)
            result += part
        else:
            fit &= square_part(x, NULL, part, cut, grid.step, scale, s1, s2)
        x += part
        n -= part
    return fit
