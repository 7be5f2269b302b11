# Groups that have no unit in which all goes well: weights or gradients near the ends of the data's range, or elements
# outside a mask that are infinite or so far off that x̂ is. One element at a time, in long double, whose range has room
# for every product here (on x86-64, and on Linux elsewhere). It is slow, and hardly ever wanted.
#
# What a mask leaves out has no part in anything but its own results, if its gradient is zero.

from cython cimport floating
from libc.math cimport INFINITY, fabs, isfinite
from libc.stdlib cimport calloc, free

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

    /* The largest magnitudes of dy, dy·weight (w may be NULL) and x·scale − shift, compared likewise, each rounded. */
    #define FASTNN_MAGNITUDES(NAME, NUMBER, INTEGER) \\
      static inline void NAME( \\
          const NUMBER *dy, const NUMBER *x, const NUMBER *w, Py_ssize_t n, NUMBER scale, NUMBER shift, NUMBER *y) { \\
        INTEGER each[3], largest[3] = {0, 0, 0}; \\
        for (Py_ssize_t i = 0; i < n; i++) { \\
          const NUMBER values[3] = {dy[i], w ? dy[i] * w[i] : dy[i], x[i] * scale - shift}; \\
          memcpy(each, values, sizeof each); \\
          for (int k = 0; k < 3; k++) { \\
            each[k] &= (INTEGER)-1 >> 1; \\
            largest[k] = each[k] > largest[k] ? each[k] : largest[k]; \\
          } \\
        } \\
        memcpy(y, largest, sizeof largest); \\
      }
    FASTNN_MAGNITUDES(fastnn_magnitudes_float, float, unsigned int)
    FASTNN_MAGNITUDES(fastnn_magnitudes_double, double, unsigned long long)
    """
    bint largest_float_within "fastnn_largest_float" (
        const float* x, Py_ssize_t n, float least, float most) noexcept nogil
    bint largest_double_within "fastnn_largest_double" (
        const double* x, Py_ssize_t n, double least, double most) noexcept nogil
    void magnitudes_float "fastnn_magnitudes_float" (
        const float* dy, const float* x, const float* w, Py_ssize_t n, float scale, float shift, float* y,
    ) noexcept nogil
    void magnitudes_double "fastnn_magnitudes_double" (
        const double* dy, const double* x, const double* w, Py_ssize_t n, double scale, double shift, double* y,
    ) noexcept nogil


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


cdef inline bint all_at_mean(const floating* dy, const floating* x, Py_ssize_t n, const Group* group) noexcept nogil:
    # whether elements of a run that have an upstream gradient equal their mean
    cdef Py_ssize_t i
    for i in range(n):
        if dy[i] != 0 and x[i] * group.scale != group.shift:
            return False
    return group.lo == 0


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
    if plainly_ordinary(dy + start, x + start, weight, &view, c.entries, rstd, scale, <double>shift):
        return False
    if weight != NULL:
        for i in range(c.entries):
            joined = joined and may_join(rstd * weight[i], weight[i], rstd, dy[0])
    if not joined or not rstd <= most_of(dy[0]):
        return True
    for a in range(view.reduced):
        for i in range(view.inner):
            at = start + a * view.groups * view.inner + i
            gradient = <long double>dy[at] * (weight[i // length] if weight != NULL else 1)
            farthest = max(farthest, size_of(<long double>x[at] * scale - shift))
            plain = max(plain, size_of(dy[at]))
            weighted = max(weighted, size_of(gradient))
    return plain != 0 and not products_within(plain, weighted, farthest, rstd, 1e27 if floating is float else 1e250)


cdef inline bint plainly_ordinary(
    const floating* dy, const floating* x, const floating* weight, View* view, Py_ssize_t entries, double rstd,
    double scale, double shift,
) noexcept nogil:
    # Whether a glance at the largest magnitudes settles it: what makes sums suspect most often is that there is no
    # upstream gradient, all elements are equal, or all weights zero. dy and x at the group's start.
    cdef floating some[3]
    cdef double gradient = 0
    cdef double weighted = 0
    cdef double farthest = 0
    cdef Py_ssize_t _a
    if not rstd <= most_of(x[0]):
        return False
    if weight != NULL and not (
        entries == view.inner and largest_within(weight, entries, 0, <floating>(most_of(x[0]) / max(<double>1, rstd)))
    ):
        return False
    for _a in range(view.reduced):
        if floating is float:
            magnitudes_float(dy, x, weight, view.inner, <float>scale, <float>shift, some)
        else:
            magnitudes_double(dy, x, weight, view.inner, scale, shift, some)
        if not (some[0] < INFINITY and some[1] < INFINITY and some[2] < INFINITY):
            return False
        gradient, weighted, farthest = max(gradient, some[0]), max(weighted, some[1]), max(farthest, some[2])
        dy += view.groups * view.inner
        x += view.groups * view.inner
    if gradient == 0:
        return True
    if weight == NULL or not largest_within(weight, entries, 0, 0):
        if weighted == 0 or (weight != NULL and not largest_within(weight, entries, 1e-6, 1e6)):
            return False        # of a weight's product with dy, or with rstd, there may be no more than zero
    if farthest == 0 and scale != 1:
        return False
    # within narrower bounds, for each of these is rounded
    return products_within(gradient, weighted, farthest, rstd, 1e26 if floating is float else 1e249)


cdef inline bint products_within(
    long double plain, long double weighted, long double farthest, double rstd, double most,
) noexcept nogil:
    # Whether the largest dy, dy·weight and x − shift of a group, multiplied with each other and with rstd as a gradient
    # takes them, stay within `most` and its inverse; zeros do.
    return (
        fits(plain * farthest, most) and fits(farthest * rstd, most)
        and fits(weighted, most) and fits(weighted * rstd, most)
        and fits(weighted * farthest, most) and fits(weighted * farthest * rstd * rstd * rstd, most))


cdef inline bint fits(long double z, double most) noexcept nogil:
    return z == 0 or 1 / most <= z <= most


cdef inline long double size_of(long double z) noexcept nogil:
    return z if z >= 0 else -z


# ---- gradients of parameters -----------------------------------------------------------------------------------------

cdef struct Retaken:
    # a sum for one entry of the parameters
    Sum sum
    bint wanted


cdef inline apart retake(
    const Call* c, const floating* dy, const floating* x, Retaken* products, Retaken* sums,
) noexcept nogil:
    # products: Σ dy·x̂, sums: Σ dy, of each entry; one that is NaN is known
    cdef View view = c.view
    cdef Py_ssize_t length = view.inner // c.entries
    cdef Py_ssize_t g, a, k, i, at
    cdef Retaken* product
    cdef Retaken* sum
    for g in range(view.outer * view.groups):
        for a in range(view.reduced):
            for k in range(c.entries):
                product = products + g % c.period * c.entries + k
                sum = sums + g % c.period * c.entries + k
                if not (product.wanted and product.sum.high == product.sum.high) and not (
                    sum.wanted and sum.sum.high == sum.sum.high
                ):
                    continue
                for i in range(k * length, (k + 1) * length):
                    at = start_of(&view, g) + a * view.groups * view.inner + i
                    if not left_out(c.mask, at, dy[at], x[at]):
                        add(&sum.sum, dy[at])
                        add(&product.sum, dy[at] * normalized_wide(x[at], c.groups + g))


cdef inline bint choose(const floating* gradients, Py_ssize_t n, bint every, Retaken* retaken) noexcept nogil:
    # every one, or those that are not finite; whether there are any
    cdef double most = 3e38 if floating is float else 1e308
    cdef bint some = False
    cdef Py_ssize_t j
    for j in range(n):
        retaken[j].wanted = every or not fabs(gradients[j]) <= most
        some = some or retaken[j].wanted
    return some


cdef inline void put(const Retaken* retaken, Py_ssize_t n, floating* gradients) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        if retaken[j].wanted:
            gradients[j] = <floating>total_of(&retaken[j].sum)


cdef inline int repair(
    const Call* c, const floating* dy, const floating* x, floating* dweight, floating* dbias,
) noexcept nogil:
    # Sums of products that left the range, or may have lost bits at its lower end, are taken again; those of float data
    # are double's, which has room there. No upstream gradient at all is no such case. −1 without memory.
    cdef Py_ssize_t entries = c.period * c.entries
    cdef Py_ssize_t size = c.view.outer * c.view.reduced * c.view.groups * c.view.inner
    cdef double least = 0 if floating is float else 1e-150
    cdef double most = 3e38 if floating is float else 1e308
    cdef bint fine = largest_within(dweight, entries, least, most) or (
        largest_within(dweight, entries, 0, 0) and largest_within(dy, size, 0, 0))
    cdef bint some
    cdef Retaken* retaken
    if fine and largest_within(dbias, entries, 0, most):
        return 0
    retaken = <Retaken*>calloc(2 * entries, sizeof(Retaken))
    if retaken == NULL:
        return -1
    some = choose(dweight, entries, not fine and largest_within(dweight, entries, 0, most), retaken)
    some = choose(dbias, entries, False, retaken + entries) or some
    if some:
        retake(c, dy, x, retaken, retaken + entries)
        put(retaken, entries, dweight)
        put(retaken + entries, entries, dbias)
    free(retaken)
    return 0


cdef inline int repair_parameters(const Call* c) noexcept nogil:
    if c.double_precision:
        return repair(c, <const double*>c.dy, <const double*>c.x, <double*>c.dweight, <double*>c.dbias)
    else:
        return repair(c, <const float*>c.dy, <const float*>c.x, <float*>c.dweight, <float*>c.dbias)
