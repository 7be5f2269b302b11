# Running statistics: groups from them (evaluation) and batches into them (training).
#
#   (A) A group of evaluation mode is a group like any other: shift = running_mean, lo = 0 and
#       rstd = 1/√(running_var + eps).
#   (B) The update is computed in double and rounded once. Several groups of one channel (instance norm) count equally,
#       as in PyTorch; without any counted element nothing is updated, and a single one has no variance.

from cython cimport floating
from libc.math cimport fabs, sqrt

from fastnn._kernels.lanes cimport dd, dd_rsqrt, two_sum
from fastnn._kernels.norm cimport LARGE, SIDE, Group, Population, in_range, inverse_power, most_of, usual

cdef struct Running:
    void* mean              # IN   (channels); in training INOUT
    void* variance          # likewise
    Py_ssize_t channels
    bint double_precision
    double momentum         # the batch's share


cdef inline Group scaled_group(floating mean, floating variance, double eps) noexcept nogil:
    # of a channel whose variance is not fit for the data's own unit, and of any in double precision
    cdef Group group
    cdef dd rstd
    cdef double scale = 1
    if not in_range(variance, variance + eps, mean):
        scale = inverse_power(sqrt(variance + eps), mean)
    if not fabs(mean) * scale <= most_of(mean):     # differences might overflow
        scale = 0.25
    group.shift = mean * scale
    group.lo = group.lo_low = 0
    rstd = dd_rsqrt(two_sum(variance * scale * scale, eps * scale * scale))
    group.rstd = rstd.high
    group.rstd_low = rstd.low if floating is double else 0
    group.scale = scale
    return group


cdef inline void plain_groups(
    const float* mean, const float* variance, double eps, Py_ssize_t channels, Group* groups,
) noexcept nogil:
    # up to SIDE channels side by side, as vectors; a root in double has bits to spare for float data
    cdef double guarded[SIDE]
    cdef double rstd[SIDE]
    cdef bint fits[SIDE]
    cdef Py_ssize_t misfits = 0
    cdef Py_ssize_t j
    for j in range(SIDE):
        guarded[j] = variance[min(j, channels - 1)] + eps
        rstd[j] = 1 / sqrt(guarded[j])
        fits[j] = usual(guarded[j]) & (fabs(mean[min(j, channels - 1)]) < LARGE)
        misfits += 0 if fits[j] else 1
    for j in range(channels):
        groups[j] = Group(mean[j], 0, rstd[j], 1, 0, 0)
    if misfits:
        for j in range(channels):
            if not fits[j]:         # the others' bits do not depend on their neighbours
                groups[j] = scaled_group(mean[j], variance[j], eps)


cdef inline void fill_groups(const Running* running, double eps, Group* groups) noexcept nogil:
    # OUT groups (channels)
    cdef Py_ssize_t channels = running.channels
    cdef Py_ssize_t c = 0
    if running.double_precision:
        for c in range(channels):
            groups[c] = scaled_group((<const double*>running.mean)[c], (<const double*>running.variance)[c], eps)
        return
    while c < channels:
        plain_groups(
            <const float*>running.mean + c, <const float*>running.variance + c, eps,
            min(<Py_ssize_t>SIDE, channels - c), groups + c)
        c += SIDE


cdef struct Unbiased:
    # what takes a variance over so many elements to the unbiased one; mostly the same for all channels
    double count
    double factor


cdef inline double unbiased_factor(Unbiased* last, double count) noexcept nogil:
    if count != last.count:
        last.count = count
        last.factor = count / (count - 1)
    return last.factor


cdef inline void update_channel(
    const Population* population,           # IN     the channel's, `stride` apart
    Py_ssize_t instances, Py_ssize_t stride, double momentum, Unbiased* last,
    floating* mean, floating* variance,     # INOUT
) noexcept nogil:
    cdef double mean_sum = 0
    cdef double variance_sum = 0
    cdef Py_ssize_t means = 0
    cdef Py_ssize_t variances = 0
    cdef Py_ssize_t _i
    for _i in range(instances):
        if population.count >= 1:
            mean_sum += population.mean
            means += 1
        if population.count >= 2:
            variance_sum += population.variance * unbiased_factor(last, population.count)
            variances += 1
        population += stride
    if means > 1:           # a quotient costs more than a branch that is always taken alike
        mean_sum /= means
    if variances > 1:
        variance_sum /= variances
    if means:
        mean[0] = <floating>((1 - momentum) * mean[0] + momentum * mean_sum)
    if variances:
        variance[0] = <floating>((1 - momentum) * variance[0] + momentum * variance_sum)


cdef inline void update_running(
    const Running* running, const Population* population, Py_ssize_t instances, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    # IN population (instances, channels); channels first … last − 1
    cdef Py_ssize_t channels = running.channels
    cdef Unbiased of_last
    cdef Py_ssize_t c
    of_last.count = of_last.factor = 0
    if running.double_precision:
        for c in range(first, last):
            update_channel(
                population + c, instances, channels, running.momentum, &of_last, <double*>running.mean + c,
                <double*>running.variance + c)
    else:
        for c in range(first, last):
            update_channel(
                population + c, instances, channels, running.momentum, &of_last, <float*>running.mean + c,
                <float*>running.variance + c)
