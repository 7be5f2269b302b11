# Which view (O, A, S, I) of an array a norm takes, and which of the two kernel families then runs.
#
# All norms are one operation over different axes. A C-ordered array is seen as outer × reduced × groups × inner: one
# group of statistics for each (o, s), over all a and i. *Rows* kernels reduce along contiguous memory, *columns*
# kernels across it (i is then a few elements or one). A new norm is a new view here, not a new kernel.

cimport numpy as cnp

from fastnn._kernels.norm cimport View
from fastnn._kernels.norm_call cimport Call

cdef enum:
    # With fewer contiguous elements than this to reduce, and more than one run of them, columns kernels are quicker.
    SHORT_RUN = 16


cdef inline Py_ssize_t product(const cnp.npy_intp* shape, int first, int last) noexcept nogil:
    # of the lengths of axes first … last − 1
    cdef Py_ssize_t n = 1
    cdef int axis
    for axis in range(first, last):
        n *= shape[axis]
    return n


cdef inline void trailing_view(Call* c, const cnp.npy_intp* shape, int ndim, int axes) noexcept nogil:
    # layer and RMS norm: one group for each row of the last `axes` axes; each place in a row has its own weight
    c.view = View(1, 1, product(shape, 0, ndim - axes), product(shape, ndim - axes, ndim))
    c.rows, c.entries, c.period = True, c.view.inner, 1


cdef inline void batch_view(Call* c, const cnp.npy_intp* shape, int ndim, int channel_axis) noexcept nogil:
    # batch norm: one group for each channel, over everything else
    c.view = View(1, product(shape, 0, channel_axis), shape[channel_axis], product(shape, channel_axis + 1, ndim))
    c.rows, c.entries, c.period = c.view.inner != 1, 1, shape[channel_axis]


cdef inline void group_view(
    Call* c, const cnp.npy_intp* shape, int ndim, int channel_axis, Py_ssize_t groups,
) noexcept nogil:
    # Group norm: one group for each `groups`-th of the channels of each sample, neighbours together; instance norm has
    # as many groups as channels. Where a group is one run of memory, samples and groups are one axis.
    cdef Py_ssize_t before = product(shape, 1, channel_axis)
    cdef Py_ssize_t after = product(shape, channel_axis + 1, ndim)
    cdef Py_ssize_t each = shape[channel_axis] // groups if groups > 0 else 1
    c.view = View(shape[0], before, groups, each * after)
    c.rows, c.entries, c.period = after != 1 or before == 1, each, groups
    if before == 1:
        c.view = View(1, 1, shape[0] * groups, each * after)


cdef inline bint axes_view(Call* c, const cnp.npy_intp* shape, int ndim, const bint* reduced) noexcept nogil:
    # Any axes; False where the reduced axes alternate with the others more often than a view can follow. As kept ×
    # reduced × kept × reduced from the right, absent ones of length 1; neighbouring axes of one kind are one axis, and
    # axes of length 1 are of no kind.
    cdef Py_ssize_t lengths[4]
    cdef int place = 3
    cdef int axis
    lengths[0] = lengths[1] = lengths[2] = lengths[3] = 1
    for axis in range(ndim - 1, -1, -1):
        if shape[axis] == 1:
            continue
        if reduced[axis] != (place % 2 == 1):
            place -= 1
        if place < 0:
            return False
        lengths[place] *= shape[axis]
    c.view = View(lengths[0], lengths[1], lengths[2], lengths[3])
    c.rows, c.entries, c.period = lengths[1] == 1 or lengths[3] >= SHORT_RUN, 1, 1
    return True
