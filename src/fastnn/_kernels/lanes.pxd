# Arithmetic that every reduction shares: double-double numbers, and sums over fixed lanes.
#
# A sum runs in LANES running sums of the data's own precision (registers), which are merged into WIDE running sums
# of double (for double data: of double-double) after at most FLUSH elements each, so that rounding errors stay
# within a few units whatever the data; the merges have one order. See the design notes in rows_forward.pyx.

from cython cimport floating
from libc.math cimport fma, sqrt
from libc.string cimport memset

cdef enum:
    LANES = 64
    WIDE = 8
    # A lane takes elements in fours, added as a tree, or singly; a single one counts double, because its roundings
    # are one in a row of additions. After FLUSH, the lanes are merged into the wide sums.
    FLUSH = 16
    SINGLE = 2


# ---- double-double: high + low with |low| ≤ ulp(high)/2 ------------------------------------------------------------

cdef struct dd:
    double high
    double low


cdef inline dd two_sum(double a, double b) noexcept nogil:
    cdef dd s
    cdef double t
    s.high = a + b
    t = s.high - a
    s.low = (a - (s.high - t)) + (b - t)
    return s


cdef inline dd fast_two_sum(double a, double b) noexcept nogil:
    # for |a| ≥ |b|
    cdef dd s
    s.high = a + b
    s.low = b - (s.high - a)
    return s


cdef inline dd dd_add(dd a, dd b) noexcept nogil:
    cdef dd s = two_sum(a.high, b.high)
    return fast_two_sum(s.high, s.low + (a.low + b.low))


cdef inline dd dd_product(double a, double b) noexcept nogil:
    # libm's fma: exact on every level
    cdef dd p
    p.high = a * b
    p.low = fma(a, b, -p.high)
    return p


cdef inline dd dd_scale(dd a, double b) noexcept nogil:
    cdef dd p = dd_product(a.high, b)
    return fast_two_sum(p.high, p.low + a.low * b)


cdef inline dd dd_square(dd a) noexcept nogil:
    cdef dd p = dd_product(a.high, a.high)
    return fast_two_sum(p.high, p.low + 2 * a.high * a.low)


cdef inline dd dd_divide(dd a, double n) noexcept nogil:
    cdef double q = a.high / n
    cdef dd p = dd_product(q, n)
    return fast_two_sum(q, ((a.high - p.high) - p.low + a.low) / n)


cdef inline double dd_rsqrt(dd v) noexcept nogil:
    # 1/√v to half a unit and a little: the IEEE root and quotient, then one Newton step on the exact residual.
    # Where the residual is not finite (v = 0, inf, NaN or negative), the plain value is the answer.
    cdef double r = 1 / sqrt(v.high)
    cdef dd residual = dd_scale(dd_scale(v, r), r)
    cdef double correction = 0.5 * r * ((1 - residual.high) - residual.low)
    return r + correction if correction == correction else r


# ---- running sums ------------------------------------------------------------------------------------------------

cdef struct WideSum:
    double high[WIDE]
    double low[WIDE]


cdef inline void clear(WideSum* total) noexcept nogil:
    memset(total, 0, sizeof(WideSum))


cdef inline void merge(floating* lanes, WideSum* total) noexcept nogil:
    # total += lanes, and the lanes start again from zero
    cdef Py_ssize_t i, j
    cdef double wide[LANES]
    cdef double high[WIDE]
    cdef double low[WIDE]
    cdef dd s
    if floating is float:
        # whole rows of registers at a time: GCC vectorises each loop by itself
        for j in range(32):
            wide[j] = <double>lanes[j] + <double>lanes[j + 32]
        for j in range(16):
            wide[j] += wide[j + 16]
        for j in range(WIDE):
            total.high[j] += wide[j] + wide[j + 8]
    else:
        for j in range(WIDE):
            high[j] = total.high[j]
            low[j] = total.low[j]
        for i in range(LANES // WIDE):
            for j in range(WIDE):
                s = two_sum(high[j], lanes[i * WIDE + j])
                high[j] = s.high
                low[j] += s.low
        for j in range(WIDE):
            total.high[j] = high[j]
            total.low[j] = low[j]
    for j in range(LANES):
        lanes[j] = 0


cdef inline dd total_of(WideSum* total, floating example) noexcept nogil:
    # `example` only chooses the precision
    cdef dd s
    cdef Py_ssize_t j
    if floating is float:
        s.high = (((total.high[0] + total.high[1]) + (total.high[2] + total.high[3]))
                  + ((total.high[4] + total.high[5]) + (total.high[6] + total.high[7])))
        s.low = 0
    else:
        s = two_sum(total.high[0], total.low[0])
        for j in range(1, WIDE):
            s = dd_add(s, two_sum(total.high[j], total.low[j]))
    return s


# ---- many sums side by side, one array of high and one of low parts (for double data) ------------------------------

cdef inline void add_to_lanes(
    const floating* sums, Py_ssize_t first, Py_ssize_t last, double* high, double* low,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double total, part
    for j in range(first, last):
        if floating is float:
            high[j] += sums[j]
        else:
            total = high[j] + sums[j]
            part = total - high[j]
            low[j] += (high[j] - (total - part)) + (sums[j] - part)
            high[j] = total
