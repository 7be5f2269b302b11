"""Running statistics: groups from them (evaluation) and batches into them (training).

Design
  (A) A group of evaluation mode is a group like any other: shift = running_mean, lo = 0, rstd = 1/√(running_var + eps).
  (B) The update is computed in double and rounded once. Several groups of one channel (instance norm) count equally,
      as in PyTorch; without any counted element nothing is updated, and a single one has no variance.
"""

cimport numpy as cnp
from cython cimport floating
from libc.math cimport sqrt

from fastnn._kernels.lanes cimport dd_rsqrt, two_sum
from fastnn._kernels.norm cimport Group, Population, in_range, inverse_power

cnp.import_array()

__all__ = ["groups_from_running", "update_running"]


cdef void fill_groups(
    const floating* mean,       # IN   (channels)
    const floating* variance,   # IN   (channels)
    double eps, Py_ssize_t channels,
    Group* groups,              # OUT  (channels)
) noexcept nogil:
    cdef Py_ssize_t c
    cdef double scale
    for c in range(channels):
        scale = 1
        if not in_range(variance[c], variance[c] + eps, mean[c]):
            scale = inverse_power(sqrt(variance[c] + eps), mean[c])
        groups[c].shift = mean[c] * scale
        groups[c].lo = 0
        groups[c].rstd = dd_rsqrt(two_sum(variance[c] * scale * scale, eps * scale * scale))
        groups[c].scale = scale


cdef void update(
    const Population* population,       # IN     (instances, channels)
    Py_ssize_t instances, Py_ssize_t channels, double momentum,
    floating* mean, floating* variance,  # INOUT  (channels)
) noexcept nogil:
    cdef Py_ssize_t c, i
    cdef double mean_sum, variance_sum
    cdef Py_ssize_t means, variances
    cdef const Population* one
    for c in range(channels):
        mean_sum = 0
        variance_sum = 0
        means = 0
        variances = 0
        for i in range(instances):
            one = population + i * channels + c
            if one.count >= 1:
                mean_sum += one.mean
                means += 1
            if one.count >= 2:
                variance_sum += one.variance * (one.count / (one.count - 1))
                variances += 1
        if means:
            mean[c] = <floating>((1 - momentum) * mean[c] + momentum * (mean_sum / means))
        if variances:
            variance[c] = <floating>((1 - momentum) * variance[c] + momentum * (variance_sum / variances))


def groups_from_running(cnp.ndarray mean, cnp.ndarray variance, double eps):
    """Groups, float64 (channels, 4), that normalise with the given statistics; arrays as the gate leaves them."""
    cdef cnp.npy_intp shape[2]
    shape[0] = cnp.PyArray_SIZE(mean)
    shape[1] = sizeof(Group) // sizeof(double)
    groups = cnp.PyArray_EMPTY(2, shape, cnp.NPY_DOUBLE, 0)
    cdef Group* target = <Group*>cnp.PyArray_DATA(<cnp.ndarray>groups)
    if cnp.PyArray_TYPE(mean) == cnp.NPY_DOUBLE:
        fill_groups(
            <const double*>cnp.PyArray_DATA(mean), <const double*>cnp.PyArray_DATA(variance), eps, shape[0], target)
    else:
        fill_groups(
            <const float*>cnp.PyArray_DATA(mean), <const float*>cnp.PyArray_DATA(variance), eps, shape[0], target)
    return groups


def update_running(cnp.ndarray population, cnp.ndarray mean, cnp.ndarray variance, double momentum):
    """mean, variance ← (1 − momentum)·old + momentum·batch in place, the batch's variance unbiased.

    population, float64 (instances · channels, 3), is that of forward; arrays as the gate leaves them.
    """
    cdef Py_ssize_t channels = cnp.PyArray_SIZE(mean)
    cdef Py_ssize_t instances = cnp.PyArray_DIM(population, 0) // channels if channels else 0
    cdef const Population* source = <const Population*>cnp.PyArray_DATA(population)
    if cnp.PyArray_TYPE(mean) == cnp.NPY_DOUBLE:
        update(
            source, instances, channels, momentum, <double*>cnp.PyArray_DATA(mean),
            <double*>cnp.PyArray_DATA(variance))
    else:
        update(
            source, instances, channels, momentum, <float*>cnp.PyArray_DATA(mean),
            <float*>cnp.PyArray_DATA(variance))
