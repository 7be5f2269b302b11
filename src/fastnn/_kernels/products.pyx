"""Matrix products out = a·b, or out += a·b, of float32 or float64 matrices with any strides.

Design
  (A) b is copied once into panels of COLUMNS neighbouring columns, row after row. a is read where it lies, one
      broadcast at a time, unless its columns are contiguous: then blocks of ROWS rows are copied, since a cache holds
      few lines that lie a power of two apart. The caller transposes the problem where that means less work.
  (B) Every result is one sum in the order of the terms (tiles.pxd), and then the bias: bits do not depend on threads,
      on the ISA, on which operand is transposed, or on the other rows.
  (C) A task is a panel and CHUNK rows of a: its panel stays in the core's second-level cache.
  (D) The last block of rows starts early and repeats some rows, so that no row of a is read beyond its end.
"""

cimport numpy as cnp
from cython cimport floating

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.tiles cimport COLUMNS, ROWS, tile

cnp.import_array()

__all__ = ["FEWEST_ROWS", "matrix_product"]

cdef enum:
    CHUNK = 64

FEWEST_ROWS = ROWS


cdef struct Matrix:
    char* data
    Py_ssize_t row      # strides in elements
    Py_ssize_t column


cdef struct Multiply:
    Matrix a                    # IN   (m, k)
    Matrix b                    # IN   (k, n)
    Matrix out                  # OUT  (m, n)
    const void* bias            # IN   (m), or (n) if along_columns, or NULL
    void* panels                # (panels, k, width)
    const Py_ssize_t* shifts    # (k), then -1
    Py_ssize_t m
    Py_ssize_t n
    Py_ssize_t k
    Py_ssize_t width            # of a panel: COLUMNS, or half as many in float64
    Py_ssize_t chunks
    void* blocks                # (blocks of a, k, ROWS), or NULL
    bint along_columns
    bint add
    bint double_precision


cdef inline void pack_panel(Multiply* p, Py_ssize_t panel, floating example) noexcept nogil:
    cdef floating* d = <floating*>p.panels + panel * p.k * p.width
    cdef const floating* b = <const floating*>p.b.data + panel * p.width * p.b.column
    cdef Py_ssize_t n = min(p.width, p.n - panel * p.width)
    cdef Py_ssize_t k, j, part, end
    if p.b.column == 1 and n == COLUMNS:
        for k in range(p.k):
            for j in range(COLUMNS):
                d[k * COLUMNS + j] = b[k * p.b.row + j]
    elif p.b.column == 1:
        for k in range(p.k):
            for j in range(n):
                d[k * p.width + j] = b[k * p.b.row + j]
            for j in range(n, p.width):
                d[k * p.width + j] = 0
    else:
        part = 0
        while part < p.k:  # the rows of the panel that are being written stay in the first-level cache
            end = min(p.k, part + 64)
            for j in range(n):
                for k in range(part, end):
                    d[k * p.width + j] = b[k * p.b.row + j * p.b.column]
            for j in range(n, p.width):
                for k in range(part, end):
                    d[k * p.width + j] = 0
            part = end


cdef inline Py_ssize_t first_row(Multiply* p, Py_ssize_t block) noexcept nogil:
    # the last block repeats some rows
    return min(block * ROWS, p.m - ROWS)


cdef inline void pack_block(Multiply* p, Py_ssize_t block, floating example) noexcept nogil:
    cdef const floating* a = <const floating*>p.a.data + first_row(p, block)
    cdef floating* d = <floating*>p.blocks + block * p.k * ROWS
    cdef Py_ssize_t k, i
    for k in range(p.k):
        for i in range(ROWS):
            d[k * ROWS + i] = a[k * p.a.column + i]


cdef inline void add_bias(Multiply* p, floating* values, Py_ssize_t row, Py_ssize_t column) noexcept nogil:
    cdef const floating* bias = <const floating*>p.bias
    cdef Py_ssize_t n = min(p.width, p.n - column)
    cdef Py_ssize_t i, j
    for i in range(ROWS):
        for j in range(n):
            values[i * COLUMNS + j] += bias[column + j] if p.along_columns else bias[row + i]


cdef inline void store(
    Multiply* p, const floating* values, Py_ssize_t row, Py_ssize_t skip, Py_ssize_t column,
) noexcept nogil:
    # rows row + skip … row + ROWS − 1 of the tile
    cdef floating* d = <floating*>p.out.data + row * p.out.row + column * p.out.column
    cdef Py_ssize_t n = min(p.width, p.n - column)
    cdef Py_ssize_t i, j
    if p.add:
        for i in range(skip, ROWS):
            if p.out.column == 1:
                for j in range(n):
                    d[i * p.out.row + j] += values[i * COLUMNS + j]
            else:
                for j in range(n):
                    d[i * p.out.row + j * p.out.column] += values[i * COLUMNS + j]
    elif p.out.column == 1:
        for i in range(skip, ROWS):
            for j in range(n):
                d[i * p.out.row + j] = values[i * COLUMNS + j]
    elif p.out.row == 1 and skip == 0:
        for j in range(n):
            for i in range(ROWS):
                d[j * p.out.column + i] = values[i * COLUMNS + j]
    else:
        for j in range(n):
            for i in range(skip, ROWS):
                d[i * p.out.row + j * p.out.column] = values[i * COLUMNS + j]


cdef inline void multiply_chunk(Multiply* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t panel = task // p.chunks
    cdef Py_ssize_t block = task % p.chunks * (CHUNK // ROWS)
    cdef Py_ssize_t end = min((p.m + ROWS - 1) // ROWS, block + CHUNK // ROWS)
    cdef const floating* b = <const floating*>p.panels + panel * p.k * p.width
    cdef floating values[ROWS * COLUMNS]
    cdef floating start[ROWS]
    cdef Py_ssize_t row, i
    for i in range(ROWS):
        start[i] = 0
    while block < end:
        row = first_row(p, block)
        if p.blocks != NULL:
            tile(<const floating*>p.blocks + block * p.k * ROWS, 1, ROWS, b, p.shifts, start, values)
        else:
            tile(<const floating*>p.a.data + row * p.a.row, p.a.row, p.a.column, b, p.shifts, start, values)
        if p.bias != NULL:
            add_bias(p, values, row, panel * p.width)
        store(p, values, row, block * ROWS - row, panel * p.width)
        block += 1


cdef void pack_rows_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Multiply* p = <Multiply*>arguments
    if p.double_precision:
        pack_block(p, block, <double>0)
    else:
        pack_block(p, block, <float>0)


cdef void pack_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Multiply* p = <Multiply*>arguments
    if p.double_precision:
        pack_panel(p, task, <double>0)
    else:
        pack_panel(p, task, <float>0)


cdef void multiply_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Multiply* p = <Multiply*>arguments
    if p.double_precision:
        multiply_chunk(p, task, <double>0)
    else:
        multiply_chunk(p, task, <float>0)


cdef Matrix matrix_of(cnp.ndarray array) noexcept:
    cdef Matrix m
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(array)
    m.data = <char*>cnp.PyArray_DATA(array)
    m.row, m.column = cnp.PyArray_STRIDE(array, 0) // item, cnp.PyArray_STRIDE(array, 1) // item
    return m


def matrix_product(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, object bias=None, bint along_columns=True, bint add=False,
):
    """out (m, n) = a (m, k)·b (k, n), plus a bias for each column or row; or added to what is there. m ≥ FEWEST_ROWS.

    All of one dtype, aligned, with any strides that are whole elements; `out` overlaps nothing.
    """
    cdef Multiply p
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(a)
    p.a, p.b, p.out = matrix_of(a), matrix_of(b), matrix_of(out)
    p.m, p.k, p.n = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), cnp.PyArray_DIM(b, 1)
    p.bias = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray>bias)
    p.along_columns = along_columns
    p.add = add
    p.double_precision = cnp.PyArray_TYPE(a) == cnp.NPY_DOUBLE
    p.width = COLUMNS // 2 if p.double_precision else COLUMNS
    p.chunks = (p.m + CHUNK - 1) // CHUNK
    cdef Py_ssize_t panels = (p.n + p.width - 1) // p.width
    cdef Py_ssize_t blocks = (p.m + ROWS - 1) // ROWS if p.a.row == 1 else 0
    # one scratch for the panels, the blocks and the table of shifts
    cdef Py_ssize_t panel_bytes = panels * p.k * p.width * item
    cdef Py_ssize_t block_bytes = blocks * p.k * ROWS * item
    cdef cnp.npy_intp size = panel_bytes + block_bytes + (p.k + 1) * sizeof(Py_ssize_t) + 64
    cdef cnp.ndarray scratch = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
    cdef char* start = <char*>((<size_t>cnp.PyArray_DATA(scratch) + 63) & ~<size_t>63)
    cdef Py_ssize_t* shifts = <Py_ssize_t*>(start + panel_bytes + block_bytes)
    cdef Py_ssize_t k
    p.panels = start
    p.blocks = start + panel_bytes if blocks else NULL
    p.shifts = shifts
    with nogil:
        for k in range(p.k):
            shifts[k] = k * p.width
        shifts[p.k] = -1
        parallel_for(pack_task, &p, panels, 2.0 * p.k * p.n * item)
        parallel_for(pack_rows_task, &p, blocks, 2.0 * p.k * p.m * item)
        # work in bytes: a core multiplies about eight numbers in the time it moves a byte
        parallel_for(multiply_task, &p, panels * p.chunks, <double>p.m * p.k * p.n / 8 * (item / 4))
