# Writing past the caches. An ordinary store first reads the line it writes; for an output larger than the caches that
# is a third of all traffic: with 64 MB dropout took 4.4 instead of 6.1 ms (two cores, copying 6.3), with 8 and 16 MB,
# which a large third-level cache still takes, a third longer. Compilers do not make such stores from C, hence the
# intrinsics; elsewhere than on x86 this is memcpy.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
      #include <immintrin.h>
    #endif

    /* Copies n bytes; whole lines of y of 64 bytes bypass the caches. x is a buffer in the first-level cache. */
    static inline void fastnn_stream(void* to, const void* from, size_t n) {
      char* y = (char*)to;
      const char* x = (const char*)from;
      size_t head = (size_t)(-(intptr_t)y & 63);
      if (head > n) head = n;
      memcpy(y, x, head);
      y += head, x += head, n -= head;
    #if defined(__SSE2__)
      for (; n >= 64; y += 64, x += 64, n -= 64) {
      #if defined(__AVX512F__)
        _mm512_stream_si512((__m512i*)y, _mm512_loadu_si512(x));
      #elif defined(__AVX__)
        _mm256_stream_si256((__m256i*)y, _mm256_loadu_si256((const __m256i*)x));
        _mm256_stream_si256((__m256i*)(y + 32), _mm256_loadu_si256((const __m256i*)(x + 32)));
      #else
        for (int i = 0; i < 64; i += 16)
          _mm_stream_si128((__m128i*)(y + i), _mm_loadu_si128((const __m128i*)(x + i)));
      #endif
      }
    #endif
      memcpy(y, x, n);
    }

    /* To be called before another thread may read what was streamed. */
    static inline void fastnn_stream_end(void) {
    #if defined(__SSE2__)
      _mm_sfence();
    #endif
    }
    """
    void stream_copy "fastnn_stream"(void* to, const void* from_, size_t n) noexcept nogil
    void stream_end "fastnn_stream_end"() noexcept nogil

cdef enum:
    STREAM_BYTES = 32 << 20  # outputs from this size on are streamed
