# Standard normals by the method of Box and Muller (1958), a chunk of random words at a time.
#
# Design
#   (A) Additions, multiplications, one square root, integer operations: each correctly rounded by IEEE 754, so the
#       values are the same on every machine and build. No fma, because x86-64-v2 has none; no libm, whose logarithm
#       differs between machines and does not vectorise. Without fma a normal costs a tenth more.
#   (B) Box–Muller rather than a ziggurat (rejection: the number of words used would depend on the data) or the inverse
#       distribution function (branches into tails, or gathers from tables): straight-line code that vectorises.
#   (C) radius = √(−2 ln u), u = (k + ½)/2³¹ of 31 bits (float32) or (k + ½)/2⁵³ of 53 bits (float64), so |x| reaches
#       6.66 or 8.65. The angle takes 32 or 53 bits: two choose the quarter of the circle, the others the place in it.
#   (D) The polynomials are near-minimax (Chebyshev) fits; their errors are below the rounding error of the type:
#       (ln(1+f) − f + f²/2)/f³ on [√½ − 1, √2 − 1], sin(πt/4)/t and cos(πt/4) on [−1, 1] as functions of t².

from cython cimport floating
from libc.math cimport sqrt, sqrtf
from libc.stdint cimport int32_t, uint32_t, uint64_t

from fastnn._kernels.threefry cimport CHUNK, LANES, PLANE_MAIN, Key, draw_chunks

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline int32_t fastnn_bits_f(float x) { int32_t i; memcpy(&i, &x, 4); return i; }
    static inline float fastnn_float(int32_t i) { float x; memcpy(&x, &i, 4); return x; }
    static inline uint64_t fastnn_bits_d(double x) { uint64_t i; memcpy(&i, &x, 8); return i; }
    static inline double fastnn_double(uint64_t i) { double x; memcpy(&x, &i, 8); return x; }
    """
    int32_t fastnn_bits_f(float x) noexcept nogil
    float fastnn_float(int32_t i) noexcept nogil
    uint64_t fastnn_bits_d(double x) noexcept nogil
    double fastnn_double(uint64_t i) noexcept nogil


# √(−2 ln u) for u in (0, 1]: u = 2^e·(1 + f), ln(1 + f) = f − f²/2 + f³P(f).
cdef inline floating radius(floating u) noexcept nogil:
    cdef floating e, f, p
    cdef int32_t i
    cdef uint64_t n
    if floating is float:
        i = (fastnn_bits_f(u) - 0x3F3504F3) >> 23
        f = fastnn_float(fastnn_bits_f(u) - (i << 23)) - 1
        e = <float>i
        p = <float>0.06971611
        p = p * f - <float>0.11479734
        p = p * f + <float>0.1168542
        p = p * f - <float>0.12425687
        p = p * f + <float>0.14249058
        p = p * f - <float>0.16667802
        p = p * f + <float>0.20000716
        p = p * f - <float>0.24999997
        p = p * f + <float>0.33333331
        return sqrtf(-2 * (e * <float>0.6931471805599453 + (f - f * f * (<float>0.5 - f * p))))
    else:
        # The exponent with its bias, because an unsigned shift of 64 bits is a vector instruction everywhere.
        n = (fastnn_bits_d(u) - <uint64_t>0x3FE6A09E667F3BCD + (<uint64_t>1023 << 52)) >> 52
        f = fastnn_double(fastnn_bits_d(u) - (n << 52) + (<uint64_t>1023 << 52)) - 1
        e = <double>(<int32_t>n - 1023)
        p = -0.0250612280952824642
        p = p * f + 0.0566642324205217994
        p = p * f - 0.0612956198072790589
        p = p * f + 0.0537187789066478009
        p = p * f - 0.0536828038805054842
        p = p * f + 0.0583701835146499914
        p = p * f - 0.0626503186951806371
        p = p * f + 0.0667198555527129182
        p = p * f - 0.0714223204915847047
        p = p * f + 0.0769198812013374958
        p = p * f - 0.083333450564132036
        p = p * f + 0.0909091987599820153
        p = p * f - 0.0999999999631727024
        p = p * f + 0.111111109098410725
        p = p * f - 0.124999999971092666
        p = p * f + 0.14285714287591738
        p = p * f - 0.166666666666973047
        p = p * f + 0.199999999999932239
        p = p * f - 0.2499999999999993
        p = p * f + 0.333333333333333374
        return sqrt(-2 * (e * 0.6931471805599453 + (f - f * f * (0.5 - f * p))))


# sin(πt/4) and cos(πt/4) for t in [−1, 1], from t² = z.
cdef inline floating sine(floating t, floating z) noexcept nogil:
    if floating is float:
        return t * (<float>0.78539816 + z * (<float>-0.080745435 + z * (
            <float>0.0024900068 + z * <float>-0.000035954291)))
    else:
        return t * (0.785398163397448307 + z * (-0.0807455121882805395 + z * (0.00249039457018884385 + z * (
            -0.0000365762041589138749 + z * (3.13361622543341622e-7 + z * (
                -1.75715007469839341e-9 + z * 6.87736057316632563e-12))))))


cdef inline floating cosine(floating z) noexcept nogil:
    if floating is float:
        return 1 + z * (<float>-0.30842514 + z * (<float>0.015854325 + z * (
            <float>-0.00032593859 + z * <float>0.0000035297971)))
    else:
        return 1 + z * (-0.308425137534042453 + z * (0.0158543442438154193 + z * (-0.000325991886926737642 + z * (
            3.59086044602795203e-6 + z * (-2.46113640336525961e-8 + z * (
                1.15005120282173413e-10 + z * -3.85818900734166773e-13))))))


# A pair of normals from u in (0, 1] and an angle: bits 31 and 0 of `quarter` choose the quarter of the circle, t in
# [−1, 1] the place in it.
cdef inline void pair(
    floating* first,  # OUT
    floating* second,  # OUT
    floating u,
    floating t,
    uint32_t quarter,
    floating scale,
    floating shift,
) noexcept nogil:
    cdef floating r = radius(u), c, s
    r = -r if quarter & 1 else r
    c = r * cosine(t * t)
    s = r * sine(t, t * t)
    first[0] = (s if quarter >> 31 else c) * scale + shift
    second[0] = (c if quarter >> 31 else s) * scale + shift


# The normals of chunk `index` of a stream, times `scale` plus `shift`: CHUNK of float32, CHUNK/2 of float64.
cdef inline void normal_chunk(
    floating* x,  # OUT  (CHUNK,) or (CHUNK/2,)
    const Key* key,
    uint64_t index,
    floating scale,
    floating shift,
) noexcept nogil:
    cdef uint32_t words[CHUNK]
    cdef uint32_t* angle
    cdef floating u, t
    cdef int i, j
    draw_chunks(words, key, PLANE_MAIN, index, 1)
    if floating is float:
        for i in range(2):
            angle = words + (2 * i + 1) * LANES
            for j in range(LANES):
                u = (<float><int32_t>(angle[j - LANES] >> 1) + <float>0.5) * <float>(2.0 ** -31)
                t = <float><int32_t>((angle[j] >> 1 << 2) | 2) * <float>(2.0 ** -31)  # 30 bits, symmetric
                pair(x + 2 * i * LANES + j, x + (2 * i + 1) * LANES + j, u, t, angle[j], scale, shift)
    else:
        # 53 bits come in two parts, because only 32-bit integers convert in vectors everywhere.
        angle = words + 2 * LANES
        for j in range(LANES):
            u = <double><int32_t>(words[j] >> 5) * 2.0 ** 26 + <double><int32_t>(words[LANES + j] >> 6)
            t = <double><int32_t>(angle[j] >> 1 << 2) * 2.0 ** -31
            t = t + (<double><int32_t>(angle[LANES + j] >> 9) + 0.5) * 2.0 ** -52
            pair(x + j, x + LANES + j, (u + 0.5) * 2.0 ** -53, t, angle[j], scale, shift)
