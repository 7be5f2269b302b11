# What entry points ask of an array before they take its pointer.

cimport numpy as cnp

from fastnn._kernels._memory cimport empty


cdef inline bint regular(object array) noexcept:
    """A plain float32 or float64 ndarray, native, aligned and C-contiguous: what kernels read as it is."""
    cdef int dtype
    if not cnp.PyArray_CheckExact(array) or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array):
        return False
    dtype = cnp.PyArray_TYPE(<cnp.ndarray>array)
    return dtype == cnp.NPY_FLOAT or dtype == cnp.NPY_DOUBLE


cdef inline bint same_form(cnp.ndarray a, object b) noexcept:
    """Whether `b` is regular and has the dtype and shape of `a`."""
    return (
        regular(b)
        and cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(<cnp.ndarray>b)
        and cnp.PyArray_SAMESHAPE(a, <cnp.ndarray>b)
    )


cdef inline bint shifted(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two regular arrays of one form overlap without being the same memory."""
    cdef char* p = <char*>cnp.PyArray_DATA(a)
    cdef char* q = <char*>cnp.PyArray_DATA(b)
    return p != q and p < q + cnp.PyArray_NBYTES(b) and q < p + cnp.PyArray_NBYTES(a)


cdef inline cnp.ndarray like(cnp.ndarray a):
    """A new array of the form of `a`."""
    return empty(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a))


cdef inline bint disjoint(object a, object b) noexcept:
    """Whether two C-contiguous arrays share no memory; None has none."""
    cdef char* p
    cdef char* q
    if a is None or b is None:
        return True
    p, q = <char*>cnp.PyArray_DATA(<cnp.ndarray>a), <char*>cnp.PyArray_DATA(<cnp.ndarray>b)
    return p >= q + cnp.PyArray_NBYTES(<cnp.ndarray>b) or q >= p + cnp.PyArray_NBYTES(<cnp.ndarray>a)
