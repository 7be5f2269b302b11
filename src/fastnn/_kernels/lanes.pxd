# Arithmetic that the norms' reductions share: double-double numbers, terms and sums in twice the data's precision, and
# sums over fixed lanes of the data's own precision, which are merged into WIDE sums of double (for double data: of
# double-double) after at most FLUSH elements each. Every order is fixed.

from cython cimport floating
from libc.math cimport fabs, fma, sqrt

from fastnn._kernels.fused cimport multiply_add_once as multiply_add

cdef enum:
    LANES = 64
    WIDE = 8
    FLUSH = 16


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


cdef inline dd dd_times(dd a, dd b) noexcept nogil:
    cdef dd p = dd_product(a.high, b.high)
    return fast_two_sum(p.high, p.low + (a.high * b.low + a.low * b.high))


cdef inline dd dd_square(dd a) noexcept nogil:
    cdef dd p = dd_product(a.high, a.high)
    return fast_two_sum(p.high, p.low + 2 * a.high * a.low)


cdef inline dd dd_divide(dd a, double n) noexcept nogil:
    cdef double q = a.high / n
    cdef dd p = dd_product(q, n)
    return fast_two_sum(q, ((a.high - p.high) - p.low + a.low) / n)


cdef inline dd dd_rsqrt(dd v) noexcept nogil:
    # 1/√v: the IEEE root and quotient, then one Newton step on the exact residual. Where the residual is not finite
    # (v = 0, inf, NaN or negative), the plain value is the answer.
    cdef double r = 1 / sqrt(v.high)
    cdef dd residual = dd_scale(dd_scale(v, r), r)
    cdef double correction = 0.5 * r * ((1 - residual.high) - residual.low)
    return fast_two_sum(r, correction if correction == correction and fabs(correction) < r else 0)


# ---- running sums ------------------------------------------------------------------------------------------------

cdef struct WideSum:
    double high[WIDE]
    double low[WIDE]


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


# ---- terms and sums in twice the data's precision: float data in double, double data in double-double --------------

cdef inline dd exact_deviation(floating x, double shift, double scale, bint cold) noexcept nogil:
    return wide_deviation(x, shift, scale, cold, x)


cdef inline dd wide_deviation(double x, double shift, double scale, bint cold, floating example) noexcept nogil:
    # x·scale − shift; `cold` is a constant where this is inlined: without it scale is 1. `example` tells whether x was
    # a float: scaling by a power of two is exact, so the multiply-add rounds like the difference.
    cdef dd d
    if floating is float:
        d.high = multiply_add(x, scale, -shift) if cold else x - shift
        d.low = 0
        return d
    else:
        return two_sum(x * scale if cold else x, -shift)


cdef inline void add_term(double* high, double* low, dd term, floating example) noexcept nogil:
    # `example` tells whether the terms are float32's
    cdef dd s
    if floating is float:
        high[0] += term.high
    else:
        s = two_sum(high[0], term.high)
        high[0] = s.high
        low[0] += s.low + term.low


cdef inline dd join(dd a, dd b, floating example) noexcept nogil:
    # a + b
    if floating is float:
        a.high += b.high
        return a
    else:
        return dd_add(a, b)


cdef inline void add_product(double* high, double* low, dd a, dd b, floating example) noexcept nogil:
    cdef dd p
    if floating is float:
        high[0] = multiply_add(a.high, b.high, high[0])
    else:
        p = dd_product(a.high, b.high)
        p.low += a.high * b.low + a.low * b.high
        add_term(high, low, p, example)


cdef inline void add_number(double* high, double* low, double a, floating example) noexcept nogil:
    # plain numbers, of double data in double-double
    cdef dd s
    if floating is float:
        high[0] += a
    else:
        s = two_sum(high[0], a)
        high[0] = s.high
        low[0] += s.low


cdef inline void add_multiple(double* high, double* low, double a, dd b, floating example) noexcept nogil:
    # a · b, a being a plain number
    cdef dd p
    if floating is float:
        high[0] = multiply_add(a, b.high, high[0])
    else:
        p = dd_product(a, b.high)
        p.low += a * b.low
        add_term(high, low, p, example)


cdef inline void add_product_of_numbers(double* high, double* low, double a, double b, floating example) noexcept nogil:
    cdef dd p, s
    if floating is float:
        high[0] = multiply_add(a, b, high[0])
    else:
        p = dd_product(a, b)
        s = two_sum(high[0], p.high)
        high[0] = s.high
        low[0] += s.low + p.low


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
