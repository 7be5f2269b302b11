"""Norms with given statistics of channels that come last, as a step of a plan: one pass, with residual and activation.

Design
  (A) The value is that of every norm, x̂·weight + bias with x̂ from norm.pxd. What it needs of a channel is a table in
      the data's precision; an absent weight is 1 and an absent bias 0, which change no bit of a fused multiply-add.
  (B) Residual and activation follow after every FLUSH elements, which are then in the first-level cache.
"""

cimport numpy as cnp
from cython cimport floating

from fastnn._kernels._plan cimport Finish, Operands, Step, finish_of
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.norm cimport Group, normalized, offset_of

cnp.import_array()

__all__ = ["ChannelStep"]

cdef enum:
    BLOCK = 16384   # elements that a thread claims at a time, at least
    FLUSH = 2048
    COLUMNS = 5     # of the table: shift, rstd, offset, weight, bias


cdef struct Channels:
    const void* table       # IN   (COLUMNS, channels)
    Py_ssize_t outer        # rows of one sample
    Py_ssize_t channels
    Finish finish
    bint double_precision


cdef struct Run:
    const Channels* settings
    const void* x           # IN   (rows, channels)
    const void* residual    # IN   likewise or NULL
    void* y                 # OUT  likewise
    Py_ssize_t rows
    Py_ssize_t rows_per_block


cdef inline void finish_part(
    Run* r, floating* y, const floating* residual, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef Py_ssize_t i
    if residual != NULL:
        for i in range(first, last):
            y[i] += residual[i]
    if r.settings.finish.apply != NULL:
        r.settings.finish.apply(&r.settings.finish, y + first, last - first)


cdef inline void apply_part(
    const floating* x, floating* y, const floating* table, Py_ssize_t channels, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    # channels first … last − 1 of one row, one element each
    cdef const floating* shift = table
    cdef const floating* rstd = table + channels
    cdef const floating* offset = table + 2 * channels
    cdef const floating* weight = table + 3 * channels
    cdef const floating* bias = table + 4 * channels
    cdef Py_ssize_t c
    for c in range(first, last):
        y[c] = multiply_add(normalized(x[c], shift[c], rstd[c], offset[c], <floating>1, False), weight[c], bias[c])


cdef inline void apply_row(Run* r, Py_ssize_t row, floating example) noexcept nogil:
    cdef const Channels* s = r.settings
    cdef Py_ssize_t n = s.channels
    cdef const floating* x = <const floating*>r.x + row * n
    cdef const floating* residual = NULL if r.residual == NULL else <const floating*>r.residual + row * n
    cdef floating* y = <floating*>r.y + row * n
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t last
    while first < n:
        last = min(n, first + FLUSH)
        apply_part(x, y, <const floating*>s.table, n, first, last)
        finish_part(r, y, residual, first, last)
        first = last


cdef void apply_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Run* r = <Run*>arguments
    cdef Py_ssize_t row
    for row in range(block * r.rows_per_block, min(r.rows, (block + 1) * r.rows_per_block)):
        if r.settings.double_precision:
            apply_row(r, row, <double>0)
        else:
            apply_row(r, row, <float>0)


cdef void run_channels(const void* settings, Operands* o) noexcept nogil:
    cdef Run r
    cdef Py_ssize_t n
    r.settings = <const Channels*>settings
    r.x, r.residual, r.y, r.rows = o.x, o.residual, o.y, o.samples * r.settings.outer
    n = r.settings.channels
    r.rows_per_block = max(<Py_ssize_t>1, BLOCK // max(<Py_ssize_t>1, n))
    o.each(
        apply_task, &r, (r.rows + r.rows_per_block - 1) // r.rows_per_block,
        r.rows * n * (16.0 if r.settings.double_precision else 8.0),
    )


cdef inline void fill(
    floating* table, const Group* groups, const floating* weight, const floating* bias, Py_ssize_t channels,
) noexcept nogil:
    cdef Py_ssize_t c
    cdef floating shift
    for c in range(channels):
        shift = <floating>groups[c].shift
        table[c] = shift
        table[channels + c] = <floating>groups[c].rstd
        table[2 * channels + c] = offset_of(&groups[c], shift)
        table[3 * channels + c] = weight[c] if weight != NULL else <floating>1.0
        table[4 * channels + c] = bias[c] if bias != NULL else <floating>0.0


cdef class ChannelStep(Step):
    """x̂·weight + bias, with residual and activation, of samples (outer, channels).

    groups: float64 (channels, 4) from `groups_from_running`, of which every scale is 1; weight, bias: regular arrays of
    the data's precision, or None.
    """
    cdef Channels channels

    def __cinit__(
        self, cnp.ndarray groups, object weight, object bias, Py_ssize_t outer, object finisher,
        bint double_precision,
    ):
        cdef Py_ssize_t channels = cnp.PyArray_DIM(groups, 0)
        cdef cnp.npy_intp size = COLUMNS * channels
        cdef cnp.ndarray table = cnp.PyArray_EMPTY(
            1, &size, cnp.NPY_DOUBLE if double_precision else cnp.NPY_FLOAT, 0)
        cdef void* data = cnp.PyArray_DATA(table)
        cdef const Group* rows = <const Group*>cnp.PyArray_DATA(groups)
        cdef const void* w = NULL if weight is None else cnp.PyArray_DATA(<cnp.ndarray?>weight)
        cdef const void* b = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray?>bias)
        if double_precision:
            fill(<double*>data, rows, <const double*>w, <const double*>b, channels)
        else:
            fill(<float*>data, rows, <const float*>w, <const float*>b, channels)
        self.kept = table
        self.channels.table = data
        self.channels.outer, self.channels.channels = outer, channels
        self.channels.finish, self.channels.double_precision = finish_of(finisher), double_precision
        self.run, self.settings = run_channels, &self.channels
