# Layout of the column kernels: statistics across contiguous memory, for the view (O, A, S, I) with S·I columns.
#
# Narrow arrays are seen as wider ones: `fold` rows side by side are one row of fold·S·I lanes, so that the registers
# are full; the lanes of one column are added up at the end, in order. The rows that do not fill a wide one are the
# rest. Rows are cut into blocks and lanes into panels of whole groups by the shape alone; a panel of one outer index is
# a unit, which nothing connects with the others.
#
# A sum has one double for each lane, which takes the lane's terms in the order of the rows. Differences and products of
# float32 data are (all but) exact in double; those of float64 data come in two parts, and so do their sums.

from cython cimport floating
from libc.math cimport fabs

from fastnn._kernels.lanes cimport dd, join, two_sum
from fastnn._kernels.norm cimport Group, View, inverse_power

cdef extern from *:
    """
    /* Lanes that are summed at a time: two double sums and a shift for each are to stay in 32 registers of 64 bytes, or
       in 16 smaller ones. */
    #if defined(__AVX512F__)
    enum { FASTNN_STRIP = 32 };
    #else
    enum { FASTNN_STRIP = 16 };
    #endif
    """
    cdef enum:
        STRIP "FASTNN_STRIP"

cdef enum:
    # most lanes of a panel, unless one group has more
    PANEL = 512
    # Narrow rows are joined: to NARROW lanes, whose parameters stay in registers, where that comes out even; else to
    # up to FOLDED, a multiple of JOINED where possible.
    NARROW = 64
    FOLDED = 256
    JOINED = 32
    # elements and rows of a block of one panel, at the least; and the most blocks
    BLOCK = 32768
    BLOCK_ROWS = 128
    BLOCKS = 64
    # Rows that are summed strip by strip: so many, or as many as have these elements. They stay in the first-level
    # cache.
    SUM_ROWS = 8
    SUM_TILE = 8192


cdef struct Layout:
    Py_ssize_t outer
    Py_ssize_t columns      # S · I
    Py_ssize_t fold         # rows side by side
    Py_ssize_t lanes        # fold · columns
    Py_ssize_t rows         # whole rows of `lanes`
    Py_ssize_t rest         # lanes of the last, partial row
    Py_ssize_t block_rows
    Py_ssize_t blocks       # at least one
    Py_ssize_t panel        # lanes of each panel but the last
    Py_ssize_t panels
    Py_ssize_t sum_rows     # that are summed at a time
    Py_ssize_t size         # elements of one outer index


cdef inline Layout layout_of(View* view) noexcept nogil:
    cdef Layout layout
    cdef Py_ssize_t step
    layout.outer = view.outer
    layout.columns = view.groups * view.inner
    if NARROW % layout.columns == 0:
        layout.fold = NARROW // layout.columns
    else:
        layout.fold = max(<Py_ssize_t>1, FOLDED // layout.columns)
        step = JOINED // min(layout.columns & -layout.columns, <Py_ssize_t>JOINED)
        if layout.fold >= step:
            layout.fold -= layout.fold % step
    layout.lanes = layout.fold * layout.columns
    layout.rows = view.reduced // layout.fold
    layout.rest = view.reduced % layout.fold * layout.columns
    layout.panel = layout.lanes
    if layout.lanes > PANEL and view.inner <= PANEL:
        layout.panel = PANEL // view.inner * view.inner
    layout.panels = (layout.lanes + layout.panel - 1) // layout.panel
    layout.block_rows = max(<Py_ssize_t>BLOCK_ROWS, BLOCK // layout.panel)
    layout.blocks = max(<Py_ssize_t>1, (layout.rows + layout.block_rows - 1) // layout.block_rows)
    if layout.blocks > 1:
        # even shares for two or four threads
        layout.blocks = min(<Py_ssize_t>BLOCKS, (layout.blocks + 3) // 4 * 4)
        layout.block_rows = (layout.rows + layout.blocks - 1) // layout.blocks
    layout.sum_rows = max(<Py_ssize_t>SUM_ROWS, SUM_TILE // layout.panel)
    layout.size = view.reduced * layout.columns
    return layout


cdef struct Span:
    # the rows and lanes of one block of one unit
    Py_ssize_t unit
    Py_ssize_t outer
    Py_ssize_t block
    Py_ssize_t first_row
    Py_ssize_t last_row
    Py_ssize_t first_lane
    Py_ssize_t last_lane
    Py_ssize_t last_rest    # lanes of the partial row up to here, if this block has it, else 0


cdef inline Span span_of(Layout* layout, Py_ssize_t task) noexcept nogil:
    cdef Span span
    span.unit = task // layout.blocks
    span.block = task % layout.blocks
    span.outer = span.unit // layout.panels
    span.first_row = min(span.block * layout.block_rows, layout.rows)
    span.last_row = min(span.first_row + layout.block_rows, layout.rows)
    span.first_lane = span.unit % layout.panels * layout.panel
    span.last_lane = min(span.first_lane + layout.panel, layout.lanes)
    span.last_rest = min(span.last_lane, layout.rest) if span.block == layout.blocks - 1 else 0
    return span


cdef struct Unit:
    # the groups of one unit, and their lanes in the first of the rows side by side
    Py_ssize_t outer
    Py_ssize_t first_group
    Py_ssize_t last_group
    Py_ssize_t first_lane
    Py_ssize_t last_lane


cdef inline Unit unit_of(Layout* layout, View* view, Py_ssize_t number) noexcept nogil:
    cdef Unit unit
    unit.outer = number // layout.panels
    unit.first_lane = number % layout.panels * layout.panel
    unit.last_lane = min(unit.first_lane + layout.panel, layout.columns)
    unit.first_group = unit.first_lane // view.inner
    unit.last_group = unit.last_lane // view.inner
    return unit


# ---- sums of lanes over blocks ---------------------------------------------------------------------------------------

# Each kernel has two sums: rows of high parts and, for float64 data, of low parts.
cdef enum:
    FIRST
    SECOND
    FIRST_LOW
    SECOND_LOW
    SUMS


cdef inline Py_ssize_t sums_of(floating example) noexcept nogil:
    return FIRST_LOW if floating is float else SUMS


cdef inline void merge_blocks(Layout* layout, Unit* unit, double* sums, floating example) noexcept nogil:
    # sums (O, blocks, rows of sums, lanes): the blocks of one unit, in order, into the first
    cdef Py_ssize_t rows = sums_of(example)
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t last = min(unit.first_lane + layout.panel, lanes)
    cdef double* total = sums + unit.outer * layout.blocks * rows * lanes
    cdef double* block
    cdef Py_ssize_t b, q, j
    cdef dd s
    for b in range(1, layout.blocks):
        block = total + b * rows * lanes
        for q in range(FIRST_LOW):
            for j in range(q * lanes + unit.first_lane, q * lanes + last):
                if floating is float:
                    total[j] += block[j]
                else:
                    s = two_sum(total[j], block[j])
                    total[j] = s.high
                    total[FIRST_LOW * lanes + j] += s.low + block[FIRST_LOW * lanes + j]


cdef inline dd lane_total(
    Layout* layout, const double* sums, Py_ssize_t outer, Py_ssize_t column, Py_ssize_t row, floating example,
) noexcept nogil:
    # after merge_blocks: the folded lanes of one column, in order; `row` is FIRST or SECOND
    cdef const double* high = sums + (outer * layout.blocks * sums_of(example) + row) * layout.lanes
    cdef const double* low = high + FIRST_LOW * layout.lanes
    cdef Py_ssize_t lane = column + layout.columns
    cdef dd total = lane_sum(high, low, column, example)
    while lane < layout.lanes:
        total = join(total, lane_sum(high, low, lane, example), example)
        lane += layout.columns
    return total


cdef inline dd lane_sum(const double* high, const double* low, Py_ssize_t lane, floating example) noexcept nogil:
    cdef dd total
    if floating is float:
        total.high = high[lane]
        total.low = 0
        return total
    else:
        return two_sum(high[lane], low[lane])


# ---- parameters ------------------------------------------------------------------------------------------------------

cdef inline Group moderate(const Group* group, floating example) noexcept nogil:
    # The same group in a unit in which rstd times a weight or a gradient, and once more times rstd, stays in the range
    # of float32, unless the mean would leave it. Scaled groups are in such a unit already.
    cdef Group same = group[0]
    cdef double unit
    if same.scale == 1 and 0 < same.rstd and not 2.3283064365386963e-10 <= same.rstd <= 4294967296.0:     # 2^±32
        unit = 1 / inverse_power(same.rstd, example)
        if fabs(same.shift) * unit <= 7.9e28:       # 2^96
            same.shift *= unit
            same.lo *= unit
            same.rstd /= unit
            same.scale = unit
    return same


cdef inline void repeat(
    Layout* layout, Unit* unit, floating* parameters, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    # rows first … last − 1 of the parameters: each column's value in all its lanes
    cdef Py_ssize_t q, lane, j
    for q in range(first, last):
        lane = layout.columns
        while lane < layout.lanes:
            for j in range(unit.first_lane, unit.last_lane):
                parameters[q * layout.lanes + lane + j] = parameters[q * layout.lanes + j]
            lane += layout.columns
