# The multiply-add that kernels mean when speed decides: one rounding wherever the build has an instruction for it.
# Where a formula needs the exact product on every build, it takes fma from libc.math instead.

from cython cimport floating
from libc.math cimport fma as libm_fma

cdef extern from *:
    """
    #if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMA)
      #define FASTNN_FMA(a, b, c) __builtin_fma(a, b, c)
      #define FASTNN_FMAF(a, b, c) __builtin_fmaf(a, b, c)
      #define FASTNN_FMAF_ONCE(a, b, c) __builtin_fmaf(a, b, c)
      enum { FASTNN_EXACT_PRODUCTS = 1 };
    #else /* x86-64-v2: a library call for each element would cost more than the last bit is worth */
      #define FASTNN_FMA(a, b, c) ((a) * (b) + (c))
      #define FASTNN_FMAF(a, b, c) ((a) * (b) + (c))
      #define FASTNN_FMAF_ONCE(a, b, c) ((float)((double)(a) * (b) + (c)))
      enum { FASTNN_EXACT_PRODUCTS = 0 };
    #endif
    """
    double fma "FASTNN_FMA" (double a, double b, double c) noexcept nogil
    float fmaf "FASTNN_FMAF" (float a, float b, float c) noexcept nogil
    float fmaf_once "FASTNN_FMAF_ONCE" (float a, float b, float c) noexcept nogil

    cdef enum:
        # whether these, and those of vectors.pxd, give what rounding took off a product
        EXACT_PRODUCTS "FASTNN_EXACT_PRODUCTS"


cdef inline floating multiply_add(floating a, floating b, floating c) noexcept nogil:
    """a·b + c, rounded once where the build can."""
    if floating is float:
        return fmaf(a, b, c)
    else:
        return fma(a, b, c)


cdef inline floating multiply_add_once(floating a, floating b, floating c) noexcept nogil:
    """a·b + c rounded once on every build; of floats as good as: where there is no instruction in double precision."""
    if floating is float:
        return fmaf_once(a, b, c)
    else:
        return libm_fma(a, b, c)
