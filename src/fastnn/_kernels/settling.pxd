# Closing groups of float data, whose sums are in double precision: sums → statistics, SIDE groups at once, as vectors.

from libc.math cimport fabs, sqrt

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.norm cimport LARGE, SIDE, Group, Moments, Settled, inverse_power, usual
from fastnn._kernels.vectors cimport (
    add, between, d8, divide8, larger8, load8, multiply8, root8, rounded8, spread, store8, subtract8,
    unless_zero,
)

cdef struct Moments8:
    d8 mean                 # shift + lo
    d8 shift
    d8 lo
    d8 variance
    d8 guarded              # variance + eps

cdef struct Settled8:
    # the fields of SIDE groups
    d8 shift
    d8 lo
    d8 rstd
    d8 scale


cdef inline Moments8 moments_of(d8 s1, d8 s2, d8 each, double eps, bint centered, d8 shift) noexcept nogil:
    # From s1 = Σ(x − shift), s2 = Σ(x − shift)² with a shift among the data, or another that is not far from the mean,
    # and each = 1/n. The square of the mean's distance from one among the data is at most n times the variance, so the
    # difference keeps 53 − log₂n bits.
    cdef Moments8 moments
    cdef d8 lo = multiply8(s1, each) if centered else spread(0)
    moments.mean, moments.shift, moments.lo = add(shift, lo), shift, lo
    moments.variance = larger8(spread(0), subtract8(multiply8(s2, each), multiply8(lo, lo)))    # NaN stays
    moments.guarded = add(moments.variance, spread(eps))
    return moments


cdef inline Settled8 settled_in(Moments8 moments, d8 scale) noexcept nogil:
    # Statistics in the unit of x·scale. The mean's float part is the shift, so that x − shift rounds like x − mean, and
    # equal elements give x − shift = 0 and lo = 0: exactly bias. Such a group without eps has x̂ = 0, the limit of
    # small eps, and no gradient.
    cdef Settled8 settled
    cdef d8 mean = multiply8(moments.mean, scale)
    cdef d8 shift = multiply8(moments.shift, scale)
    cdef d8 rstd = divide8(spread(1), multiply8(root8(moments.guarded), scale))
    settled.shift = rounded8(mean)
    settled.lo = add(subtract8(shift, settled.shift), multiply8(moments.lo, scale))
    settled.rstd = unless_zero(rstd, moments.guarded)
    settled.scale = scale
    return settled


cdef inline apart settle_scaled(const Moments8* moments, Settled8* settled) noexcept nogil:
    # Groups out of range, in units of their own: powers of two with which 1/√guarded is an ordinary number. A constant
    # group needs one only if it is large, and none at all if its mean would overflow, unless something that the mask
    # leaves out may be farther from that than the largest number.
    cdef double mean[SIDE]
    cdef double variance[SIDE]
    cdef double guarded[SIDE]
    cdef double scale[SIDE]
    cdef double unit
    cdef Py_ssize_t j
    store8(mean, moments.mean)
    store8(variance, moments.variance)
    store8(guarded, moments.guarded)
    for j in range(SIDE):
        unit = inverse_power(sqrt(guarded[j]), <float>0)
        scale[j] = 1
        if usual(guarded[j]) or guarded[j] == 0:
            if fabs(mean[j]) >= LARGE:
                scale[j] = 0.25
        elif variance[j] != 0 or (unit > 1 and fabs(mean[j]) * unit < LARGE):
            scale[j] = unit
        elif fabs(mean[j]) >= LARGE or unit > 1:
            scale[j] = 0.25
    settled[0] = settled_in(moments[0], load8(scale))


cdef inline bint settle8(const Moments8* moments, Settled8* settled) noexcept nogil:
    # whether all scales are 1
    settled[0] = settled_in(moments[0], spread(1))
    if (between(moments.guarded, 7.888609052210118e-31, 1.2676506002282294e30)         # usual
            and between(moments.mean, -LARGE, LARGE)):
        return True
    settle_scaled(moments, settled)
    return between(settled.scale, 1, 1)


cdef inline void store_settled(Settled8 settled, Settled* to) noexcept nogil:
    store8(to.shift, settled.shift)
    store8(to.lo, settled.lo)
    store8(to.rstd, settled.rstd)
    store8(to.scale, settled.scale)


cdef inline inlined settle_sums(
    const double* s1, const double* s2, const double* each, double eps, bint centered, const double* shift,
    Moments* moments, Settled* settled,
) noexcept nogil:
    # of SIDE groups
    cdef Moments8 found = moments_of(load8(s1), load8(s2), load8(each), eps, centered, load8(shift))
    cdef Settled8 fields
    settle8(&found, &fields)
    store8(moments.mean, found.mean)
    store8(moments.variance, found.variance)
    store_settled(fields, settled)


cdef inline void put_groups(const Settled* settled, Py_ssize_t count, Group* groups) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(count):
        groups[j].shift = settled.shift[j]
        groups[j].lo = settled.lo[j]
        groups[j].rstd = settled.rstd[j]
        groups[j].scale = settled.scale[j]
        groups[j].rstd_low = groups[j].lo_low = 0
