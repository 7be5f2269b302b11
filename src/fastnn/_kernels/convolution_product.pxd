# The numbers of one product of weights and planes, which the two ways to compute it share.

from fastnn._kernels._plan cimport Finish
from fastnn._kernels.planes cimport Strides

cdef struct Product:
    const void* planes
    const void* a               # (groups, blocks of channels, terms, channels of a block)
    const void* bias            # (groups · rows) or NULL
    const Py_ssize_t* shifts    # (terms), then -1
    void* out
    const void* residual        # IN   like out, is added to it; or NULL
    Finish finish
    Strides at
    Py_ssize_t first            # image
    Py_ssize_t images
    Py_ssize_t sizes[2]         # rows and columns of the result
    Py_ssize_t rows             # result channels of one group
    Py_ssize_t block            # channels of a block
    Py_ssize_t terms
    Py_ssize_t group            # planes' elements of one group of channels
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t chunk            # results q, or pixels, of one task
    Py_ssize_t chunks           # of one group
    bint double_precision


cdef inline Py_ssize_t blocks_of(const Product* p) noexcept nogil:
    return (p.rows + p.block - 1) // p.block
