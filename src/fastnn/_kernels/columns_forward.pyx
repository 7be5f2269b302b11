"""Norms whose statistics run across contiguous memory: forward, and evaluation with given statistics.

Design
  (A) One kernel serves batch, instance and group norm of channels-last images, batch norm of tables, and
      standardisation over leading axes: they differ in the view (O, A, S, I) of the array. See columns.pxd for how
      its columns become lanes, blocks and panels.
  (B) One pass for the statistics around a first estimate of each mean, as rows_forward (B): the estimate is the mean
      of some rows spread over all; a group whose estimate was far off is summed again around its mean.
  (C) A lane adds at most FLUSH rows in the data's own precision, then merges into double (double-double). Blocks are
      merged in order, then the lanes of a group in order.
  (D) With many outer indices, each is one task and its data stays in that core's cache between the passes; with few,
      blocks are shared out pass by pass. The bits are the same.
  (E) The parameters of 64 lanes stay in registers while the rows of a strip pass by.
"""

cimport numpy as cnp
from cython cimport floating
from libc.math cimport sqrt
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastnn._kernels._memory cimport empty
from fastnn._kernels._runtime cimport parallel_for, team_size
from fastnn._kernels.columns cimport (
    Layout, Span, lane_total, layout_of, merge_blocks, span_of,
)
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.lanes cimport FLUSH, LANES, add_to_lanes, dd, dd_add
from fastnn._kernels.norm cimport (
    AGAIN, COLD, SAMPLE, Group, Population, Verdict, View, close_group, count_of, deviation, normalized, offset_of,
    scale_of,
)

cnp.import_array()

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
    Group* groups               # IN if given, else OUT; (O · S)
    Population* population      # OUT  (O · S) or NULL
    double* sums                # scratch (O, blocks, SUMS, lanes): Σ, Σ², high and low parts
    double* scratch             # scratch (O, 2, S · I): the estimates' totals and counts
    void* parameters            # scratch (O, PARAMETERS, lanes), see below
    unsigned char* states       # scratch (O), see below

cdef enum:
    SUMS = 4

# Rows of parameters: SHIFT and SCALE steer the sums, then all of them the result.
cdef enum:
    SHIFT
    SCALE
    RSTD
    OFFSET
    WEIGHT
    BIAS
    PARAMETERS

cdef enum:
    # passes for the sums: a scale may have to be found, then a shift
    ATTEMPTS = 3

# What is known of an outer index; a set of bits.
cdef enum State:
    UNDECIDED = 1       # has groups to sum once more
    SCALED = 2          # has groups whose scale is not 1


# ---- statistics ------------------------------------------------------------------------------------------------------

cdef inline void estimate_shifts(
    Forward* p, const floating* x, const unsigned char* mask, Py_ssize_t first, Py_ssize_t last, double scale,
    floating* parameters, double* totals, double* counts,
) noexcept nogil:
    # shift of the groups first … last − 1: the mean of x·scale in some rows, spread over all; and their scale.
    # totals and counts are scratch (columns).
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef Py_ssize_t inner = p.view.inner
    cdef Py_ssize_t a, j, i, r, s, lane
    cdef Py_ssize_t sampled = max(<Py_ssize_t>SAMPLE, <Py_ssize_t>(2 * sqrt(<double>p.view.reduced)))
    cdef double total, count
    cdef floating shift
    sampled = min(sampled, p.view.reduced)
    for j in range(first * inner, last * inner):
        totals[j] = 0
        counts[j] = 0
    for r in range(sampled if p.centered else 0):
        a = r * p.view.reduced // sampled
        if mask == NULL:
            for j in range(first * inner, last * inner):
                totals[j] += x[a * columns + j] * scale
        else:
            for j in range(first * inner, last * inner):
                if mask[a * columns + j]:
                    totals[j] += x[a * columns + j] * scale
                    counts[j] += 1
    for s in range(first, last):
        total = 0
        count = 0
        for i in range(s * inner, (s + 1) * inner):
            total += totals[i]
            count += counts[i] if mask != NULL else <double>sampled
        if count == 0:
            total = first_counted(x + s * inner, mask + s * inner, &p.view) * scale
            count = 1
        shift = <floating>(total / count) if p.centered else 0
        lane = s * inner
        while lane < lanes:
            for i in range(inner):
                parameters[SHIFT * lanes + lane + i] = shift
                parameters[SCALE * lanes + lane + i] = <floating>scale
            lane += columns


cdef floating first_counted(const floating* x, const unsigned char* mask, View* view) noexcept nogil:
    # x and mask at the group's start; 0 if none counts
    cdef Py_ssize_t a, i, at
    for a in range(view.reduced):
        for i in range(view.inner):
            at = a * view.groups * view.inner + i
            if mask[at]:
                return x[at]
    return 0


cdef inline void strip_sums(
    const floating* x, const unsigned char* mask, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows,
    Py_ssize_t skip, Py_ssize_t width, bint cold, double* totals,
) noexcept nogil:
    # at most FLUSH rows, added to totals (SUMS, lanes) from lane `skip` on; `cold` is a constant where this is
    # inlined: without it every scale is 1
    cdef Py_ssize_t r, j
    cdef floating a, b, c, d
    cdef floating sums[LANES]
    cdef floating squares[LANES]
    cdef floating shift[LANES]
    cdef floating scale[LANES]
    for j in range(width):
        shift[j] = parameters[SHIFT * lanes + j]
        scale[j] = parameters[SCALE * lanes + j]
        sums[j] = 0
        squares[j] = 0
    # fours are added as a tree, so that equal roundings do not pile up
    for r in range(rows // 4 if mask == NULL else 0):
        for j in range(width):
            a = deviation(x[4 * r * lanes + j], shift[j], scale[j], cold)
            b = deviation(x[(4 * r + 1) * lanes + j], shift[j], scale[j], cold)
            c = deviation(x[(4 * r + 2) * lanes + j], shift[j], scale[j], cold)
            d = deviation(x[(4 * r + 3) * lanes + j], shift[j], scale[j], cold)
            sums[j] += (a + b) + (c + d)
            squares[j] += multiply_add(b, b, a * a) + multiply_add(d, d, c * c)
    for r in range(rows - rows % 4 if mask == NULL else 0, rows):
        for j in range(width):
            d = deviation(x[r * lanes + j], shift[j], scale[j], cold)
            if mask != NULL:
                d = d if mask[r * lanes + j] else 0
            sums[j] += d
            squares[j] = multiply_add(d, d, squares[j])
    add_to_lanes(sums, skip, width, totals, totals + lanes)
    add_to_lanes(squares, skip, width, totals + 2 * lanes, totals + 3 * lanes)


cdef inline void strips(
    const floating* x, const unsigned char* mask, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows,
    Py_ssize_t first, Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    # lanes first … last − 1 of at most FLUSH rows. A strip that would stick out at the end starts earlier, where there
    # is room, and its first lanes are not counted again.
    cdef Py_ssize_t start, width
    cdef Py_ssize_t at = first
    while at < last:
        start = at if last - at >= LANES else max(<Py_ssize_t>0, last - LANES)
        width = min(<Py_ssize_t>LANES, last - start)
        if width < LANES or mask != NULL or cold:
            strip_sums(
                x + start, mask + start if mask != NULL else NULL, parameters + start, lanes, rows, at - start, width,
                True, totals + start)
        else:
            strip_sums(x + start, NULL, parameters + start, lanes, rows, at - start, LANES, False, totals + start)
        at += LANES


cdef inline void sum_span(Forward* p, Span* span, const floating* x) noexcept nogil:
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t base = span.outer * layout.size
    cdef const unsigned char* mask = p.mask + base if p.mask != NULL else NULL
    cdef const floating* parameters = <const floating*>p.parameters + span.outer * PARAMETERS * lanes
    cdef bint cold = p.states[span.outer] & SCALED
    cdef double* totals = p.sums + (span.outer * layout.blocks + span.block) * SUMS * lanes
    cdef Py_ssize_t row, q
    x += base
    for q in range(SUMS):
        memset(totals + q * lanes + span.first_lane, 0, (span.last_lane - span.first_lane) * sizeof(double))
    row = span.first_row
    while row < span.last_row:
        strips(
            x + row * lanes, mask + row * lanes if mask != NULL else NULL, parameters, lanes,
            min(<Py_ssize_t>FLUSH, span.last_row - row), span.first_lane, span.last_lane, cold, totals)
        row += FLUSH
    if span.last_rest > span.first_lane:
        row = layout.rows
        strips(
            x + row * lanes, mask + row * lanes if mask != NULL else NULL, parameters, lanes, 1, span.first_lane,
            span.last_rest, cold, totals)


cdef inline int close_outer(
    Forward* p, Py_ssize_t outer, const floating* x, floating* parameters, double* scratch,
) noexcept nogil:
    # sums → groups of one outer index; a group to be summed once more gets another shift or another scale
    cdef Py_ssize_t inner = p.view.inner
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef const unsigned char* mask = p.mask + outer * p.layout.size if p.mask != NULL else NULL
    cdef const unsigned char* group_mask = NULL
    cdef Group* group
    cdef Population* population
    cdef Py_ssize_t s, i, lane
    cdef dd s1, s2
    cdef double scale
    cdef Verdict verdict
    cdef int state = 0
    merge_blocks(&p.layout, SUMS, p.sums, outer)
    for s in range(p.view.groups):
        s1 = lane_total(&p.layout, SUMS, p.sums, outer, s * inner, 0)
        s2 = lane_total(&p.layout, SUMS, p.sums, outer, s * inner, 2)
        for i in range(1, inner):
            s1 = dd_add(s1, lane_total(&p.layout, SUMS, p.sums, outer, s * inner + i, 0))
            s2 = dd_add(s2, lane_total(&p.layout, SUMS, p.sums, outer, s * inner + i, 2))
        group = p.groups + outer * p.view.groups + s
        population = p.population + outer * p.view.groups + s if p.population != NULL else NULL
        if mask != NULL:
            group_mask = mask + s * inner
        verdict = close_group(
            s1, s2, <double>count_of(group_mask, &p.view), p.eps, p.centered, parameters[SHIFT * lanes + s * inner],
            <double>parameters[SCALE * lanes + s * inner], group, population)
        if verdict == AGAIN:
            state |= UNDECIDED
            lane = s * inner
            while lane < lanes:
                for i in range(inner):
                    parameters[SHIFT * lanes + lane + i] = <floating>group.shift
                lane += p.layout.columns
        elif verdict == COLD:
            scale = scale_of(x + s * inner, group_mask, &p.view, p.eps)
            estimate_shifts(p, x, mask, s, s + 1, scale, parameters, scratch, scratch + p.layout.columns)
            state |= UNDECIDED
        if parameters[SCALE * lanes + s * inner] != 1:
            state |= SCALED
    return state


# ---- applying them ---------------------------------------------------------------------------------------------------

cdef inline int prepare(Forward* p, Py_ssize_t outer, floating* parameters) noexcept nogil:
    # groups → parameters of one outer index; whether a scale is not 1
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef Group* group
    cdef Py_ssize_t j, q
    cdef int state = 0
    for j in range(columns):
        group = p.groups + outer * p.view.groups + j // p.view.inner
        if group.scale != 1:
            state = SCALED
        parameters[SHIFT * lanes + j] = <floating>group.shift
        parameters[SCALE * lanes + j] = <floating>group.scale
        parameters[RSTD * lanes + j] = <floating>group.rstd
        parameters[OFFSET * lanes + j] = offset_of(group, parameters[0])
        parameters[WEIGHT * lanes + j] = (<const floating*>p.weight)[j] if p.weight != NULL else 1
        parameters[BIAS * lanes + j] = (<const floating*>p.bias)[j] if p.bias != NULL else 0
    for j in range(columns, lanes):
        for q in range(PARAMETERS):
            parameters[q * lanes + j] = parameters[q * lanes + j - columns]
    return state


cdef inline void apply_strip(
    const floating* x, floating* y, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows, Py_ssize_t width,
    bint affine, bint cold,
) noexcept nogil:
    # `width` lanes of some rows; `affine` and `cold` are constants where this is inlined
    cdef Py_ssize_t r, j
    cdef floating value
    cdef floating shift[LANES]
    cdef floating scale[LANES]
    cdef floating rstd[LANES]
    cdef floating offset[LANES]
    cdef floating weight[LANES]
    cdef floating bias[LANES]
    cdef floating out[LANES]
    for j in range(width):
        shift[j] = parameters[SHIFT * lanes + j]
        scale[j] = parameters[SCALE * lanes + j]
        rstd[j] = parameters[RSTD * lanes + j]
        offset[j] = parameters[OFFSET * lanes + j]
        weight[j] = parameters[WEIGHT * lanes + j]
        bias[j] = parameters[BIAS * lanes + j]
    for r in range(rows):
        for j in range(width):
            value = normalized(x[r * lanes + j], shift[j], rstd[j], offset[j], scale[j], cold)
            out[j] = multiply_add(value, weight[j], bias[j]) if affine else value
        for j in range(width):
            y[r * lanes + j] = out[j]


cdef inline void apply_lanes(
    Forward* p, Py_ssize_t outer, const floating* x, floating* y, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    # a few rows, x and y at the first, lanes first … last − 1
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef const floating* parameters = <const floating*>p.parameters + outer * PARAMETERS * lanes
    cdef bint affine = p.weight != NULL or p.bias != NULL
    cdef bint cold = p.states[outer] & SCALED
    cdef Py_ssize_t width
    cdef Py_ssize_t at = first
    while at < last:
        width = min(<Py_ssize_t>LANES, last - at)
        if cold or width < LANES:
            apply_strip(x + at, y + at, parameters + at, lanes, rows, width, affine, True)
        elif affine:
            apply_strip(x + at, y + at, parameters + at, lanes, rows, LANES, True, False)
        else:
            apply_strip(x + at, y + at, parameters + at, lanes, rows, LANES, False, False)
        at += LANES


cdef inline void apply_span(Forward* p, Span* span, const floating* x, floating* y) noexcept nogil:
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t base = span.outer * layout.size
    cdef Py_ssize_t at
    cdef Py_ssize_t row = span.first_row
    while row < span.last_row:
        at = base + row * layout.lanes
        apply_lanes(
            p, span.outer, x + at, y + at, min(<Py_ssize_t>FLUSH, span.last_row - row), span.first_lane,
            span.last_lane)
        row += FLUSH
    if span.last_rest > span.first_lane:
        at = base + layout.rows * layout.lanes
        apply_lanes(p, span.outer, x + at, y + at, 1, span.first_lane, span.last_rest)


# ---- tasks: each step of one outer index or one span of it -----------------------------------------------------------

cdef void estimate_task(void* arguments, Py_ssize_t outer) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t at = outer * PARAMETERS * p.layout.lanes
    cdef Py_ssize_t base = outer * p.layout.size
    cdef const unsigned char* mask = p.mask + base if p.mask != NULL else NULL
    cdef double* scratch = p.scratch + outer * 2 * p.layout.columns
    p.states[outer] = UNDECIDED
    if p.double_precision:
        estimate_shifts(
            p, <const double*>p.x + base, mask, 0, p.view.groups, 1, <double*>p.parameters + at, scratch,
            scratch + p.layout.columns)
    else:
        estimate_shifts(
            p, <const float*>p.x + base, mask, 0, p.view.groups, 1, <float*>p.parameters + at, scratch,
            scratch + p.layout.columns)


cdef void sum_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Span span = span_of(&p.layout, task)
    if not p.states[span.outer] & UNDECIDED:
        return
    if p.double_precision:
        sum_span(p, &span, <const double*>p.x)
    else:
        sum_span(p, &span, <const float*>p.x)


cdef void close_task(void* arguments, Py_ssize_t outer) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t at = outer * PARAMETERS * p.layout.lanes
    cdef Py_ssize_t base = outer * p.layout.size
    cdef double* scratch = p.scratch + outer * 2 * p.layout.columns
    if not p.states[outer] & UNDECIDED:
        return
    if p.double_precision:
        p.states[outer] = close_outer(p, outer, <const double*>p.x + base, <double*>p.parameters + at, scratch)
    else:
        p.states[outer] = close_outer(p, outer, <const float*>p.x + base, <float*>p.parameters + at, scratch)


cdef void prepare_task(void* arguments, Py_ssize_t outer) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t at = outer * PARAMETERS * p.layout.lanes
    if p.double_precision:
        p.states[outer] = prepare(p, outer, <double*>p.parameters + at)
    else:
        p.states[outer] = prepare(p, outer, <float*>p.parameters + at)


cdef void apply_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Span span = span_of(&p.layout, task)
    if p.double_precision:
        apply_span(p, &span, <const double*>p.x, <double*>p.y)
    else:
        apply_span(p, &span, <const float*>p.x, <float*>p.y)


cdef void outer_task(void* arguments, Py_ssize_t outer) noexcept nogil:
    # all steps of one outer index
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t spans = p.layout.blocks * p.layout.panels
    cdef Py_ssize_t task, _attempt
    if not p.given:
        estimate_task(p, outer)
        for _attempt in range(ATTEMPTS):
            for task in range(outer * spans, (outer + 1) * spans):
                sum_task(p, task)
            close_task(p, outer)
    prepare_task(p, outer)
    for task in range(outer * spans, (outer + 1) * spans):
        apply_task(p, task)


cdef void run_forward(Forward* p) noexcept nogil:
    cdef Py_ssize_t outer = p.layout.outer
    cdef Py_ssize_t spans = outer * p.layout.blocks * p.layout.panels
    cdef Py_ssize_t _attempt
    cdef double half = 1.0 * outer * p.layout.size * (8 if p.double_precision else 4)
    if outer >= 2 * team_size(outer, 2 * half) or spans == outer:
        parallel_for(outer_task, p, outer, 2 * half)
        return
    if not p.given:
        parallel_for(estimate_task, p, outer, 0)
        for _attempt in range(ATTEMPTS):
            if undecided(p):
                parallel_for(sum_task, p, spans, half)
                parallel_for(close_task, p, outer, 0)
    parallel_for(prepare_task, p, outer, 0)
    parallel_for(apply_task, p, spans, 2 * half)


cdef inline bint undecided(Forward* p) noexcept nogil:
    cdef Py_ssize_t outer
    for outer in range(p.layout.outer):
        if p.states[outer] & UNDECIDED:
            return True
    return False


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef inline void* data_of(object array) noexcept:
    return cnp.PyArray_DATA(<cnp.ndarray>array) if array is not None else NULL


def columns_forward(
    cnp.ndarray x, tuple view, weight, bias, double eps, bint centered, mask, given, out, bint keep, bint population,
):
    """(y, groups, populations) of an array seen as view = (O, A, S, I); see Forward for the parameters.

    Arrays are C-contiguous, aligned and of one precision (the gate in fastnn._arrays); `given` and the returned
    groups are float64 (O·S, 4), populations float64 (O·S, 3), None where not asked for.
    """
    cdef Forward p
    cdef cnp.npy_intp shape[2]
    cdef size_t itemsize = cnp.PyArray_ITEMSIZE(x)
    p.view.outer, p.view.reduced, p.view.groups, p.view.inner = view
    shape[0] = p.view.outer * p.view.groups
    if out is None:
        out = empty(x.ndim, x.shape, cnp.PyArray_TYPE(x))
    groups = given
    if given is None:
        shape[1] = sizeof(Group) // sizeof(double)
        groups = cnp.PyArray_ZEROS(2, shape, cnp.NPY_DOUBLE, 0)
    populations = None
    if population:
        shape[1] = sizeof(Population) // sizeof(double)
        populations = cnp.PyArray_ZEROS(2, shape, cnp.NPY_DOUBLE, 0)
    if cnp.PyArray_SIZE(x) == 0:
        return out, groups, populations
    p.layout = layout_of(&p.view)
    p.x = cnp.PyArray_DATA(x)
    p.y = data_of(out)
    p.weight = data_of(weight)
    p.bias = data_of(bias)
    p.mask = <const unsigned char*>data_of(mask)
    p.eps = eps
    p.centered = centered
    p.given = given is not None
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    p.groups = <Group*>data_of(groups)
    p.population = <Population*>data_of(populations)
    p.sums = <double*>malloc(p.layout.outer * p.layout.blocks * SUMS * p.layout.lanes * sizeof(double))
    p.scratch = <double*>malloc(p.layout.outer * 2 * p.layout.columns * sizeof(double))
    p.parameters = malloc(p.layout.outer * PARAMETERS * p.layout.lanes * itemsize)
    p.states = <unsigned char*>malloc(p.layout.outer)
    if p.sums == NULL or p.scratch == NULL or p.parameters == NULL or p.states == NULL:
        free_scratch(&p)
        raise MemoryError("no memory for the partial sums of a norm")
    with nogil:
        run_forward(&p)
        free_scratch(&p)
    return out, groups if keep else None, populations


cdef void free_scratch(Forward* p) noexcept nogil:
    free(p.sums)
    free(p.scratch)
    free(p.parameters)
    free(p.states)
