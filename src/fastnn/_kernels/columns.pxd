# Layout of the column kernels: statistics across contiguous memory, for the view (O, A, S, I) with S·I columns.
#
# Narrow arrays are seen as wider ones: `fold` rows side by side are one row of fold·S·I lanes, so that the registers
# are full; the lanes of one column are added up at the end, in order. The rows that do not fill a wide one are the
# rest. Rows are cut into blocks and lanes into panels of whole groups by the shape alone; a panel of one outer index is
# a unit, which nothing connects with the others. Threads share either units or blocks of whole rows: two that write
# different panels of the same rows disturb each other.
#
# A sum has one double for each lane, which takes the lane's terms in the order of the rows. Differences and products of
# float32 data are (all but) exact in double; those of float64 data come in two parts, and so do their sums.

from cython cimport floating

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport dd, join, two_sum
from fastnn._kernels.norm cimport LINE, View
from fastnn._kernels.streaming cimport STREAM_BYTES
from fastnn._kernels.vectors cimport load16, store8, stream16, widen as widen_some

cdef extern from *:
    """
    /* Lanes of float data that are summed at a time, two double sums and a shift for each; of double data half as many,
       with four sums: these stay in 32 registers of 64 bytes, or in 16 smaller ones. Single lines of distant rows would
       be read more slowly than several. And lanes of the longest rows that have loops of their own. */
    #if defined(__AVX512F__)
    enum { FASTNN_STRIP = 64, FASTNN_EVEN_MOST = 256 };
    #else
    enum { FASTNN_STRIP = 16, FASTNN_EVEN_MOST = 128 };
    #endif
    """
    cdef enum:
        STRIP "FASTNN_STRIP"
        EVEN_MOST "FASTNN_EVEN_MOST"

cdef enum:
    # lanes of what is left beside whole strips
    SLIM = 16
    # Results of float data in rows of EVEN, 2 · EVEN or EVEN_MOST lanes have loops of their own, the parameters of
    # short ones in registers: what a row took beside its elements was up to a quarter of the time. Not past the caches,
    # where that is slower.
    EVEN = 64
    # most lanes of a panel of several blocks, and usually of one that is a single block, unless one group has more
    PANEL = 640
    SMALL_PANEL = 256
    # Narrow rows are joined: as few as make multiples of WHOLE lanes, the widest strip, if that comes out even within
    # FOLDED lanes; else to about FOLDED lanes, if possible multiples of SIXTEEN, which are whole cache lines. Panels
    # are multiples of WHOLE lanes.
    FOLDED = 256
    WHOLE = 64
    SIXTEEN = 16
    LEAST_ROWS = 8          # that are left by joining
    # elements and rows of a block of one panel, at the least; and the most blocks
    BLOCK = 32768
    BLOCK_ROWS = 128
    BLOCKS = 64
    # bytes that move while a column's sums become parameters
    CLOSING = 256
    # Units of one block each, of few outer indices: the results of calls that move so many bytes are shared out as
    # PIECES of whole rows. Where two threads write one row, each takes the lines between them from the other again and
    # again, also by reading ahead: of 64 rows of 1000 that was a third of the time. To begin a second time costs as
    # much with fewer bytes; with more, units rather stay in a cache.
    SHARED = 7 << 16
    SHARED_MOST = 1 << 20
    PIECES = 8
    # Rows that are summed strip by strip: so many, or as many as have these elements.
    SUM_ROWS = 16
    SUM_TILE = 8192


cdef inline Py_ssize_t strip_of(floating example) noexcept nogil:
    return STRIP if floating is float else max(<Py_ssize_t>STRIP // 2, <Py_ssize_t>SLIM)


cdef struct Layout:
    Py_ssize_t outer
    Py_ssize_t columns      # S · I
    Py_ssize_t fold         # rows side by side
    Py_ssize_t lanes        # fold · columns
    Py_ssize_t stride       # of the rows of sums and parameters: lanes and some more, in whole cache lines
    Py_ssize_t rows         # whole rows of `lanes`
    Py_ssize_t rest         # lanes of the last, partial row
    Py_ssize_t block_rows
    Py_ssize_t blocks       # at least one
    Py_ssize_t panel        # lanes of each panel but the last
    Py_ssize_t panels
    Py_ssize_t sum_rows     # that are summed at a time
    Py_ssize_t size         # elements of one outer index


cdef inline Py_ssize_t joined(Py_ssize_t columns, Py_ssize_t lanes) noexcept nogil:
    # the least number of rows that make a multiple of `lanes`, a power of two
    return lanes // min(columns & -columns, lanes)


cdef inline Layout layout_of(View* view, Py_ssize_t small_panel) noexcept nogil:
    # small_panel: most lanes of a panel that is a single block
    cdef Layout layout
    cdef Py_ssize_t step, widest
    layout.outer = view.outer
    layout.columns = view.groups * view.inner
    layout.fold = max(<Py_ssize_t>1, min(FOLDED // layout.columns, view.reduced // LEAST_ROWS))
    if joined(layout.columns, WHOLE) <= layout.fold:
        layout.fold = joined(layout.columns, WHOLE)
    elif layout.columns <= FOLDED:
        step = joined(layout.columns, SIXTEEN)
        if step <= layout.fold:
            layout.fold -= layout.fold % step
        elif step <= 2 * layout.fold:
            layout.fold = step
    layout.lanes = layout.fold * layout.columns
    layout.stride = (layout.lanes + LINE - 1) // LINE * LINE + SIXTEEN      # no power of two: caches have few ways
    layout.rows = view.reduced // layout.fold
    layout.rest = view.reduced % layout.fold * layout.columns
    layout.panel = layout.lanes
    widest = PANEL if layout.rows > BLOCK_ROWS else small_panel
    if layout.fold == 1 and layout.lanes > widest and view.inner <= widest:
        # even shares, if one group is no wider
        step = (WHOLE - 1 + view.inner) // view.inner * view.inner
        layout.panels = (layout.lanes + widest - 1) // widest
        layout.panel = ((layout.lanes + layout.panels - 1) // layout.panels + step - 1) // step * step
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


cdef inline bint may_share(Layout* layout, double moved) noexcept nogil:
    # whether threads had better write whole rows
    return layout.panels > 1 and SHARED <= moved <= SHARED_MOST


cdef inline Layout pieces_of(Layout* layout) noexcept nogil:
    # the same, cut into blocks that are for results alone
    cdef Layout pieces = layout[0]
    pieces.blocks = min(<Py_ssize_t>PIECES, layout.rows)
    pieces.block_rows = (layout.rows + pieces.blocks - 1) // pieces.blocks
    return pieces


cdef struct Span:
    # the rows of one block, and lanes of neighbouring units that are in the same state
    Py_ssize_t outer
    Py_ssize_t block
    Py_ssize_t first_row
    Py_ssize_t last_row
    Py_ssize_t first_lane
    Py_ssize_t last_lane
    Py_ssize_t last_rest    # lanes of the partial row up to here, if this block has it, else 0
    unsigned char state
    Py_ssize_t next_unit
    Py_ssize_t end_unit


cdef inline Span span_of(Layout* layout, Py_ssize_t task, bint whole) noexcept nogil:
    # a block of whole rows, or of one unit; its lanes are those of next_lanes
    cdef Span span
    span.block = task % layout.blocks
    span.next_unit = task // layout.blocks * (layout.panels if whole else 1)
    span.end_unit = span.next_unit + (layout.panels if whole else 1)
    span.outer = span.next_unit // layout.panels
    span.first_row = min(span.block * layout.block_rows, layout.rows)
    span.last_row = min(span.first_row + layout.block_rows, layout.rows)
    return span


cdef inline bint next_lanes(Layout* layout, const unsigned char* states, Span* span) noexcept nogil:
    # whether there are more
    cdef Py_ssize_t first = span.next_unit
    if first == span.end_unit:
        return False
    span.state = states[first]
    while span.next_unit < span.end_unit and states[span.next_unit] == span.state:
        span.next_unit += 1
    span.first_lane = first % layout.panels * layout.panel
    span.last_lane = min(span.first_lane + (span.next_unit - first) * layout.panel, layout.lanes)
    span.last_rest = min(span.last_lane, layout.rest) if span.block == layout.blocks - 1 else 0
    return True


cdef inline Py_ssize_t rows_of(Layout* layout, Py_ssize_t left) noexcept nogil:
    # that are summed at a time; the last ones together
    return layout.sum_rows if left >= 2 * layout.sum_rows else left


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


# ---- elements in double precision ------------------------------------------------------------------------------------

cdef enum:
    WIDENED = 8

cdef inline inlined widen(const floating* x, double* wide, Py_ssize_t n) noexcept nogil:
    # n elements into a local array, which stays in registers or is stored in whole ones, so that the next step has it
    # without waiting. From a plain loop GCC 12 reads whole registers of floats and takes them apart in order to convert
    # the halves: a fifth of the time of a sum.
    cdef Py_ssize_t j
    if floating is float:
        for j in range(n // WIDENED):
            store8(wide + j * WIDENED, widen_some(x + j * WIDENED))
        for j in range(n // WIDENED * WIDENED, n):
            wide[j] = x[j]
    else:
        for j in range(n):
            wide[j] = x[j]


# ---- results that bypass the caches ----------------------------------------------------------------------------------

cdef inline bint may_stream(const void* result, Layout* layout, double moved, Py_ssize_t itemsize) noexcept nogil:
    # whether a call moves more than the caches hold, and every row of a panel begins with a cache line
    return (
        moved > STREAM_BYTES and <size_t>result % LINE == 0 and layout.lanes * itemsize % LINE == 0
        and layout.panel * itemsize % LINE == 0 and (layout.outer == 1 or layout.size * itemsize % LINE == 0))


cdef inline inlined put(const floating* values, floating* result, Py_ssize_t n, bint streamed) noexcept nogil:
    # n and `streamed` are constants where this is inlined; only whole cache lines are streamed
    cdef Py_ssize_t j
    if streamed and n * sizeof(floating) % LINE == 0:
        for j in range(n * <Py_ssize_t>sizeof(floating) // LINE):
            stream16(<float*>result + 16 * j, load16(<const float*>values + 16 * j))
    else:
        for j in range(n):
            result[j] = values[j]


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
    # sums (O, blocks, rows of sums, stride): the blocks of one unit, in order, into the first
    cdef Py_ssize_t rows = sums_of(example)
    cdef Py_ssize_t stride = layout.stride
    cdef Py_ssize_t last = min(unit.first_lane + layout.panel, layout.lanes)
    cdef double* total = sums + unit.outer * layout.blocks * rows * stride
    cdef double* block
    cdef Py_ssize_t b, q, j
    cdef dd s
    for b in range(1, layout.blocks):
        block = total + b * rows * stride
        for q in range(FIRST_LOW):
            for j in range(q * stride + unit.first_lane, q * stride + last):
                if floating is float:
                    total[j] += block[j]
                else:
                    s = two_sum(total[j], block[j])
                    total[j] = s.high
                    total[FIRST_LOW * stride + j] += s.low + block[FIRST_LOW * stride + j]


cdef inline void fold_lanes(Layout* layout, Unit* unit, double* sums, floating example) noexcept nogil:
    # after merge_blocks: the lanes of each column, in order, into the first of them
    cdef double* high = sums + unit.outer * layout.blocks * sums_of(example) * layout.stride
    cdef double* low
    cdef Py_ssize_t _q, lane, j
    cdef dd total
    for _q in range(FIRST_LOW):
        low = high + FIRST_LOW * layout.stride
        lane = layout.columns
        while lane < layout.lanes:
            for j in range(unit.first_lane, unit.last_lane):
                total = join(lane_sum(high, low, j, example), lane_sum(high, low, lane + j, example), example)
                high[j] = total.high
                if floating is double:
                    low[j] = total.low
            lane += layout.columns
        high += layout.stride


cdef inline dd lane_sum(const double* high, const double* low, Py_ssize_t lane, floating example) noexcept nogil:
    cdef dd total
    if floating is float:
        total.high = high[lane]
        total.low = 0
        return total
    else:
        return two_sum(high[lane], low[lane])


# ---- masks -----------------------------------------------------------------------------------------------------------

cdef inline apart count_elements(
    const unsigned char* mask, View* view, Unit* unit, Py_ssize_t* counts,
) noexcept nogil:
    # of each column of one unit, those that count; mask at the outer index's start, counts (S · I)
    cdef Py_ssize_t columns = view.groups * view.inner
    cdef Py_ssize_t _a, j
    for j in range(unit.first_lane, unit.last_lane):
        counts[j] = 0
    for _a in range(view.reduced):
        for j in range(unit.first_lane, unit.last_lane):
            counts[j] += mask[j] != 0
        mask += columns


cdef inline void count_groups(
    const Py_ssize_t* counts, View* view, Py_ssize_t group, Py_ssize_t count, double* n,
) noexcept nogil:
    # elements of `count` groups from `group` on; without counts every element counts
    cdef Py_ssize_t j, i, elements
    for j in range(count):
        elements = view.reduced * view.inner
        if counts != NULL:
            elements = 0
            for i in range((group + j) * view.inner, (group + j + 1) * view.inner):
                elements += counts[i]
        n[j] = <double>elements


# ---- scratch memory --------------------------------------------------------------------------------------------------

cdef inline size_t whole_lines(size_t size) noexcept nogil:
    return (size + LINE - 1) // LINE * LINE


cdef inline void* carve(char** rest, size_t size) noexcept nogil:
    # the next `size` bytes of a block, from a cache line's start on; such a block has LINE bytes more than whole lines
    cdef char* part = <char*>whole_lines(<size_t>rest[0])
    rest[0] = part + whole_lines(size)
    return part
