# The inner loop of matrix products: a tile of ROWS by COLUMNS sums in registers.
#
# Each number is start + Σ_k a(i, k)·b(k, j), added in the order of k with one fused multiply-add each: its bits depend
# neither on the tile's form nor on the ISA. One element of `a` is broadcast, one run of `b` is loaded.
#   (a) COLUMNS is what the level's registers hold; in float64 half as many.
#   (b) The rows' sums are written out: GCC keeps separate local arrays in registers, not a two-dimensional one.
#   (c) Where the runs of b start is a table that ends with -1. GCC would jam two rounds of a counted loop over k
#       together, and spill the sums.

from cython cimport floating

from fastnn._kernels.fused cimport multiply_add

cdef extern from *:
    """
    /* Columns of a tile in float32, and whether its rows take two passes; and how many lanes of a weight gradient's
       running sums are in registers at a time: for 32 registers of 16 numbers, for 16 of 8, and for 16 of 4. */
    #if defined(__AVX512F__)
    enum { FASTNN_COLUMNS = 32, FASTNN_HALVES = 0, FASTNN_WIDTH = 16 };
    #elif defined(__AVX2__) || defined(__aarch64__)
    enum { FASTNN_COLUMNS = 16, FASTNN_HALVES = 1, FASTNN_WIDTH = 8 };
    #else
    enum { FASTNN_COLUMNS = 8, FASTNN_HALVES = 1, FASTNN_WIDTH = 8 };
    #endif
    """
    cdef enum:
        COLUMNS "FASTNN_COLUMNS"
        HALVES "FASTNN_HALVES"
        WIDTH "FASTNN_WIDTH"

cdef enum:
    ROWS = 8


cdef inline void four_rows(
    const floating* a, Py_ssize_t row, Py_ssize_t term, const floating* b, const Py_ssize_t* shifts,
    const floating* start, floating* out, Py_ssize_t n,
) noexcept nogil:
    cdef floating s0[COLUMNS]
    cdef floating s1[COLUMNS]
    cdef floating s2[COLUMNS]
    cdef floating s3[COLUMNS]
    cdef const floating* x
    cdef floating v
    cdef Py_ssize_t shift, j
    for j in range(n):
        s0[j] = start[0]
        s1[j] = start[1]
        s2[j] = start[2]
        s3[j] = start[3]
    shift = shifts[0]
    while shift >= 0:  # uncounted, see (c)
        x = b + shift
        for j in range(n):
            v = x[j]
            s0[j] = multiply_add(a[0], v, s0[j])
            s1[j] = multiply_add(a[row], v, s1[j])
            s2[j] = multiply_add(a[2 * row], v, s2[j])
            s3[j] = multiply_add(a[3 * row], v, s3[j])
        a += term
        shifts += 1
        shift = shifts[0]
    for j in range(n):
        out[j] = s0[j]
        out[COLUMNS + j] = s1[j]
        out[2 * COLUMNS + j] = s2[j]
        out[3 * COLUMNS + j] = s3[j]


cdef inline void eight_rows(
    const floating* a, Py_ssize_t row, Py_ssize_t term, const floating* b, const Py_ssize_t* shifts,
    const floating* start, floating* out, Py_ssize_t n,
) noexcept nogil:
    cdef floating s0[COLUMNS]
    cdef floating s1[COLUMNS]
    cdef floating s2[COLUMNS]
    cdef floating s3[COLUMNS]
    cdef floating s4[COLUMNS]
    cdef floating s5[COLUMNS]
    cdef floating s6[COLUMNS]
    cdef floating s7[COLUMNS]
    cdef const floating* x
    cdef floating v
    cdef Py_ssize_t shift, j
    for j in range(n):
        s0[j] = start[0]
        s1[j] = start[1]
        s2[j] = start[2]
        s3[j] = start[3]
        s4[j] = start[4]
        s5[j] = start[5]
        s6[j] = start[6]
        s7[j] = start[7]
    shift = shifts[0]
    while shift >= 0:  # uncounted, see (c)
        x = b + shift
        for j in range(n):
            v = x[j]
            s0[j] = multiply_add(a[0], v, s0[j])
            s1[j] = multiply_add(a[row], v, s1[j])
            s2[j] = multiply_add(a[2 * row], v, s2[j])
            s3[j] = multiply_add(a[3 * row], v, s3[j])
            s4[j] = multiply_add(a[4 * row], v, s4[j])
            s5[j] = multiply_add(a[5 * row], v, s5[j])
            s6[j] = multiply_add(a[6 * row], v, s6[j])
            s7[j] = multiply_add(a[7 * row], v, s7[j])
        a += term
        shifts += 1
        shift = shifts[0]
    for j in range(n):
        out[j] = s0[j]
        out[COLUMNS + j] = s1[j]
        out[2 * COLUMNS + j] = s2[j]
        out[3 * COLUMNS + j] = s3[j]
        out[4 * COLUMNS + j] = s4[j]
        out[5 * COLUMNS + j] = s5[j]
        out[6 * COLUMNS + j] = s6[j]
        out[7 * COLUMNS + j] = s7[j]


cdef inline void tile(
    const floating* a,          # IN   element (i, k) at a[i · row + k · term]
    Py_ssize_t row, Py_ssize_t term,
    const floating* b,          # IN   element (k, j) at b[shifts[k] + j]
    const Py_ssize_t* shifts,   # IN   (terms), then -1
    const floating* start,      # IN   (ROWS)
    floating* out,              # OUT  (ROWS, COLUMNS), the first n of each row
    Py_ssize_t n,               # columns: a constant where this is inlined
) noexcept nogil:
    if HALVES:
        four_rows(a, row, term, b, shifts, start, out, n)
        four_rows(a + 4 * row, row, term, b, shifts, start + 4, out + 4 * COLUMNS, n)
    else:
        eight_rows(a, row, term, b, shifts, start, out, n)
