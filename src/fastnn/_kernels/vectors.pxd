# Eight doubles or sixteen floats that stay in registers: one vector with AVX-512, two with AVX, else four of 16 bytes.
#
# GCC vectorises a loop over a local array well, but keeps the array in memory before and after it, which for short
# rows costs more than the arithmetic. These types have no address to keep. Every function does the same arithmetic in
# the same order on each level.

cdef enum:
    VECTOR = 16     # floats of one f16

cdef extern from *:
    """
    #include <string.h>
    #if defined(__SSE2__)
      #include <immintrin.h>
    #endif
    #if defined(__AVX512F__)
      typedef __m512d fastnn_part_d8;
      typedef __m512 fastnn_part_f16;
      #define FASTNN_PARTS(TYPE) fastnn_part_##TYPE p0
      #define FASTNN_EACH(DO) DO(0)
      #define FASTNN_LANES_PART 8
      #define fastnn_part_widen(x) _mm512_cvtps_pd(_mm256_loadu_ps(x))
      #define fastnn_part_load_d8(x) _mm512_loadu_pd(x)
      #define fastnn_part_load_f16(x) _mm512_loadu_ps(x)
      #define fastnn_part_store_f16(y, a) _mm512_storeu_ps(y, a)
      #define fastnn_part_store_d8(y, a) _mm512_storeu_pd(y, a)
      #define fastnn_part_stream(y, a) _mm512_stream_ps(y, a)
      #define fastnn_part_fma_d8(a, b, c) _mm512_fmadd_pd(a, b, c)
      #define fastnn_part_fms_d8(a, b, c) _mm512_fmsub_pd(a, b, c)
      #define fastnn_part_fma_f16(a, b, c) _mm512_fmadd_ps(a, b, c)
      #define fastnn_part_larger(a, b) _mm512_max_pd(a, b)
      #define fastnn_part_smaller(a, b) _mm512_min_pd(a, b)
      #define fastnn_part_root(a) _mm512_sqrt_pd(a)
      #define fastnn_part_rounded(a) _mm512_cvtps_pd(_mm512_cvtpd_ps(a))
      #define fastnn_part_narrow(y, a) _mm256_storeu_ps(y, _mm512_cvtpd_ps(a))
      #define fastnn_part_all(m) (_mm512_movepi64_mask((__m512i)(m)) == 255)
    #elif defined(__AVX__)
      typedef __m256d fastnn_part_d8;
      typedef __m256 fastnn_part_f16;
      #define FASTNN_PARTS(TYPE) fastnn_part_##TYPE p0, p1
      #define FASTNN_EACH(DO) DO(0) DO(1)
      #define FASTNN_LANES_PART 4
      #define fastnn_part_widen(x) _mm256_cvtps_pd(_mm_loadu_ps(x))
      #define fastnn_part_load_d8(x) _mm256_loadu_pd(x)
      #define fastnn_part_load_f16(x) _mm256_loadu_ps(x)
      #define fastnn_part_store_f16(y, a) _mm256_storeu_ps(y, a)
      #define fastnn_part_store_d8(y, a) _mm256_storeu_pd(y, a)
      #define fastnn_part_stream(y, a) _mm256_stream_ps(y, a)
      #define fastnn_part_fma_d8(a, b, c) _mm256_fmadd_pd(a, b, c)
      #define fastnn_part_fms_d8(a, b, c) _mm256_fmsub_pd(a, b, c)
      #define fastnn_part_fma_f16(a, b, c) _mm256_fmadd_ps(a, b, c)
      #define fastnn_part_larger(a, b) _mm256_max_pd(a, b)
      #define fastnn_part_smaller(a, b) _mm256_min_pd(a, b)
      #define fastnn_part_root(a) _mm256_sqrt_pd(a)
      #define fastnn_part_rounded(a) _mm256_cvtps_pd(_mm256_cvtpd_ps(a))
      #define fastnn_part_narrow(y, a) _mm_storeu_ps(y, _mm256_cvtpd_ps(a))
      #define fastnn_part_all(m) (_mm256_movemask_pd((__m256d)(m)) == 15)
      static const int fastnn_ones[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    #else
      typedef double fastnn_part_d8 __attribute__((vector_size(16)));
      typedef float fastnn_part_f16 __attribute__((vector_size(16)));
      typedef double fastnn_any_d8 __attribute__((vector_size(16), aligned(8), may_alias));
      typedef float fastnn_any_f16 __attribute__((vector_size(16), aligned(4), may_alias));
      #define FASTNN_PARTS(TYPE) fastnn_part_##TYPE p0, p1, p2, p3
      #define FASTNN_EACH(DO) DO(0) DO(1) DO(2) DO(3)
      #define FASTNN_LANES_PART 2
      #define fastnn_part_widen(x) (fastnn_part_d8){(x)[0], (x)[1]}
      #define fastnn_part_load_d8(x) (*(const fastnn_any_d8 *)(x))
      #define fastnn_part_load_f16(x) (*(const fastnn_any_f16 *)(x))
      #define fastnn_part_store_f16(y, a) (*(fastnn_any_f16 *)(y) = (a))
      #define fastnn_part_store_d8(y, a) (*(fastnn_any_d8 *)(y) = (a))
      #if defined(__SSE2__)
        #define fastnn_part_stream(y, a) _mm_stream_ps(y, (__m128)(a))
      #else
        #define fastnn_part_stream(y, a) fastnn_part_store_f16(y, a)
      #endif
      #define fastnn_part_larger(a, b) (fastnn_part_d8){a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1]}
      #define fastnn_part_smaller(a, b) (fastnn_part_d8){a[0] < b[0] ? a[0] : b[0], a[1] < b[1] ? a[1] : b[1]}
      #define fastnn_part_root(a) (fastnn_part_d8){__builtin_sqrt(a[0]), __builtin_sqrt(a[1])}
      typedef float fastnn_two_floats __attribute__((vector_size(8)));  /* {(float)a[0], …} GCC 12 would not round */
      #define fastnn_part_rounded(a) \\
        __builtin_convertvector(__builtin_convertvector(a, fastnn_two_floats), fastnn_part_d8)
      #define fastnn_part_narrow(y, a) ((y)[0] = (float)a[0], (y)[1] = (float)a[1])
      #define fastnn_part_all(m) ((m)[0] & (m)[1])
      #define fastnn_part_fms_d8(a, b, c) fastnn_part_fma_d8(a, b, -(c))
      #if defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMA)     /* as in fused.pxd */
        #define FASTNN_ONE(f, a, b, c, k) f((a)[k], (b)[k], (c)[k])
        #define fastnn_part_fma_d8(a, b, c) (fastnn_part_d8){ \\
          FASTNN_ONE(__builtin_fma, a, b, c, 0), FASTNN_ONE(__builtin_fma, a, b, c, 1)}
        #define fastnn_part_fma_f16(a, b, c) (fastnn_part_f16){ \\
          FASTNN_ONE(__builtin_fmaf, a, b, c, 0), FASTNN_ONE(__builtin_fmaf, a, b, c, 1), \\
          FASTNN_ONE(__builtin_fmaf, a, b, c, 2), FASTNN_ONE(__builtin_fmaf, a, b, c, 3)}
      #else
        #define fastnn_part_fma_d8(a, b, c) ((a) * (b) + (c))
        typedef double fastnn_four_doubles __attribute__((vector_size(32)));
        #define FASTNN_FOUR(a) __builtin_convertvector(a, fastnn_four_doubles)
        #define fastnn_part_fma_f16(a, b, c) \\
          __builtin_convertvector(FASTNN_FOUR(a) * FASTNN_FOUR(b) + FASTNN_FOUR(c), fastnn_part_f16)
      #endif
    #endif
    typedef long long fastnn_integers __attribute__((vector_size(8 * FASTNN_LANES_PART), aligned(8), may_alias));
    typedef struct { FASTNN_PARTS(d8); } fastnn_d8;
    typedef struct { FASTNN_PARTS(f16); } fastnn_f16;

    #define FASTNN_INLINE static inline __attribute__((always_inline))
    #define FASTNN_SPREAD(k) r.p##k = a - (__typeof__(r.p##k)){0};     /* −0 stays −0, as it would not in a sum */
    #define FASTNN_ADD(k) r.p##k = a.p##k + b.p##k;
    #define FASTNN_SUBTRACT(k) r.p##k = a.p##k - b.p##k;
    #define FASTNN_MULTIPLY(k) r.p##k = a.p##k * b.p##k;
    #define FASTNN_DIVIDE(k) r.p##k = a.p##k / b.p##k;
    #define FASTNN_LARGER(k) r.p##k = fastnn_part_larger(a.p##k, b.p##k);
    #define FASTNN_SMALLER(k) r.p##k = fastnn_part_smaller(a.p##k, b.p##k);
    #define FASTNN_ROOT(k) r.p##k = fastnn_part_root(a.p##k);
    #define FASTNN_ROUNDED(k) r.p##k = fastnn_part_rounded(a.p##k);
    #define FASTNN_UNLESS(k) r.p##k = \
      (fastnn_part_d8)((fastnn_integers)a.p##k & (fastnn_integers)(b.p##k != (fastnn_part_d8){0}));
    #define FASTNN_NARROW(k) fastnn_part_narrow(y + FASTNN_LANES_PART * k, a.p##k);
    #define FASTNN_BETWEEN(k) if (!fastnn_part_all( \
      (fastnn_integers)(a.p##k >= least - (fastnn_part_d8){0}) & \
      (fastnn_integers)(a.p##k <= most - (fastnn_part_d8){0}))) return 0;
    #define FASTNN_FMA_d8(k) r.p##k = fastnn_part_fma_d8(a.p##k, b.p##k, c.p##k);
    #define FASTNN_FMS(k) r.p##k = fastnn_part_fms_d8(a.p##k, b.p##k, c.p##k);
    #define FASTNN_FMA_f16(k) r.p##k = fastnn_part_fma_f16(a.p##k, b.p##k, c.p##k);
    #define FASTNN_LOAD_d8(k) r.p##k = fastnn_part_load_d8(x + FASTNN_LANES_PART * k);
    #define FASTNN_LOAD_f16(k) r.p##k = fastnn_part_load_f16(x + 2 * FASTNN_LANES_PART * k);
    #define FASTNN_WIDEN(k) r.p##k = fastnn_part_widen(x + FASTNN_LANES_PART * k);
    #define FASTNN_STREAM(k) fastnn_part_stream(y + 2 * FASTNN_LANES_PART * k, a.p##k);
    #define FASTNN_STORE_d8(k) fastnn_part_store_d8(y + FASTNN_LANES_PART * k, a.p##k);
    #define FASTNN_STORE_f16(k) fastnn_part_store_f16(y + 2 * FASTNN_LANES_PART * k, a.p##k);

    #define FASTNN_FUNCTION(TYPE, NAME, ARGUMENTS, DO) \\
      FASTNN_INLINE fastnn_##TYPE fastnn_##NAME ARGUMENTS { fastnn_##TYPE r; FASTNN_EACH(DO) return r; }
    #define FASTNN_ARITHMETIC(TYPE, NUMBER) \\
      FASTNN_FUNCTION(TYPE, spread_##TYPE, (NUMBER a), FASTNN_SPREAD) \\
      FASTNN_FUNCTION(TYPE, load_##TYPE, (const NUMBER *x), FASTNN_LOAD_##TYPE) \\
      FASTNN_FUNCTION(TYPE, add_##TYPE, (fastnn_##TYPE a, fastnn_##TYPE b), FASTNN_ADD) \\
      FASTNN_FUNCTION(TYPE, fma_##TYPE, (fastnn_##TYPE a, fastnn_##TYPE b, fastnn_##TYPE c), FASTNN_FMA_##TYPE)
    FASTNN_ARITHMETIC(d8, double)
    FASTNN_ARITHMETIC(f16, float)
    FASTNN_FUNCTION(f16, subtract_f16, (fastnn_f16 a, fastnn_f16 b), FASTNN_SUBTRACT)
    FASTNN_FUNCTION(f16, multiply_f16, (fastnn_f16 a, fastnn_f16 b), FASTNN_MULTIPLY)
    FASTNN_FUNCTION(d8, widen, (const float *x), FASTNN_WIDEN)
    FASTNN_FUNCTION(d8, fms, (fastnn_d8 a, fastnn_d8 b, fastnn_d8 c), FASTNN_FMS)
    FASTNN_FUNCTION(d8, subtract_d8, (fastnn_d8 a, fastnn_d8 b), FASTNN_SUBTRACT)
    FASTNN_FUNCTION(d8, multiply_d8, (fastnn_d8 a, fastnn_d8 b), FASTNN_MULTIPLY)
    FASTNN_FUNCTION(d8, divide, (fastnn_d8 a, fastnn_d8 b), FASTNN_DIVIDE)
    FASTNN_FUNCTION(d8, larger, (fastnn_d8 a, fastnn_d8 b), FASTNN_LARGER)
    FASTNN_FUNCTION(d8, smaller, (fastnn_d8 a, fastnn_d8 b), FASTNN_SMALLER)
    FASTNN_FUNCTION(d8, root, (fastnn_d8 a), FASTNN_ROOT)
    FASTNN_FUNCTION(d8, rounded, (fastnn_d8 a), FASTNN_ROUNDED)
    FASTNN_FUNCTION(d8, unless_zero, (fastnn_d8 a, fastnn_d8 b), FASTNN_UNLESS)
    FASTNN_INLINE int fastnn_between(fastnn_d8 a, double least, double most) { FASTNN_EACH(FASTNN_BETWEEN) return 1; }
    FASTNN_INLINE void fastnn_narrow(float *y, fastnn_d8 a) { FASTNN_EACH(FASTNN_NARROW) }
    FASTNN_INLINE void fastnn_store(float *y, fastnn_f16 a) { FASTNN_EACH(FASTNN_STORE_f16) }
    FASTNN_INLINE void fastnn_stream_f16(float *y, fastnn_f16 a) { FASTNN_EACH(FASTNN_STREAM) }
    FASTNN_INLINE void fastnn_store_d8(double *y, fastnn_d8 a) { FASTNN_EACH(FASTNN_STORE_d8) }

    FASTNN_INLINE fastnn_d8 fastnn_from(fastnn_d8 a, long long first) {
      static const long long lane[8] = {0, 1, 2, 3, 4, 5, 6, 7};
      fastnn_d8 r;
      #define FASTNN_FROM(k) r.p##k = (fastnn_part_d8)((fastnn_integers)a.p##k & (fastnn_integers)( \\
        *(const fastnn_integers *)(lane + FASTNN_LANES_PART * k) >= (fastnn_integers){0} + first));
      FASTNN_EACH(FASTNN_FROM)
      return r;
    }
    /* The first n of 16 floats, 0 < n < 16: others are neither read, zero instead, nor written. */
    FASTNN_INLINE fastnn_f16 fastnn_load_first(const float *x, Py_ssize_t n) {
      fastnn_f16 r;
    #if defined(__AVX512F__)
      r.p0 = _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), x);
    #elif defined(__AVX__)
      r.p0 = _mm256_maskload_ps(x, _mm256_loadu_si256((const __m256i *)(fastnn_ones + 16 - n)));
      r.p1 = n > 8 ? _mm256_maskload_ps(x + 8, _mm256_loadu_si256((const __m256i *)(fastnn_ones + 24 - n)))
                   : _mm256_setzero_ps();
    #else
      float copy[16] = {0};
      memcpy(copy, x, (size_t)n * sizeof(float));
      r = fastnn_load_f16(copy);
    #endif
      return r;
    }
    FASTNN_INLINE void fastnn_store_first(float *y, fastnn_f16 a, Py_ssize_t n) {
    #if defined(__AVX512F__)
      _mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1), a.p0);
    #elif defined(__AVX__)
      _mm256_maskstore_ps(y, _mm256_loadu_si256((const __m256i *)(fastnn_ones + 16 - n)), a.p0);
      if (n > 8) _mm256_maskstore_ps(y + 8, _mm256_loadu_si256((const __m256i *)(fastnn_ones + 24 - n)), a.p1);
    #else
      float copy[16];
      fastnn_store(copy, a);
      memcpy(y, copy, (size_t)n * sizeof(float));
    #endif
    }
    /* the low and the high half, as doubles */
    FASTNN_INLINE fastnn_d8 fastnn_low_half(fastnn_f16 a) {
    #if defined(__AVX512F__)
      return (fastnn_d8){_mm512_cvtps_pd(_mm512_castps512_ps256(a.p0))};
    #elif defined(__AVX__)
      return (fastnn_d8){
        _mm256_cvtps_pd(_mm256_castps256_ps128(a.p0)), _mm256_cvtps_pd(_mm256_extractf128_ps(a.p0, 1))};
    #else
      float copy[16];
      fastnn_store(copy, a);
      return fastnn_widen(copy);
    #endif
    }
    FASTNN_INLINE fastnn_d8 fastnn_high_half(fastnn_f16 a) {
    #if defined(__AVX512F__)
      return (fastnn_d8){_mm512_cvtps_pd(_mm512_extractf32x8_ps(a.p0, 1))};
    #elif defined(__AVX__)
      return (fastnn_d8){
        _mm256_cvtps_pd(_mm256_castps256_ps128(a.p1)), _mm256_cvtps_pd(_mm256_extractf128_ps(a.p1, 1))};
    #else
      float copy[16];
      fastnn_store(copy, a);
      return fastnn_widen(copy + 8);
    #endif
    }
    FASTNN_INLINE double fastnn_total(fastnn_d8 a) {
    #if defined(__AVX512F__)
      __m256d half = _mm512_castpd512_pd256(a.p0) + _mm512_extractf64x4_pd(a.p0, 1);
      __m128d pair = _mm256_castpd256_pd128(half) + _mm256_extractf128_pd(half, 1);
    #elif defined(__AVX__)
      __m256d half = a.p0 + a.p1;
      __m128d pair = _mm256_castpd256_pd128(half) + _mm256_extractf128_pd(half, 1);
    #else
      fastnn_part_d8 pair = (a.p0 + a.p2) + (a.p1 + a.p3);
    #endif
      return pair[0] + pair[1];
    }
    /* fastnn_total of eight, halved together: with their parts in place, half the operations of eight by themselves */
    FASTNN_INLINE fastnn_d8 fastnn_totals(const fastnn_d8 *a) {
    #if defined(__AVX512F__)
      #define FASTNN_HALVES(a, b) \\
        (_mm512_shuffle_f64x2(a.p0, b.p0, 0x44) + _mm512_shuffle_f64x2(a.p0, b.p0, 0xee))
      #define FASTNN_QUARTERS(a, b) (_mm512_shuffle_f64x2(a, b, 0x88) + _mm512_shuffle_f64x2(a, b, 0xdd))
      __m512d even = FASTNN_QUARTERS(FASTNN_HALVES(a[0], a[2]), FASTNN_HALVES(a[4], a[6]));
      __m512d odd = FASTNN_QUARTERS(FASTNN_HALVES(a[1], a[3]), FASTNN_HALVES(a[5], a[7]));
      return (fastnn_d8){_mm512_unpacklo_pd(even, odd) + _mm512_unpackhi_pd(even, odd)};
    #elif defined(__AVX__)
      #define FASTNN_QUARTERS(a, b) \\
        (_mm256_permute2f128_pd(a.p0 + a.p1, b.p0 + b.p1, 0x20) + \\
         _mm256_permute2f128_pd(a.p0 + a.p1, b.p0 + b.p1, 0x31))
      return (fastnn_d8){_mm256_hadd_pd(FASTNN_QUARTERS(a[0], a[2]), FASTNN_QUARTERS(a[1], a[3])),
                         _mm256_hadd_pd(FASTNN_QUARTERS(a[4], a[6]), FASTNN_QUARTERS(a[5], a[7]))};
    #else
      double sums[8];
      for (int i = 0; i < 8; i++) sums[i] = fastnn_total(a[i]);
      return fastnn_load_d8(sums);
    #endif
    }
    FASTNN_INLINE float fastnn_total_f16(fastnn_f16 a) {
      float s[16];
      fastnn_store(s, a);
      for (int half = 8; half > 2; half /= 2)
        for (int k = 0; k < half; k++) s[k] += s[k + half];
      return (s[0] + s[1]) + (s[2] + s[3]);
    }
    FASTNN_INLINE void fastnn_totals_f16(const fastnn_f16 *a, double *y) {
    #if defined(__AVX512F__)
      #define FASTNN_JOINED(p, q, low, high) _mm512_shuffle_f32x4(p, q, low) + _mm512_shuffle_f32x4(p, q, high)
      __m512 h01 = FASTNN_JOINED(a[0].p0, a[1].p0, 0x44, 0xee), h23 = FASTNN_JOINED(a[2].p0, a[3].p0, 0x44, 0xee);
      __m512 h45 = FASTNN_JOINED(a[4].p0, a[5].p0, 0x44, 0xee), h67 = FASTNN_JOINED(a[6].p0, a[7].p0, 0x44, 0xee);
      __m512 low = FASTNN_JOINED(h01, h23, 0x88, 0xdd), high = FASTNN_JOINED(h45, h67, 0x88, 0xdd);
      __m512 pairs = _mm512_shuffle_ps(low, high, 0x88) + _mm512_shuffle_ps(low, high, 0xdd);
      __m512 sums = pairs + _mm512_movehdup_ps(pairs);    /* row k in element 4·(k % 4) + 2·(k / 4) */
      const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
      _mm512_storeu_pd(y, _mm512_cvtps_pd(_mm512_castps512_ps256(_mm512_permutexvar_ps(order, sums))));
    #else
      for (int k = 0; k < 8; k++) y[k] = fastnn_total_f16(a[k]);
    #endif
    }
    /* four doubles, eight times, `stride` apart → four times eight */
    FASTNN_INLINE void fastnn_transpose(const double *x, Py_ssize_t stride, double *y) {
    #if defined(__AVX512F__)
      #define FASTNN_TWO(k) _mm512_insertf64x4( \\
        _mm512_castpd256_pd512(_mm256_loadu_pd(x + (k) * stride)), _mm256_loadu_pd(x + ((k) + 1) * stride), 1)
      const __m512i even = _mm512_setr_epi64(0, 4, 8, 12, 1, 5, 9, 13);
      const __m512i odd = _mm512_setr_epi64(2, 6, 10, 14, 3, 7, 11, 15);
      __m512d a = FASTNN_TWO(0), b = FASTNN_TWO(2), c = FASTNN_TWO(4), d = FASTNN_TWO(6);
      __m512d p = _mm512_permutex2var_pd(a, even, b), q = _mm512_permutex2var_pd(c, even, d);
      __m512d r = _mm512_permutex2var_pd(a, odd, b), s = _mm512_permutex2var_pd(c, odd, d);
      _mm512_storeu_pd(y, _mm512_shuffle_f64x2(p, q, 0x44));
      _mm512_storeu_pd(y + 8, _mm512_shuffle_f64x2(p, q, 0xee));
      _mm512_storeu_pd(y + 16, _mm512_shuffle_f64x2(r, s, 0x44));
      _mm512_storeu_pd(y + 24, _mm512_shuffle_f64x2(r, s, 0xee));
    #else
      for (int k = 0; k < 8; k++)
        for (int j = 0; j < 4; j++) y[8 * j + k] = x[stride * k + j];
    #endif
    }
    /* The first n of 8 doubles, or all or none of them: others are neither read, zero instead, nor written. */
    FASTNN_INLINE fastnn_d8 fastnn_load_few(const double *x, Py_ssize_t n) {
    #if defined(__AVX512F__)
      return (fastnn_d8){_mm512_maskz_loadu_pd((__mmask8)(n >= 8 ? 255 : n <= 0 ? 0 : (1 << n) - 1), x)};
    #else
      double copy[8] = {0};
      for (Py_ssize_t k = 0; k < 8 && k < n; k++) copy[k] = x[k];
      return fastnn_load_d8(copy);
    #endif
    }
    FASTNN_INLINE void fastnn_store_few(double *y, fastnn_d8 a, Py_ssize_t n) {
    #if defined(__AVX512F__)
      _mm512_mask_storeu_pd(y, (__mmask8)(n >= 8 ? 255 : n <= 0 ? 0 : (1 << n) - 1), a.p0);
    #else
      double copy[8];
      fastnn_store_d8(copy, a);
      for (Py_ssize_t k = 0; k < 8 && k < n; k++) y[k] = copy[k];
    #endif
    }
    """
    ctypedef struct d8 "fastnn_d8":
        pass

    ctypedef struct f16 "fastnn_f16":
        pass

    d8 spread "fastnn_spread_d8" (double a) noexcept nogil
    d8 add "fastnn_add_d8" (d8 a, d8 b) noexcept nogil
    d8 fma8 "fastnn_fma_d8" (d8 a, d8 b, d8 c) noexcept nogil
    # a·b − c
    d8 fms8 "fastnn_fms" (d8 a, d8 b, d8 c) noexcept nogil
    d8 subtract8 "fastnn_subtract_d8" (d8 a, d8 b) noexcept nogil
    d8 multiply8 "fastnn_multiply_d8" (d8 a, d8 b) noexcept nogil
    d8 divide8 "fastnn_divide" (d8 a, d8 b) noexcept nogil
    d8 root8 "fastnn_root" (d8 a) noexcept nogil
    # a > b ? a : b and a < b ? a : b
    d8 larger8 "fastnn_larger" (d8 a, d8 b) noexcept nogil
    d8 smaller8 "fastnn_smaller" (d8 a, d8 b) noexcept nogil
    # the nearest floats
    d8 rounded8 "fastnn_rounded" (d8 a) noexcept nogil
    # a, and zero where b is zero
    d8 unless_zero "fastnn_unless_zero" (d8 a, d8 b) noexcept nogil
    # least ≤ a ≤ most, for all
    bint between "fastnn_between" (d8 a, double least, double most) noexcept nogil
    void narrow "fastnn_narrow" (float* y, d8 a) noexcept nogil
    d8 load8 "fastnn_load_d8" (const double* x) noexcept nogil
    void store8 "fastnn_store_d8" (double* y, d8 a) noexcept nogil
    d8 widen "fastnn_widen" (const float* x) noexcept nogil
    # lanes first … 7, and zeros before them
    d8 lanes_from "fastnn_from" (d8 a, Py_ssize_t first) noexcept nogil
    # ((a0 + a4) + (a2 + a6)) + ((a1 + a5) + (a3 + a7))
    double total "fastnn_total" (d8 a) noexcept nogil
    # total of each of eight
    d8 totals "fastnn_totals" (const d8* a) noexcept nogil

    f16 spread16 "fastnn_spread_f16" (float a) noexcept nogil
    f16 load16 "fastnn_load_f16" (const float* x) noexcept nogil
    f16 add16 "fastnn_add_f16" (f16 a, f16 b) noexcept nogil
    f16 subtract16 "fastnn_subtract_f16" (f16 a, f16 b) noexcept nogil
    f16 multiply16 "fastnn_multiply_f16" (f16 a, f16 b) noexcept nogil
    f16 fma16 "fastnn_fma_f16" (f16 a, f16 b, f16 c) noexcept nogil
    void store16 "fastnn_store" (float* y, f16 a) noexcept nogil
    # past the caches; y at the start of a cache line
    void stream16 "fastnn_stream_f16" (float* y, f16 a) noexcept nogil
    # the first n, 0 < n < 16: no other is read, zero instead, or written
    f16 load_first "fastnn_load_first" (const float* x, Py_ssize_t n) noexcept nogil
    void store_first "fastnn_store_first" (float* y, f16 a, Py_ssize_t n) noexcept nogil
    # in float: halves are added until there are four, then ((s0 + s1) + (s2 + s3))
    float total16 "fastnn_total_f16" (f16 a) noexcept nogil
    # of eight, as doubles
    void totals16 "fastnn_totals_f16" (const f16* a, double* y) noexcept nogil
    # four numbers, eight times, `stride` apart → (4, 8)
    void transpose8 "fastnn_transpose" (const double* x, Py_ssize_t stride, double* y) noexcept nogil
    # the first n, all if n ≥ 8, none if n ≤ 0: no other is read, zero instead, or written
    d8 load_few "fastnn_load_few" (const double* x, Py_ssize_t n) noexcept nogil
    void store_few "fastnn_store_few" (double* y, d8 a, Py_ssize_t n) noexcept nogil
    # as doubles
    d8 low_half "fastnn_low_half" (f16 a) noexcept nogil
    d8 high_half "fastnn_high_half" (f16 a) noexcept nogil
