"""Matrix products out = a·b, or out += a·b, of float32 or float64 matrices with any strides.

Design
  (A) b is copied once into panels of COLUMNS neighbouring columns, row after row. a is read where it lies, one
      broadcast at a time, unless its columns are contiguous: then blocks of ROWS rows are copied, since a cache holds
      few lines that lie a power of two apart. The problem is transposed where that means less work.
  (B) Every result is one sum in the order of the terms (tiles.pxd), and then the bias: bits do not depend on threads,
      on the ISA, on which operand is transposed, or on the other rows.
  (C) A task is a panel and CHUNK rows of a, or with many panels all rows: it makes its panel, which then stays in the
      core's second-level cache. Where that also holds all of a, and a panel's results are neighbours, the tasks of a
      panel follow each other, so that who packed it multiplies with it, and no two threads write into one line.
  (D) The last block of rows starts early and repeats some rows, so that no row of a is read beyond its end.
  (E) For up to DIRECT rows, contiguous rows of b are read where they lie; only the last panel may have to be made.
  (F) Up to FEW rows or columns are bound by reading the other matrix, b. No panels: each task goes down a strip of b
      in pieces of TERMS rows. It reads them where they lie if they are contiguous; if the columns are, it transposes
      them into the first-level cache.
  (G) Up to FEW terms, the gradient of a weight from a few samples, are bound by writing the result: row by row.
"""

cimport numpy as cnp
from cython cimport floating

from fastnn._kernels._runtime cimport less_shared, parallel_for
from fastnn._kernels.gate cimport disjoint, regular
from fastnn._kernels.strips cimport STRIP, add_rows_of_products, two_rows_of_products
from fastnn._kernels.tiles cimport COLUMNS, ROWS, tile
from fastnn._kernels.turned cimport copy_transposed

cnp.import_array()

__all__ = ["linear_product", "matrix_product"]

cdef enum:
    CHUNK = 64
    MANY = 16   # panels, with which a task makes its own if all together are larger than
    CACHED = 512 * 1024
    DIRECT = 64
    FEW = ROWS
    TERMS = 64

cdef struct Matrix:
    char* data
    Py_ssize_t row      # strides in elements
    Py_ssize_t column


cdef struct Multiply:
    Matrix a                    # IN   (m, k)
    Matrix b                    # IN   (k, n)
    Matrix out                  # OUT  (m, n)
    const void* bias            # IN   (m), or (n) if along_columns, or NULL
    void* panels                # (panels, k, width), or only the last one if direct
    const Py_ssize_t* shifts    # (k), then -1: where the rows of a panel start
    const Py_ssize_t* b_shifts  # (k), then -1: where the rows of b start
    bint direct                 # whether b is read without panels
    Py_ssize_t m
    Py_ssize_t n
    Py_ssize_t k
    Py_ssize_t width            # of a panel: COLUMNS, or half as many in float64
    Py_ssize_t panel_count
    Py_ssize_t chunks           # of rows; 1 if a task makes its panel
    bint by_panels              # whether the tasks of a panel follow each other, not those of a chunk
    void* blocks                # (blocks of a, k, ROWS), or NULL
    bint along_columns
    bint add
    bint double_precision


cdef inline floating* place_of(Multiply* p, Py_ssize_t panel, floating example) noexcept nogil:
    return <floating*>p.panels + (0 if p.direct else panel * p.k * p.width)


cdef inline void pack_panel(Multiply* p, Py_ssize_t panel, floating example) noexcept nogil:
    cdef floating* d = place_of(p, panel, example)
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
            end = min(p.k, part + TERMS)
            if p.b.row == 1:
                copy_transposed(b + part, p.b.column, n, end - part, d + part * p.width, p.width)
            else:
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
    cdef const floating* a = <const floating*>p.a.data + first_row(p, block) * p.a.row
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
    cdef Py_ssize_t panel = task // p.chunks if p.by_panels else task % p.panel_count
    cdef Py_ssize_t chunk = task % p.chunks if p.by_panels else task // p.panel_count
    cdef Py_ssize_t blocks = (p.m + ROWS - 1) // ROWS
    cdef Py_ssize_t block = chunk * (CHUNK // ROWS)
    cdef Py_ssize_t end = blocks if p.chunks == 1 else min(blocks, block + CHUNK // ROWS)
    cdef bint direct = p.direct and (panel + 1) * p.width <= p.n
    cdef const Py_ssize_t* shifts = p.b_shifts if direct else p.shifts
    cdef const floating* a
    cdef const floating* b
    cdef floating values[ROWS * COLUMNS]
    cdef floating start[ROWS]
    cdef Py_ssize_t i, row, a_row, a_column
    if direct:
        b = <const floating*>p.b.data + panel * p.width
    else:
        b = place_of(p, panel, example)
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
        if floating is float:
            tile(a, a_row, a_column, b, shifts, start, values, COLUMNS)
        else:
            tile(a, a_row, a_column, b, shifts, start, values, COLUMNS // 2)
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


# ---- few rows, few terms -------------------------------------------------------------------------------------------

cdef inline void few_rows(Multiply* p, Py_ssize_t strip, floating example) noexcept nogil:
    cdef Py_ssize_t width = STRIP if floating is float else STRIP // 2
    cdef Py_ssize_t column = strip * width
    cdef Py_ssize_t n = min(width, p.n - column)
    cdef const floating* bias = <const floating*>p.bias
    cdef const floating* a = <const floating*>p.a.data
    cdef const floating* b = <const floating*>p.b.data + column * p.b.column
    cdef floating* d = <floating*>p.out.data + column * p.out.column
    cdef floating sums[FEW * STRIP]
    cdef floating piece[TERMS * STRIP]
    cdef const floating* x
    cdef Py_ssize_t k, terms, i, j, x_row
    cdef floating s
    for i in range(FEW * width):
        sums[i] = 0
    for i in range(TERMS * width if n < width else 0):
        piece[i] = 0
    k = 0
    while k < p.k:
        terms = min(<Py_ssize_t>TERMS, p.k - k)
        if p.b.column == 1 and n == width:
            x, x_row = b, p.b.row
        else:
            x, x_row = piece, width
            if p.b.row == 1:
                copy_transposed(b, p.b.column, n, terms, piece, width)
            else:
                for i in range(terms):
                    for j in range(n):
                        piece[i * width + j] = b[i * p.b.row + j * p.b.column]
        if floating is float:
            add_rows_of_products(a, p.a.row, p.a.column, x, x_row, terms, sums, p.m, STRIP)
        else:
            add_rows_of_products(a, p.a.row, p.a.column, x, x_row, terms, sums, p.m, STRIP // 2)
        a += terms * p.a.column
        b += terms * p.b.row
        k += terms
    for i in range(p.m):
        for j in range(n):
            s = sums[i * width + j]
            if bias != NULL:
                s += bias[column + j if p.along_columns else i]
            if p.add:
                d[i * p.out.row + j * p.out.column] += s
            else:
                d[i * p.out.row + j * p.out.column] = s


cdef void few_rows_task(void* arguments, Py_ssize_t strip) noexcept nogil:
    cdef Multiply* p = <Multiply*>arguments
    if p.double_precision:
        few_rows(p, strip, <double>0)
    else:
        few_rows(p, strip, <float>0)


cdef inline void few_terms(Multiply* p, Py_ssize_t chunk, floating example) noexcept nogil:
    # CHUNK rows; those of b and out are contiguous
    cdef Py_ssize_t width = STRIP if floating is float else STRIP // 2
    cdef const floating* a
    cdef const floating* b
    cdef floating* d
    cdef Py_ssize_t i = chunk * CHUNK
    cdef Py_ssize_t end = min(p.m, i + CHUNK)
    cdef Py_ssize_t column, row, d_row
    while i < end:
        row = p.a.row if i + 1 < end else 0  # a last single row is computed twice
        d_row = p.out.row if i + 1 < end else 0
        a = <const floating*>p.a.data + i * p.a.row
        b = <const floating*>p.b.data
        d = <floating*>p.out.data + i * p.out.row
        column = 0
        while column + width <= p.n:
            if floating is float:
                two_rows_of_products(a, row, p.a.column, b + column, p.b.row, p.k, d + column, d_row, p.add, STRIP)
            else:
                two_rows_of_products(a, row, p.a.column, b + column, p.b.row, p.k, d + column, d_row, p.add, STRIP // 2)
            column += width
        two_rows_of_products(a, row, p.a.column, b + column, p.b.row, p.k, d + column, d_row, p.add, p.n - column)
        i += 2


cdef void few_terms_task(void* arguments, Py_ssize_t chunk) noexcept nogil:
    cdef Multiply* p = <Multiply*>arguments
    if p.double_precision:
        few_terms(p, chunk, <double>0)
    else:
        few_terms(p, chunk, <float>0)


# ---- entry points --------------------------------------------------------------------------------------------------

cdef Matrix matrix_of(cnp.ndarray array) noexcept:
    cdef Matrix m
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(array)
    m.data = <char*>cnp.PyArray_DATA(array)
    m.row, m.column = cnp.PyArray_STRIDE(array, 0) // item, cnp.PyArray_STRIDE(array, 1) // item
    return m


cdef inline Matrix transposed(Matrix m) noexcept:
    m.row, m.column = m.column, m.row
    return m


cdef inline double cost(Py_ssize_t m, Py_ssize_t n, Matrix* a, Matrix* b) noexcept:
    # cycles for each term, about: tiles of results, and the copies of b and of a
    cdef double copies = m if a.row == 1 else 0
    if b.column != 1:
        copies += n * (0.5 if b.row == 1 else 4)
    elif m > DIRECT:
        copies += n
    return ((m + ROWS - 1) // ROWS) * ((n + COLUMNS - 1) // COLUMNS) * (COLUMNS / 4) + copies


cdef inline void transpose(Multiply* p) noexcept:
    # the same product as outᵀ = bᵀ·aᵀ
    cdef Matrix kept = p.a
    p.a, p.b, p.out = transposed(p.b), transposed(kept), transposed(p.out)
    p.m, p.n = p.n, p.m
    p.along_columns = not p.along_columns


cdef void run(Multiply* p, Py_ssize_t item) except *:
    # a, b, out, bias, m, n, k, along_columns, add and double_precision are set
    cdef cnp.npy_intp size
    cdef Py_ssize_t blocks, panel_bytes, block_bytes, k
    cdef double work
    cdef Py_ssize_t* shifts
    cdef char* start
    cdef Matrix turned_a = transposed(p.b)
    cdef Matrix turned_b = transposed(p.a)
    if p.m == 0 or p.n == 0:
        return
    if p.m <= FEW or p.n <= FEW:
        if p.m > p.n:
            transpose(p)
        k = STRIP * sizeof(float) // item
        with nogil:
            parallel_for(few_rows_task, p, (p.n + k - 1) // k, <double>p.k * p.n * item)
        return
    if p.k <= FEW and p.bias == NULL and p.b.column == 1 and p.out.column == 1:
        with nogil:
            parallel_for(few_terms_task, p, (p.m + CHUNK - 1) // CHUNK, <double>p.m * p.n * item)
        return
    if cost(p.n, p.m, &turned_a, &turned_b) < cost(p.m, p.n, &p.a, &p.b):
        transpose(p)
    p.width = COLUMNS // 2 if p.double_precision else COLUMNS
    p.panel_count = (p.n + p.width - 1) // p.width
    p.direct = p.b.column == 1 and p.m <= DIRECT
    panel_bytes = (1 if p.direct else p.panel_count) * p.k * p.width * item
    p.chunks = (p.m + CHUNK - 1) // CHUNK
    if p.direct or p.panel_count >= MANY and panel_bytes > CACHED:
        p.chunks = 1
    p.by_panels = p.out.row == 1 and p.panel_count > 1 and p.m * p.k * item <= CACHED
    blocks = (p.m + ROWS - 1) // ROWS if p.a.row == 1 else 0
    # one scratch for the panels, the blocks and the table of shifts
    block_bytes = blocks * p.k * ROWS * item
    size = panel_bytes + block_bytes + 2 * (p.k + 1) * sizeof(Py_ssize_t) + 64
    cdef cnp.ndarray scratch = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
    start = <char*>((<size_t>cnp.PyArray_DATA(scratch) + 63) & ~<size_t>63)
    shifts = <Py_ssize_t*>(start + panel_bytes + block_bytes)
    p.panels = start
    p.blocks = start + panel_bytes if blocks else NULL
    p.shifts, p.b_shifts = shifts, shifts + p.k + 1
    # work in bytes: a core multiplies about three numbers in the time it moves a byte
    work = <double>p.m * p.k * p.n / 3 * (item / 4)
    work = less_shared(work, block_bytes + (panel_bytes if p.chunks > 1 and not p.by_panels else 0))
    with nogil:
        for k in range(p.k):
            shifts[k] = k * p.width
            shifts[p.k + 1 + k] = k * p.b.row
        shifts[p.k] = shifts[2 * p.k + 1] = -1
        if p.chunks > 1:
            parallel_for(pack_task, p, p.panel_count, work)
        parallel_for(pack_rows_task, p, blocks, min(work, 2.0 * p.k * p.m * item))
        parallel_for(multiply_task, p, p.panel_count * p.chunks, work)


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
    p.add, p.along_columns = add, True
    p.double_precision = cnp.PyArray_TYPE(a) == cnp.NPY_DOUBLE
    run(&p, cnp.PyArray_ITEMSIZE(a))


cdef inline bint takes(object out, int dtype, const cnp.npy_intp* shape, object x, object w, object bias) noexcept:
    # whether the product of these can be written straight into `out`
    return (
        regular(out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out) and cnp.PyArray_TYPE(<cnp.ndarray>out) == dtype
        and cnp.PyArray_NDIM(<cnp.ndarray>out) == 2 and cnp.PyArray_DIM(<cnp.ndarray>out, 0) == shape[0]
        and cnp.PyArray_DIM(<cnp.ndarray>out, 1) == shape[1]
        and disjoint(out, x) and disjoint(out, w) and disjoint(out, bias)
    )


def linear_product(object x, object w, object bias, object out=None):
    """x·wᵀ plus bias of regular arrays x (rows, k), w (n, k), bias (n) or None; None if they are anything else.

    `out`, if given, is (rows, n) and overlaps none of them.
    """
    cdef Multiply p
    cdef cnp.npy_intp shape[2]
    cdef cnp.ndarray u, v, c
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
    if out is None:
        out = cnp.PyArray_EMPTY(2, shape, dtype, 0)
    elif not takes(out, dtype, shape, x, w, bias):
        return None
    p.a, p.b, p.out = matrix_of(u), transposed(matrix_of(v)), matrix_of(<cnp.ndarray>out)
    p.m, p.k, p.n = shape[0], cnp.PyArray_DIM(u, 1), shape[1]
    p.add, p.along_columns = False, True
    p.double_precision = dtype == cnp.NPY_DOUBLE
    run(&p, cnp.PyArray_ITEMSIZE(u))
    return out
