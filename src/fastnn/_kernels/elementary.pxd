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
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMA)
      #define FASTNN_FMA(a, b, c) __builtin_fma(a, b, c)
      #define FASTNN_FMAF(a, b, c) __builtin_fmaf(a, b, c)
    #else /* a library call for each element would cost more than the last bit is worth */
      #define FASTNN_FMA(a, b, c) ((a) * (b) + (c))
      #define FASTNN_FMAF(a, b, c) ((a) * (b) + (c))
    #endif
    """
    double fma "FASTNN_FMA" (double a, double b, double c) noexcept nogil
    float fmaf "FASTNN_FMAF" (float a, float b, float c) noexcept nogil


cdef inline floating multiply_add(floating a, floating b, floating c) noexcept nogil:
    """a·b + c with one rounding."""
    if floating is float:
        return fmaf(a, b, c)
    else:
        return fma(a, b, c)


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
    """x − n·ln(2), ln(2) in two parts."""
    if floating is float:
        return fmaf(n, <float>1.4324162e-6, fmaf(n, <float>-0.693148613, x))
    else:
        return fma(n, -1.9082149292705877e-10, fma(n, -0.6931471803691238, x))


cdef inline floating exponential(floating x) noexcept nogil:
    """e^x; 0 and inf beyond the range."""
    cdef floating low, high, n, r, half, p
    if floating is float:
        low, high = <float>-104.0, <float>89.0
    else:
        low, high = -746.0, 710.0
    x = low if x < low else x
    x = high if x > high else x
    n = nearest_integer(x * <floating>1.4426950408889634)
    r = minus_ln2_times(n, x)
    p = multiply_add(exp_series(r), r * r, r) + <floating>1.0
    half = nearest_integer(n * <floating>0.5)  # in two factors: 2^n may be subnormal or beyond the largest number
    return p * power_of_two(half) * power_of_two(n - half)
