"""Norms whose statistics run across contiguous memory: forward, and evaluation with given statistics.

Design
  (A) One kernel serves batch, instance and group norm of channels-last images, batch norm of tables, and
      standardisation over leading axes: they differ in the view (O, A, S, I) of the array. See columns.pxd for how
      its columns become lanes, blocks and units, and for the sums.
  (B) One pass for the statistics, around each group's first element. The sums are so exact that it may lie FAR
      standard deviations off; a group where it lies farther is summed again around its mean.
  (C) y = fma(x − shift, factor, offset) with factor = rstd·weight and offset = bias − lo·factor, both rounded once: two
      operations and three parameters for each element.
  (D) Sums take a few rows at a time, strip by strip: memory is read in long runs, and the sums of a strip stay in
      registers. The last strip starts early where there is room, and its first lanes are left out. Results are
      written row by row: more streams at a time were slower. Rows of NARROW lanes keep their parameters in registers.
  (E) With many units, each is one task and its data stays in that core's cache between the passes; with few, blocks
      are shared out pass by pass, the second pass beginning where the first ended. The bits are the same.
"""

from cython cimport floating
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastnn._kernels._runtime cimport parallel_back, parallel_for, team_size
from fastnn._kernels.columns cimport (
    FIRST, FIRST_LOW, NARROW, SECOND, SECOND_LOW, STRIP, SUMS, Layout, Span, Unit, lane_total, layout_of,
    merge_blocks, moderate, repeat, span_of, sums_of, unit_of,
)
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.lanes cimport add_product, add_term, dd, exact_deviation, join
from fastnn._kernels.norm cimport (
    AGAIN, COLD, DISTANT, Group, Population, Verdict, View, claim_lines, close_group, count_of, deviation,
    first_counted, scale_of,
)
from fastnn._kernels.norm_call cimport Call, offer

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
    Group* groups               # IN if given, else OUT; (O · S)
    Population* population      # OUT  (O · S) or NULL
    Group* own_groups           # scratch for groups that nobody keeps, or NULL
    double* sums                # scratch (O, blocks, rows of sums, lanes): Σ, Σ²
    void* parameters            # scratch (O, PARAMETERS, lanes), see below
    unsigned char* states       # scratch (units), see below

# Rows of parameters: the first two steer the sums, then all of them the result.
cdef enum:
    SHIFT
    SCALE
    FACTOR          # rstd · weight
    OFFSET          # bias − lo · rstd · weight
    PARAMETERS

cdef enum:
    # passes for the sums: a scale may have to be found, then a shift
    ATTEMPTS = 3
    # A shift may be the root of this many standard deviations off: of the 53 bits of a sum it costs ten.
    FAR = 1024
    # narrow rows between the one that is written and the one whose lines are claimed
    AHEAD = 4

# What is known of a unit; a set of bits.
cdef enum State:
    UNDECIDED = 1       # has groups to sum once more
    SCALED = 2          # has groups whose scale is not 1


# ---- statistics ------------------------------------------------------------------------------------------------------

cdef inline void set_shift(
    Forward* p, Py_ssize_t group, floating* parameters, floating shift, floating scale,
) noexcept nogil:
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef Py_ssize_t lane = group * p.view.inner
    cdef Py_ssize_t i
    while lane < lanes:
        for i in range(lane, lane + p.view.inner):
            parameters[SHIFT * lanes + i] = shift
            parameters[SCALE * lanes + i] = scale
        lane += p.layout.columns


cdef inline void start_unit(
    Forward* p, Unit* unit, const floating* x, const unsigned char* mask, floating* parameters,
) noexcept nogil:
    cdef Py_ssize_t s, at
    for s in range(unit.first_group, unit.last_group):
        at = s * p.view.inner
        if p.centered:
            set_shift(p, s, parameters, first_counted(x + at, mask + at if mask != NULL else NULL, &p.view), 1)
        else:
            set_shift(p, s, parameters, <floating>0, 1)


cdef inline inlined strip_sums(
    const floating* x, const unsigned char* mask, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows,
    Py_ssize_t skip, Py_ssize_t width, bint cold, double* totals,
) noexcept nogil:
    # some rows, added to totals (rows of sums, lanes) from lane `skip` on; `cold` is a constant where this is inlined:
    # without it every scale is 1
    cdef Py_ssize_t j
    cdef dd d
    cdef double sums[STRIP]
    cdef double squares[STRIP]
    cdef double sums_low[STRIP]
    cdef double squares_low[STRIP]
    cdef double shift[STRIP]
    cdef double scale[STRIP]
    for j in range(width):
        shift[j] = parameters[SHIFT * lanes + j]
        scale[j] = parameters[SCALE * lanes + j]
        sums[j] = totals[FIRST * lanes + j]
        squares[j] = totals[SECOND * lanes + j]
        if floating is double:
            sums_low[j] = totals[FIRST_LOW * lanes + j]
            squares_low[j] = totals[SECOND_LOW * lanes + j]
    while rows > 0:
        for j in range(width):
            d = exact_deviation(x[j], shift[j], scale[j], cold)
            if mask != NULL and mask[j] == 0:
                d.high = 0
                d.low = 0
            add_term(&sums[j], &sums_low[j], d, x[0])
            add_product(&squares[j], &squares_low[j], d, d, x[0])
        x += lanes
        if mask != NULL:
            mask += lanes
        rows -= 1
    for j in range(skip, width):
        totals[FIRST * lanes + j] = sums[j]
        totals[SECOND * lanes + j] = squares[j]
        if floating is double:
            totals[FIRST_LOW * lanes + j] = sums_low[j]
            totals[SECOND_LOW * lanes + j] = squares_low[j]


cdef inline void sum_rows(
    const floating* x, const unsigned char* mask, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows,
    Py_ssize_t first, Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    # lanes first … last − 1 of some rows
    cdef Py_ssize_t start, width
    cdef Py_ssize_t at = first
    while at < last:
        start = at if last - at >= STRIP else max(first, last - STRIP)
        width = min(<Py_ssize_t>STRIP, last - start)
        if width < STRIP or mask != NULL or cold:
            strip_sums(
                x + start, mask + start if mask != NULL else NULL, parameters + start, lanes, rows, at - start, width,
                True, totals + start)
        elif at > start:
            strip_sums(x + start, NULL, parameters + start, lanes, rows, at - start, STRIP, False, totals + start)
        else:
            strip_sums(x + start, NULL, parameters + start, lanes, rows, 0, STRIP, False, totals + start)
        at += STRIP


cdef inline void sum_span(Forward* p, Span* span, const floating* x) noexcept nogil:
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t base = span.outer * layout.size
    cdef const unsigned char* mask = p.mask + base if p.mask != NULL else NULL
    cdef const floating* parameters = <const floating*>p.parameters + span.outer * PARAMETERS * lanes
    cdef bint cold = p.states[span.unit] & SCALED
    cdef Py_ssize_t kinds = sums_of(x[0])
    cdef double* totals = p.sums + (span.outer * layout.blocks + span.block) * kinds * lanes
    cdef Py_ssize_t row, q
    x += base
    for q in range(kinds):
        memset(totals + q * lanes + span.first_lane, 0, (span.last_lane - span.first_lane) * sizeof(double))
    row = span.first_row
    while row < span.last_row:
        sum_rows(
            x + row * lanes, mask + row * lanes if mask != NULL else NULL, parameters, lanes,
            min(layout.sum_rows, span.last_row - row), span.first_lane, span.last_lane, cold, totals)
        row += layout.sum_rows
    if span.last_rest > span.first_lane:
        row = layout.rows
        sum_rows(
            x + row * lanes, mask + row * lanes if mask != NULL else NULL, parameters, lanes, 1, span.first_lane,
            span.last_rest, cold, totals)


cdef inline bint is_far(dd s1, dd s2, double n) noexcept nogil:
    cdef double lo = s1.high / n
    return lo * lo > FAR * (s2.high / n - lo * lo)


cdef inline int close_unit(
    Forward* p, Unit* unit, const floating* x, const unsigned char* mask, floating* parameters,
) noexcept nogil:
    # sums → groups of one unit; a group to be summed once more gets another shift or another scale
    cdef Py_ssize_t inner = p.view.inner
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef const unsigned char* group_mask = NULL
    cdef Group* group
    cdef Population* population
    cdef Py_ssize_t s, i, at
    cdef dd s1, s2
    cdef double n, scale
    cdef Verdict verdict
    cdef int state = 0
    merge_blocks(&p.layout, unit, p.sums, x[0])
    for s in range(unit.first_group, unit.last_group):
        at = s * inner
        s1 = lane_total(&p.layout, p.sums, unit.outer, at, FIRST, x[0])
        s2 = lane_total(&p.layout, p.sums, unit.outer, at, SECOND, x[0])
        for i in range(at + 1, at + inner):
            s1 = join(s1, lane_total(&p.layout, p.sums, unit.outer, i, FIRST, x[0]), x[0])
            s2 = join(s2, lane_total(&p.layout, p.sums, unit.outer, i, SECOND, x[0]), x[0])
        group = p.groups + unit.outer * p.view.groups + s
        population = p.population + unit.outer * p.view.groups + s if p.population != NULL else NULL
        if mask != NULL:
            group_mask = mask + at
        n = <double>count_of(group_mask, &p.view)
        verdict = close_group(
            s1, s2, n, p.eps, p.centered, parameters[SHIFT * lanes + at], <double>parameters[SCALE * lanes + at],
            group, population)
        if verdict == COLD:
            scale = scale_of(x + at, group_mask, &p.view, p.eps)
            set_shift(
                p, s, parameters, <floating>(first_counted(x + at, group_mask, &p.view) * scale if p.centered else 0),
                <floating>scale)
            state |= UNDECIDED
        elif verdict == AGAIN and is_far(s1, s2, n):
            set_shift(p, s, parameters, <floating>group.shift, parameters[SCALE * lanes + at])
            state |= UNDECIDED
        if parameters[SCALE * lanes + at] != 1:
            state |= SCALED
    return state


# ---- applying them ---------------------------------------------------------------------------------------------------

cdef inline int prepare(Forward* p, Unit* unit, floating* parameters) noexcept nogil:
    # groups → parameters of one unit; whether a scale is not 1
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef const floating* weight = <const floating*>p.weight
    cdef const floating* bias = <const floating*>p.bias
    cdef Group group
    cdef Py_ssize_t s, j
    cdef double factor
    cdef int state = 0
    for s in range(unit.first_group, unit.last_group):
        group = moderate(p.groups + unit.outer * p.view.groups + s, parameters[0])
        if group.scale != 1:
            state = SCALED
        for j in range(s * p.view.inner, (s + 1) * p.view.inner):
            factor = group.rstd * weight[j] if weight != NULL else group.rstd
            parameters[SHIFT * lanes + j] = <floating>group.shift
            parameters[SCALE * lanes + j] = <floating>group.scale
            parameters[FACTOR * lanes + j] = <floating>factor
            parameters[OFFSET * lanes + j] = <floating>((bias[j] if bias != NULL else 0) - group.lo * factor)
    repeat(&p.layout, unit, parameters, SHIFT, PARAMETERS)
    return state


cdef inline inlined apply_row(
    const floating* x, floating* y, const floating* parameters, Py_ssize_t lanes, Py_ssize_t n, bint cold,
) noexcept nogil:
    # n lanes; `cold` is a constant where this is inlined: without it every scale is 1
    cdef const floating* shift = parameters + SHIFT * lanes
    cdef const floating* scale = parameters + SCALE * lanes
    cdef const floating* factor = parameters + FACTOR * lanes
    cdef const floating* offset = parameters + OFFSET * lanes
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = multiply_add(deviation(x[j], shift[j], scale[j], cold), factor[j], offset[j])


cdef inline inlined apply_narrow(
    const floating* x, floating* y, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows, bint distant,
) noexcept nogil:
    # NARROW lanes of some rows, every scale being 1
    cdef Py_ssize_t j
    cdef floating d[NARROW]
    cdef floating shift[NARROW]
    cdef floating factor[NARROW]
    cdef floating offset[NARROW]
    for j in range(NARROW):
        shift[j] = parameters[SHIFT * lanes + j]
        factor[j] = parameters[FACTOR * lanes + j]
        offset[j] = parameters[OFFSET * lanes + j]
    while rows > 0:
        if distant and rows > AHEAD:
            claim_lines(y + AHEAD * lanes, NARROW)
        # in two loops: y may be x
        for j in range(NARROW):
            d[j] = deviation(x[j], shift[j], shift[j], False)
        for j in range(NARROW):
            y[j] = multiply_add(d[j], factor[j], offset[j])
        x += lanes
        y += lanes
        rows -= 1


cdef inline void apply_rows(
    const floating* x, floating* y, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows, Py_ssize_t n,
    bint cold, bint distant,
) noexcept nogil:
    # n lanes of some rows
    cdef Py_ssize_t r, at
    if n == NARROW and not cold:
        apply_narrow(x, y, parameters, lanes, rows, distant)
        return
    for r in range(rows):
        at = r * lanes
        if distant and r + 1 < rows:
            claim_lines(y + at + lanes, n)
        if cold:
            apply_row(x + at, y + at, parameters, lanes, n, True)
        elif x == y:
            # written so, the compiler sees that each element depends on itself only
            apply_row(y + at, y + at, parameters, lanes, n, False)
        else:
            apply_row(x + at, y + at, parameters, lanes, n, False)


cdef inline void apply_span(Forward* p, Span* span, const floating* x, floating* y) noexcept nogil:
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t first = span.first_lane
    cdef const floating* parameters = <const floating*>p.parameters + span.outer * PARAMETERS * lanes + first
    cdef bint cold = p.states[span.unit] & SCALED
    cdef Py_ssize_t base = span.outer * layout.size + first
    cdef Py_ssize_t at = base + span.first_row * lanes
    apply_rows(
        x + at, y + at, parameters, lanes, span.last_row - span.first_row, span.last_lane - first, cold, p.distant)
    if span.last_rest > first:
        at = base + layout.rows * lanes
        apply_rows(x + at, y + at, parameters, lanes, 1, span.last_rest - first, cold, False)


# ---- tasks: each step of one unit or of one block of it --------------------------------------------------------------

cdef void start_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.lanes
    cdef Py_ssize_t base = unit.outer * p.layout.size
    cdef const unsigned char* mask = p.mask + base if p.mask != NULL else NULL
    p.states[number] = UNDECIDED
    if p.double_precision:
        start_unit(p, &unit, <const double*>p.x + base, mask, <double*>p.parameters + at)
    else:
        start_unit(p, &unit, <const float*>p.x + base, mask, <float*>p.parameters + at)


cdef void sum_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Span span = span_of(&p.layout, task)
    if not p.states[span.unit] & UNDECIDED:
        return
    if p.double_precision:
        sum_span(p, &span, <const double*>p.x)
    else:
        sum_span(p, &span, <const float*>p.x)


cdef void close_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.lanes
    cdef Py_ssize_t base = unit.outer * p.layout.size
    cdef const unsigned char* mask = p.mask + base if p.mask != NULL else NULL
    if not p.states[number] & UNDECIDED:
        return
    if p.double_precision:
        p.states[number] = close_unit(p, &unit, <const double*>p.x + base, mask, <double*>p.parameters + at)
    else:
        p.states[number] = close_unit(p, &unit, <const float*>p.x + base, mask, <float*>p.parameters + at)


cdef void prepare_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.lanes
    if p.double_precision:
        p.states[number] = prepare(p, &unit, <double*>p.parameters + at)
    else:
        p.states[number] = prepare(p, &unit, <float*>p.parameters + at)


cdef void apply_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Span span = span_of(&p.layout, task)
    if p.double_precision:
        apply_span(p, &span, <const double*>p.x, <double*>p.y)
    else:
        apply_span(p, &span, <const float*>p.x, <float*>p.y)


cdef void unit_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # all steps of one unit
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t blocks = p.layout.blocks
    cdef Py_ssize_t task, _attempt
    if not p.given:
        start_task(p, number)
        for _attempt in range(ATTEMPTS):
            for task in range(number * blocks, (number + 1) * blocks):
                sum_task(p, task)
            close_task(p, number)
    prepare_task(p, number)
    for task in range((number + 1) * blocks - 1, number * blocks - 1, -1):     # the caches hold the last ones
        apply_task(p, task)


cdef void run_forward(Forward* p) noexcept nogil:
    cdef Py_ssize_t units = p.layout.outer * p.layout.panels
    cdef Py_ssize_t _attempt
    cdef double half = 1.0 * p.layout.outer * p.layout.size * (8 if p.double_precision else 4)
    p.distant = 2 * half >= DISTANT and p.x != p.y and not p.given
    if units >= 2 * team_size(units, 2 * half) or p.layout.blocks == 1:
        parallel_for(unit_task, p, units, 2 * half)
        return
    if not p.given:
        parallel_for(start_task, p, units, 0)
        for _attempt in range(ATTEMPTS):
            if undecided(p, units):
                parallel_for(sum_task, p, units * p.layout.blocks, half)
                parallel_for(close_task, p, units, 0)
    parallel_for(prepare_task, p, units, 0)
    parallel_back(apply_task, p, units * p.layout.blocks, 2 * half)


cdef inline bint undecided(Forward* p, Py_ssize_t units) noexcept nogil:
    cdef Py_ssize_t number
    for number in range(units):
        if p.states[number] & UNDECIDED:
            return True
    return False


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef int forward(const Call* call) noexcept nogil:
    cdef Forward p
    cdef Py_ssize_t kinds = SUMS if call.double_precision else FIRST_LOW
    cdef Py_ssize_t groups = call.view.outer * call.view.groups
    p.view = call.view
    p.layout = layout_of(&p.view)
    p.x, p.y, p.weight, p.bias, p.mask = call.x, call.y, call.weight, call.bias, call.mask
    p.eps, p.centered, p.given, p.double_precision = call.eps, call.centered, call.given, call.double_precision
    p.population = call.population
    p.own_groups = <Group*>malloc(groups * sizeof(Group)) if call.groups == NULL else NULL
    p.groups = call.groups if call.groups != NULL else p.own_groups
    p.sums = <double*>malloc(p.layout.outer * p.layout.blocks * kinds * p.layout.lanes * sizeof(double))
    p.parameters = malloc(p.layout.outer * PARAMETERS * p.layout.lanes * (8 if p.double_precision else 4))
    p.states = <unsigned char*>malloc(p.layout.outer * p.layout.panels)
    if p.groups == NULL or p.sums == NULL or p.parameters == NULL or p.states == NULL:
        free_scratch(&p)
        return -1
    run_forward(&p)
    free_scratch(&p)
    return 0


cdef void free_scratch(Forward* p) noexcept nogil:
    free(p.own_groups)
    free(p.sums)
    free(p.parameters)
    free(p.states)


columns_forward = offer(forward)
