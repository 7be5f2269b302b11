# Closing a unit of column norms, forward: sums → statistics of its groups. Sums whose shift was far from the mean, or
# that left the range, are to be taken once more, with another shift or in another unit.

from cython cimport floating

from fastnn._kernels.column_parameters cimport SCALE, SHIFT
from fastnn._kernels.columns cimport (
    FIRST, FIRST_LOW, SECOND, SECOND_LOW, Layout, Unit, count_groups, lane_sum, widen,
)
from fastnn._kernels.inlining cimport apart
from fastnn._kernels.lanes cimport dd, dd_add, dd_divide, dd_scale, dd_square, join
from fastnn._kernels.norm cimport (
    COLD, SIDE, Group, Moments, Population, Settled, Verdict, View, clear_group, close_group, scale_of,
)
from fastnn._kernels.settling cimport put_groups, settle_sums

cdef struct Closing:
    # of one outer index
    View* view
    Layout* layout
    double eps
    bint centered
    const double* sums          # IN   (rows of sums, stride), each column's in the first of its lanes
    const Py_ssize_t* counts    # IN   (S · I) or NULL: elements that count
    Group* groups               # OUT  (S)
    Population* population      # OUT  (S) or NULL

# What is known of a unit; a set of bits.
cdef enum State:
    UNDECIDED = 1       # has groups to sum once more
    SCALED = 2          # has groups whose scale is not 1
    SHIFTED = 4         # has groups whose shift is not 0, for the sums

cdef enum:
    # The mean of float data may be the root of FAR standard deviations off the shift, which costs a sum ten of its 53
    # bits; and of more where few rows are added to a sum, as long as rounding leaves 29 of them.
    FAR = 1024
    FAR_ROWS = 1 << 24


cdef inline void set_shift(
    Closing* c, Py_ssize_t group, floating* parameters, floating shift, floating scale,
) noexcept nogil:
    # for the sums to come
    cdef Py_ssize_t stride = c.layout.stride
    cdef Py_ssize_t lane = group * c.view.inner
    cdef Py_ssize_t i
    while lane < c.layout.lanes:
        for i in range(lane, lane + c.view.inner):
            parameters[SHIFT * stride + i] = shift
            parameters[SCALE * stride + i] = scale
        lane += c.layout.columns


cdef inline double far_of(Layout* layout) noexcept nogil:
    return max(<Py_ssize_t>FAR, FAR_ROWS // layout.block_rows)


cdef inline bint is_far(double lo, double variance, double far) noexcept nogil:
    return lo * lo > far * variance


cdef inline bint is_far_double(dd s1, dd s2, double n) noexcept nogil:
    # the same for double data, of whose 106 bits forty may be lost; equal numbers are far from zero even if their
    # squares vanish
    cdef dd lo = dd_divide(s1, n)
    cdef dd variance = dd_add(dd_divide(s2, n), dd_scale(dd_square(lo), -1))
    return lo.high != 0 and lo.high * lo.high >= 1099511627776.0 * variance.high


cdef inline dd group_total(
    const double* high, const double* low, Py_ssize_t first, Py_ssize_t last, floating example,
) noexcept nogil:
    # the columns of one group, in order
    cdef dd total = lane_sum(high, low, first, example)
    cdef Py_ssize_t j
    for j in range(first + 1, last):
        total = join(total, lane_sum(high, low, j, example), example)
    return total


# Steps for SIDE groups of float data, as vectors; see column_parameters.pxd for why each is a function of its own.

cdef inline apart settle_side(
    const double* s1, const double* s2, const double* each, double eps, bint centered, const double* shift, double far,
    Moments* moments, Settled* settled, bint* again,
) noexcept nogil:
    # and whether the shift of any was far from the mean
    cdef Py_ssize_t j
    cdef Py_ssize_t count = 0
    settle_sums(s1, s2, each, eps, centered, shift, moments, settled)
    for j in range(SIDE):
        count += is_far(moments.mean[j] - shift[j], moments.variance[j], far)
    again[0] = centered and count > 0


cdef inline apart store_groups(const Settled* settled, Group* groups) noexcept nogil:
    put_groups(settled, SIDE, groups)


cdef inline apart store_population(const Moments* moments, const double* n, Population* population) noexcept nogil:
    # no mean where there is no variance: a sum around zero may be infinite
    cdef Py_ssize_t j
    for j in range(SIDE):
        population[j].mean = moments.mean[j] if moments.variance[j] == moments.variance[j] else moments.variance[j]
        population[j].variance = moments.variance[j]
        population[j].count = n[j]


cdef inline int close_floats(
    Closing* c, Unit* unit, float* parameters,
) noexcept nogil:
    # Sums of float data in double precision leave no range; a shift far from the mean is all that can happen to them.
    cdef Py_ssize_t inner = c.view.inner
    cdef Py_ssize_t stride = c.layout.stride
    cdef const double* s1 = c.sums + FIRST * stride
    cdef const double* s2 = c.sums + SECOND * stride
    cdef const Py_ssize_t* counts = c.counts
    cdef Group* groups = c.groups
    cdef Population* population = c.population
    cdef double n[SIDE]
    cdef double each[SIDE]
    cdef double shift[SIDE]
    cdef double t1[SIDE]
    cdef double t2[SIDE]
    cdef Group few[SIDE]
    cdef Population few_population[SIDE]
    cdef Moments moments
    cdef Settled settled
    cdef Py_ssize_t s, j, count
    cdef bint again
    cdef double far = far_of(c.layout)
    cdef int state = 0
    for j in range(SIDE):
        n[j] = <double>(c.view.reduced * inner)
        each[j] = 1 / n[j]
        t1[j] = t2[j] = shift[j] = 0
    s = unit.first_group
    while s < unit.last_group:
        count = min(<Py_ssize_t>SIDE, unit.last_group - s)
        if counts != NULL:
            count_groups(counts, c.view, s, count, n)
            for j in range(SIDE):
                each[j] = 1 / n[j]
        if inner == 1 and count == SIDE:
            widen(parameters + SHIFT * stride + s, shift, SIDE)
            settle_side(s1 + s, s2 + s, each, c.eps, c.centered, shift, far, &moments, &settled, &again)
        else:
            for j in range(count):
                t1[j] = group_total(s1, NULL, (s + j) * inner, (s + j + 1) * inner, parameters[0]).high
                t2[j] = group_total(s2, NULL, (s + j) * inner, (s + j + 1) * inner, parameters[0]).high
                shift[j] = parameters[SHIFT * stride + (s + j) * inner]
            settle_side(t1, t2, each, c.eps, c.centered, shift, far, &moments, &settled, &again)
        store_groups(&settled, groups + s if count == SIDE else few)
        if population != NULL:
            store_population(&moments, n, population + s if count == SIDE else few_population)
        if count < SIDE:
            for j in range(count):
                groups[s + j] = few[j]
                if population != NULL:
                    population[s + j] = few_population[j]
        if counts != NULL:
            for j in range(count):
                if n[j] == 0:
                    clear_group(groups + s + j, population + s + j if population != NULL else NULL)
        if again:
            for j in range(count):
                if is_far(moments.mean[j] - shift[j], moments.variance[j], far):
                    set_shift(c, s + j, parameters, <float>moments.mean[j], <float>1)
                    state = UNDECIDED | SHIFTED
        s += SIDE
    return state


cdef inline int close_doubles(
    Closing* c, Unit* unit, const double* x, const unsigned char* mask, double* parameters,
) noexcept nogil:
    # x and mask at the outer index's start
    cdef Py_ssize_t inner = c.view.inner
    cdef Py_ssize_t stride = c.layout.stride
    cdef const double* sums = c.sums
    cdef Group* groups = c.groups
    cdef Population* population = c.population
    cdef const unsigned char* group_mask = NULL
    cdef Py_ssize_t s, at
    cdef dd s1, s2
    cdef double n, scale
    cdef Verdict verdict
    cdef int state = 0
    for s in range(unit.first_group, unit.last_group):
        at = s * inner
        s1 = group_total(sums + FIRST * stride, sums + FIRST_LOW * stride, at, at + inner, x[0])
        s2 = group_total(sums + SECOND * stride, sums + SECOND_LOW * stride, at, at + inner, x[0])
        if mask != NULL:
            group_mask = mask + at
        count_groups(c.counts, c.view, s, 1, &n)
        verdict = close_group(
            s1, s2, n, c.eps, c.centered, parameters[SHIFT * stride + at], parameters[SCALE * stride + at], groups + s,
            population + s if population != NULL else NULL)
        if verdict == COLD:
            scale = scale_of(x + at, group_mask, c.view, c.eps)
            set_shift(c, s, parameters, <double>0, scale)
            state |= UNDECIDED
        elif c.centered and is_far_double(s1, s2, n):
            # the group may have gone back to the data's own unit
            scale = parameters[SCALE * stride + at]
            set_shift(c, s, parameters, groups[s].shift * (scale / groups[s].scale), scale)
            state |= UNDECIDED
        if parameters[SCALE * stride + at] != 1:
            state |= SCALED
        if parameters[SHIFT * stride + at] != 0:
            state |= SHIFTED
    return state
