# What all norm kernels share: the view of the array, a group's statistics, and the normalised value x̂.
#
# View: a C-ordered array as (outer, reduced, groups, inner) = (O, A, S, I). One group of statistics for each (o, s),
# over the A runs of I contiguous elements that start at x + o·A·S·I + s·I and lie S·I apart.

from cython cimport floating
from libc.math cimport fabs, frexp, isfinite, ldexp, sqrt

from fastnn._kernels.fused cimport multiply_add_once as multiply_add
from fastnn._kernels.inlining cimport apart, claim, inlined
from fastnn._kernels.lanes cimport dd, dd_add, dd_divide, dd_product, dd_rsqrt, dd_scale, dd_square, dd_times, two_sum

cdef struct View:
    Py_ssize_t outer
    Py_ssize_t reduced
    Py_ssize_t groups
    Py_ssize_t inner

# What backward needs of a group, in the unit of x·scale, where scale is a power of two: 1 unless squares would leave
# the range of the data's precision. mean = shift + lo, and shift is a number of the data's precision.
cdef struct Group:
    double shift
    double lo
    double rstd
    double scale
    # of double data: what rounding took off rstd and lo
    double rstd_low
    double lo_low

cdef enum:
    # bytes read and written together from which on the result's lines are claimed ahead
    DISTANT = 8 << 20
    LINE = 64

# What running statistics need of a group: mean, biased variance, number of elements counted.
cdef struct Population:
    double mean
    double variance
    double count


cdef inline dd rstd_of(const Group* group) noexcept nogil:
    cdef dd rstd
    rstd.high, rstd.low = group.rstd, group.rstd_low
    return rstd


cdef inline dd lo_of(const Group* group) noexcept nogil:
    cdef dd lo
    lo.high, lo.low = group.lo, group.lo_low
    return lo


cdef inline Py_ssize_t start_of(View* view, Py_ssize_t group) noexcept nogil:
    return ((group // view.groups) * view.reduced * view.groups + group % view.groups) * view.inner


cdef inline Py_ssize_t count_of(const unsigned char* mask, View* view) noexcept nogil:
    # elements of one group that count; `mask` is at the group's start, or NULL
    cdef Py_ssize_t a, i, count = 0
    if mask == NULL:
        return view.reduced * view.inner
    for a in range(view.reduced):
        for i in range(view.inner):
            count += mask[a * view.groups * view.inner + i] != 0
    return count


cdef inline apart count_each(const unsigned char* mask, View* view, Py_ssize_t count, double* n) noexcept nogil:
    # elements that count in each of `count` neighbouring groups; mask at the first one's start
    cdef Py_ssize_t j
    for j in range(count):
        n[j] = <double>count_of(mask + j * view.inner, view)


cdef inline floating first_counted(const floating* x, const unsigned char* mask, View* view) noexcept nogil:
    # the first element of a group that counts, 0 if none does; x and mask at the group's start
    cdef Py_ssize_t a, i, at
    if mask == NULL:
        return x[0]
    for a in range(view.reduced):
        for i in range(view.inner):
            at = a * view.groups * view.inner + i
            if mask[at]:
                return x[at]
    return 0


# ---- closing a group of double data: sums → statistics ---------------------------------------------------------------

cdef enum Verdict:
    FINAL
    AGAIN       # the shift was far from the mean: sum once more around group.shift
    COLD        # the sums left the range of doubles: sum once more with another scale


cdef inline void clear_group(Group* group, Population* population) noexcept nogil:
    # nothing counts: x̂ = 0 and no gradient
    group.shift = group.lo = group.rstd = group.rstd_low = group.lo_low = 0
    group.scale = 1
    if population != NULL:
        population.mean = population.variance = population.count = 0


cdef inline Verdict close_group(
    dd s1, dd s2, double n, double eps, bint centered, double shift, double scale, Group* group, Population* population,
) noexcept nogil:
    # IN s1 = Σ(x·scale − shift), s2 = Σ(x·scale − shift)². Folding s1/n into the shift leaves |lo| ≤ ulp(shift)/2, so
    # x − shift rounds like x − mean; a group of equal elements then has x − shift = 0 and lo = 0, hence y = bias
    # exactly. Such a group without eps has x̂ = 0, the limit of small eps, and no gradient.
    # Whatever the verdict, all is written: where no other scale helps, it stays.
    cdef dd lo, variance, mean, rest, guarded, rstd
    cdef bint unscaled = scale == 1
    cdef double unit
    if n == 0:
        clear_group(group, population)
        return FINAL
    lo = dd_divide(s1, n)
    if not centered:
        lo.high = 0
        lo.low = 0
    variance = dd_add(dd_divide(s2, n), dd_scale(dd_square(lo), -1))
    mean = two_sum(shift, lo.high)
    rest = two_sum(mean.low, lo.low)
    if variance.high < 0:
        variance.high = 0
        variance.low = 0
    if variance.high == 0 and eps > 0:
        # Only eps is left. If it does not fit the unit, the data's own does, or, where something that the mask leaves
        # out may be farther from the mean than the largest number, a near one.
        unit = scale if eps * scale * scale >= 1.1830521861667747e-271 else 1           # 2^−900
        if fabs(mean.high) >= 9.745314011399999e288 * scale:                            # 2^960
            unit = 0.25
        mean.high *= unit / scale
        rest.high *= unit / scale
        rest.low *= unit / scale
        scale = unit
    eps = eps * scale * scale
    guarded = two_sum(variance.high, eps)
    guarded.low += variance.low
    group.shift = mean.high
    group.lo, group.lo_low = rest.high, rest.low
    rstd = dd_rsqrt(guarded)
    group.rstd = group.rstd_low = 0
    if rstd.high > 4.4e307:     # 2^1022
        group.rstd = 4.4e307 if guarded.high != 0 else 0
    else:
        group.rstd, group.rstd_low = rstd.high, rstd.low
    group.scale = scale
    if population != NULL:
        population.mean = mean.high / scale
        population.variance = variance.high / scale / scale
        population.count = n
    if unscaled and not (in_range(s2.high / n, variance.high + eps, shift) and resolved(s1, s2, shift)):
        return COLD
    if centered and lo.high * lo.high > 0.25 * variance.high:
        return AGAIN
    return FINAL


cdef inline bint resolved(dd s1, dd s2, double shift) noexcept nogil:
    # False if all values are so small that the smallest number is a coarse unit for their mean, and for products with
    # them. Where no other is, it is zero that they are near.
    return (
        s2.high >= 1.1830521861667747e-271 or fabs(shift) >= 3.4395525670743494e-136     # 2^−900, its root
        or (s1.high == 0 and s2.high == 0 and shift == 0))


cdef inline bint in_range(double square, double guarded, floating example) noexcept nogil:
    # Squares neither overflow the running sums nor vanish beside var + eps; NaN is out of range.
    if floating is float:
        return square <= 1.2676506002282294e30 and guarded >= 7.888609052210118e-31     # 2^±100
    else:
        return square <= 8.452712498170644e270 and guarded >= 1.1830521861667747e-271   # 2^±900


# ---- groups of float data, SIDE of them at once: see settling.pxd ----------------------------------------------------

cdef enum:
    SIDE = 8

cdef extern from *:
    """
    #define FASTNN_LARGE 0x1p+100
    """
    # beyond which a difference of floats may overflow; the variance of values so large is 0 or unusual
    const double LARGE "FASTNN_LARGE"

cdef struct Moments:
    double mean[SIDE]
    double variance[SIDE]


cdef struct Settled:
    # the fields of SIDE groups
    double shift[SIDE]
    double lo[SIDE]
    double rstd[SIDE]
    double scale[SIDE]
    # of double data only
    double rstd_low[SIDE]
    double lo_low[SIDE]


cdef inline bint usual(double guarded) noexcept nogil:
    # whether x̂ can be computed in the data's own unit
    return (guarded >= 7.888609052210118e-31) & (guarded <= 1.2676506002282294e30)     # 2^±100


# ---- the normalised value ----------------------------------------------------------------------------------------

cdef inline floating offset_of(const Group* group, floating example) noexcept nogil:
    return <floating>(-group.lo * group.rstd)


cdef inline floating deviation(floating x, floating shift, floating scale, bint cold) noexcept nogil:
    # `cold` is a constant where this is inlined: without it scale is 1
    return (x * scale if cold else x) - shift


cdef inline floating normalized(
    floating x, floating shift, floating rstd, floating offset, floating scale, bint cold,
) noexcept nogil:
    # x̂
    return multiply_add(deviation(x, shift, scale, cold), rstd, offset)


# ---- the input's gradient ----------------------------------------------------------------------------------------

cdef struct Means:
    double g        # Σg/n
    double gx       # Σ(g·x̂)/n


cdef inline Means means_of(double sum_g, double sum_gx, double n, bint centered, bint constant) noexcept nogil:
    # zeros where the statistics are constants, where nothing was counted, and without centring the first
    cdef Means means
    means.g = sum_g / n if centered and not constant and n > 0 else 0
    means.gx = sum_gx / n if not constant and n > 0 else 0
    return means


cdef struct Tangent:
    # the line in x − shift that is taken off the gradient g·rstd
    double constant
    double slope
    # what rounding took off, of double data
    double constant_low
    double slope_low


cdef inline Tangent tangent_of(
    dd sum_g, dd sum_gx, double n, bint centered, bint constant, double lo, dd rstd, floating example,
) noexcept nogil:
    # slope = −rstd²·Σgx̂/n and constant = −rstd·Σg/n − slope·lo. Under a mask, and where the three terms of a gradient
    # have one sign, nearly all of the bound is needed for the terms themselves: of double data each is rounded once.
    cdef Means means
    cdef Tangent tangent
    cdef dd slope, constant_part
    if floating is float:
        means = means_of(sum_g.high, sum_gx.high, n, centered, constant)
        tangent.slope = -means.gx * rstd.high * rstd.high
        tangent.constant = -means.g * rstd.high - tangent.slope * lo
        tangent.slope_low = tangent.constant_low = 0
        return tangent
    else:
        slope = dd_times(exact_mean(sum_gx, n, not constant, rstd), rstd)
        constant_part = dd_add(exact_mean(sum_g, n, centered and not constant, rstd), dd_scale(slope, -lo))
        tangent.slope, tangent.slope_low = slope.high, slope.low
        tangent.constant, tangent.constant_low = constant_part.high, constant_part.low
        return tangent


cdef inline dd exact_mean(dd sum, double n, bint taken, dd rstd) noexcept nogil:
    # −rstd·sum/n, or zero
    cdef dd mean
    mean.high = mean.low = 0
    if taken and n > 0:
        mean = dd_scale(dd_times(dd_divide(sum, n), rstd), -1)
    return mean


cdef inline floating input_gradient(
    floating g, floating factor, floating x, floating slope, floating constant, bint counts, floating scale, bint cold,
) noexcept nogil:
    # (g·factor + (x·slope + constant))·scale, x without its mean; `cold` is a constant where this is inlined
    cdef floating gradient = multiply_add(g, factor, multiply_add(x, slope, constant) if counts else <floating>0)
    return gradient * scale if cold else gradient


# Under a mask Σg/n and Σgx̂/n may be as large as g, since g counts everywhere: there the three terms of double data are
# added in double-double.

cdef inline double masked_gradient(
    double g, double factor, double factor_low, dd x, double slope, double slope_low, double constant,
    double constant_low, bint counts,
) noexcept nogil:
    # g·factor + (x·slope + constant), of parameters in two parts
    cdef dd term = dd_product(g, factor)
    cdef dd through_rstd = dd_product(x.high, slope)
    cdef dd s = two_sum(through_rstd.high, constant)
    cdef dd t = two_sum(term.high, s.high)
    cdef double low
    term.low += g * factor_low
    low = t.low + (s.low + (through_rstd.low + term.low + constant_low + (x.high * slope_low + x.low * slope)))
    if not counts:
        return term.high + term.low
    return t.high + low if low == low else t.high       # of infinite numbers


# ---- the range of the data's precision -------------------------------------------------------------------------------

cdef inline double least_of(floating example) noexcept nogil:
    # numbers from here on have all their bits
    return 1.1754943508222875e-38 if floating is float else 1e-288


cdef inline double most_of(floating example) noexcept nogil:
    # products of numbers up to here with a few more stay finite
    return 1e30 if floating is float else 1e270


# ---- groups out of range -----------------------------------------------------------------------------------------

cdef inline double inverse_power(double size, floating example) noexcept nogil:
    # 2^−e with size ≈ 2^e, such that it and its inverse are normal numbers of the data's precision; 1 for NaN and inf
    cdef int exponent = 0
    cdef int limit = 126 if floating is float else 1022
    if not isfinite(size):
        return 1
    frexp(size, &exponent)
    return ldexp(1, -max(-limit, min(exponent, limit)))


cdef inline double scale_of(const double* x, const unsigned char* mask, View* view, double eps) noexcept nogil:
    # For a group of double data: the power of two that brings the largest element that counts near 1, but √eps not
    # beyond 2^500; 1 if an element is not finite, when NaN is the answer. x and mask at the group's start.
    cdef Py_ssize_t a, i, at
    cdef double largest = min(<double>1, sqrt(eps) * 3.054936363499605e-151) if eps > 0 else 0
    cdef double z
    for a in range(view.reduced):
        for i in range(view.inner):
            at = a * view.groups * view.inner + i
            if mask == NULL or mask[at]:
                z = fabs(x[at])
                if not isfinite(z):
                    return 1
                if z > largest:
                    largest = z
    return inverse_power(largest, x[0])


# ---- the lines of a result, while its operands are summed

cdef inline inlined claim_lines(const floating* result, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t at = 0
    while at < n * <Py_ssize_t>sizeof(floating):
        claim(<const char*>result + at)
        at += LINE
