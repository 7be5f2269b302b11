# Running statistics: groups from them (evaluation) and batches into them (training).
#
#   (A) A group of evaluation mode is a group like any other: shift = running_mean, lo = 0 and
#       rstd = 1/√(running_var + eps).
#   (B) The update is computed in double and rounded once. Several groups of one channel (instance norm) count equally,
#       as in PyTorch; without any counted element nothing is updated, and a single one has no variance.

from cython cimport floating
from libc.math cimport sqrt

from fastnn._kernels.lanes cimport dd_rsqrt, two_sum
from fastnn._kernels.norm cimport Group, Population, in_range, inverse_power

cdef struct Running:
    void* mean              # IN   (channels); in training INOUT
    void* variance          # likewise
    Py_ssize_t channels
    bint double_precision
    double momentum         # the batch's share


cdef inline void fill_group(floating mean, floating variance, double eps, Group* group) noexcept nogil:
    cdef double guarded = variance + eps
    cdef double scale = 1
    if not in_range(variance, guarded, mean):
        scale = inverse_power(sqrt(guarded), mean)
    group.shift = mean * scale
    group.lo = 0
    group.scale = scale
    if floating is float and scale == 1:
        group.rstd = 1 / sqrt(guarded)      # has bits to spare
    else:
        group.rstd = dd_rsqrt(two_sum(variance * scale * scale, eps * scale * scale))


cdef inline void fill_groups(const Running* running, double eps, Group* groups) noexcept nogil:
    # OUT groups (channels)
    cdef Py_ssize_t c
    if running.double_precision:
        for c in range(running.channels):
            fill_group((<const double*>running.mean)[c], (<const double*>running.variance)[c], eps, groups + c)
    else:
        for c in range(running.channels):
            fill_group((<const float*>running.mean)[c], (<const float*>running.variance)[c], eps, groups + c)


cdef inline void update_channel(
    const Population* population,           # IN     the channel's, `stride` apart
    Py_ssize_t instances, Py_ssize_t stride, double momentum,
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
            variance_sum += population.variance * (population.count / (population.count - 1))
            variances += 1
        population += stride
    if means:
        mean[0] = <floating>((1 - momentum) * mean[0] + momentum * (mean_sum / means))
    if variances:
        variance[0] = <floating>((1 - momentum) * variance[0] + momentum * (variance_sum / variances))


cdef inline void update_running(const Running* running, const Population* population, Py_ssize_t groups) noexcept nogil:
    # IN population (instances, channels), `groups` in all
    cdef Py_ssize_t channels = running.channels
    cdef Py_ssize_t instances = groups // channels
    cdef Py_ssize_t c
    if running.double_precision:
        for c in range(channels):
            update_channel(
                population + c, instances, channels, running.momentum, <double*>running.mean + c,
                <double*>running.variance + c)
    else:
        for c in range(channels):
            update_channel(
                population + c, instances, channels, running.momentum, <float*>running.mean + c,
                <float*>running.variance + c)
