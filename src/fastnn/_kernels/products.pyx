"""Matrix products out = a·b, or out += a·b, of float32 or float64 matrices with any strides.

Design
  (A) b is copied once into panels of COLUMNS neighbouring columns, row after row. a is read where it lies, one
      broadcast at a time, unless its columns are contiguous: then blocks of ROWS rows are copied, since a cache holds
      few lines that lie a power of two apart. The problem is transposed where that means less work.
  (B) Every result is one sum in the order of the terms (tiles.pxd), and then the bias: bits do not depend on threads,
      on the ISA, on which operand is transposed, or on the other rows.
  (C) A task is a panel and CHUNK rows of a, or with many panels all rows: it makes its panel, which then stays in the
      core's second-level cache.
  (D) The last block of rows starts early and repeats some rows, so that no row of a is read beyond its end; fewer than
      ROWS rows are copied and padded.
  (E) Up to NARROW columns make one narrow panel: a product of a matrix and a vector is bound by reading the matrix.
"""

cimport numpy as cnp
from cython cimport floating

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.gate cimport regular
from fastnn._kernels.tiles cimport COLUMNS, NARROW, ROWS, tile

cnp.import_array()

__all__ = ["linear_product", "matrix_product"]

cdef enum:
    CHUNK = 64
    MANY = 16   # panels, with which a task makes its own

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
    Py_ssize_t width            # of a panel: COLUMNS, or half as many in float64, or NARROW
    Py_ssize_t panel_count
    Py_ssize_t chunks           # of rows; 1 if a task makes its panel
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
    return min(block * ROWS, max(p.m - ROWS, <Py_ssize_t>0))


cdef inline void pack_block(Multiply* p, Py_ssize_t block, floating example) noexcept nogil:
    cdef const floating* a = <const floating*>p.a.data + first_row(p, block) * p.a.row
    cdef floating* d = <floating*>p.blocks + block * p.k * ROWS
    cdef Py_ssize_t k, i
    for k in range(p.k):
        if p.m >= ROWS and p.a.row == 1:
            for i in range(ROWS):
                d[k * ROWS + i] = a[k * p.a.column + i]
        else:
            for i in range(ROWS):
                d[k * ROWS + i] = a[k * p.a.column + i * p.a.row] if i < p.m else <floating>0.0


cdef inline void add_bias(Multiply* p, floating* values, Py_ssize_t row, Py_ssize_t column) noexcept nogil:
    cdef const floating* bias = <const floating*>p.bias
    cdef Py_ssize_t n = min(p.width, p.n - column)
    cdef Py_ssize_t rows = min(<Py_ssize_t>ROWS, p.m)
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(n):
            values[i * COLUMNS + j] += bias[column + j] if p.along_columns else bias[row + i]


cdef inline void store(
    Multiply* p, const floating* values, Py_ssize_t row, Py_ssize_t skip, Py_ssize_t column,
) noexcept nogil:
    # rows row + skip … row + ROWS − 1 of the tile
    cdef floating* d = <floating*>p.out.data + row * p.out.row + column * p.out.column
    cdef Py_ssize_t n = min(p.width, p.n - column)
    cdef Py_ssize_t rows = min(<Py_ssize_t>ROWS, p.m)
    cdef Py_ssize_t i, j
    if p.add:
        for i in range(skip, rows):
            if p.out.column == 1:
                for j in range(n):
                    d[i * p.out.row + j] += values[i * COLUMNS + j]
            else:
                for j in range(n):
                    d[i * p.out.row + j * p.out.column] += values[i * COLUMNS + j]
    elif p.out.column == 1:
        for i in range(skip, rows):
            for j in range(n):
                d[i * p.out.row + j] = values[i * COLUMNS + j]
    elif p.out.row == 1 and skip == 0 and rows == ROWS:
        for j in range(n):
            for i in range(ROWS):
                d[j * p.out.column + i] = values[i * COLUMNS + j]
    else:
        for j in range(n):
            for i in range(skip, rows):
                d[i * p.out.row + j * p.out.column] = values[i * COLUMNS + j]


cdef inline void multiply_chunk(Multiply* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t panel = task // p.chunks
    cdef Py_ssize_t blocks = (p.m + ROWS - 1) // ROWS
    cdef Py_ssize_t block = task % p.chunks * (CHUNK // ROWS)
    cdef Py_ssize_t end = blocks if p.chunks == 1 else min(blocks, block + CHUNK // ROWS)
    cdef const floating* b = <const floating*>p.panels + panel * p.k * p.width
    cdef const floating* a
    cdef floating values[ROWS * COLUMNS]
    cdef floating start[ROWS]
    cdef Py_ssize_t i, row, a_row, a_column
    if p.chunks == 1:
        pack_panel(p, panel, example)
    for i in range(ROWS):
        start[i] = 0
    while block < end:
        row = first_row(p, block)
        if p.blocks != NULL:
            a, a_row, a_column = <const floating*>p.blocks + block * p.k * ROWS, 1, ROWS
        else:
            a, a_row, a_column = <const floating*>p.a.data + row * p.a.row, p.a.row, p.a.column
        if p.width == NARROW:
            tile(a, a_row, a_column, b, p.shifts, start, values, NARROW)
        elif floating is float:
            tile(a, a_row, a_column, b, p.shifts, start, values, COLUMNS)
        else:
            tile(a, a_row, a_column, b, p.shifts, start, values, COLUMNS // 2)
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


cdef inline Matrix transposed(Matrix m) noexcept:
    m.row, m.column = m.column, m.row
    return m


cdef inline double cost(Py_ssize_t m, Py_ssize_t n, Matrix* b) noexcept:
    # time of each term, about: tiles of results, and the copy of b, slower if its columns are the contiguous ones
    cdef Py_ssize_t width = NARROW if n <= NARROW else COLUMNS
    return ((m + ROWS - 1) // ROWS) * ((n + width - 1) // width) * width / 4 + n * (0.5 if b.column == 1 else 4)


cdef void run(Multiply* p, Py_ssize_t item, bint along_columns) except *:
    # a, b, out, bias, m, n, k, add and double_precision are set
    cdef Matrix kept
    cdef cnp.npy_intp size
    cdef Py_ssize_t blocks, panel_bytes, block_bytes, k
    cdef Py_ssize_t* shifts
    cdef char* start
    cdef Matrix turned = transposed(p.a)
    p.along_columns = along_columns
    if cost(p.n, p.m, &turned) < cost(p.m, p.n, &p.b):
        kept = p.a
        p.a, p.b, p.out = transposed(p.b), transposed(kept), transposed(p.out)
        p.m, p.n = p.n, p.m
        p.along_columns = not along_columns
    if p.m == 0 or p.n == 0:
        return
    p.width = COLUMNS // 2 if p.double_precision else COLUMNS
    if p.n <= NARROW:
        p.width = NARROW
    p.panel_count = (p.n + p.width - 1) // p.width
    p.chunks = 1 if p.panel_count >= MANY else (p.m + CHUNK - 1) // CHUNK
    blocks = (p.m + ROWS - 1) // ROWS if p.a.row == 1 or p.m < ROWS else 0
    # one scratch for the panels, the blocks and the table of shifts
    panel_bytes = p.panel_count * p.k * p.width * item
    block_bytes = blocks * p.k * ROWS * item
    size = panel_bytes + block_bytes + (p.k + 1) * sizeof(Py_ssize_t) + 64
    cdef cnp.ndarray scratch = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
    start = <char*>((<size_t>cnp.PyArray_DATA(scratch) + 63) & ~<size_t>63)
    shifts = <Py_ssize_t*>(start + panel_bytes + block_bytes)
    p.panels = start
    p.blocks = start + panel_bytes if blocks else NULL
    p.shifts = shifts
    with nogil:
        for k in range(p.k):
            shifts[k] = k * p.width
        shifts[p.k] = -1
        if p.chunks > 1:
            parallel_for(pack_task, p, p.panel_count, 2.0 * p.k * p.n * item)
        parallel_for(pack_rows_task, p, blocks, 2.0 * p.k * p.m * item)
        # work in bytes: a core multiplies about eight numbers in the time it moves a byte
        parallel_for(multiply_task, p, p.panel_count * p.chunks, <double>p.m * p.k * p.n / 8 * (item / 4))


def matrix_product(
    cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, object bias=None, bint add=False,
):
    """out (m, n) = a (m, k)·b (k, n), plus a bias (n) for each column; or, without bias, added to what is there.

    All of one dtype, aligned, with any strides that are whole elements; `out` overlaps nothing.
    """
    cdef Multiply p
    p.a, p.b, p.out = matrix_of(a), matrix_of(b), matrix_of(out)
    p.m, p.k, p.n = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), cnp.PyArray_DIM(b, 1)
    p.bias = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray>bias)
    p.add = add
    p.double_precision = cnp.PyArray_TYPE(a) == cnp.NPY_DOUBLE
    run(&p, cnp.PyArray_ITEMSIZE(a), True)


def linear_product(object x, object w, object bias):
    """x·wᵀ plus bias of regular arrays x (rows, k), w (n, k), bias (n) or None; None if they are anything else."""
    cdef Multiply p
    cdef cnp.npy_intp shape[2]
    cdef cnp.ndarray u, v, c, out
    cdef int dtype
    if not regular(x) or not regular(w) or not (bias is None or regular(bias)):
        return None
    u, v = <cnp.ndarray>x, <cnp.ndarray>w
    dtype = cnp.PyArray_TYPE(u)
    if (
        cnp.PyArray_NDIM(u) != 2 or cnp.PyArray_NDIM(v) != 2 or cnp.PyArray_TYPE(v) != dtype
        or cnp.PyArray_DIM(u, 1) != cnp.PyArray_DIM(v, 1)
    ):
        return None
    p.bias = NULL
    if bias is not None:
        c = <cnp.ndarray>bias
        if cnp.PyArray_NDIM(c) != 1 or cnp.PyArray_TYPE(c) != dtype or cnp.PyArray_DIM(c, 0) != cnp.PyArray_DIM(v, 0):
            return None
        p.bias = cnp.PyArray_DATA(c)
    shape[0], shape[1] = cnp.PyArray_DIM(u, 0), cnp.PyArray_DIM(v, 0)
    out = cnp.PyArray_EMPTY(2, shape, dtype, 0)
    p.a, p.b, p.out = matrix_of(u), transposed(matrix_of(v)), matrix_of(out)
    p.m, p.k, p.n = shape[0], cnp.PyArray_DIM(u, 1), shape[1]
    p.add = False
    p.double_precision = dtype == cnp.NPY_DOUBLE
    run(&p, cnp.PyArray_ITEMSIZE(u), True)
    return out
