/* Vectors of the compiler's, for the bare loops. */
#ifndef BENCH_VECTORS_H
#define BENCH_VECTORS_H

#include <stddef.h>
#if defined(__AVX512F__)
  #include <immintrin.h>
#endif

typedef float f8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float f16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef double d8 __attribute__((vector_size(64)));

#define INLINE static inline __attribute__((always_inline))

/* GCC 12 converts the halves one after the other, in twice the time. */
INLINE d8 widen(const float *x)
{
#if defined(__AVX512F__)
    return (d8)_mm512_cvtps_pd(_mm256_loadu_ps(x));
#else
    return __builtin_convertvector(*(const f8 *)x, d8);
#endif
}

#endif
