# What softmax, log-softmax and cross-entropy share: maximum and sum of exponentials of one contiguous row.
#
# LANES running values; a last, shorter chunk is padded with −inf, whose exponential is 0, and takes the same path.

from cython cimport floating
from libc.string cimport memcpy

from fastnn._kernels.elementary cimport scale_back, scaled_exponential
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.runs cimport copy_run

cdef enum:
    LANES = 16
    TOPS = 64       # running maxima


cdef inline void load(const floating* x, Py_ssize_t n, floating* lanes, floating fill) noexcept nogil:
    """The first min(n, LANES) elements of x, and `fill` in the lanes that are left."""
    cdef Py_ssize_t j
    if n >= LANES:
        memcpy(lanes, x, LANES * sizeof(floating))
    else:
        for j in range(LANES):
            lanes[j] = fill
        copy_run(x, lanes, n)


cdef inline inlined raise_maximum(const floating* x, Py_ssize_t n, floating* top) noexcept nogil:
    """top[j] = max(top[j], x[j]), where NaN is passed over; `n` is a constant where this is inlined."""
    cdef Py_ssize_t j
    for j in range(n):
        top[j] = x[j] if x[j] > top[j] else top[j]


cdef inline apart find_maximum(const floating* x, Py_ssize_t n, floating* largest) noexcept nogil:
    """OUT the largest element that is not NaN, else −inf: NaN comes back in the sum of exponentials."""
    cdef floating top[TOPS]
    cdef floating v[LANES]
    cdef Py_ssize_t j
    cdef Py_ssize_t i = 0
    for j in range(TOPS):
        top[j] = <floating>(-1.0 / 0.0)
    while n - i >= TOPS:
        raise_maximum(x + i, TOPS, top)
        i += TOPS
    while i < n:
        load(x + i, n - i, v, <floating>(-1.0 / 0.0))
        raise_maximum(v, LANES, top)
        i += LANES
    if n >= TOPS:  # else LANES were enough
        raise_maximum(top + 32, 32, top)
        raise_maximum(top + 16, 16, top)
    raise_maximum(top + 8, 8, top)
    raise_maximum(top + 4, 4, top)
    raise_maximum(top + 2, 2, top)
    raise_maximum(top + 1, 1, top)
    largest[0] = top[0]


cdef inline floating row_maximum(const floating* x, Py_ssize_t n) noexcept nogil:
    cdef floating largest
    find_maximum(x, n, &largest)
    return largest


cdef inline double merged(double* lanes) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(8):
        lanes[j] += lanes[j + 8]
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))


cdef inline inlined add_exponentials(
    const floating* x, floating* terms, floating largest, double* total, bint keep,
) noexcept nogil:
    # `keep` is a constant; x is read before any term is written
    cdef floating v[LANES]
    cdef Py_ssize_t j
    for j in range(LANES):
        v[j] = scaled_exponential(x[j] - largest)
        total[j] += v[j]
    if keep:
        for j in range(LANES):
            terms[j] = v[j]


cdef inline inlined sum_run(
    const floating* x, floating* terms, Py_ssize_t n, floating largest, double* result, bint keep,
) noexcept nogil:
    cdef double total[LANES]
    cdef floating v[LANES]
    cdef Py_ssize_t j
    cdef Py_ssize_t i = 0
    for j in range(LANES):
        total[j] = 0
    while n - i >= LANES:
        add_exponentials(x + i, terms + i, largest, total, keep)
        i += LANES
    if i < n:
        load(x + i, n - i, v, <floating>(-1.0 / 0.0))
        add_exponentials(v, v, largest, total, keep)
        if keep:
            copy_run(v, terms + i, n - i)
    result[0] = merged(total) * scale_back(<floating>1.0)


cdef inline apart sum_exponentials(const floating* x, Py_ssize_t n, floating largest, double* result) noexcept nogil:
    sum_run(x, <floating*>NULL, n, largest, result, False)


cdef inline apart keep_exponentials(
    const floating* x, floating* terms, Py_ssize_t n, floating largest, double* result,
) noexcept nogil:
    sum_run(x, terms, n, largest, result, True)


cdef inline double row_sum_exp(const floating* x, Py_ssize_t n, floating largest) noexcept nogil:
    """Σ e^(x − largest), added in float64. A row of −inf only gives NaN, as −inf − (−inf) is."""
    cdef double result
    sum_exponentials(x, n, largest, &result)
    return result


cdef inline double row_exponentials(const floating* x, floating* terms, Py_ssize_t n, floating largest) noexcept nogil:
    """The same, and OUT its terms as `scaled_exponential`; `terms` may be x."""
    cdef double result
    keep_exponentials(x, terms, n, largest, &result)
    return result
