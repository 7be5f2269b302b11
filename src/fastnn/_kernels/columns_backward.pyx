"""Norms whose statistics run across contiguous memory: backward. The formulas are those of rows_backward.

Design
  (A) As columns_forward: lanes, blocks, units and exact sums of columns.pxd; sums strip by strip, results row by row,
      past the caches if the call is large; one task for each unit, or blocks of whole rows shared out pass by pass.
      The steps are column_products.pxd (sums), column_tangents.pxd (what follows from them) and column_gradients.pxd.
  (B) The sums down each column are Σ dy and Σ dy·(x − shift): x̂ is never rounded, and Σ dy·x̂ is
      rstd·(Σ dy·(x − shift) − lo·Σ dy). They give the parameter gradients as they are, and, weighted and added over
      the columns of a group, the two means in the input's gradient.
  (C) dinput = fma(x − shift, slope, fma(dy, factor, constant)), which has the three parameters rounded once: factor =
      rstd·weight, slope = −rstd²·Σgx̂/n, constant = −rstd·Σg/n − lo·slope.
  (D) Where the statistics are constants, dinput = dy·factor, written by the loop that reads dy for the sums.
  (E) Parameter gradients are added over the outer indices in order.
"""

from cython cimport floating
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastnn._kernels._runtime cimport parallel_back, parallel_for, team_size
from fastnn._kernels.column_gradients cimport CONSTANT, GRADIENT_PARAMETERS, SLOPE, gradient_rows
from fastnn._kernels.column_parameters cimport FACTOR, SCALE, all_within, group_fits, set_parameters
from fastnn._kernels.column_products cimport sum_rows
from fastnn._kernels.column_tangents cimport Sums, close_sums
from fastnn._kernels.columns cimport (
    CLOSING, FIRST, FIRST_LOW, SECOND, SECOND_LOW, SMALL_PANEL, SUMS, Layout, Span, Unit, carve, count_elements,
    fold_lanes, layout_of, may_share, may_stream, merge_blocks, next_lanes, pieces_of, rows_of, span_of, sums_of,
    unit_of, whole_lines,
)
from fastnn._kernels.lanes cimport add_term, dd
from fastnn._kernels.norm cimport LINE, Group, View, least_of, most_of
from fastnn._kernels.norm_call cimport Call, offer
from fastnn._kernels.wide cimport has_extremes, may_join, ordinary, suspect, wide_gradient

__all__ = ["columns_backward"]


cdef struct Backward:
    const Call* call
    View view
    Layout layout
    const void* dy              # IN   (O, A, S, I)
    const void* x               # IN   the same
    void* dx                    # OUT  the same
    const void* weight          # IN   (S · I) or NULL
    const unsigned char* mask   # IN   like x, or NULL
    const Group* groups         # IN   (O · S)
    bint centered
    bint constant               # the statistics do not depend on x
    bint summed                 # whether anybody needs the sums
    bint double_precision
    bint streamed               # the result goes past the caches
    bint whole                  # blocks of whole rows are summed
    bint shared                 # blocks of whole rows get their gradients
    Layout results              # whose blocks get them
    double* sums                # scratch (O, blocks, rows of sums, stride): Σdy, Σdy·(x − shift)
    void* parameters            # scratch (O, GRADIENT_PARAMETERS, stride)
    double* columns             # scratch (O, rows of sums, S · I): Σdy, Σdy·x̂
    Py_ssize_t* counts          # scratch (O, S · I) if there is a mask: elements that count
    unsigned char* scaled       # scratch (units): has groups whose scale is not 1
    void* dweight               # OUT  (S · I) or NULL
    void* dbias                 # OUT  likewise


cdef inline void prepare(Backward* p, Py_ssize_t number, Unit* unit, floating* parameters) noexcept nogil:
    # the parameters that are known before the sums
    cdef Py_ssize_t j
    p.scaled[number] = set_parameters(
        &p.view, &p.layout, unit, p.groups + unit.outer * p.view.groups, <const floating*>p.weight,
        <const floating*>NULL, parameters)
    if p.constant and p.scaled[number]:
        # dinput = dy · factor, without another step
        for j in range(unit.first_lane, min(unit.first_lane + p.layout.panel, p.layout.lanes)):
            parameters[FACTOR * p.layout.stride + j] *= parameters[SCALE * p.layout.stride + j]


cdef inline void close_unit(Backward* p, Unit* unit, floating* parameters) noexcept nogil:
    # sums → column totals, means and the other parameters of one unit
    cdef Py_ssize_t kinds = sums_of(parameters[0])
    cdef Py_ssize_t* counts = p.counts + unit.outer * p.layout.columns if p.mask != NULL else NULL
    cdef Sums sums
    if counts != NULL:
        count_elements(p.mask + unit.outer * p.layout.size, &p.view, unit, counts)
    merge_blocks(&p.layout, unit, p.sums, parameters[0])
    fold_lanes(&p.layout, unit, p.sums, parameters[0])
    sums.view, sums.layout, sums.centered, sums.constant = &p.view, &p.layout, p.centered, p.constant
    sums.groups = p.groups + unit.outer * p.view.groups
    sums.counts = counts
    sums.sums = p.sums + unit.outer * p.layout.blocks * kinds * p.layout.stride
    sums.totals = p.columns + unit.outer * kinds * p.layout.columns
    close_sums(&sums, unit, <const floating*>p.weight, parameters)


# ---- the rows of a span ---------------------------------------------------------------------------------------------

cdef inline void span_rows(
    Backward* p, Span* span, const floating* dy, const floating* x, floating* dx, bint sums, bint gradients,
) noexcept nogil:
    # a few rows at a time: their sums, their gradients, or one after the other
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t kinds = sums_of(x[0])
    cdef double* totals = p.sums + (span.outer * layout.blocks + span.block) * kinds * layout.stride
    cdef Py_ssize_t q
    cdef Py_ssize_t row = span.first_row
    if sums:
        for q in range(kinds):
            memset(totals + q * layout.stride + span.first_lane, 0, (span.last_lane - span.first_lane) * sizeof(double))
    while row < span.last_row:
        some_rows(
            p, span, dy, x, dx, row, rows_of(layout, span.last_row - row), span.last_lane, sums, gradients, totals)
        row += rows_of(layout, span.last_row - row)
    if span.last_rest > span.first_lane:
        some_rows(p, span, dy, x, dx, layout.rows, 1, span.last_rest, sums, gradients, totals)


cdef inline void some_rows(
    Backward* p, Span* span, const floating* dy, const floating* x, floating* dx, Py_ssize_t row, Py_ssize_t rows,
    Py_ssize_t last, bint sums, bint gradients, double* totals,
) noexcept nogil:
    # from lane span.first_lane to last − 1
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef Py_ssize_t first = span.first_lane
    cdef Py_ssize_t at = span.outer * p.layout.size + row * lanes
    cdef const floating* parameters = <const floating*>p.parameters + span.outer * GRADIENT_PARAMETERS * p.layout.stride
    cdef bint cold = span.state
    if sums:
        sum_rows(
            dy + at, x + at, dx + at if gradients else NULL, parameters, &p.layout, rows, first, last,
            p.streamed, cold, totals)
    else:
        at += first
        gradient_rows(
            dy + at, x + at, dx + at, p.mask + at if p.mask != NULL else NULL, parameters + first, &p.layout, rows,
            last - first, p.constant, p.streamed, cold)


# ---- tasks: each step of one unit or of one block of it --------------------------------------------------------------

cdef void prepare_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * GRADIENT_PARAMETERS * p.layout.stride
    if p.double_precision:
        prepare(p, number, &unit, <double*>p.parameters + at)
    else:
        prepare(p, number, &unit, <float*>p.parameters + at)


cdef inline void rows_task(
    Backward* p, Layout* layout, Py_ssize_t task, bint whole, bint sums, bint gradients,
) noexcept nogil:
    cdef Span span = span_of(layout, task, whole)
    while next_lanes(layout, p.scaled, &span):
        if p.double_precision:
            span_rows(p, &span, <const double*>p.dy, <const double*>p.x, <double*>p.dx, sums, gradients)
        else:
            span_rows(p, &span, <const float*>p.dy, <const float*>p.x, <float*>p.dx, sums, gradients)


cdef void sum_task(void* arguments, Py_ssize_t task) noexcept nogil:
    # with constant statistics the gradients too
    cdef Backward* p = <Backward*>arguments
    rows_task(p, &p.layout, task, p.whole, p.summed, p.constant)


cdef void close_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * GRADIENT_PARAMETERS * p.layout.stride
    if p.double_precision:
        close_unit(p, &unit, <double*>p.parameters + at)
    else:
        close_unit(p, &unit, <float*>p.parameters + at)


cdef void gradient_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    rows_task(p, &p.results, task, p.shared, False, True)


cdef void means_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # of one unit; with constant statistics all
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t first = number * p.layout.blocks
    cdef Py_ssize_t task
    prepare_task(p, number)
    for task in range(first, first + p.layout.blocks):
        sum_task(p, task)
    if p.summed:
        close_task(p, number)


cdef inline bint needs_range(
    Backward* p, Unit* unit, Py_ssize_t s, const Group* group, const floating* parameters,
) noexcept nogil:
    # whether the gradient of group s of this outer index may leave the range on its way
    cdef Py_ssize_t stride = p.layout.stride
    cdef Py_ssize_t at = s * p.view.inner
    cdef double scale = parameters[SCALE * stride + at]
    cdef double constant = parameters[CONSTANT * stride + at]
    cdef double slope = parameters[SLOPE * stride + at]
    cdef double rstd = group.rstd * (group.scale / scale)
    cdef const double* products = p.columns + (unit.outer * sums_of(parameters[0]) + SECOND) * p.layout.columns
    cdef double sum_gx = 0
    cdef Py_ssize_t c
    if not group_fits(&p.view, parameters, stride, s, group, <const floating*>p.weight):
        return True
    if p.constant:
        for c in range(at, at + p.view.inner):      # before the scale became part of it
            if not may_join(
                parameters[FACTOR * stride + c] / scale, (<const floating*>p.weight)[c] if p.weight != NULL else 1,
                group.rstd, parameters[0],
            ):
                return True
        return False
    if floating is float and (constant != constant or slope != slope):
        return p.mask != NULL       # NaN is the answer, unless a mask should have left it out
    for c in range(at, at + p.view.inner):
        if floating is double and products[c] != 0 and suspect(products[c], rstd):
            return True
        sum_gx += products[c] * ((<const floating*>p.weight)[c] if p.weight != NULL else 1)
    if (scale != 1 or (floating is double and suspect(sum_gx, rstd))) and has_extremes(
        p.call, unit.outer * p.view.groups + s, <const floating*>p.dy, <const floating*>p.x, scale,
    ):
        return True
    if slope == 0 and sum_gx != 0:      # less than the least number
        return True
    return not ordinary(constant, slope, rstd, scale, parameters[0])


cdef inline void write_wide(
    Backward* p, Unit* unit, const floating* parameters, bint scaled,
) noexcept nogil:
    # the gradients of groups that need more range, once more; parameters of the outer index
    cdef Py_ssize_t stride = p.layout.stride
    cdef double narrowed = 1e-10        # rstd, and the least slope beside the least number, in a moderate unit
    cdef const double* products = p.columns + (unit.outer * sums_of(parameters[0]) + SECOND) * p.layout.columns
    cdef bint factors, constants, slopes
    cdef bint sums = True
    cdef Py_ssize_t s
    all_within(
        parameters + FACTOR * stride, unit.first_lane, unit.last_lane, least_of(parameters[0]), most_of(parameters[0]),
        &factors)
    constants = slopes = p.constant
    if not p.constant:
        all_within(
            parameters + CONSTANT * stride, unit.first_lane, unit.last_lane, 0, most_of(parameters[0]), &constants)
        all_within(
            parameters + SLOPE * stride, unit.first_lane, unit.last_lane, least_of(parameters[0]) / narrowed,
            most_of(parameters[0]) * narrowed, &slopes)
        if floating is double:
            all_within(products, unit.first_lane, unit.last_lane, 1e-260, 1e290, &sums)
    if factors and constants and slopes and sums and not scaled:
        return
    for s in range(unit.first_group, unit.last_group):
        if needs_range(p, unit, s, p.groups + unit.outer * p.view.groups + s, parameters):
            wide_gradient(
                p.call, unit.outer * p.view.groups + s, <const floating*>p.dy, <const floating*>p.x, <floating*>p.dx)


cdef void wide_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * GRADIENT_PARAMETERS * p.layout.stride
    if p.double_precision:
        write_wide(p, &unit, <const double*>p.parameters + at, p.scaled[number])
    else:
        write_wide(p, &unit, <const float*>p.parameters + at, p.scaled[number])


cdef void unit_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # all steps of one unit
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t first = number * p.layout.blocks
    cdef Py_ssize_t task
    means_task(p, number)
    if not p.constant:
        for task in range(first + p.layout.blocks - 1, first - 1, -1):
            gradient_task(p, task)
    wide_task(p, number)


cdef inline void reduce_columns(Backward* p, floating* dweight, floating* dbias) noexcept nogil:
    # outer indices in order, into the first → dweight, dbias
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t size = sums_of(dbias[0]) * columns
    cdef double* total = p.columns
    cdef const double* more
    cdef Py_ssize_t j, outer
    cdef dd term
    for outer in range(1, p.layout.outer):
        more = total + outer * size
        for j in range(FIRST_LOW * columns):
            term.high = more[j]
            if floating is double:
                term.low = more[FIRST_LOW * columns + j]
            add_term(total + j, total + FIRST_LOW * columns + j, term, dbias[0])
    for j in range(columns):
        dbias[j] = <floating>total[FIRST * columns + j]
        dweight[j] = <floating>total[SECOND * columns + j]
        if floating is double:
            dbias[j] += total[FIRST_LOW * columns + j]
            dweight[j] += total[SECOND_LOW * columns + j]


cdef void run_backward(Backward* p) noexcept nogil:
    cdef Py_ssize_t units = p.layout.outer * p.layout.panels
    cdef double bytes = 1.0 * p.layout.outer * p.layout.size * (8 if p.double_precision else 4)
    cdef double closing = 1.0 * p.layout.outer * p.layout.columns * CLOSING
    cdef bint few = p.layout.outer < 2 * team_size(units, 3 * bytes)
    # two operands that are read twice fill the caches sooner than one
    p.streamed = may_stream(
        p.dx, &p.layout, (3 if p.constant else 3.5) * bytes, 8 if p.double_precision else 4)
    p.whole = few and p.layout.blocks > 1
    p.shared = p.whole or (few and may_share(&p.layout, 3 * bytes) and not p.constant)
    p.results = pieces_of(&p.layout) if p.shared and not p.whole else p.layout
    if not p.shared:
        parallel_for(unit_task, p, units, 3 * bytes)
    elif p.whole:
        parallel_for(prepare_task, p, units, closing)
        parallel_for(sum_task, p, p.layout.outer * p.layout.blocks, 2 * bytes)
        if p.summed:
            parallel_for(close_task, p, units, closing)
    else:
        parallel_for(means_task, p, units, 2 * bytes + closing)
    if p.shared and not p.constant:
        parallel_back(gradient_task, p, p.layout.outer * p.results.blocks, 3 * bytes)
    if p.shared:
        parallel_for(wide_task, p, units, closing)
    if p.dweight != NULL and p.double_precision:
        reduce_columns(p, <double*>p.dweight, <double*>p.dbias)
    elif p.dweight != NULL:
        reduce_columns(p, <float*>p.dweight, <float*>p.dbias)


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef int backward(const Call* call) noexcept nogil:
    cdef Backward p
    cdef Py_ssize_t kinds = SUMS if call.double_precision else FIRST_LOW
    cdef size_t sums, parameters, totals, counts, units
    cdef char* scratch
    cdef char* rest
    p.call, p.view = call, call.view
    p.layout = layout_of(&p.view, SMALL_PANEL)
    p.dy, p.x, p.dx, p.weight, p.mask = call.dy, call.x, call.y, call.weight, call.mask
    p.groups = call.groups
    p.dweight, p.dbias = call.dweight, call.dbias
    p.centered, p.constant, p.double_precision = call.centered, call.given, call.double_precision
    p.summed = p.dweight != NULL or not p.constant
    units = p.layout.outer * p.layout.panels
    sums = p.layout.outer * p.layout.blocks * kinds * p.layout.stride * sizeof(double)
    parameters = p.layout.outer * GRADIENT_PARAMETERS * p.layout.stride * (8 if p.double_precision else 4)
    totals = p.layout.outer * kinds * p.layout.columns * sizeof(double)
    counts = p.layout.outer * p.layout.columns * sizeof(Py_ssize_t) if p.mask != NULL else 0
    scratch = <char*>malloc(
        whole_lines(sums) + whole_lines(parameters) + whole_lines(totals) + whole_lines(counts) + units + LINE)
    if scratch == NULL:
        return -1
    rest = scratch
    p.sums = <double*>carve(&rest, sums)
    p.parameters = carve(&rest, parameters)
    p.columns = <double*>carve(&rest, totals)
    p.counts = <Py_ssize_t*>carve(&rest, counts)
    p.scaled = <unsigned char*>carve(&rest, units)
    run_backward(&p)
    free(scratch)
    return 0


columns_backward = offer(backward)
