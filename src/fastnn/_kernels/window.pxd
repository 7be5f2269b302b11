# The geometry of sliding windows along one axis of an image, shared by convolution and pooling.

ctypedef struct Axis:
    Py_ssize_t size      # of the input
    Py_ssize_t kernel
    Py_ssize_t stride
    Py_ssize_t padding   # before the first element; what lies behind the last follows from `out`
    Py_ssize_t dilation
    Py_ssize_t out       # number of windows


cdef inline Axis axis_of(tuple numbers) except *:
    cdef Axis axis
    axis.size, axis.kernel, axis.stride, axis.padding, axis.dilation, axis.out = numbers
    return axis


cdef inline Py_ssize_t position(const Axis* axis, Py_ssize_t o, Py_ssize_t k) noexcept nogil:
    """Where element k of window o lies in the input; outside [0, size) in the padding."""
    return o * axis.stride - axis.padding + k * axis.dilation


cdef inline Py_ssize_t first_inside(const Axis* axis, Py_ssize_t k) noexcept nogil:
    """The first window whose element k is not before the input."""
    cdef Py_ssize_t gap = axis.padding - k * axis.dilation
    if gap <= 0:
        return 0
    gap = (gap + axis.stride - 1) // axis.stride
    return gap if gap < axis.out else axis.out


cdef inline Py_ssize_t end_inside(const Axis* axis, Py_ssize_t k) noexcept nogil:
    """One more than the last window whose element k is not behind the input; at least `first_inside`."""
    cdef Py_ssize_t gap = axis.size - 1 + axis.padding - k * axis.dilation
    cdef Py_ssize_t first = first_inside(axis, k)
    if gap < 0:
        return first
    gap = gap // axis.stride + 1
    if gap > axis.out:
        gap = axis.out
    return gap if gap > first else first
