# Closing a unit of column norms, backward: Σdy and Σdy·(x − shift) of each column → Σdy·x̂, the two means of each
# group, and from them the last parameters of the input's gradient.

from cython cimport floating

from fastnn._kernels.column_gradients cimport (
    CONSTANT, CONSTANT_LOW, FACTOR_LOW, GRADIENT_PARAMETERS, SLOPE, SLOPE_LOW,
)
from fastnn._kernels.column_parameters cimport load_groups, repeat
from fastnn._kernels.columns cimport (
    FIRST, FIRST_LOW, SECOND, SECOND_LOW, Layout, Unit, count_groups, lane_sum, widen,
)
from fastnn._kernels.inlining cimport apart
from fastnn._kernels.lanes cimport dd, dd_add, dd_scale, dd_times
from fastnn._kernels.norm cimport SIDE, Group, Settled, Tangent, View, tangent_of

cdef struct Sums:
    # of one outer index
    View* view
    Layout* layout
    bint centered
    bint constant               # the statistics do not depend on x
    const Group* groups         # IN   (S)
    const Py_ssize_t* counts    # IN   (S · I) or NULL: elements that count
    const double* sums          # IN   (rows of sums, stride): Σdy, Σdy·(x − shift), each column's in its first lane
    double* totals              # OUT  (rows of sums, S · I): Σdy, Σdy·x̂


cdef inline void close_sums(
    Sums* p, Unit* unit, const floating* weight, floating* parameters,
) noexcept nogil:
    # of one unit; weight (S · I) or NULL
    cdef double n[SIDE]
    cdef Settled loaded
    cdef Py_ssize_t j, count
    cdef Py_ssize_t s = unit.first_group
    for j in range(SIDE):
        n[j] = <double>(p.view.reduced * p.view.inner)
    while s < unit.last_group:
        count = min(<Py_ssize_t>SIDE, unit.last_group - s)
        load_groups(p.groups + s, count, &loaded, parameters[0])
        if p.counts != NULL:
            count_groups(p.counts, p.view, s, count, n)
        if floating is float and p.view.inner == 1 and count == SIDE:
            close_side(p, s, &loaded, n, weight + s if weight != NULL else NULL, parameters + s)
        else:
            close_groups(p, s, count, &loaded, n, weight, parameters)
        s += SIDE
    repeat(
        p.layout, unit, parameters, CONSTANT,
        GRADIENT_PARAMETERS if floating is double and p.counts != NULL else FACTOR_LOW)


cdef inline void close_groups(
    Sums* p, Py_ssize_t group, Py_ssize_t count, const Settled* loaded, const double* n, const floating* weight,
    floating* parameters,
) noexcept nogil:
    # `count` groups from `group` on, of n elements
    cdef Py_ssize_t inner = p.view.inner
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t stride = p.layout.stride
    cdef const double* sums = p.sums
    cdef double* totals = p.totals
    cdef Tangent tangent
    cdef dd total, product, sum_g, sum_gx, rstd, lo
    cdef double w
    cdef Py_ssize_t j, c
    for j in range(count):
        rstd.high = loaded.rstd[j]
        rstd.low = loaded.rstd_low[j] if floating is double else 0
        lo.high = loaded.lo[j]
        lo.low = loaded.lo_low[j] if floating is double else 0
        sum_g.high = sum_g.low = sum_gx.high = sum_gx.low = 0
        for c in range((group + j) * inner, (group + j + 1) * inner):
            total = lane_sum(sums + FIRST * stride, sums + FIRST_LOW * stride, c, parameters[0])
            product = lane_sum(sums + SECOND * stride, sums + SECOND_LOW * stride, c, parameters[0])
            if floating is float:
                product.high = product_of(total.high, product.high, loaded.lo[j], loaded.rstd[j])
            else:
                product = dd_times(dd_add(product, dd_scale(dd_times(total, lo), -1)), rstd)
                totals[FIRST_LOW * columns + c] = total.low
                totals[SECOND_LOW * columns + c] = product.low
            totals[FIRST * columns + c] = total.high
            totals[SECOND * columns + c] = product.high
            w = weight[c] if weight != NULL else 1
            if floating is float:
                sum_g.high += w * total.high
                sum_gx.high += w * product.high
            else:
                sum_g = dd_add(sum_g, dd_scale(total, w))
                sum_gx = dd_add(sum_gx, dd_scale(product, w))
        tangent = tangent_of(
            sum_g, sum_gx, n[j], p.centered, p.constant, loaded.lo[j], rstd, parameters[0])
        for c in range((group + j) * inner, (group + j + 1) * inner):
            parameters[CONSTANT * stride + c] = <floating>tangent.constant
            parameters[SLOPE * stride + c] = <floating>tangent.slope
            if floating is double and p.counts != NULL:
                w = weight[c] if weight != NULL else 1
                parameters[FACTOR_LOW * stride + c] = dd_scale(rstd, w).low
                parameters[CONSTANT_LOW * stride + c] = tangent.constant_low
                parameters[SLOPE_LOW * stride + c] = tangent.slope_low


cdef inline apart close_side(
    Sums* p, Py_ssize_t group, const Settled* loaded, const double* n, const floating* weight, floating* parameters,
) noexcept nogil:
    # the same for SIDE groups of one column of float data; weight and parameters at the first of them
    cdef const double* sums = p.sums + group
    cdef const double* second = sums + SECOND * p.layout.stride
    cdef double* totals = p.totals + group
    cdef floating* constants = parameters + CONSTANT * p.layout.stride
    cdef floating* slopes = parameters + SLOPE * p.layout.stride
    cdef bint centered = p.centered
    cdef bint constant = p.constant
    cdef Tangent tangent
    cdef dd sum_g, sum_gx, rstd
    cdef double total[SIDE]
    cdef double product[SIDE]
    cdef double w[SIDE]
    cdef double tangent_constant[SIDE]
    cdef double slope[SIDE]
    cdef Py_ssize_t j
    for j in range(SIDE):
        total[j] = sums[j]
        product[j] = product_of(sums[j], second[j], loaded.lo[j], loaded.rstd[j])
        w[j] = 1
    for j in range(SIDE):
        totals[j] = total[j]
    for j in range(SIDE):
        totals[p.layout.columns + j] = product[j]
    if weight != NULL:
        widen(weight, w, SIDE)
    sum_g.low = sum_gx.low = rstd.low = 0
    for j in range(SIDE):
        sum_g.high, sum_gx.high, rstd.high = w[j] * total[j], w[j] * product[j], loaded.rstd[j]
        tangent = tangent_of(sum_g, sum_gx, n[j], centered, constant, loaded.lo[j], rstd, <float>0)
        tangent_constant[j] = tangent.constant
        slope[j] = tangent.slope
    for j in range(SIDE):
        constants[j] = <floating>tangent_constant[j]
    for j in range(SIDE):
        slopes[j] = <floating>slope[j]


cdef inline double product_of(double total, double product, double lo, double rstd) noexcept nogil:
    # Σdy·x̂
    return (product - lo * total) * rstd
