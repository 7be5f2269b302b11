# Groups that have no unit in which all goes well: weights or gradients near the ends of the data's range, or elements
# outside a mask that are infinite or so far off that x̂ is. One element at a time, in long double, whose range has room
# for every product here (on x86-64, and on Linux elsewhere). It is slow, and hardly ever wanted.
#
# What a mask leaves out has no part in anything but its own results, if its gradient is zero.

from cython cimport floating
from libc.math cimport fabs, isfinite

from fastnn._kernels.inlining cimport apart
from fastnn._kernels.norm cimport Group, View, count_of, least_of, most_of, start_of
from fastnn._kernels.norm_call cimport Call

cdef struct Sum:
    long double high
    long double low


cdef inline void add(Sum* sum, long double term) noexcept nogil:
    cdef long double total = sum.high + term
    cdef long double part = total - sum.high
    sum.low += (sum.high - (total - part)) + (term - part)
    sum.high = total


cdef inline long double total_of(const Sum* sum) noexcept nogil:
    return sum.high + sum.low if isfinite(sum.high) else sum.high


cdef inline long double normalized_wide(floating x, const Group* group) noexcept nogil:
    # x̂
    cdef long double deviation = (<long double>x * group.scale - group.shift) - group.lo - group.lo_low
    return deviation * (<long double>group.rstd + group.rstd_low)


# ---- magnitudes ------------------------------------------------------------------------------------------------------

cdef extern from *:
    """
    #include <string.h>
    /* Whether the largest magnitude is within bounds: compared as integers, of which NaN's are the largest. */
    #define FASTNN_LARGEST(NAME, NUMBER, INTEGER) \\
      static inline int NAME(const NUMBER *x, Py_ssize_t n, NUMBER least, NUMBER most) { \\
        INTEGER all, low, high, largest = 0; \\
        for (Py_ssize_t i = 0; i < n; i++) { \\
          memcpy(&all, x + i, sizeof all); \\
          all &= (INTEGER)-1 >> 1; \\
          largest = all > largest ? all : largest; \\
        } \\
        memcpy(&low, &least, sizeof low); \\
        memcpy(&high, &most, sizeof high); \\
        return largest >= low && largest <= high; \\
      }
    FASTNN_LARGEST(fastnn_largest_float, float, unsigned int)
    FASTNN_LARGEST(fastnn_largest_double, double, unsigned long long)
    """
    bint largest_float_within "fastnn_largest_float" (
        const float* x, Py_ssize_t n, float least, float most) noexcept nogil
    bint largest_double_within "fastnn_largest_double" (
        const double* x, Py_ssize_t n, double least, double most) noexcept nogil


cdef inline bint largest_within(const floating* x, Py_ssize_t n, double least, double most) noexcept nogil:
    if floating is float:
        return largest_float_within(x, n, <float>least, <float>most)
    else:
        return largest_double_within(x, n, least, most)


# ---- what is ordinary ------------------------------------------------------------------------------------------------

cdef inline bint may_join(double factor, double weight, double rstd, floating example) noexcept nogil:
    # whether factor = rstd·weight serves as one number of the data's precision
    return weight == 0 or rstd == 0 or (fabs(factor) >= least_of(example)) & (fabs(factor) <= most_of(example))


cdef inline bint goes_far(const floating* x, Py_ssize_t n, const Group* group) noexcept nogil:
    # whether x·scale or x̂ of a run may leave the range, as what a mask leaves out may; so do infinite numbers
    cdef double most = most_of(x[0])
    cdef double largest = 0
    cdef Py_ssize_t i
    for i in range(n):
        if not fabs(x[i]) <= largest:
            largest = fabs(x[i])
    largest = largest * group.scale
    return not (largest <= most and (largest + fabs(group.shift)) * group.rstd <= most and group.rstd <= most)


cdef inline bint ordinary(
    double constant, double slope, double rstd, double scale, floating example,
) noexcept nogil:
    # whether dy·factor + (x·scale − shift)·slope + constant, times scale, may be computed in the data's precision
    cdef double most = most_of(example)
    cdef double least = least_of(example) * (1 if scale == 1 else 1e8)
    return fabs(constant) <= most and (scale == 1 or constant == 0 or fabs(constant) >= least) and (
        slope == 0 or (fabs(slope) >= least and fabs(slope) <= most * min(<double>1, rstd)))


cdef inline bint suspect(double sum_gx, double rstd) noexcept nogil:
    # whether Σg·x̂ of double data, or Σg·(x − shift) in double-double, is near the ends of its range
    return not 1e-270 * max(<double>1, rstd) <= fabs(sum_gx) <= 1e290


# ---- values ----------------------------------------------------------------------------------------------------------

cdef inline apart wide_values(
    const floating* x,          # IN   (reduced) runs of `inner`, `stride` apart
    floating* y,                # OUT  the same; may be x
    Py_ssize_t reduced, Py_ssize_t stride, Py_ssize_t inner,
    const floating* weight,     # IN   one for each `length` neighbours of a run, or NULL
    const floating* bias,       # IN   likewise
    Py_ssize_t length, const Group* group,
) noexcept nogil:
    cdef Py_ssize_t a, i
    cdef long double value
    for a in range(reduced):
        for i in range(inner):
            value = normalized_wide(x[a * stride + i], group)
            if weight != NULL:
                value *= weight[i // length]
            if bias != NULL:
                value += bias[i // length]
            y[a * stride + i] = <floating>value


# ---- the input's gradient --------------------------------------------------------------------------------------------

cdef inline const floating* weights_of(const Call* c, Py_ssize_t g, floating example) noexcept nogil:
    return <const floating*>c.weight + g % c.period * c.entries if c.weight != NULL else NULL


cdef inline bint left_out(const unsigned char* mask, Py_ssize_t at, long double gradient, double x) noexcept nogil:
    # whether an element adds nothing to the sums, whatever its x̂
    return gradient == 0 and (isfinite(x) or (mask != NULL and not mask[at]))


cdef inline apart wide_gradient(
    const Call* c, Py_ssize_t g, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    # dinput of group g
    cdef const Group* group = c.groups + g
    cdef const floating* weight = weights_of(c, g, dy[0])
    cdef View view = c.view
    cdef Py_ssize_t start = start_of(&view, g)
    cdef Py_ssize_t length = view.inner // c.entries
    cdef Py_ssize_t n = count_of(c.mask + start if c.mask != NULL else NULL, &view)
    cdef long double factor = (<long double>group.rstd + group.rstd_low) * group.scale
    cdef long double mean_g = 0
    cdef long double mean_gx = 0
    cdef long double gradient
    cdef Sum sum_g, sum_gx
    cdef Py_ssize_t a, i, at
    sum_g.high = sum_g.low = sum_gx.high = sum_gx.low = 0
    if n > 0 and not c.given:
        for a in range(view.reduced):
            for i in range(view.inner):
                at = start + a * view.groups * view.inner + i
                gradient = <long double>dy[at] * (weight[i // length] if weight != NULL else 1)
                if not left_out(c.mask, at, gradient, x[at]):
                    add(&sum_g, gradient)
                    add(&sum_gx, gradient * normalized_wide(x[at], group))
        mean_g = total_of(&sum_g) / n if c.centered else 0
        mean_gx = total_of(&sum_gx) / n
    for a in range(view.reduced):
        for i in range(view.inner):
            at = start + a * view.groups * view.inner + i
            gradient = <long double>dy[at] * (weight[i // length] if weight != NULL else 1)
            if not c.given and (c.mask == NULL or c.mask[at]):
                gradient = gradient - (mean_g + mean_gx * normalized_wide(x[at], group))
            dx[at] = <floating>(gradient * factor)


cdef inline bint has_extremes(
    const Call* c, Py_ssize_t g, const floating* dy, const floating* x, double scale,
) noexcept nogil:
    # Whether gradients of group g in the unit of x·scale, or their products with x − shift, are so small or so large
    # that sums of them may have lost something: asked of suspect sums.
    cdef const Group* group = c.groups + g
    cdef double rstd = group.rstd * (group.scale / scale)
    cdef long double shift = group.shift * (<long double>scale / group.scale)
    cdef const floating* weight = weights_of(c, g, dy[0])
    cdef View view = c.view
    cdef Py_ssize_t start = start_of(&view, g)
    cdef Py_ssize_t length = view.inner // c.entries
    cdef long double farthest = 0
    cdef long double plain = 0
    cdef long double weighted = 0
    cdef long double gradient
    cdef bint joined = True
    cdef Py_ssize_t a, i, at
    if weight != NULL:
        for i in range(c.entries):
            joined = joined and may_join(rstd * weight[i], weight[i], rstd, dy[0])
    if not joined or not rstd <= most_of(dy[0]):
        return True
    if all_zeros(dy + start, &view):
        return False
    for a in range(view.reduced):
        for i in range(view.inner):
            at = start + a * view.groups * view.inner + i
            gradient = <long double>dy[at] * (weight[i // length] if weight != NULL else 1)
            farthest = max(farthest, size_of(<long double>x[at] * scale - shift))
            plain = max(plain, size_of(dy[at]))
            weighted = max(weighted, size_of(gradient))
    if weighted == 0:
        return False
    if not (moderate(weighted, dy[0]) and moderate(weighted * rstd, dy[0])):
        return True
    return farthest != 0 and not (
        moderate(weighted * farthest, dy[0]) and moderate(plain * farthest, dy[0])
        and moderate(farthest * rstd, dy[0]) and moderate(weighted * farthest * rstd * rstd * rstd, dy[0]))


cdef inline bint all_zeros(const floating* dy, View* view) noexcept nogil:
    # of a group from its start on: the one cause of suspect sums that is common
    cdef Py_ssize_t a
    for a in range(view.reduced):
        if not largest_within(dy + a * view.groups * view.inner, view.inner, 0, 0):
            return False
    return True


cdef inline long double size_of(long double z) noexcept nogil:
    return z if z >= 0 else -z


cdef inline bint moderate(long double z, floating example) noexcept nogil:
    return (1e-27 <= z <= 1e27) if floating is float else (1e-250 <= z <= 1e250)


# ---- gradients of parameters -----------------------------------------------------------------------------------------

cdef inline apart parameter_gradients(
    const Call* c, Py_ssize_t entry, const floating* dy, const floating* x, floating* dweight, floating* dbias,
) noexcept nogil:
    # of one entry of the parameters
    cdef View view = c.view
    cdef Py_ssize_t length = view.inner // c.entries
    cdef Py_ssize_t first = entry % c.entries * length
    cdef Py_ssize_t g = entry // c.entries
    cdef Py_ssize_t a, i, at
    cdef Sum sum, product
    sum.high = sum.low = product.high = product.low = 0
    while g < view.outer * view.groups:
        for a in range(view.reduced):
            for i in range(first, first + length):
                at = start_of(&view, g) + a * view.groups * view.inner + i
                if not left_out(c.mask, at, dy[at], x[at]):
                    add(&sum, dy[at])
                    add(&product, dy[at] * normalized_wide(x[at], c.groups + g))
        g += c.period
    dweight[entry] = <floating>total_of(&product)
    dbias[entry] = <floating>total_of(&sum)


cdef inline void repair(
    const Call* c, const floating* dy, const floating* x, floating* dweight, floating* dbias,
) noexcept nogil:
    # Sums of products that left the range, or may have lost bits at its lower end, are taken again. No upstream
    # gradient at all is no such case.
    cdef Py_ssize_t entries = c.period * c.entries
    cdef Py_ssize_t size = c.view.outer * c.view.reduced * c.view.groups * c.view.inner
    cdef double least = 1e-30 if floating is float else 1e-150
    cdef double most = 3e38 if floating is float else 1e308
    cdef Py_ssize_t j
    if largest_within(dbias, entries, 0, most) and (
        largest_within(dweight, entries, least, most)
        or (largest_within(dweight, entries, 0, 0) and largest_within(dy, size, 0, 0))
    ):
        return
    for j in range(entries):
        parameter_gradients(c, j, dy, x, dweight, dbias)


cdef inline void repair_parameters(const Call* c) noexcept nogil:
    if c.double_precision:
        repair(c, <const double*>c.dy, <const double*>c.x, <double*>c.dweight, <double*>c.dbias)
    else:
        repair(c, <const float*>c.dy, <const float*>c.x, <float*>c.dweight, <float*>c.dbias)
