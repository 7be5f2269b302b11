"""Norms whose statistics run across contiguous memory: forward, and evaluation with given statistics.

Design
  (A) One kernel serves batch, instance and group norm of channels-last images, batch norm of tables, and
      standardisation over leading axes: they differ in the view (O, A, S, I) of the array. See columns.pxd for how
      its columns become lanes, blocks and units. Each step over a unit has a file: the sums (column_sums.pxd), from
      them the statistics (column_statistics.pxd), from these a few numbers for each lane (column_parameters.pxd), and
      the values (column_values.pxd). Here is who takes which step when.
  (B) One pass for the statistics, around zero: a shift would cost a third of the operations more. The sums are so exact
      that the mean may lie many standard deviations off; a group where it lies farther is summed again around it.
  (C) y = fma(x − shift, factor, offset) with factor = rstd·weight and offset = bias − lo·factor, both rounded once: two
      operations and three parameters for each element.
  (D) Sums take some rows at a time, strip by strip: memory is read in long runs, and the sums of a strip stay in
      registers. What is left of a row beside whole strips goes in slim ones, the last of which starts early where there
      is room; its first lanes are left out. Results are written row by row: more streams at a time were slower.
  (E) With many outer indices, each unit is one task and its data stays in that core's cache between the passes; with
      few, blocks of whole rows are shared out pass by pass; in the second each thread begins where it ended in the
      first. What lies between the passes is shared where there are many columns. Small wide arrays of few rows are
      read by units and written by whole rows. The bits are the same.
  (F) Groups of float data are closed SIDE at a time, as vectors: one by one, roots and quotients took as long as the
      sums of fifty rows.
  (G) A call that moves more than the caches hold writes its result past them: that saves reading the lines first, and
      the input stays where the second pass finds it.
"""

from cython cimport floating
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastnn._kernels._runtime cimport parallel_back, parallel_for, team_size
from fastnn._kernels.column_parameters cimport (
    FACTOR, PARAMETERS, SCALE, SHIFT, all_within, group_fits, group_goes_far, leave_alone, set_parameters,
)
from fastnn._kernels.column_statistics cimport (
    SCALED, SHIFTED, UNDECIDED, Closing, close_doubles, close_floats,
)
from fastnn._kernels.column_sums cimport some_sums
from fastnn._kernels.column_values cimport apply_rows
from fastnn._kernels.columns cimport (
    CLOSING, EVEN, FIRST_LOW, SMALL_PANEL, SUMS, Layout, Span, Unit, carve, count_elements, fold_lanes, layout_of,
    may_share, may_stream, merge_blocks, next_lanes, pieces_of, rows_of, span_of, sums_of, unit_of, whole_lines,
)
from fastnn._kernels.norm cimport DISTANT, LINE, Group, Population, View, least_of, most_of
from fastnn._kernels.norm_call cimport Call, offer
from fastnn._kernels.wide cimport wide_values

__all__ = ["columns_forward"]


cdef struct Forward:
    View view
    Layout layout
    const void* x               # IN   (O, A, S, I)
    void* y                     # OUT  the same; may be x
    const void* weight          # IN   (S · I) or NULL
    const void* bias            # IN   likewise
    const unsigned char* mask   # IN   like x, or NULL
    double eps
    bint centered
    bint given                  # the statistics come with the call
    bint double_precision
    bint distant                # the result does not fit a near cache and is written in a second pass
    bint streamed               # the result goes past the caches
    bint whole                  # blocks of whole rows are summed
    bint shared                 # blocks of whole rows are written
    Layout results              # whose blocks are written
    Group* groups               # IN if given, else OUT; (O · S)
    Population* population      # OUT  (O · S) or NULL
    double* sums                # scratch (O, blocks, rows of sums, stride): Σ(x − shift), Σ(x − shift)²
    void* parameters            # scratch (O, PARAMETERS, stride)
    unsigned char* states       # scratch (units): see column_statistics.pxd
    Py_ssize_t* counts          # scratch (O, S · I) if there is a mask: elements that count
    unsigned char* attempts     # scratch (units): sums closed so far
    unsigned char* wide         # scratch (O · S), of units in state WIDE: groups that need more range

cdef enum:
    # of the states too, once there are no more sums to take
    WIDE = 8            # has groups that need more range
    # passes for the sums: a shift may have to be found, then a scale, then a shift for that
    ATTEMPTS = 4


# ---- statistics ------------------------------------------------------------------------------------------------------

cdef inline void start_unit(Layout* layout, Unit* unit, floating* parameters) noexcept nogil:
    cdef Py_ssize_t j
    cdef Py_ssize_t last = min(unit.first_lane + layout.panel, layout.lanes)
    for j in range(unit.first_lane, last):
        parameters[SHIFT * layout.stride + j] = 0
    for j in range(unit.first_lane, last):
        parameters[SCALE * layout.stride + j] = 1


cdef inline void sum_span(Forward* p, Span* span, const floating* x) noexcept nogil:
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t stride = layout.stride
    cdef Py_ssize_t base = span.outer * layout.size
    cdef const unsigned char* mask = p.mask + base if p.mask != NULL else NULL
    cdef const floating* parameters = <const floating*>p.parameters + span.outer * PARAMETERS * stride
    cdef bint cold = span.state & (SCALED | SHIFTED)
    cdef Py_ssize_t kinds = sums_of(x[0])
    cdef double* totals = p.sums + (span.outer * layout.blocks + span.block) * kinds * stride
    cdef Py_ssize_t row, rows, q
    x += base
    for q in range(kinds):
        memset(totals + q * stride + span.first_lane, 0, (span.last_lane - span.first_lane) * sizeof(double))
    row = span.first_row
    while row < span.last_row:
        rows = rows_of(layout, span.last_row - row)
        some_sums(x, mask, parameters, layout, row, rows, span.first_lane, span.last_lane, cold, totals)
        row += rows
    if span.last_rest > span.first_lane:
        some_sums(x, mask, parameters, layout, layout.rows, 1, span.first_lane, span.last_rest, cold, totals)


cdef inline int close_unit(
    Forward* p, Unit* unit, const floating* x, const unsigned char* mask, floating* parameters,
) noexcept nogil:
    # sums → groups of one unit; a group to be summed once more gets another shift or another scale
    cdef Closing c
    c.view, c.layout, c.eps, c.centered = &p.view, &p.layout, p.eps, p.centered
    c.sums = p.sums + unit.outer * p.layout.blocks * sums_of(x[0]) * p.layout.stride
    c.counts = NULL
    c.groups = p.groups + unit.outer * p.view.groups
    c.population = p.population + unit.outer * p.view.groups if p.population != NULL else NULL
    if mask != NULL:
        c.counts = p.counts + unit.outer * p.layout.columns
        count_elements(mask, &p.view, unit, p.counts + unit.outer * p.layout.columns)
    merge_blocks(&p.layout, unit, p.sums, x[0])
    fold_lanes(&p.layout, unit, p.sums, x[0])
    if floating is float:
        return close_floats(&c, unit, parameters)
    else:
        return close_doubles(&c, unit, x, mask, parameters)


cdef inline int prepare(Forward* p, Unit* unit, const floating* x, floating* parameters) noexcept nogil:
    # groups → parameters of one unit; x at the outer index's start
    cdef const Group* groups = p.groups + unit.outer * p.view.groups
    cdef bint scaled = set_parameters(
        &p.view, &p.layout, unit, groups, <const floating*>p.weight, <const floating*>p.bias, parameters)
    cdef int state = SCALED if scaled else 0
    if set_apart(p, unit, x, scaled, parameters):
        state |= WIDE
    return state


cdef inline bint set_apart(
    Forward* p, Unit* unit, const floating* x, bint scaled, floating* parameters,
) noexcept nogil:
    # whether there are groups that need more range. Elements are near their mean, unless a mask leaves them out or the
    # statistics come with the call; in the data's own unit, only values out of range overflow even then.
    cdef const Group* groups = p.groups + unit.outer * p.view.groups
    cdef unsigned char* wide = p.wide + unit.outer * p.view.groups
    cdef bint far = scaled and (p.mask != NULL or p.given)
    cdef bint within, any_wide = False
    cdef Py_ssize_t s
    all_within(
        parameters + FACTOR * p.layout.stride, unit.first_lane, unit.last_lane, least_of(x[0]), most_of(x[0]),
        &within)
    if within and not far:
        return False
    for s in range(unit.first_group, unit.last_group):
        wide[s] = not group_fits(
            &p.view, parameters, p.layout.stride, s, groups + s, <const floating*>p.weight) or (
            far and group_goes_far(&p.view, groups + s, x + s * p.view.inner))
        if wide[s]:
            leave_alone(&p.view, &p.layout, s, parameters)
            any_wide = True
    return any_wide


# ---- values ----------------------------------------------------------------------------------------------------------

cdef inline void apply_span(Forward* p, Span* span, const floating* x, floating* y) noexcept nogil:
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t first = span.first_lane
    cdef const floating* parameters = <const floating*>p.parameters + span.outer * PARAMETERS * layout.stride + first
    cdef bint cold = span.state & SCALED
    cdef Py_ssize_t base = span.outer * layout.size + first
    cdef Py_ssize_t at = base + span.first_row * lanes
    apply_rows(
        x + at, y + at, parameters, layout, span.last_row - span.first_row, span.last_lane - first, cold, p.distant,
        p.streamed)
    if span.last_rest > first:
        at = base + layout.rows * lanes
        apply_rows(x + at, y + at, parameters, layout, 1, span.last_rest - first, cold, False, p.streamed)


# ---- tasks: each step of one unit or of one block of it --------------------------------------------------------------

cdef void start_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.stride
    p.states[number] = UNDECIDED
    p.attempts[number] = 0
    if p.double_precision:
        start_unit(&p.layout, &unit, <double*>p.parameters + at)
    else:
        start_unit(&p.layout, &unit, <float*>p.parameters + at)


cdef void sum_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Span span = span_of(&p.layout, task, p.whole)
    while next_lanes(&p.layout, p.states, &span):
        if not span.state & UNDECIDED:
            continue
        if p.double_precision:
            sum_span(p, &span, <const double*>p.x)
        else:
            sum_span(p, &span, <const float*>p.x)


cdef void close_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # sums, if there are any, → groups → parameters, unless sums have to be taken once more
    cdef Forward* p = <Forward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.stride
    cdef Py_ssize_t base = unit.outer * p.layout.size
    cdef const unsigned char* mask = p.mask + base if p.mask != NULL else NULL
    cdef int state = 0
    if not p.given:
        if not p.states[number] & UNDECIDED:
            return
        if p.double_precision:
            state = close_unit(p, &unit, <const double*>p.x + base, mask, <double*>p.parameters + at)
        else:
            state = close_unit(p, &unit, <const float*>p.x + base, mask, <float*>p.parameters + at)
        p.attempts[number] += 1
        if state & UNDECIDED and p.attempts[number] < ATTEMPTS:
            p.states[number] = state
            return
    if p.double_precision:
        p.states[number] = prepare(p, &unit, <const double*>p.x + base, <double*>p.parameters + at)
    else:
        p.states[number] = prepare(p, &unit, <const float*>p.x + base, <float*>p.parameters + at)


cdef void apply_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Span span = span_of(&p.results, task, p.shared)
    while next_lanes(&p.results, p.states, &span):
        if p.double_precision:
            apply_span(p, &span, <const double*>p.x, <double*>p.y)
        else:
            apply_span(p, &span, <const float*>p.x, <float*>p.y)


cdef void statistics_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # of one unit, and what follows from them
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t first = number * p.layout.blocks
    cdef Py_ssize_t task
    if p.given:
        close_task(p, number)
        return
    start_task(p, number)
    while p.states[number] & UNDECIDED:
        for task in range(first, first + p.layout.blocks):
            sum_task(p, task)
        close_task(p, number)


cdef inline void write_wide(Forward* p, Unit* unit, floating* y) noexcept nogil:
    # in place of x; y at the outer index's start
    cdef Py_ssize_t s, at
    for s in range(unit.first_group, unit.last_group):
        at = s * p.view.inner
        if p.wide[unit.outer * p.view.groups + s]:
            wide_values(
                y + at, y + at, p.view.reduced, p.layout.columns, p.view.inner,
                <const floating*>p.weight + at if p.weight != NULL else NULL,
                <const floating*>p.bias + at if p.bias != NULL else NULL, 1,
                p.groups + unit.outer * p.view.groups + s)


cdef void wide_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Unit unit
    if not p.states[number] & WIDE:
        return
    unit = unit_of(&p.layout, &p.view, number)
    if p.double_precision:
        write_wide(p, &unit, <double*>p.y + unit.outer * p.layout.size)
    else:
        write_wide(p, &unit, <float*>p.y + unit.outer * p.layout.size)


cdef void unit_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # all steps of one unit
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t first = number * p.layout.blocks
    cdef Py_ssize_t task
    statistics_task(p, number)
    for task in range(first + p.layout.blocks - 1, first - 1, -1):
        apply_task(p, task)
    wide_task(p, number)


cdef void run_forward(Forward* p) noexcept nogil:
    cdef Py_ssize_t units = p.layout.outer * p.layout.panels
    cdef double half = 1.0 * p.layout.outer * p.layout.size * (8 if p.double_precision else 4)
    cdef double closing = 1.0 * p.layout.outer * p.layout.columns * CLOSING
    cdef bint few = p.layout.outer < 2 * team_size(units, 2 * half)
    p.streamed = p.x != p.y and may_stream(p.y, &p.layout, 2 * half, 8 if p.double_precision else 4)
    p.distant = not p.streamed and 2 * half >= DISTANT and p.x != p.y and not p.given
    p.whole = few and p.layout.blocks > 1
    p.shared = p.whole or (few and may_share(&p.layout, 2 * half))
    p.results = pieces_of(&p.layout) if p.shared and not p.whole else p.layout
    if not p.shared:
        parallel_for(unit_task, p, units, 2 * half)
        return
    if not p.whole or p.given:
        parallel_for(statistics_task, p, units, (0 if p.given else half) + closing)
    else:
        parallel_for(start_task, p, units, 0)
        while any_in(p, units, UNDECIDED):
            parallel_for(sum_task, p, p.layout.outer * p.layout.blocks, half)
            parallel_for(close_task, p, units, closing)
    parallel_back(apply_task, p, p.layout.outer * p.results.blocks, half)
    if any_in(p, units, WIDE):
        parallel_for(wide_task, p, units, half)


cdef inline bint any_in(Forward* p, Py_ssize_t units, int state) noexcept nogil:
    cdef Py_ssize_t number
    for number in range(units):
        if p.states[number] & state:
            return True
    return False


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef int forward(const Call* call) noexcept nogil:
    cdef Forward p
    cdef Py_ssize_t kinds = SUMS if call.double_precision else FIRST_LOW
    cdef size_t groups, sums, parameters, counts, units
    cdef char* scratch
    cdef char* rest
    p.view = call.view
    p.layout = layout_of(&p.view, SMALL_PANEL if call.double_precision else 2 * EVEN)
    p.x, p.y, p.weight, p.bias, p.mask = call.x, call.y, call.weight, call.bias, call.mask
    p.eps, p.centered, p.given, p.double_precision = call.eps, call.centered, call.given, call.double_precision
    p.population = call.population
    units = p.layout.outer * p.layout.panels
    groups = p.view.outer * p.view.groups * sizeof(Group) if call.groups == NULL else 0
    sums = p.layout.outer * p.layout.blocks * kinds * p.layout.stride * sizeof(double) if not p.given else 0
    parameters = p.layout.outer * PARAMETERS * p.layout.stride * (8 if p.double_precision else 4)
    counts = p.layout.outer * p.layout.columns * sizeof(Py_ssize_t) if p.mask != NULL else 0
    scratch = <char*>malloc(
        whole_lines(groups) + whole_lines(sums) + whole_lines(parameters) + whole_lines(counts) + 2 * units
        + p.view.outer * p.view.groups + LINE)
    if scratch == NULL:
        return -1
    rest = scratch
    p.groups = <Group*>carve(&rest, groups)         # that nobody keeps
    if call.groups != NULL:
        p.groups = call.groups
    p.sums = <double*>carve(&rest, sums)
    p.parameters = carve(&rest, parameters)
    p.counts = <Py_ssize_t*>carve(&rest, counts)
    p.states = <unsigned char*>carve(&rest, 2 * units + p.view.outer * p.view.groups)
    p.attempts = p.states + units
    p.wide = p.attempts + units
    run_forward(&p)
    free(scratch)
    return 0


columns_forward = offer(forward)
