# Short runs of numbers: rows of images, pieces of results.
#
# GCC makes a chain of branches, number by number, of loops with masks as of calls of memcpy with a variable length.
# Here moves have constant lengths, and those at the two ends of a run may overlap.

from cython cimport floating
from libc.string cimport memcpy


cdef inline void copy_run(const floating* s, floating* d, Py_ssize_t n) noexcept nogil:
    while n >= 16:
        memcpy(d, s, 16 * sizeof(floating))
        s += 16
        d += 16
        n -= 16
    if n >= 8:
        memcpy(d, s, 8 * sizeof(floating))
        memcpy(d + n - 8, s + n - 8, 8 * sizeof(floating))
    elif n >= 4:
        memcpy(d, s, 4 * sizeof(floating))
        memcpy(d + n - 4, s + n - 4, 4 * sizeof(floating))
    elif n >= 2:
        memcpy(d, s, 2 * sizeof(floating))
        memcpy(d + n - 2, s + n - 2, 2 * sizeof(floating))
    elif n == 1:
        d[0] = s[0]


cdef inline void add_run(const floating* s, floating* d, Py_ssize_t n) noexcept nogil:
    # d += s
    cdef Py_ssize_t j
    for j in range(n):
        d[j] += s[j]
