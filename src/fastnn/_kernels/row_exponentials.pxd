# What softmax, log-softmax and cross-entropy share: maximum and sum of exponentials of one contiguous row.
#
# LANES running values; a last, shorter chunk is padded with −inf, whose exponential is 0, and takes the same path.

from cython cimport floating
from libc.string cimport memcpy

from fastnn._kernels.elementary cimport exponential

cdef enum:
    LANES = 16


cdef inline void load(const floating* x, Py_ssize_t n, floating* lanes, floating fill) noexcept nogil:
    """The first min(n, LANES) elements of x, and `fill` in the lanes that are left."""
    cdef Py_ssize_t j
    if n >= LANES:
        memcpy(lanes, x, LANES * sizeof(floating))
    else:
        for j in range(LANES):
            lanes[j] = fill
        for j in range(n):
            lanes[j] = x[j]


cdef inline floating row_maximum(const floating* x, Py_ssize_t n) noexcept nogil:
    """The largest element; NaN if there is one."""
    cdef floating top[LANES]
    cdef floating v[LANES]
    cdef Py_ssize_t i, j
    cdef floating largest
    load(x, n, top, <floating>(-1.0 / 0.0))
    i = LANES
    while i < n:
        load(x + i, n - i, v, <floating>(-1.0 / 0.0))
        for j in range(LANES):
            top[j] = v[j] if v[j] > top[j] or v[j] != v[j] else top[j]
        i += LANES
    largest = top[0]
    for j in range(1, LANES):
        largest = top[j] if top[j] > largest or top[j] != top[j] else largest
    return largest


cdef inline double merged(double* lanes) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(8):
        lanes[j] += lanes[j + 8]
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))


cdef inline double row_sum_exp(const floating* x, Py_ssize_t n, floating largest) noexcept nogil:
    """Σ e^(x − largest), added in float64. A row of −inf only gives NaN, as −inf − (−inf) is."""
    cdef double total[LANES]
    cdef floating v[LANES]
    cdef Py_ssize_t j
    cdef Py_ssize_t i = 0
    for j in range(LANES):
        total[j] = 0
    while i < n:
        load(x + i, n - i, v, <floating>(-1.0 / 0.0))
        for j in range(LANES):
            v[j] = exponential(v[j] - largest)
        for j in range(LANES):
            total[j] += v[j]
        i += LANES
    return merged(total)
