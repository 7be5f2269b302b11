"""Norms whose statistics run across contiguous memory: backward. The formulas are those of rows_backward.

Design
  (A) As columns_forward: lanes, blocks, units and exact sums of columns.pxd; sums strip by strip, results row by row;
      one task for each unit, or blocks shared out pass by pass.
  (B) The sums down each column are Σ dy and Σ dy·(x − shift): x̂ is never rounded, and Σ dy·x̂ is
      rstd·(Σ dy·(x − shift) − lo·Σ dy). They give the parameter gradients as they are, and, weighted and added over
      the columns of a group, the two means in the input's gradient.
  (C) dinput = fma(x − shift, slope, fma(dy, factor, constant)), which has the three parameters rounded once: factor =
      rstd·weight, slope = −rstd²·Σgx̂/n, constant = −rstd·Σg/n − lo·slope.
  (D) Where the statistics are constants, dinput = dy·factor, in one pass with the sums.
  (E) Parameter gradients are added over the outer indices in order.
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
from fastnn._kernels.lanes cimport add_product, add_term, dd, dd_add, dd_scale, exact_deviation
from fastnn._kernels.norm cimport Group, Means, View, count_of, deviation, means_of
from fastnn._kernels.norm_call cimport Call, offer

__all__ = ["columns_backward"]


cdef struct Backward:
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
    double* sums                # scratch (O, blocks, rows of sums, lanes): Σdy, Σdy·(x − shift)
    void* parameters            # scratch (O, PARAMETERS, lanes), see below
    double* columns             # scratch (O, rows of sums, S · I): Σdy, Σdy·x̂
    unsigned char* scaled       # scratch (units): has groups whose scale is not 1
    void* dweight               # OUT  (S · I) or NULL
    void* dbias                 # OUT  likewise


# Rows of parameters; the last two are known once the sums are.
cdef enum:
    SHIFT
    SCALE
    FACTOR          # rstd · weight
    CONSTANT        # −rstd · Σg/n − lo · SLOPE
    SLOPE           # −rstd² · Σgx̂/n
    PARAMETERS


cdef inline void prepare(Backward* p, Py_ssize_t number, Unit* unit, floating* parameters) noexcept nogil:
    # the first three of one unit
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef const floating* weight = <const floating*>p.weight
    cdef Group group
    cdef Py_ssize_t s, j
    p.scaled[number] = False
    for s in range(unit.first_group, unit.last_group):
        group = moderate(p.groups + unit.outer * p.view.groups + s, parameters[0])
        if group.scale != 1:
            p.scaled[number] = True
        for j in range(s * p.view.inner, (s + 1) * p.view.inner):
            parameters[SHIFT * lanes + j] = <floating>group.shift
            parameters[SCALE * lanes + j] = <floating>group.scale
            parameters[FACTOR * lanes + j] = <floating>(group.rstd * weight[j] if weight != NULL else group.rstd)
    repeat(&p.layout, unit, parameters, SHIFT, CONSTANT)


# ---- sums ------------------------------------------------------------------------------------------------------------

cdef inline inlined strip_products(
    const floating* dy, const floating* x, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows,
    Py_ssize_t skip, Py_ssize_t width, bint cold, double* totals,
) noexcept nogil:
    # some rows, added to totals (rows of sums, lanes) from lane `skip` on; `cold` is a constant where this is inlined:
    # without it every scale is 1
    cdef Py_ssize_t j
    cdef dd g
    cdef double sums[STRIP]
    cdef double products[STRIP]
    cdef double sums_low[STRIP]
    cdef double products_low[STRIP]
    cdef double shift[STRIP]
    cdef double scale[STRIP]
    for j in range(width):
        shift[j] = parameters[SHIFT * lanes + j]
        scale[j] = parameters[SCALE * lanes + j]
        sums[j] = totals[FIRST * lanes + j]
        products[j] = totals[SECOND * lanes + j]
        if floating is double:
            sums_low[j] = totals[FIRST_LOW * lanes + j]
            products_low[j] = totals[SECOND_LOW * lanes + j]
    g.low = 0
    while rows > 0:
        for j in range(width):
            g.high = dy[j]
            add_term(&sums[j], &sums_low[j], g, x[0])
            add_product(
                &products[j], &products_low[j], g, exact_deviation(x[j], shift[j], scale[j], cold), x[0])
        dy += lanes
        x += lanes
        rows -= 1
    for j in range(skip, width):
        totals[FIRST * lanes + j] = sums[j]
        totals[SECOND * lanes + j] = products[j]
        if floating is double:
            totals[FIRST_LOW * lanes + j] = sums_low[j]
            totals[SECOND_LOW * lanes + j] = products_low[j]


cdef inline void sum_rows(
    const floating* dy, const floating* x, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows,
    Py_ssize_t first, Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    # lanes first … last − 1 of some rows; the last strip as in columns_forward
    cdef Py_ssize_t start, width
    cdef Py_ssize_t at = first
    while at < last:
        start = at if last - at >= STRIP else max(first, last - STRIP)
        width = min(<Py_ssize_t>STRIP, last - start)
        if cold or width < STRIP:
            strip_products(
                dy + start, x + start, parameters + start, lanes, rows, at - start, width, True, totals + start)
        elif at > start:
            strip_products(
                dy + start, x + start, parameters + start, lanes, rows, at - start, STRIP, False, totals + start)
        else:
            strip_products(dy + start, x + start, parameters + start, lanes, rows, 0, STRIP, False, totals + start)
        at += STRIP


cdef inline void close_unit(Backward* p, Unit* unit, floating* parameters) noexcept nogil:
    # sums → column totals, means and the last two parameters of one unit
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef Py_ssize_t inner = p.view.inner
    cdef const unsigned char* mask = p.mask + unit.outer * p.layout.size if p.mask != NULL else NULL
    cdef const floating* weight = <const floating*>p.weight
    cdef double* totals = p.columns + unit.outer * sums_of(parameters[0]) * columns
    cdef Group group
    cdef Means means
    cdef Py_ssize_t s, j
    cdef dd total, product
    cdef double w, n, sum_g, sum_gx, slope
    merge_blocks(&p.layout, unit, p.sums, parameters[0])
    for s in range(unit.first_group, unit.last_group):
        group = moderate(p.groups + unit.outer * p.view.groups + s, parameters[0])
        n = <double>count_of(mask + s * inner if mask != NULL else NULL, &p.view)
        sum_g = 0
        sum_gx = 0
        for j in range(s * inner, (s + 1) * inner):
            total = lane_total(&p.layout, p.sums, unit.outer, j, FIRST, parameters[0])
            product = lane_total(&p.layout, p.sums, unit.outer, j, SECOND, parameters[0])
            if floating is float:
                product.high = (product.high - group.lo * total.high) * group.rstd
            else:
                product = dd_scale(dd_add(product, dd_scale(total, -group.lo)), group.rstd)
                totals[FIRST_LOW * columns + j] = total.low
                totals[SECOND_LOW * columns + j] = product.low
            totals[FIRST * columns + j] = total.high
            totals[SECOND * columns + j] = product.high
            w = weight[j] if weight != NULL else 1
            sum_g += w * total.high
            sum_gx += w * product.high
        means = means_of(sum_g, sum_gx, n, p.centered, p.constant)
        slope = -means.gx * group.rstd * group.rstd
        for j in range(s * inner, (s + 1) * inner):
            parameters[CONSTANT * lanes + j] = <floating>(-means.g * group.rstd - slope * group.lo)
            parameters[SLOPE * lanes + j] = <floating>slope
    repeat(&p.layout, unit, parameters, CONSTANT, PARAMETERS)


# ---- the input's gradient --------------------------------------------------------------------------------------------

cdef inline inlined gradient_row(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, const floating* parameters,
    Py_ssize_t lanes, Py_ssize_t n, bint constant, bint cold,
) noexcept nogil:
    # n lanes; `constant` and `cold` are constants where this is inlined: without `cold` every scale is 1
    cdef const floating* shift = parameters + SHIFT * lanes
    cdef const floating* scale = parameters + SCALE * lanes
    cdef const floating* factor = parameters + FACTOR * lanes
    cdef const floating* c1 = parameters + CONSTANT * lanes
    cdef const floating* c2 = parameters + SLOPE * lanes
    cdef Py_ssize_t j
    cdef floating value
    for j in range(n):
        if constant or (mask != NULL and mask[j] == 0):
            value = dy[j] * factor[j]
        else:
            value = multiply_add(
                deviation(x[j], shift[j], scale[j], cold), c2[j], multiply_add(dy[j], factor[j], c1[j]))
        dx[j] = value * scale[j] if cold else value


cdef inline inlined narrow_gradients(
    const floating* dy, const floating* x, floating* dx, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows,
) noexcept nogil:
    # NARROW lanes of some rows, every scale being 1 and every element counting
    cdef Py_ssize_t j
    cdef floating d[NARROW]
    cdef floating upstream[NARROW]
    cdef floating shift[NARROW]
    cdef floating factor[NARROW]
    cdef floating c1[NARROW]
    cdef floating c2[NARROW]
    for j in range(NARROW):
        shift[j] = parameters[SHIFT * lanes + j]
        factor[j] = parameters[FACTOR * lanes + j]
        c1[j] = parameters[CONSTANT * lanes + j]
        c2[j] = parameters[SLOPE * lanes + j]
    while rows > 0:
        # in two loops, of which only one writes
        for j in range(NARROW):
            d[j] = deviation(x[j], shift[j], shift[j], False)
            upstream[j] = multiply_add(dy[j], factor[j], c1[j])
        for j in range(NARROW):
            dx[j] = multiply_add(d[j], c2[j], upstream[j])
        dy += lanes
        x += lanes
        dx += lanes
        rows -= 1


cdef inline void gradient_rows(
    Backward* p, const floating* dy, const floating* x, floating* dx, const unsigned char* mask,
    const floating* parameters, Py_ssize_t rows, Py_ssize_t n, bint cold,
) noexcept nogil:
    # n lanes of some rows
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef Py_ssize_t r, at
    if n == NARROW and not p.constant and mask == NULL and not cold:
        narrow_gradients(dy, x, dx, parameters, lanes, rows)
        return
    for r in range(rows):
        at = r * lanes
        if p.constant:
            if cold:
                gradient_row(dy + at, x + at, dx + at, NULL, parameters, lanes, n, True, True)
            else:
                gradient_row(dy + at, x + at, dx + at, NULL, parameters, lanes, n, True, False)
        elif mask != NULL:
            gradient_row(dy + at, x + at, dx + at, mask + at, parameters, lanes, n, False, True)
        elif cold:
            gradient_row(dy + at, x + at, dx + at, NULL, parameters, lanes, n, False, True)
        else:
            gradient_row(dy + at, x + at, dx + at, NULL, parameters, lanes, n, False, False)


# ---- both: the rows of a span ----------------------------------------------------------------------------------------

cdef inline void span_rows(
    Backward* p, Span* span, const floating* dy, const floating* x, floating* dx, bint sums, bint gradients,
) noexcept nogil:
    # a few rows at a time: their sums, their gradients, or one after the other
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t kinds = sums_of(x[0])
    cdef double* totals = p.sums + (span.outer * layout.blocks + span.block) * kinds * layout.lanes
    cdef Py_ssize_t q
    cdef Py_ssize_t row = span.first_row
    if sums:
        for q in range(kinds):
            memset(totals + q * layout.lanes + span.first_lane, 0, (span.last_lane - span.first_lane) * sizeof(double))
    while row < span.last_row:
        some_rows(
            p, span, dy, x, dx, row, min(layout.sum_rows, span.last_row - row), span.last_lane, sums, gradients, totals)
        row += layout.sum_rows
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
    cdef const floating* parameters = <const floating*>p.parameters + span.outer * PARAMETERS * lanes
    cdef bint cold = p.scaled[span.unit]
    if sums:
        sum_rows(dy + at, x + at, parameters, lanes, rows, first, last, cold, totals)
    if gradients:
        at += first
        gradient_rows(
            p, dy + at, x + at, dx + at, p.mask + at if p.mask != NULL else NULL, parameters + first, rows,
            last - first, cold)


# ---- tasks: each step of one unit or of one block of it --------------------------------------------------------------

cdef void prepare_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.lanes
    if p.double_precision:
        prepare(p, number, &unit, <double*>p.parameters + at)
    else:
        prepare(p, number, &unit, <float*>p.parameters + at)


cdef void sum_task(void* arguments, Py_ssize_t task) noexcept nogil:
    # with constant statistics the gradients too
    cdef Backward* p = <Backward*>arguments
    cdef Span span = span_of(&p.layout, task)
    if p.double_precision:
        span_rows(p, &span, <const double*>p.dy, <const double*>p.x, <double*>p.dx, p.summed, p.constant)
    else:
        span_rows(p, &span, <const float*>p.dy, <const float*>p.x, <float*>p.dx, p.summed, p.constant)


cdef void close_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.lanes
    if p.double_precision:
        close_unit(p, &unit, <double*>p.parameters + at)
    else:
        close_unit(p, &unit, <float*>p.parameters + at)


cdef void gradient_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Span span = span_of(&p.layout, task)
    if p.double_precision:
        span_rows(p, &span, <const double*>p.dy, <const double*>p.x, <double*>p.dx, False, True)
    else:
        span_rows(p, &span, <const float*>p.dy, <const float*>p.x, <float*>p.dx, False, True)


cdef void unit_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # all steps of one unit
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t blocks = p.layout.blocks
    cdef Py_ssize_t task
    prepare_task(p, number)
    for task in range(number * blocks, (number + 1) * blocks):
        sum_task(p, task)
    if p.summed:
        close_task(p, number)
    if not p.constant:
        for task in range((number + 1) * blocks - 1, number * blocks - 1, -1):     # the caches hold the last ones
            gradient_task(p, task)


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
    cdef Py_ssize_t tasks = units * p.layout.blocks
    cdef double bytes = 1.0 * p.layout.outer * p.layout.size * (8 if p.double_precision else 4)
    if units >= 2 * team_size(units, 3 * bytes) or p.layout.blocks == 1:
        parallel_for(unit_task, p, units, 3 * bytes)
    else:
        parallel_for(prepare_task, p, units, 0)
        parallel_for(sum_task, p, tasks, (3 if p.constant else 2) * bytes)
        if p.summed:
            parallel_for(close_task, p, units, 0)
        if not p.constant:
            parallel_back(gradient_task, p, tasks, 3 * bytes)
    if p.dweight != NULL and p.double_precision:
        reduce_columns(p, <double*>p.dweight, <double*>p.dbias)
    elif p.dweight != NULL:
        reduce_columns(p, <float*>p.dweight, <float*>p.dbias)


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef int backward(const Call* call) noexcept nogil:
    cdef Backward p
    cdef Py_ssize_t kinds = SUMS if call.double_precision else FIRST_LOW
    p.view = call.view
    p.layout = layout_of(&p.view)
    p.dy, p.x, p.dx, p.weight, p.mask = call.dy, call.x, call.y, call.weight, call.mask
    p.groups = call.groups
    p.dweight, p.dbias = call.dweight, call.dbias
    p.centered, p.constant, p.double_precision = call.centered, call.given, call.double_precision
    p.summed = p.dweight != NULL or not p.constant
    p.sums = <double*>malloc(p.layout.outer * p.layout.blocks * kinds * p.layout.lanes * sizeof(double))
    p.parameters = malloc(p.layout.outer * PARAMETERS * p.layout.lanes * (8 if p.double_precision else 4))
    p.columns = <double*>malloc(p.layout.outer * kinds * p.layout.columns * sizeof(double))
    p.scaled = <unsigned char*>malloc(p.layout.outer * p.layout.panels)
    if p.sums == NULL or p.parameters == NULL or p.columns == NULL or p.scaled == NULL:
        free_scratch(&p)
        return -1
    run_backward(&p)
    free_scratch(&p)
    return 0


cdef void free_scratch(Backward* p) noexcept nogil:
    free(p.sums)
    free(p.parameters)
    free(p.columns)
    free(p.scaled)


columns_backward = offer(backward)
