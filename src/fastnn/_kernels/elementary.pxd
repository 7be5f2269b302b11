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


cdef inline floating power_of_two(floating n) noexcept nogil:
    """2^n for an integer n of the normal exponent range."""
    cdef float f
    cdef double d
    cdef uint32_t i
    cdef uint64_t l
    if floating is float:
        f = n + <float>12583039.0  # 1.5·2^23 + 127
        memcpy(&i, &f, 4)
        i <<= 23
        memcpy(&f, &i, 4)
        return f
    else:
        d = n + 6755399441056767.0  # 1.5·2^52 + 1023
        memcpy(&l, &d, 8)
        l <<= 52
        memcpy(&d, &l, 8)
        return d


cdef inline floating exp_series(floating r) noexcept nogil:
    """(e^r − 1 − r)/r² for |r| ≤ ln(2)/2."""
    cdef floating p
    if floating is float:
        p = <float>1.9875691500e-4
        p = fmaf(p, r, <float>1.3981999507e-3)
        p = fmaf(p, r, <float>8.3334519073e-3)
        p = fmaf(p, r, <float>4.1665795894e-2)
        p = fmaf(p, r, <float>1.6666665459e-1)
        return fmaf(p, r, <float>5.0000001201e-1)
    else:  # Taylor: the first term left out is below 2^-57
        p = 1.0 / 6227020800.0
        p = fma(p, r, 1.0 / 479001600.0)
        p = fma(p, r, 1.0 / 39916800.0)
        p = fma(p, r, 1.0 / 3628800.0)
        p = fma(p, r, 1.0 / 362880.0)
        p = fma(p, r, 1.0 / 40320.0)
        p = fma(p, r, 1.0 / 5040.0)
        p = fma(p, r, 1.0 / 720.0)
        p = fma(p, r, 1.0 / 120.0)
        p = fma(p, r, 1.0 / 24.0)
        p = fma(p, r, 1.0 / 6.0)
        return fma(p, r, 0.5)


cdef inline floating nearest_integer(floating x) noexcept nogil:
    """The integer nearest to x, for |x| < 2^22."""
    if floating is float:
        return (x + <float>12582912.0) - <float>12582912.0
    else:
        return (x + 6755399441055744.0) - 6755399441055744.0


cdef inline floating minus_ln2_times(floating n, floating x) noexcept nogil:
    """x − n·ln(2), ln(2) in two parts: n times the first is exact without a fused multiply-add, too."""
    if floating is float:
        return fmaf(n, <float>2.12194440e-4, fmaf(n, <float>-0.693359375, x))
    else:
        return fma(n, -1.9082149292705877e-10, fma(n, -0.6931471803691238, x))


cdef inline floating exponential_within(floating x) noexcept nogil:
    """e^x for −120 ≤ x ≤ 40 (float64: −1000 ≤ x ≤ 350); 0 where it is too small for a number."""
    cdef floating t, n, r, p
    cdef uint32_t i
    cdef uint64_t l
    # As (c), where the sum's low bits are n + bias + 64 (512): 2^n may be subnormal, so that it comes in two factors.
    if floating is float:
        t = fmaf(x, <float>1.4426950408889634, <float>12583103.0)  # 1.5·2^23 + 127 + 64
        n = t - <float>12583103.0
    else:
        t = fma(x, 1.4426950408889634, 6755399441057279.0)  # 1.5·2^52 + 1023 + 512
        n = t - 6755399441057279.0
    r = minus_ln2_times(n, x)
    p = multiply_add(exp_series(r), r * r, r) + <floating>1.0
    if floating is float:
        memcpy(&i, &t, 4)
        i <<= 23
        memcpy(&t, &i, 4)
        return p * t * <float>5.421010862427522e-20
    else:
        memcpy(&l, &t, 8)
        l <<= 52
        memcpy(&t, &l, 8)
        return p * t * 7.458340731200207e-155


cdef inline floating exponential(floating x) noexcept nogil:
    """e^x for x ≤ 40; 0 below the range."""
    cdef floating low
    if floating is float:
        low = <float>-104.0
    else:
        low = -746.0
    return exponential_within(low if x < low else x)


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


cdef inline floating exponential_minus_one(floating x) noexcept nogil:
    """e^x − 1 for x ≤ 44; x below −44 is −1."""
    cdef floating n, r, q, s
    x = <floating>-44.0 if x < -44 else x
    n = nearest_integer(x * <floating>1.4426950408889634)
    r = minus_ln2_times(n, x)
    q = multiply_add(exp_series(r), r * r, r)
    s = power_of_two(n)
    return multiply_add(s, q, s - <floating>1.0)


cdef inline floating hyperbolic_tangent(floating x) noexcept nogil:
    """tanh x = t/(t + 2) with t = e^2|x| − 1, and the sign of x; 1 to the last bit from |x| = 20."""
    cdef floating a = magnitude(x)
    cdef floating t
    a = <floating>20.0 if a > 20 else a
    t = exponential_minus_one(a + a)
    return with_sign_of(t / (t + <floating>2.0), x)


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


cdef inline floating mills_polynomial(floating q) noexcept nogil:
    """(1 + a/k)·(1 − Φ(a))·e^(a²/2) at a = k·(1 + q)/(1 − q), k = 4 (float32) or 5.

    Chebyshev interpolation over 0 ≤ a ≤ 14.5 (39), relative error below 2^-28 (2^-60); the substitution is that of
    Shepherd and Laframboise, Mathematics of Computation 36 (1981).
    """
    cdef floating p
    if floating is float:
        p = <float>-1.3161412e-05
        p = fmaf(p, q, <float>-5.865544e-05)
        p = fmaf(p, q, <float>4.2338863e-05)
        p = fmaf(p, q, <float>4.115739e-04)
        p = fmaf(p, q, <float>-8.7201886e-04)
        p = fmaf(p, q, <float>-1.886317e-03)
        p = fmaf(p, q, <float>1.5099323e-02)
        p = fmaf(p, q, <float>-4.6630327e-02)
        p = fmaf(p, q, <float>9.6784346e-02)
        p = fmaf(p, q, <float>-1.5197417e-01)
        return fmaf(p, q, <float>1.8882129e-01)
    else:
        p = -4.7869080574614954e-12
        p = fma(p, q, -8.695296468164335e-11)
        p = fma(p, q, -2.202221946864766e-10)
        p = fma(p, q, 4.835953553702714e-10)
        p = fma(p, q, 2.151734259341151e-09)
        p = fma(p, q, -1.7751993622466543e-09)
        p = fma(p, q, -1.4034773557000857e-08)
        p = fma(p, q, 8.095489465363965e-09)
        p = fma(p, q, 8.7272266072914e-08)
        p = fma(p, q, -6.695035519560756e-08)
        p = fma(p, q, -5.541543561478829e-07)
        p = fma(p, q, 7.959749650170311e-07)
        p = fma(p, q, 3.3363321988773472e-06)
        p = fma(p, q, -9.952494899353337e-06)
        p = fma(p, q, -1.1875162550738234e-05)
        p = fma(p, q, 0.00010897979918109831)
        p = fma(p, q, -0.0001595738776949934)
        p = fma(p, q, -0.0005986753524412417)
        p = fma(p, q, 0.004159013359837809)
        p = fma(p, q, -0.013823727741371514)
        p = fma(p, q, 0.033004073234082054)
        p = fma(p, q, -0.0627066313342576)
        p = fma(p, q, 0.09906112319399521)
        p = fma(p, q, -0.13307650057801138)
        return fma(p, q, 0.15383860995001258)


cdef inline floating tail_magnitude(floating x) noexcept nogil:
    """|x|, or 14.5 (float64: 39) if that is less: e^(−x²/2) is too small for a number there."""
    cdef floating a = magnitude(x)
    cdef floating limit
    if floating is float:
        limit = <float>14.5
    else:
        limit = 39.0
    return limit if a > limit else a


cdef inline floating gaussian(floating a) noexcept nogil:
    """e^(−a²/2) for a `tail_magnitude`: a² in two parts, since its rounding error would be multiplied by a²/2."""
    cdef floating high = a * a
    cdef floating low = multiply_add(a, a, -high)
    cdef floating e = exponential_within(<floating>-0.5 * high)
    return multiply_add(e, <floating>-0.5 * low, e)


cdef inline floating normal_distribution(floating x, floating a, floating density) noexcept nogil:
    """Φ(x), the normal distribution's integral, with full relative accuracy in the lower tail.

    `a` is `tail_magnitude(x)`, `density` is `gaussian(a)`, which callers need anyway.
    """
    cdef floating k, r, tail
    if floating is float:
        k = <float>4.0
    else:
        k = 5.0
    r = <floating>1.0 / (a + k)
    tail = density * (mills_polynomial((a - k) * r) * (k * r))
    return tail if x < 0 else <floating>1.0 - tail
