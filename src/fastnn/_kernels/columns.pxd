# Layout of the column kernels: statistics across contiguous memory, for the view (O, A, S, I) with S·I columns.
#
# Narrow arrays are seen as wider ones: `fold` rows side by side are one row of fold·S·I lanes, so that the registers
# are full; the lanes of one column are added up at the end, in order. The rows that do not fill a wide one are the
# rest. Rows are cut into blocks and lanes into panels by the shape alone.

from fastnn._kernels.lanes cimport LANES, add_to_lanes, dd, dd_add, two_sum
from fastnn._kernels.norm cimport View

cdef enum:
    # lanes of a panel, and elements of a block of one panel, at the most
    PANEL = 512
    BLOCK = 65536
    # narrow rows are joined up to this many lanes
    FOLDED = 128


cdef struct Layout:
    Py_ssize_t outer
    Py_ssize_t columns      # S · I
    Py_ssize_t fold         # rows side by side
    Py_ssize_t lanes        # fold · columns
    Py_ssize_t rows         # whole rows of `lanes`
    Py_ssize_t rest         # lanes of the last, partial row
    Py_ssize_t block_rows
    Py_ssize_t blocks       # at least one
    Py_ssize_t panels
    Py_ssize_t size         # elements of one outer index


cdef inline Layout layout_of(View* view) noexcept nogil:
    cdef Layout layout
    layout.outer = view.outer
    layout.columns = view.groups * view.inner
    layout.fold = FOLDED // layout.columns if layout.columns < LANES else 1
    layout.lanes = layout.fold * layout.columns
    layout.rows = view.reduced // layout.fold
    layout.rest = view.reduced % layout.fold * layout.columns
    layout.block_rows = max(<Py_ssize_t>64, BLOCK // min(layout.lanes, <Py_ssize_t>PANEL))
    layout.blocks = max(<Py_ssize_t>1, (layout.rows + layout.block_rows - 1) // layout.block_rows)
    layout.panels = (layout.lanes + PANEL - 1) // PANEL
    layout.size = view.reduced * layout.columns
    return layout


cdef struct Span:
    # the rows and lanes of one (outer index, block, panel)
    Py_ssize_t outer
    Py_ssize_t block
    Py_ssize_t first_row
    Py_ssize_t last_row
    Py_ssize_t first_lane
    Py_ssize_t last_lane
    Py_ssize_t last_rest    # lanes of the partial row up to here, if this block has it, else 0


cdef inline Span span_of(Layout* layout, Py_ssize_t task) noexcept nogil:
    cdef Span span
    cdef Py_ssize_t panel = task % layout.panels
    span.block = task // layout.panels % layout.blocks
    span.outer = task // layout.panels // layout.blocks
    span.first_row = span.block * layout.block_rows
    span.last_row = min(span.first_row + layout.block_rows, layout.rows)
    span.first_lane = panel * PANEL
    span.last_lane = min(span.first_lane + PANEL, layout.lanes)
    span.last_rest = min(span.last_lane, layout.rest) if span.block == layout.blocks - 1 else 0
    return span


# ---- sums of lanes over blocks ---------------------------------------------------------------------------------------

cdef inline void merge_blocks(Layout* layout, Py_ssize_t rows, double* sums, Py_ssize_t outer) noexcept nogil:
    # sums (O, blocks, rows, lanes), high and low parts in turn: the blocks of one outer index, in order, into the first
    cdef Py_ssize_t lanes = layout.lanes
    cdef double* total = sums + outer * layout.blocks * rows * lanes
    cdef double* block
    cdef Py_ssize_t b, q, j
    for b in range(1, layout.blocks):
        block = total + b * rows * lanes
        for q in range(0, rows, 2):
            add_to_lanes(block + q * lanes, 0, lanes, total + q * lanes, total + (q + 1) * lanes)
            for j in range(lanes):
                total[(q + 1) * lanes + j] += block[(q + 1) * lanes + j]


cdef inline dd lane_total(
    Layout* layout, Py_ssize_t rows, const double* sums, Py_ssize_t outer, Py_ssize_t column, Py_ssize_t row,
) noexcept nogil:
    # after merge_blocks: the folded lanes of one column, in order; `row` is that of the high part
    cdef const double* high = sums + (outer * layout.blocks * rows + row) * layout.lanes
    cdef const double* low = high + layout.lanes
    cdef Py_ssize_t lane = column + layout.columns
    cdef dd total = two_sum(high[column], low[column])
    while lane < layout.lanes:
        total = dd_add(total, two_sum(high[lane], low[lane]))
        lane += layout.columns
    return total
