# Neighbouring groups of one run each, of float data as it mostly is (see row_floats): a batch of up to MANY of them at
# a time, forward. The sums of the next batch are taken while the values of the present one are written.

from fastnn._kernels.inlining cimport apart, given, inlined
from fastnn._kernels.norm cimport SIDE
from fastnn._kernels.row_floats cimport (
    BOTH, STREAMED, VALUES, Affine, Pair, Passes, Sums, affine_of, pass_runs, sum_run, write_run,
)
from fastnn._kernels.rows cimport BATCH, LANES

cdef enum:
    SIDES = BATCH // SIDE
    MANY = 32               # runs of a batch at the most
    # Runs whose weights and biases, LONG of them or more, do not fit the first-level cache beside them: so many are
    # taken together, without the sums of others, and written SEGMENT columns at a time.
    LONG = 6144
    TOGETHER = 4
    SEGMENT = 1024


cdef inline bint are_long(Py_ssize_t n, const void* weight, const void* bias) noexcept nogil:
    # each element has its own weight and bias, which may be NULL
    return n * ((weight != NULL) + (bias != NULL)) >= LONG


cdef struct Lines:
    # y = fma(x − shift, factor, offset)
    float shift[BATCH]
    float factor[BATCH]
    float offset[BATCH]


cdef inline apart sum_batch(
    const float* x,             # IN   (count, n)
    const float* result,        # what will be written next, likewise, or NULL
    Py_ssize_t count, Py_ssize_t n, bint centered,
    Sums* sums,                 # OUT
) noexcept nogil:
    cdef Pair pair
    cdef Py_ssize_t r
    for r in range(count):
        sums.shift[r] = x[r * n] if centered else 0
        sum_run(NULL, x + r * n, result + r * n if result != NULL else NULL, NULL, sums.shift[r], n, &pair)
        sums.first[r], sums.second[r] = pair.first, pair.second


cdef inline inlined write_columns(
    const float* x, float* y, const Lines* lines, Py_ssize_t count, Py_ssize_t n, const float* weight,
    const float* bias, Passes passes,
) noexcept nogil:
    # SEGMENT columns of all runs after the other, while their weights are in the first-level cache
    cdef Affine a
    cdef Py_ssize_t r, m
    cdef Py_ssize_t c = 0
    while c < n:
        m = SEGMENT if n - c >= 2 * SEGMENT else n - c
        for r in range(count):
            a = affine_of(lines.shift[r], lines.factor[r], lines.offset[r])
            write_run(
                passes, m, False, x + r * n + c, y + r * n + c, &a, weight + c if weight != NULL else NULL,
                bias + c if bias != NULL else NULL)
        c += m


cdef inline inlined write_and_sum(
    const float* x, float* y, const Lines* lines, Py_ssize_t count, Py_ssize_t n, const float* weight,
    const float* bias, Py_ssize_t more, bint streamed, bint centered, Sums* sums,
) noexcept nogil:
    # whether there are weight and bias are constants where this is inlined
    cdef const float* next = x + count * n
    cdef Affine a
    cdef Pair pair
    cdef Py_ssize_t r
    if are_long(n, weight, bias):
        if streamed:
            write_columns(x, y, lines, count, n, weight, bias, STREAMED)
        else:
            write_columns(x, y, lines, count, n, weight, bias, VALUES)
        return
    for r in range(count):
        a = affine_of(lines.shift[r], lines.factor[r], lines.offset[r])
        if streamed:
            write_run(STREAMED, n, False, x + r * n, y + r * n, &a, weight, bias)
            continue
        if r >= more:
            write_run(VALUES, n, False, x + r * n, y + r * n, &a, weight, bias)
            continue
        sums.shift[r] = next[r * n] if centered else 0
        if n < 2 * LANES:
            write_run(VALUES, n, True, x + r * n, y + r * n, &a, weight, bias)
            sum_run(NULL, next + r * n, NULL, NULL, sums.shift[r], n, &pair)
        else:
            pass_runs(
                BOTH, n, False, x + r * n, y + r * n, &a, weight, bias, NULL, next + r * n, NULL, NULL, sums.shift[r],
                &pair)
        sums.first[r], sums.second[r] = pair.first, pair.second


cdef inline apart write_and_sum_plain(
    const float* x, float* y, const Lines* lines, Py_ssize_t count, Py_ssize_t n, Py_ssize_t more,
    bint streamed, bint centered, Sums* sums,
) noexcept nogil:
    write_and_sum(x, y, lines, count, n, NULL, NULL, more, streamed, centered, sums)


cdef inline apart write_and_sum_scaled(
    const float* x, float* y, const Lines* lines, Py_ssize_t count, Py_ssize_t n, const float* weight, Py_ssize_t more,
    bint streamed, bint centered, Sums* sums,
) noexcept nogil:
    given(weight)
    write_and_sum(x, y, lines, count, n, weight, NULL, more, streamed, centered, sums)


cdef inline apart write_and_sum_shifted(
    const float* x, float* y, const Lines* lines, Py_ssize_t count, Py_ssize_t n, const float* bias, Py_ssize_t more,
    bint streamed, bint centered, Sums* sums,
) noexcept nogil:
    given(bias)
    write_and_sum(x, y, lines, count, n, NULL, bias, more, streamed, centered, sums)


cdef inline apart write_and_sum_affine(
    const float* x, float* y, const Lines* lines, Py_ssize_t count, Py_ssize_t n, const float* weight,
    const float* bias, Py_ssize_t more, bint streamed, bint centered, Sums* sums,
) noexcept nogil:
    given(weight)
    given(bias)
    write_and_sum(x, y, lines, count, n, weight, bias, more, streamed, centered, sums)


cdef inline void write_batch(
    const float* x,             # IN   (count + more, n)
    float* y,                   # OUT  (count, n); may be x
    const Lines* lines, Py_ssize_t count, Py_ssize_t n,
    const float* weight,        # IN   (n) or NULL
    const float* bias,          # IN   likewise
    Py_ssize_t more,            # ≤ count: runs of the next batch
    bint streamed,              # past the caches, without sums: y and n are whole cache lines
    bint centered,
    Sums* sums,                 # OUT  of the next batch
) noexcept nogil:
    if weight != NULL and bias != NULL:
        write_and_sum_affine(x, y, lines, count, n, weight, bias, more, streamed, centered, sums)
    elif weight != NULL:
        write_and_sum_scaled(x, y, lines, count, n, weight, more, streamed, centered, sums)
    elif bias != NULL:
        write_and_sum_shifted(x, y, lines, count, n, bias, more, streamed, centered, sums)
    else:
        write_and_sum_plain(x, y, lines, count, n, more, streamed, centered, sums)
