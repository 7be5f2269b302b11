# The statistics of neighbouring groups of double data, under a mask, or of very short runs: sums over local arrays,
# closed one group at a time, or eight of float data. Other float data goes through row_floats.
#
# Double data without a mask, in runs that are not short, takes the sums of row_doubles where those fit it.

from cython cimport floating

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport dd
from fastnn._kernels.norm cimport (
    COLD, SIDE, Group, Moments, Population, Settled, View, clear_group, close_group, count_each, count_of,
    first_counted, scale_of,
)
from fastnn._kernels.row_doubles cimport LEAST, Grid, grid_of, is_fine, sum_of_squares
from fastnn._kernels.rows cimport BATCH, run_sums
from fastnn._kernels.settling cimport put_groups, settle_sums


cdef struct Wanted:
    View view
    double eps
    bint centered
    bint distant                # what will be written does not fit a near cache


# ---- sums ------------------------------------------------------------------------------------------------------------

cdef inline inlined sum_on_grids(
    Wanted* p, Py_ssize_t count, const double* x, const double* y, double scale, double* shift, dd* s1, dd* s2,
) noexcept nogil:
    # OUT Σ(x·scale − shift), Σ(x·scale − shift)² of neighbouring groups without a mask, in runs of LEAST or more; sums
    # are zero at first
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t stride = p.view.groups * n
    cdef Grid grids[BATCH]
    cdef bint fit[BATCH]
    cdef Py_ssize_t a, r, at
    for r in range(count):
        grids[r] = grid_of(x + r * n, &p.view, p.centered, scale)
        shift[r] = grids[r].shift
        fit[r] = grids[r].step > 0
    for a in range(p.view.reduced):
        for r in range(count):
            at = a * stride + r * n
            if fit[r]:
                fit[r] = sum_of_squares(
                    x + at, y + at if p.distant else NULL, n, grids + r, scale, s1 + r, s2 + r)
    for r in range(count):
        if not (fit[r] and is_fine(grids + r, s1[r], s2[r], <double>(p.view.reduced * n), p.centered)):
            shift[r] = x[r * n] * scale if p.centered else 0
            s1[r].high = s1[r].low = s2[r].high = s2[r].low = 0
            for a in range(p.view.reduced):
                run_sums(x + a * stride + r * n, NULL, NULL, n, shift[r], scale, s1 + r, s2 + r)


cdef inline apart sum_doubles(
    Wanted* p, Py_ssize_t count, const double* x, const double* y, double* shift, dd* s1, dd* s2,
) noexcept nogil:
    sum_on_grids(p, count, x, y, 1, shift, s1, s2)


cdef inline apart sum_scaled_doubles(
    Wanted* p, const double* x, double scale, double* shift, dd* s1, dd* s2,
) noexcept nogil:
    sum_on_grids(p, 1, x, x, scale, shift, s1, s2)


# ---- sums → statistics -----------------------------------------------------------------------------------------------

cdef inline apart close_scaled(
    Wanted* p, const double* x, const unsigned char* mask, double n, Group* group, Population* population,
) noexcept nogil:
    # a group of double data whose squares leave double's range, in another unit; x and mask at the group's start
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef double scale = scale_of(x, mask, &p.view, p.eps)
    cdef double shift = first_counted(x, mask, &p.view) * scale if p.centered else 0
    cdef dd s1, s2
    cdef Py_ssize_t a
    s1.high = s1.low = s2.high = s2.low = 0
    if mask == NULL and p.view.inner >= LEAST:
        sum_scaled_doubles(p, x, scale, &shift, &s1, &s2)
        close_group(s1, s2, n, p.eps, p.centered, shift, scale, group, population)
        return
    for a in range(p.view.reduced):
        run_sums(
            x + a * stride, mask + a * stride if mask != NULL else NULL, NULL, p.view.inner, shift, scale, &s1, &s2)
    close_group(
        s1, s2, n, p.eps, p.centered, shift, scale, group, population)


cdef inline apart put_populations(
    Py_ssize_t count, const double* n, const Moments* moments, Population* population,
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(count):
        population[j].mean = moments.mean[j]
        population[j].variance = moments.variance[j]
        population[j].count = n[j]


cdef inline apart close_floats(
    Wanted* p, Py_ssize_t count, const unsigned char* mask, const double* shift, const dd* s1, const dd* s2,
    Group* groups, Population* population,
) noexcept nogil:
    # sums of up to SIDE neighbouring groups → groups; mask at the first one's start. The arrays of sums have SIDE.
    cdef double n[SIDE]
    cdef double each[SIDE]
    cdef double t1[SIDE]
    cdef double t2[SIDE]
    cdef Moments moments
    cdef Settled settled
    cdef Py_ssize_t j
    for j in range(SIDE):
        n[j] = <double>(p.view.reduced * p.view.inner)
    if mask != NULL:
        count_each(mask, &p.view, count, n)
    for j in range(SIDE):
        each[j] = 1 / n[j]
        t1[j] = s1[j].high
        t2[j] = s2[j].high
    settle_sums(t1, t2, each, p.eps, p.centered, shift, &moments, &settled)
    put_groups(&settled, count, groups)
    if population != NULL:
        put_populations(count, n, &moments, population)
    if mask != NULL:
        for j in range(count):
            if n[j] == 0:
                clear_group(groups + j, population + j if population != NULL else NULL)


cdef inline apart close_doubles(
    Wanted* p, Py_ssize_t count, const double* x, const unsigned char* mask, const double* shift, const dd* s1,
    const dd* s2, Group* groups, Population* population,
) noexcept nogil:
    # sums of neighbouring groups → groups; x and mask at the first one's start
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t r
    cdef const unsigned char* own_mask
    cdef Population* own_population
    cdef double counted
    for r in range(count):
        own_mask = mask + r * n if mask != NULL else NULL
        own_population = population + r if population != NULL else NULL
        counted = <double>count_of(own_mask, &p.view)
        if close_group(s1[r], s2[r], counted, p.eps, p.centered, shift[r], 1, groups + r, own_population) == COLD:
            close_scaled(p, x + r * n, own_mask, counted, groups + r, own_population)


# ---- both ------------------------------------------------------------------------------------------------------------

cdef inline void batch_statistics(
    Wanted* p, Py_ssize_t count, const floating* x, const floating* y, const unsigned char* mask, Group* groups,
    Population* population,
) noexcept nogil:
    # `count` neighbouring groups of one outer index; x, y and mask at the first one's start
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t a, r, at
    cdef double shift[BATCH]
    cdef dd s1[BATCH]
    cdef dd s2[BATCH]
    for r in range((count + SIDE - 1) // SIDE * SIDE):
        s1[r].high = s1[r].low = s2[r].high = s2[r].low = shift[r] = 0
    if floating is double and mask == NULL and n >= LEAST:
        sum_doubles(p, count, x, y, shift, s1, s2)
        close_doubles(p, count, x, NULL, shift, s1, s2, groups, population)
        return
    if p.centered:
        for r in range(count):
            shift[r] = first_counted(x + r * n, mask + r * n if mask != NULL else NULL, &p.view)
    for a in range(p.view.reduced):
        for r in range(count):
            at = a * stride + r * n
            run_sums(
                x + at, mask + at if mask != NULL else NULL, y + at if p.distant and mask == NULL else NULL, n,
                shift[r], 1, s1 + r, s2 + r)
    if floating is float:
        r = 0
        while r < count:
            close_floats(
                p, min(<Py_ssize_t>SIDE, count - r), mask + r * n if mask != NULL else NULL, shift + r, s1 + r, s2 + r,
                groups + r, population + r if population != NULL else NULL)
            r += SIDE
    else:
        close_doubles(p, count, x, mask, shift, s1, s2, groups, population)
