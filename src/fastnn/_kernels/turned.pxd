# Transposition in registers: neighbouring numbers of several rows become vectors across these rows.
#
#   (a) Pieces of 16 bytes of every fourth row (in float64 of every second) are joined to one vector as they are loaded:
#       what remains are shuffles within each 16 bytes, which every level has. A third of an instruction for a number.
#   (b) GCC makes none of this from loops over elements. Its vector extensions, which clang has too, serve all levels
#       with one source; another compiler copies number by number.

from cython cimport floating

cdef extern from *:
    """
    #if defined(__has_builtin)
      #if __has_builtin(__builtin_shufflevector)
        #define FASTNN_SHUFFLES
      #endif
    #endif

    /* Bytes of a vector, and a list of indices for each of its 16-byte parts, of two vectors of n elements. */
    #if !defined(FASTNN_SHUFFLES)
      enum { FASTNN_VECTOR = 16 };
    #elif defined(__AVX512F__)
      enum { FASTNN_VECTOR = 64 };
      #define FASTNN_FOURS(f, n) f(0, n), f(4, n), f(8, n), f(12, n)
      #define FASTNN_TWOS(f, n) f(0, n), f(2, n), f(4, n), f(6, n)
    #elif defined(__AVX2__)
      enum { FASTNN_VECTOR = 32 };
      #define FASTNN_FOURS(f, n) f(0, n), f(4, n)
      #define FASTNN_TWOS(f, n) f(0, n), f(2, n)
    #else
      enum { FASTNN_VECTOR = 16 };
      #define FASTNN_FOURS(f, n) f(0, n)
      #define FASTNN_TWOS(f, n) f(0, n)
    #endif

    #ifdef FASTNN_SHUFFLES
    #define FASTNN_LOW_4(i, n) i, n + i, i + 1, n + i + 1
    #define FASTNN_HIGH_4(i, n) i + 2, n + i + 2, i + 3, n + i + 3
    #define FASTNN_LOW_2(i, n) i, n + i
    #define FASTNN_HIGH_2(i, n) i + 1, n + i + 1

    typedef float fastnn_floats __attribute__((vector_size(FASTNN_VECTOR)));
    typedef double fastnn_doubles __attribute__((vector_size(FASTNN_VECTOR)));
    typedef double fastnn_unaligned __attribute__((vector_size(FASTNN_VECTOR), aligned(4), may_alias));
    typedef double fastnn_part __attribute__((vector_size(16), aligned(4), may_alias));

    /* 16 bytes at x, x + step, x + 2·step, … */
    static inline fastnn_doubles fastnn_joined(const char *x, Py_ssize_t step) {
      #define FASTNN_PART(k) (*(const fastnn_part *)(x + (k) * step))
      #if defined(__AVX512F__)
        typedef double half __attribute__((vector_size(32)));
        half low = __builtin_shufflevector(FASTNN_PART(0), FASTNN_PART(1), 0, 1, 2, 3);
        half high = __builtin_shufflevector(FASTNN_PART(2), FASTNN_PART(3), 0, 1, 2, 3);
        return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
      #elif defined(__AVX2__)
        return __builtin_shufflevector(FASTNN_PART(0), FASTNN_PART(1), 0, 1, 2, 3);
      #else
        return FASTNN_PART(0);
      #endif
    }

    static inline void fastnn_store_pairs(fastnn_doubles a, fastnn_doubles b, char *d, Py_ssize_t step) {
      *(fastnn_unaligned *)d = __builtin_shufflevector(a, b, FASTNN_TWOS(FASTNN_LOW_2, FASTNN_VECTOR / 8));
      *(fastnn_unaligned *)(d + step) = __builtin_shufflevector(a, b, FASTNN_TWOS(FASTNN_HIGH_2, FASTNN_VECTOR / 8));
    }

    static inline void fastnn_turn_4(const char *x, Py_ssize_t row, char *d, Py_ssize_t step) {
      fastnn_floats a = (fastnn_floats)fastnn_joined(x, 4 * row);
      fastnn_floats b = (fastnn_floats)fastnn_joined(x + row, 4 * row);
      fastnn_floats c = (fastnn_floats)fastnn_joined(x + 2 * row, 4 * row);
      fastnn_floats e = (fastnn_floats)fastnn_joined(x + 3 * row, 4 * row);
      fastnn_floats ab = __builtin_shufflevector(a, b, FASTNN_FOURS(FASTNN_LOW_4, FASTNN_VECTOR / 4));
      fastnn_floats ce = __builtin_shufflevector(c, e, FASTNN_FOURS(FASTNN_LOW_4, FASTNN_VECTOR / 4));
      fastnn_store_pairs((fastnn_doubles)ab, (fastnn_doubles)ce, d, step);
      ab = __builtin_shufflevector(a, b, FASTNN_FOURS(FASTNN_HIGH_4, FASTNN_VECTOR / 4));
      ce = __builtin_shufflevector(c, e, FASTNN_FOURS(FASTNN_HIGH_4, FASTNN_VECTOR / 4));
      fastnn_store_pairs((fastnn_doubles)ab, (fastnn_doubles)ce, d + 2 * step, step);
    }

    static inline void fastnn_turn_2(const char *x, Py_ssize_t row, char *d, Py_ssize_t step) {
      fastnn_store_pairs(fastnn_joined(x, 2 * row), fastnn_joined(x + row, 2 * row), d, step);
    }

    static inline void fastnn_turn_4_by_4(const char *x, Py_ssize_t row, char *d, Py_ssize_t step) {
      typedef float four __attribute__((vector_size(16)));
      typedef float unaligned __attribute__((vector_size(16), aligned(4), may_alias));
      four a = *(const unaligned *)x, b = *(const unaligned *)(x + row);
      four c = *(const unaligned *)(x + 2 * row), e = *(const unaligned *)(x + 3 * row);
      four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ce = __builtin_shufflevector(c, e, 0, 4, 1, 5);
      *(unaligned *)d = __builtin_shufflevector(ab, ce, 0, 1, 4, 5);
      *(unaligned *)(d + step) = __builtin_shufflevector(ab, ce, 2, 3, 6, 7);
      ab = __builtin_shufflevector(a, b, 2, 6, 3, 7), ce = __builtin_shufflevector(c, e, 2, 6, 3, 7);
      *(unaligned *)(d + 2 * step) = __builtin_shufflevector(ab, ce, 0, 1, 4, 5);
      *(unaligned *)(d + 3 * step) = __builtin_shufflevector(ab, ce, 2, 3, 6, 7);
    }
    #else
    static inline void fastnn_turn_4(const char *x, Py_ssize_t row, char *d, Py_ssize_t step) {
      for (int k = 0; k < 4; k++)
        for (int i = 0; i < 4; i++) ((float *)(d + k * step))[i] = ((const float *)(x + i * row))[k];
    }

    static inline void fastnn_turn_2(const char *x, Py_ssize_t row, char *d, Py_ssize_t step) {
      for (int k = 0; k < 2; k++)
        for (int i = 0; i < 2; i++) ((double *)(d + k * step))[i] = ((const double *)(x + i * row))[k];
    }
    #define fastnn_turn_4_by_4 fastnn_turn_4
    #endif
    """
    cdef enum:
        VECTOR "FASTNN_VECTOR"
    # 16 bytes of each of VECTOR/item rows, `row` bytes apart, become as many vectors, `step` bytes apart
    void turn_4 "fastnn_turn_4" (const char* x, Py_ssize_t row, char* d, Py_ssize_t step) noexcept nogil
    void turn_2 "fastnn_turn_2" (const char* x, Py_ssize_t row, char* d, Py_ssize_t step) noexcept nogil
    # four float32 of each of four rows
    void turn_4_by_4 "fastnn_turn_4_by_4" (const char* x, Py_ssize_t row, char* d, Py_ssize_t step) noexcept nogil


cdef inline void copy_transposed(
    const floating* x,          # IN   element (j, k) at x[j · row + k]
    Py_ssize_t row, Py_ssize_t rows, Py_ssize_t terms,
    floating* d,                # OUT  element (k, j) at d[k · width + j]
    Py_ssize_t width,
) noexcept nogil:
    cdef Py_ssize_t size = sizeof(floating)
    cdef Py_ssize_t high = VECTOR // size
    cdef Py_ssize_t long = 16 // size
    cdef Py_ssize_t j = 0
    cdef Py_ssize_t k, i
    while j < rows and rows >= high:
        j = min(j, rows - high)  # the last rows start early and repeat some
        k = 0
        while k + long <= terms:
            if floating is float:
                turn_4(<const char*>(x + j * row + k), row * size, <char*>(d + k * width + j), width * size)
            else:
                turn_2(<const char*>(x + j * row + k), row * size, <char*>(d + k * width + j), width * size)
            k += long
        while k < terms:
            for i in range(j, j + high):
                d[k * width + i] = x[i * row + k]
            k += 1
        j += high
    if floating is float:
        while j < rows and rows >= 4:  # fewer rows than a vector has numbers
            j = min(j, rows - 4)
            k = 0
            while k < terms and terms >= 4:
                k = min(k, terms - 4)
                turn_4_by_4(<const char*>(x + j * row + k), row * size, <char*>(d + k * width + j), width * size)
                k += 4
            while k < terms:
                for i in range(j, j + 4):
                    d[k * width + i] = x[i * row + k]
                k += 1
            j += 4
    while j < rows:
        for k in range(terms):
            d[k * width + j] = x[j * row + k]
        j += 1
