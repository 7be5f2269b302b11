# The parameters of column norms: a unit's statistics, and weight and bias, as rows of one number for each lane.

from cython cimport floating
from libc.math cimport fabs

from fastnn._kernels.columns cimport Layout, Unit, widen
from fastnn._kernels.fused cimport multiply_add_once
from fastnn._kernels.inlining cimport apart
from fastnn._kernels.norm cimport SIDE, Group, Settled, View, inverse_power
from fastnn._kernels.turned cimport copy_transposed
from fastnn._kernels.wide cimport goes_far, may_join

# Rows of parameters: the first two steer the sums, then all of them the values. Backward has others in place of the
# offset and behind it (column_gradients.pxd).
cdef enum:
    SHIFT
    SCALE
    FACTOR          # rstd · weight
    OFFSET          # bias − lo · rstd · weight
    PARAMETERS

cdef enum:
    # arrays of Settled, and the numbers of a Group, that float data has, in the same order
    FIELDS = 4


cdef inline Group moderate(const Group* group, floating example) noexcept nogil:
    # The same group in a unit in which rstd times a weight or a gradient, and once more times rstd, stays in the range
    # of float32, unless the mean would leave it or lose bits. Scaled groups are in such a unit already.
    cdef Group same = group[0]
    cdef double unit
    if same.scale == 1 and 0 < same.rstd and not is_moderate(same.rstd):
        unit = 1 / inverse_power(same.rstd, example)
        if same.shift == 0 or 1e-30 <= fabs(same.shift) * unit <= 7.9e28:
            same.shift *= unit
            same.lo *= unit
            same.lo_low *= unit
            same.rstd /= unit
            same.rstd_low /= unit
            same.scale = unit
    return same


cdef inline bint load_groups(
    const Group* groups, Py_ssize_t count, Settled* loaded, floating example,
) noexcept nogil:
    # up to SIDE neighbours, each in a moderate unit; whether a scale is not 1. What follows the last repeats it.
    cdef Group group
    cdef Group few[SIDE]
    cdef Py_ssize_t j
    cdef Py_ssize_t ordinary = 0
    cdef bint scaled = False
    if count == SIDE:
        gather_groups(groups, loaded, &ordinary)
    else:
        for j in range(SIDE):
            few[j] = groups[min(j, count - 1)]
        gather_groups(few, loaded, &ordinary)
    if floating is double:
        for j in range(SIDE):
            loaded.rstd_low[j] = groups[min(j, count - 1)].rstd_low
            loaded.lo_low[j] = groups[min(j, count - 1)].lo_low
    if ordinary == SIDE:
        return False
    for j in range(SIDE):
        group = moderate(groups + min(j, count - 1), example)
        loaded.shift[j] = group.shift
        loaded.lo[j] = group.lo
        loaded.rstd[j] = group.rstd
        loaded.rstd_low[j] = group.rstd_low
        loaded.lo_low[j] = group.lo_low
        loaded.scale[j] = group.scale
        scaled |= group.scale != 1
    return scaled


cdef inline double factor_of(const Settled* loaded, Py_ssize_t j, floating weight) noexcept nogil:
    # rstd · weight of group j, of double data rounded once
    if floating is float:
        return loaded.rstd[j] * weight
    else:
        return multiply_add_once(loaded.rstd[j], weight, loaded.rstd_low[j] * weight)


cdef inline bint set_parameters(
    View* view, Layout* layout, Unit* unit,
    const Group* groups,        # IN   (S), those of the unit's outer index
    const floating* weight,     # IN   (S · I) or NULL
    const floating* bias,       # IN   likewise
    floating* parameters,       # OUT  (PARAMETERS, stride)
) noexcept nogil:
    # of one unit; whether a scale is not 1
    cdef Settled loaded
    cdef Py_ssize_t count
    cdef Py_ssize_t s = unit.first_group
    cdef bint scaled = False
    while s < unit.last_group:
        count = min(<Py_ssize_t>SIDE, unit.last_group - s)
        scaled |= load_groups(groups + s, count, &loaded, parameters[0])
        if view.inner == 1 and count == SIDE:
            set_side(
                &loaded, weight + s if weight != NULL else NULL, bias + s if bias != NULL else NULL, layout.stride,
                parameters + s)
        else:
            set_lines(view.inner, s, count, &loaded, weight, bias, layout.stride, parameters)
        s += SIDE
    repeat(layout, unit, parameters, SHIFT, PARAMETERS)
    return scaled


cdef inline void set_lines(
    Py_ssize_t inner, Py_ssize_t group, Py_ssize_t count, const Settled* loaded, const floating* weight,
    const floating* bias, Py_ssize_t stride, floating* parameters,
) noexcept nogil:
    # of `count` groups from `group` on
    cdef Py_ssize_t j, c
    cdef double factor
    for j in range(count):
        for c in range((group + j) * inner, (group + j + 1) * inner):
            factor = factor_of(loaded, j, weight[c] if weight != NULL else <floating>1)
            parameters[SHIFT * stride + c] = <floating>loaded.shift[j]
            parameters[SCALE * stride + c] = <floating>loaded.scale[j]
            parameters[FACTOR * stride + c] = <floating>factor
            parameters[OFFSET * stride + c] = <floating>((bias[c] if bias != NULL else 0) - loaded.lo[j] * factor)


# In functions of their own, because inside a larger one GCC unrolls such loops before it can make vectors of them.

cdef inline apart set_side(
    const Settled* loaded, const floating* weight, const floating* bias, Py_ssize_t stride, floating* parameters,
) noexcept nogil:
    # the same for SIDE groups of one column
    cdef double factor[SIDE]
    cdef double offset[SIDE]
    cdef Py_ssize_t j
    for j in range(SIDE):
        factor[j] = 1
        offset[j] = 0
    if weight != NULL:
        widen(weight, factor, SIDE)
    if bias != NULL:
        widen(bias, offset, SIDE)
    for j in range(SIDE):
        factor[j] = factor_of(loaded, j, <floating>factor[j])
        offset[j] -= loaded.lo[j] * factor[j]
    for j in range(SIDE):
        parameters[SHIFT * stride + j] = <floating>loaded.shift[j]
    for j in range(SIDE):
        parameters[SCALE * stride + j] = <floating>loaded.scale[j]
    for j in range(SIDE):
        parameters[FACTOR * stride + j] = <floating>factor[j]
    for j in range(SIDE):
        parameters[OFFSET * stride + j] = <floating>offset[j]


cdef inline apart gather_groups(const Group* groups, Settled* loaded, Py_ssize_t* ordinary) noexcept nogil:
    # SIDE of them, and how many have scale 1 and a moderate unit
    cdef Py_ssize_t row = sizeof(Group) // sizeof(double)
    copy_transposed(<const double*>groups, row, SIDE, FIELDS, loaded.shift, SIDE)
    ordinary[0] = count_ordinary(loaded)


cdef inline Py_ssize_t count_ordinary(const Settled* loaded) noexcept nogil:
    cdef Py_ssize_t j
    cdef Py_ssize_t count = 0
    for j in range(SIDE):
        count += (loaded.scale[j] == 1) & is_moderate(loaded.rstd[j])
    return count


cdef inline bint is_moderate(double rstd) noexcept nogil:
    return (rstd >= 2.3283064365386963e-10) & (rstd <= 4294967296.0)     # 2^±32


cdef inline void repeat(
    Layout* layout, Unit* unit, floating* parameters, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    # rows first … last − 1 of the parameters: each column's value in all its lanes
    cdef Py_ssize_t q, lane, j
    for q in range(first, last):
        lane = layout.columns
        while lane < layout.lanes:
            for j in range(unit.first_lane, unit.last_lane):
                parameters[q * layout.stride + lane + j] = parameters[q * layout.stride + j]
            lane += layout.columns


# ---- groups that need more range -------------------------------------------------------------------------------------

cdef inline apart all_within(
    const floating* row, Py_ssize_t first, Py_ssize_t last, double least, double most, bint* within,
) noexcept nogil:
    # whether the magnitudes of a unit's parameters of one kind are
    cdef floating low = <floating>least
    cdef floating high = <floating>most
    cdef bint outside = False
    cdef Py_ssize_t j
    for j in range(first, last):
        outside |= not (((row[j] >= low) & (row[j] <= high)) | ((row[j] <= -low) & (row[j] >= -high)))
    within[0] = not outside


cdef inline bint group_fits(
    View* view, const floating* parameters, Py_ssize_t stride, Py_ssize_t s, const Group* group,
    const floating* weight,
) noexcept nogil:
    # whether rstd·weight is one factor in all columns of group s
    cdef Py_ssize_t c
    cdef bint fits = True
    for c in range(s * view.inner, (s + 1) * view.inner):
        fits = fits and may_join(
            parameters[FACTOR * stride + c], weight[c] if weight != NULL else 1, group.rstd, parameters[0])
    return fits


cdef inline bint group_goes_far(View* view, const Group* group, const floating* x) noexcept nogil:
    # x at the group's start
    cdef Py_ssize_t a
    for a in range(view.reduced):
        if goes_far(x + a * view.groups * view.inner, view.inner, group):
            return True
    return False


cdef inline void leave_alone(View* view, Layout* layout, Py_ssize_t s, floating* parameters) noexcept nogil:
    # y = x for group s, in whose place wide_values then puts the values
    cdef Py_ssize_t lane = s * view.inner
    cdef Py_ssize_t i
    while lane < layout.lanes:
        for i in range(lane, lane + view.inner):
            parameters[SHIFT * layout.stride + i] = 0
            parameters[SCALE * layout.stride + i] = 1
            parameters[FACTOR * layout.stride + i] = 1
            parameters[OFFSET * layout.stride + i] = <floating>-0.0
        lane += layout.columns
