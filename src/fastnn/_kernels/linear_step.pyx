"""The affine map y = x·wᵀ + b as a step of a plan: weights packed beforehand, activation and residual in the tile.

Design
  (A) The weights lie in panels of `width` neighbouring outputs, input after input, as the tiles read them: packing,
      most of a small product's time, is done once. x is read where it lies.
  (B) Every result is one sum in the order of the inputs (tiles.pxd), then the bias, the residual, the activation: the
      bits of `linear_product`, of an addition and of the activation, without a pass over memory for each.
  (C) Fewer than ROWS rows go one by one, through two panels at a time, since each sum waits for its last addition.
  (D) The last block of rows starts early and repeats some, so that no row of x is read beyond its end.
"""

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memset

from fastnn._kernels._plan cimport Finish, Operands, Step, finish_of
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.tiles cimport COLUMNS, ROWS, tile

cnp.import_array()

__all__ = ["LinearStep", "linear_panels"]

cdef enum:
    CHUNK = 64  # rows of one task
    NARROW = 8  # the width of panels for up to so many outputs


cdef struct Linear:
    const void* panels          # (panels, k, width)
    const void* bias            # (n) or NULL
    const Py_ssize_t* shifts    # (k), then -1
    Py_ssize_t rows             # of one sample
    Py_ssize_t k
    Py_ssize_t n
    Py_ssize_t width
    Py_ssize_t panel_count
    Finish finish
    bint double_precision


cdef struct Run:
    const Linear* linear
    const void* x               # IN   (m, k)
    const void* residual        # IN   (m, n) or NULL
    void* y                     # OUT  (m, n)
    Py_ssize_t m
    Py_ssize_t chunks


cdef inline Py_ssize_t width_of(Py_ssize_t n, bint double_precision) noexcept nogil:
    if n <= NARROW:
        return NARROW
    return COLUMNS // 2 if double_precision else COLUMNS


cdef inline void finish_row(
    Run* r, floating* values, Py_ssize_t row, Py_ssize_t column, Py_ssize_t n,
) noexcept nogil:
    # bias and residual of one row of a tile
    cdef const floating* bias = <const floating*>r.linear.bias
    cdef const floating* residual
    cdef Py_ssize_t j
    if bias != NULL:
        for j in range(n):
            values[j] += bias[column + j]
    if r.residual != NULL:
        residual = <const floating*>r.residual + row * r.linear.n + column
        for j in range(n):
            values[j] += residual[j]


cdef inline void store_row(const floating* values, floating* d, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    if n == COLUMNS:
        for j in range(COLUMNS):
            d[j] = values[j]
    else:
        for j in range(n):
            d[j] = values[j]


cdef inline void one_row(
    const floating* a,          # IN   (k)
    const floating* b,          # IN   (k, n), and as many `apart` elements behind
    Py_ssize_t apart,
    const Py_ssize_t* shifts,   # IN   (k), then -1
    floating* out,              # OUT  (2, COLUMNS), the first n of each
    Py_ssize_t n,               # a constant where this is inlined
) noexcept nogil:
    cdef floating s0[COLUMNS]
    cdef floating s1[COLUMNS]
    cdef const floating* x
    cdef const floating* y
    cdef Py_ssize_t shift, j
    for j in range(n):
        s0[j] = 0
        s1[j] = 0
    shift = shifts[0]
    while shift >= 0:  # uncounted, as in tiles.pxd
        x = b + shift
        y = x + apart
        for j in range(n):
            s0[j] = multiply_add(a[0], x[j], s0[j])
            s1[j] = multiply_add(a[0], y[j], s1[j])
        a += 1
        shifts += 1
        shift = shifts[0]
    for j in range(n):
        out[j] = s0[j]
        out[COLUMNS + j] = s1[j]


cdef inline void few_rows(Run* r, Py_ssize_t pair, floating example) noexcept nogil:
    # two panels, every row
    cdef const Linear* p = r.linear
    cdef Py_ssize_t panel = 2 * pair
    cdef const floating* b = <const floating*>p.panels + panel * p.k * p.width
    cdef Py_ssize_t apart = p.k * p.width if panel + 1 < p.panel_count else 0
    cdef floating values[2 * COLUMNS]
    cdef Py_ssize_t i, n, column
    memset(values, 0, sizeof(values))
    for i in range(r.m):
        if p.width == NARROW:
            one_row(<const floating*>r.x + i * p.k, b, apart, p.shifts, values, NARROW)
        elif floating is float:
            one_row(<const floating*>r.x + i * p.k, b, apart, p.shifts, values, COLUMNS)
        else:
            one_row(<const floating*>r.x + i * p.k, b, apart, p.shifts, values, COLUMNS // 2)
        column = panel * p.width
        n = min(p.width, p.n - column)
        finish_row(r, values, i, column, n)
        if apart:
            finish_row(r, values + COLUMNS, i, column + p.width, min(p.width, p.n - column - p.width))
        if p.finish.apply != NULL:
            p.finish.apply(&p.finish, values, 2 * COLUMNS if apart else n)
        store_row(values, <floating*>r.y + i * p.n + column, n)
        if apart:
            column += p.width
            store_row(values + COLUMNS, <floating*>r.y + i * p.n + column, min(p.width, p.n - column))


cdef inline void many_rows(Run* r, Py_ssize_t task, floating example) noexcept nogil:
    # one panel, up to CHUNK rows
    cdef const Linear* p = r.linear
    cdef Py_ssize_t panel = task // r.chunks
    cdef Py_ssize_t column = panel * p.width
    cdef Py_ssize_t n = min(p.width, p.n - column)
    cdef Py_ssize_t block = task % r.chunks * CHUNK
    cdef Py_ssize_t end = min(r.m, block + CHUNK)
    cdef const floating* b = <const floating*>p.panels + panel * p.k * p.width
    cdef const floating* a
    cdef floating values[ROWS * COLUMNS]
    cdef floating start[ROWS]
    cdef Py_ssize_t row, i
    memset(values, 0, sizeof(values))
    memset(start, 0, sizeof(start))
    while block < end:
        row = min(block, r.m - ROWS)
        a = <const floating*>r.x + row * p.k
        if p.width == NARROW:
            tile(a, p.k, 1, b, p.shifts, start, values, NARROW)
        elif floating is float:
            tile(a, p.k, 1, b, p.shifts, start, values, COLUMNS)
        else:
            tile(a, p.k, 1, b, p.shifts, start, values, COLUMNS // 2)
        for i in range(ROWS):
            finish_row(r, values + i * COLUMNS, row + i, column, n)
        if p.finish.apply != NULL:
            p.finish.apply(&p.finish, values, ROWS * COLUMNS)
        for i in range(block - row, ROWS):
            store_row(values + i * COLUMNS, <floating*>r.y + (row + i) * p.n + column, n)
        block += ROWS


cdef void few_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Run* r = <Run*>arguments
    if r.linear.double_precision:
        few_rows(r, task, <double>0)
    else:
        few_rows(r, task, <float>0)


cdef void many_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Run* r = <Run*>arguments
    if r.linear.double_precision:
        many_rows(r, task, <double>0)
    else:
        many_rows(r, task, <float>0)


cdef void run_linear(const void* settings, Operands* o) noexcept nogil:
    cdef const Linear* p = <const Linear*>settings
    cdef Run r
    # work in bytes: a core multiplies about three numbers in the time it moves a byte
    cdef double work
    r.linear, r.x, r.residual, r.y, r.m = p, o.x, o.residual, o.y, o.samples * p.rows
    work = <double>r.m * p.k * p.n / 3 * (2 if p.double_precision else 1)
    if r.m < ROWS:
        r.chunks = 1
        o.each(few_task, &r, (p.panel_count + 1) // 2, work)
    else:
        r.chunks = (r.m + CHUNK - 1) // CHUNK
        o.each(many_task, &r, p.panel_count * r.chunks, work)


# ---- packing -------------------------------------------------------------------------------------------------------

cdef inline void pack(const floating* w, floating* d, Py_ssize_t n, Py_ssize_t k, Py_ssize_t width) noexcept nogil:
    # d (panels, k, width) from w (n, k); zeros behind the last output
    cdef Py_ssize_t panel, j, t, column
    for panel in range((n + width - 1) // width):
        for j in range(width):
            column = panel * width + j
            for t in range(k):
                d[t * width + j] = w[column * k + t] if column < n else <floating>0.0
        d += k * width


def linear_panels(cnp.ndarray weight, object bias):
    """(panels, bias, shifts) as `LinearStep` takes them, from regular arrays weight (n, k) and bias (n) or None."""
    cdef bint double_precision = cnp.PyArray_TYPE(weight) == cnp.NPY_DOUBLE
    cdef Py_ssize_t n = cnp.PyArray_DIM(weight, 0)
    cdef Py_ssize_t k = cnp.PyArray_DIM(weight, 1)
    cdef Py_ssize_t width = width_of(n, double_precision)
    cdef cnp.npy_intp shape[3]
    cdef cnp.npy_intp count = k + 1
    cdef cnp.ndarray panels, shifts
    cdef Py_ssize_t t
    shape[0], shape[1], shape[2] = (n + width - 1) // width, k, width
    panels = cnp.PyArray_EMPTY(3, shape, cnp.PyArray_TYPE(weight), 0)
    if double_precision:
        pack(<const double*>cnp.PyArray_DATA(weight), <double*>cnp.PyArray_DATA(panels), n, k, width)
    else:
        pack(<const float*>cnp.PyArray_DATA(weight), <float*>cnp.PyArray_DATA(panels), n, k, width)
    shifts = cnp.PyArray_EMPTY(1, &count, cnp.NPY_INTP, 0)
    for t in range(k):
        (<Py_ssize_t*>cnp.PyArray_DATA(shifts))[t] = t * width
    (<Py_ssize_t*>cnp.PyArray_DATA(shifts))[k] = -1
    return panels, bias, shifts


cdef class LinearStep(Step):
    """y (…, n) from x (…, k); `rows` of each sample. `packed` comes from `linear_panels`."""
    cdef Linear linear

    def __cinit__(self, tuple packed, Py_ssize_t n, Py_ssize_t rows, object finisher):
        cdef cnp.ndarray panels = packed[0]
        self.kept = packed
        self.linear.panels = cnp.PyArray_DATA(panels)
        self.linear.bias = NULL if packed[1] is None else cnp.PyArray_DATA(<cnp.ndarray?>packed[1])
        self.linear.shifts = <const Py_ssize_t*>cnp.PyArray_DATA(<cnp.ndarray?>packed[2])
        self.linear.rows, self.linear.n = rows, n
        self.linear.panel_count = cnp.PyArray_DIM(panels, 0)
        self.linear.k, self.linear.width = cnp.PyArray_DIM(panels, 1), cnp.PyArray_DIM(panels, 2)
        self.linear.finish = finish_of(finisher)
        self.linear.double_precision = cnp.PyArray_TYPE(panels) == cnp.NPY_DOUBLE
        self.run, self.settings = run_linear, &self.linear
