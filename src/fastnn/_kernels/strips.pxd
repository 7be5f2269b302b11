# Products of few rows or few terms: strips of STRIP columns, one or two rows of sums in registers.
#
# The sums are those of tiles.pxd: the terms in order, one fused multiply-add each. Four registers of sums for a row
# (eight for two) hide the latency of the additions.

from cython cimport floating

from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.tiles cimport COLUMNS

cdef enum:
    STRIP = 2 * COLUMNS     # in float32; half in float64


cdef inline void add_two_rows_of_products(
    const floating* a, Py_ssize_t row, Py_ssize_t term,     # IN   element (i, k) at a[i · row + k · term]
    const floating* b, Py_ssize_t b_row, Py_ssize_t terms,  # IN   element (k, j) at b[k · b_row + j]
    floating* sums,                                         # +=   two rows, n apart
    Py_ssize_t n,                                           # columns: a constant where this is inlined
) noexcept nogil:
    cdef floating s[STRIP]
    cdef floating t[STRIP]
    cdef floating u, v
    cdef Py_ssize_t j, _k
    for j in range(n):
        s[j] = sums[j]
        t[j] = sums[n + j]
    for _k in range(terms):
        u = a[0]
        v = a[row]
        for j in range(n):
            s[j] = multiply_add(u, b[j], s[j])
            t[j] = multiply_add(v, b[j], t[j])
        a += term
        b += b_row
    for j in range(n):
        sums[j] = s[j]
        sums[n + j] = t[j]


cdef inline void add_row_of_products(
    const floating* a, Py_ssize_t term, const floating* b, Py_ssize_t b_row, Py_ssize_t terms, floating* sums,
    Py_ssize_t n,
) noexcept nogil:
    # the same for one row
    cdef floating s[STRIP]
    cdef floating u
    cdef Py_ssize_t j, _k
    for j in range(n):
        s[j] = sums[j]
    for _k in range(terms):
        u = a[0]
        for j in range(n):
            s[j] = multiply_add(u, b[j], s[j])
        a += term
        b += b_row
    for j in range(n):
        sums[j] = s[j]


cdef inline void add_rows_of_products(
    const floating* a, Py_ssize_t row, Py_ssize_t term, const floating* b, Py_ssize_t b_row, Py_ssize_t terms,
    floating* sums, Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i + 2 <= rows:
        add_two_rows_of_products(a + i * row, row, term, b, b_row, terms, sums + i * n, n)
        i += 2
    if i < rows:
        add_row_of_products(a + i * row, term, b, b_row, terms, sums + i * n, n)


cdef inline void two_rows_of_products(
    const floating* a, Py_ssize_t row, Py_ssize_t term,     # IN   element (i, k) at a[i · row + k · term]
    const floating* b, Py_ssize_t b_row, Py_ssize_t terms,  # IN   element (k, j) at b[k · b_row + j]
    floating* d, Py_ssize_t d_row, bint add,                # OUT  two rows; or += if add
    Py_ssize_t n,
) noexcept nogil:
    cdef floating s[STRIP]
    cdef floating t[STRIP]
    cdef floating u, v
    cdef Py_ssize_t j, _k
    for j in range(n):
        s[j] = t[j] = 0
    for _k in range(terms):
        u = a[0]
        v = a[row]
        for j in range(n):
            s[j] = multiply_add(u, b[j], s[j])
            t[j] = multiply_add(v, b[j], t[j])
        a += term
        b += b_row
    if add:
        for j in range(n):
            s[j] += d[j]
            t[j] += d[d_row + j]
    for j in range(n):
        d[j] = s[j]
        d[d_row + j] = t[j]
