# Elementary functions as straight-line arithmetic, so that a loop over them becomes vector code and every build with
# fused multiply-adds gives the same bits. Bounds measured against mpmath (tests/test_activation.py): float32 and
# float64 within 2 units in the last place over the whole range, subnormal results included.
#
# Design
#   (a) No libm: its vector variants differ from its scalar ones and from machine to machine.
#   (b) Comparisons are written so that NaN falls through to the arithmetic and comes out as NaN.
#   (c) Rounding to an integer adds and subtracts 1.5·2^23 (2^52); the same sum's low bits, shifted into the exponent,
#       are 2^n: no integer conversion, which AVX2 lacks for doubles.

from cython cimport floating
from libc.math cimport copysign, copysignf, fabs, fabsf
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from fastnn._kernels.fused cimport fma, fmaf, multiply_add


cdef inline floating exp_series(floating r) noexcept nogil:
    """(e^r − 1 − r)/r² for |r| ≤ ln(2)/2, so that 1 + r + r² times this has a relative error below 2^-28 (2^-64)."""
    cdef floating p
    if floating is float:
        p = <float>1.3814540063843824e-3
        p = fmaf(p, r, <float>8.3687451066615867e-3)
        p = fmaf(p, r, <float>4.1668390784236842e-2)
        p = fmaf(p, r, <float>1.6666520399084747e-1)
        return fmaf(p, r, <float>4.9999993432139047e-1)
    else:
        p = 2.0826587586276401e-9
        p = fma(p, r, 2.5112084691553825e-8)
        p = fma(p, r, 2.7557582266039469e-7)
        p = fma(p, r, 2.7557234727264147e-6)
        p = fma(p, r, 2.4801586926735537e-5)
        p = fma(p, r, 1.9841269895506516e-4)
        p = fma(p, r, 1.3888888889116352e-3)
        p = fma(p, r, 8.3333333333169823e-3)
        p = fma(p, r, 4.1666666666666092e-2)
        p = fma(p, r, 1.6666666666666683e-1)
        return fma(p, r, 0.5)


# ln(2) in two parts: an integer of the exponent range times the first is exact.

cdef inline floating ln2_high(floating example) noexcept nogil:
    if floating is float:
        return <float>0.693359375
    else:
        return 0.6931471803691238


cdef inline floating ln2_low(floating example) noexcept nogil:
    if floating is float:
        return <float>-2.12194440e-4
    else:
        return 1.9082149292705877e-10


cdef inline floating minus_ln2_times(floating n, floating x) noexcept nogil:
    """x − n·ln(2)."""
    return multiply_add(n, -ln2_low(n), multiply_add(n, -ln2_high(n), x))


cdef inline floating scale(floating example) noexcept nogil:
    """2^64 (float64: 2^512)."""
    if floating is float:
        return <float>18446744073709551616.0
    else:
        return 1.3407807929942597e154


cdef inline floating scale_back(floating x) noexcept nogil:
    """x·2^-64 (float64: 2^-512)."""
    if floating is float:
        return x * <float>5.421010862427522e-20
    else:
        return x * 7.458340731200207e-155


cdef inline floating exponent_bias(floating example) noexcept nogil:
    """As (c): in the sum of n and this the low bits are the exponent of 2^(n + 64) (512), normal where 2^n is not."""
    if floating is float:
        return <float>12583103.0  # 1.5·2^23 + 127 + 64
    else:
        return 6755399441057279.0  # 1.5·2^52 + 1023 + 512


cdef inline floating biased_power(floating t) noexcept nogil:
    """2^64·2^n (2^512), where t is n plus `exponent_bias`."""
    cdef uint32_t i
    cdef uint64_t l
    if floating is float:
        memcpy(&i, &t, 4)
        i <<= 23
        memcpy(&t, &i, 4)
    else:
        memcpy(&l, &t, 8)
        l <<= 52
        memcpy(&t, &l, 8)
    return t


cdef inline floating scaled_power(floating t, floating r) noexcept nogil:
    """2^64·2^n·e^r (2^512), where t is n plus `exponent_bias` and |r| ≤ ln(2)/2."""
    return multiply_add(multiply_add(exp_series(r), r, <floating>1.0), r, <floating>1.0) * biased_power(t)


cdef inline floating scaled_exponential_within(floating x) noexcept nogil:
    """2^64·e^x (2^512) for −120 ≤ x ≤ 40 (float64: −1000 ≤ x ≤ 350)."""
    cdef floating bias = exponent_bias(x)
    cdef floating t = multiply_add(x, <floating>1.4426950408889634, bias)
    return scaled_power(t, minus_ln2_times(t - bias, x))


cdef inline floating scaled_exponential(floating x) noexcept nogil:
    """2^64·e^x (2^512) for x ≤ 40; 0 after `scale_back` below the range.

    For callers that multiply it anyway: the other factor is scaled back, once for many.
    """
    cdef floating low
    if floating is float:
        low = <float>-104.0
    else:
        low = -746.0
    return scaled_exponential_within(low if x < low else x)


cdef inline floating exponential_within(floating x) noexcept nogil:
    """e^x for −120 ≤ x ≤ 40 (float64: −1000 ≤ x ≤ 350); 0 where it is too small for a number."""
    return scale_back(scaled_exponential_within(x))


cdef inline floating exponential(floating x) noexcept nogil:
    """e^x for x ≤ 40; 0 below the range."""
    return scale_back(scaled_exponential(x))


cdef inline floating magnitude(floating x) noexcept nogil:
    if floating is float:
        return fabsf(x)
    else:
        return fabs(x)


cdef inline floating with_sign_of(floating x, floating sign) noexcept nogil:
    if floating is float:
        return copysignf(x, sign)
    else:
        return copysign(x, sign)


cdef inline floating scaled_exponential_minus_one(floating x) noexcept nogil:
    """2^64·(e^x − 1) (2^512) for |x| ≤ 44."""
    cdef floating bias = exponent_bias(x)
    cdef floating t = multiply_add(x, <floating>1.4426950408889634, bias)
    cdef floating r = minus_ln2_times(t - bias, x)
    cdef floating s = biased_power(t)
    return multiply_add(s, multiply_add(exp_series(r), r * r, r), s - scale(x))


cdef inline floating exponential_minus_one(floating x) noexcept nogil:
    """e^x − 1 for x ≤ 44; x below −44 is −1."""
    return scale_back(scaled_exponential_minus_one(<floating>-44.0 if x < -44 else x))


cdef inline floating hyperbolic_tangent(floating x) noexcept nogil:
    """tanh x = t/(t + 2) with t = e^2|x| − 1, and the sign of x; 1 to the last bit from |x| = 20."""
    cdef floating a = magnitude(x)
    cdef floating t
    a = <floating>20.0 if a > 20 else a
    t = scaled_exponential_minus_one(a + a)
    return with_sign_of(t / (t + <floating>2.0 * scale(x)), x)


cdef inline floating logistic(floating x) noexcept nogil:
    """1/(1 + e^−x), from e^−|x| so that nothing overflows and small results keep their digits."""
    cdef floating e = exponential(-magnitude(x))
    return (e if x < 0 else <floating>1.0) / (<floating>1.0 + e)


cdef inline void logistic_parts(floating x, floating rest, floating* upper, floating* lower) noexcept nogil:
    """OUT σ(x + rest) and 1 − σ(x + rest), each with its own digits; `rest` is a rounding error of x."""
    cdef floating e = exponential(-magnitude(x))
    cdef floating large, small
    e = multiply_add(e, rest if x < 0 else -rest, e)
    large = <floating>1.0 / (<floating>1.0 + e)
    small = e * large
    upper[0] = small if x < 0 else large
    lower[0] = large if x < 0 else small


cdef inline floating log_one_plus(floating e) noexcept nogil:
    """log(1 + e) for 0 ≤ e ≤ 1: 2·artanh s with s = e/(2 + e) ≤ 1/3, by its series."""
    cdef floating s = e / (<floating>2.0 + e)
    cdef floating z = s * s
    cdef floating p
    if floating is float:
        p = <float>(2.0 / 15)
        p = fmaf(p, z, <float>(2.0 / 13))
        p = fmaf(p, z, <float>(2.0 / 11))
        p = fmaf(p, z, <float>(2.0 / 9))
        p = fmaf(p, z, <float>(2.0 / 7))
        p = fmaf(p, z, <float>(2.0 / 5))
        p = fmaf(p, z, <float>(2.0 / 3))
    else:
        p = 2.0 / 35
        p = fma(p, z, 2.0 / 33)
        p = fma(p, z, 2.0 / 31)
        p = fma(p, z, 2.0 / 29)
        p = fma(p, z, 2.0 / 27)
        p = fma(p, z, 2.0 / 25)
        p = fma(p, z, 2.0 / 23)
        p = fma(p, z, 2.0 / 21)
        p = fma(p, z, 2.0 / 19)
        p = fma(p, z, 2.0 / 17)
        p = fma(p, z, 2.0 / 15)
        p = fma(p, z, 2.0 / 13)
        p = fma(p, z, 2.0 / 11)
        p = fma(p, z, 2.0 / 9)
        p = fma(p, z, 2.0 / 7)
        p = fma(p, z, 2.0 / 5)
        p = fma(p, z, 2.0 / 3)
    return multiply_add(s * z, p, s + s)


cdef inline floating mills_ratio(floating a) noexcept nogil:
    """2^-64·(1 − Φ(a))·e^(a²/2) (float64: 2^-512).

    Rational minimax approximation over 0 ≤ a ≤ 14.5 (39), relative error below 2^-26.7 (2^-59.4). All coefficients are
    positive, so that nothing cancels. Even and odd powers apart have half as many roundings one upon the other, and
    that of a² has nearly the same effect on numerator and denominator.
    """
    cdef floating square = a * a
    cdef floating even, odd, p, q
    if floating is float:
        even = <float>2.11719677e-22
        even = fmaf(even, square, <float>9.72425369e-21)
        even = fmaf(even, square, <float>2.71050543e-20)
        odd = <float>2.13001451e-21
        odd = fmaf(odd, square, <float>2.34887952e-20)
        p = fmaf(odd, a, even)
        even = <float>0.0984975025
        even = fmaf(even, square, <float>1.18681371)
        even = fmaf(even, square, 1.0)
        odd = <float>0.00978959166
        odd = fmaf(odd, square, <float>0.459260941)
        odd = fmaf(odd, square, <float>1.66446817)
        q = fmaf(odd, a, even)
    else:
        even = 1.5866104621495279e-161
        even = fma(even, square, 7.667742767612762e-159)
        even = fma(even, square, 5.183873362430365e-157)
        even = fma(even, square, 9.697086938289048e-156)
        even = fma(even, square, 5.029634502327686e-155)
        even = fma(even, square, 3.7291703656001034e-155)
        odd = 4.982590039063194e-160
        odd = fma(odd, square, 7.52663950619317e-158)
        odd = fma(odd, square, 2.6081318134510746e-156)
        odd = fma(odd, square, 2.6346739024739323e-155)
        odd = fma(odd, square, 6.15018171067339e-155)
        p = fma(odd, a, even)
        even = 1.6745683152541243e-05
        even = fma(even, square, 0.0025463280770000184)
        even = fma(even, square, 0.09015120371382669)
        even = fma(even, square, 0.968235053811244)
        even = fma(even, square, 2.8012257198641897)
        even = fma(even, square, 1.0)
        odd = 5.332342391667887e-07
        odd = fma(odd, square, 0.00025823372710098366)
        odd = fma(odd, square, 0.017678798018890857)
        odd = fma(odd, square, 0.342815571326449)
        odd = fma(odd, square, 1.983973474808249)
        odd = fma(odd, square, 2.4470936630219575)
        q = fma(odd, a, even)
    return p / q


cdef inline floating tail_magnitude(floating x) noexcept nogil:
    """|x|, or 15 (float64: 39) if that is less: from there on x·e^(−x²/2) is too small for a number."""
    cdef floating a = magnitude(x)
    cdef floating limit
    if floating is float:
        limit = <float>15.0
    else:
        limit = 39.0
    return limit if a > limit else a


cdef inline floating scaled_gaussian(floating a) noexcept nogil:
    """2^64·e^(−a²/2) (2^512) for a `tail_magnitude`; −a²/2 is rounded after n·ln(2) has been taken from it."""
    cdef floating bias = exponent_bias(a)
    cdef floating half = <floating>-0.5 * a
    cdef floating t = multiply_add(a * a, <floating>-0.7213475204444817, bias)
    cdef floating n = t - bias
    cdef floating r = multiply_add(n, -ln2_low(n), multiply_add(half, a, n * -ln2_high(n)))
    return scaled_power(t, r)


cdef inline floating normal_distribution(floating x, floating a, floating density) noexcept nogil:
    """Φ(x), the normal distribution's integral, with full relative accuracy in the lower tail.

    `a` is `tail_magnitude(x)`, `density` is `scaled_gaussian(a)`, which callers need anyway.
    """
    cdef floating tail = density * mills_ratio(a)
    return tail if x < 0 else <floating>1.0 - tail
