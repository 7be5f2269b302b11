"""Norms whose statistics run across contiguous memory: backward. The formulas are those of rows_backward.

Design
  (A) As columns_forward: lanes, blocks and panels of columns.pxd; strips of 64 lanes whose parameters stay in
      registers; one task for each outer index, or blocks shared out pass by pass.
  (B) The sums of dy and dy·x̂ down each column give the parameter gradients as they are, and, weighted and added over
      the columns of a group, the two means in the input's gradient.
  (C) Parameter gradients are added over the outer indices in order.
"""

cimport numpy as cnp
from cython cimport floating
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
    Group, Means, View, count_of, input_gradient, means_of, normalized, offset_of,
)

cnp.import_array()

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
    bint double_precision
    double* sums                # scratch (O, blocks, SUMS, lanes): Σdy, Σdy·x̂, Σx̂, high and low parts
    void* parameters            # scratch (O, PARAMETERS, lanes), see below
    dd* columns                 # scratch (O, 2, S · I): Σdy, Σdy·x̂
    unsigned char* scaled       # scratch (O): has groups whose scale is not 1
    void* dweight               # OUT  (S · I) or NULL
    void* dbias                 # OUT  likewise


cdef enum:
    SUMS = 6

# Rows of parameters; the last three are known once the sums are.
cdef enum:
    SHIFT
    SCALE
    RSTD
    OFFSET
    FACTOR          # weight · rstd
    C1              # −rstd · Σg/n
    C2              # −rstd · Σgx̂/n
    PARAMETERS


cdef inline void prepare(Backward* p, Py_ssize_t outer, floating* parameters) noexcept nogil:
    # the first four of one outer index
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef const Group* group
    cdef Py_ssize_t j
    p.scaled[outer] = False
    for j in range(columns):
        group = p.groups + outer * p.view.groups + j // p.view.inner
        if group.scale != 1:
            p.scaled[outer] = True
        parameters[SHIFT * lanes + j] = <floating>group.shift
        parameters[SCALE * lanes + j] = <floating>group.scale
        parameters[RSTD * lanes + j] = <floating>group.rstd
        parameters[OFFSET * lanes + j] = offset_of(group, parameters[0])
    repeat(p, parameters, SHIFT, FACTOR)


cdef inline void repeat(Backward* p, floating* parameters, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    # rows first … last − 1: each column's value in all its lanes
    cdef Py_ssize_t j, q
    for q in range(first, last):
        for j in range(q * p.layout.lanes + p.layout.columns, (q + 1) * p.layout.lanes):
            parameters[j] = parameters[j - p.layout.columns]


# ---- sums ------------------------------------------------------------------------------------------------------------

cdef inline void strip_products(
    const floating* dy, const floating* x, const floating* parameters, Py_ssize_t lanes, Py_ssize_t rows,
    Py_ssize_t skip, Py_ssize_t width, bint cold, double* totals,
) noexcept nogil:
    # at most FLUSH rows, added to totals (SUMS, lanes) from lane `skip` on; `cold` is a constant where this is
    # inlined: without it every scale is 1
    cdef Py_ssize_t r, j, at
    cdef floating xa, xb, xc, xd
    cdef floating sums[LANES]
    cdef floating products[LANES]
    cdef floating places[LANES]
    cdef floating shift[LANES]
    cdef floating scale[LANES]
    cdef floating rstd[LANES]
    cdef floating offset[LANES]
    for j in range(width):
        shift[j] = parameters[SHIFT * lanes + j]
        scale[j] = parameters[SCALE * lanes + j]
        rstd[j] = parameters[RSTD * lanes + j]
        offset[j] = parameters[OFFSET * lanes + j]
        sums[j] = 0
        products[j] = 0
        places[j] = 0
    # fours are added as a tree, so that equal roundings do not pile up
    for r in range(rows // 4):
        at = 4 * r * lanes
        for j in range(width):
            xa = normalized(x[at + j], shift[j], rstd[j], offset[j], scale[j], cold)
            xb = normalized(x[at + lanes + j], shift[j], rstd[j], offset[j], scale[j], cold)
            xc = normalized(x[at + 2 * lanes + j], shift[j], rstd[j], offset[j], scale[j], cold)
            xd = normalized(x[at + 3 * lanes + j], shift[j], rstd[j], offset[j], scale[j], cold)
            sums[j] += (dy[at + j] + dy[at + lanes + j]) + (dy[at + 2 * lanes + j] + dy[at + 3 * lanes + j])
            products[j] += (
                multiply_add(dy[at + lanes + j], xb, dy[at + j] * xa)
                + multiply_add(dy[at + 3 * lanes + j], xd, dy[at + 2 * lanes + j] * xc)
            )
            places[j] += (xa + xb) + (xc + xd)
    for r in range(rows - rows % 4, rows):
        at = r * lanes
        for j in range(width):
            xa = normalized(x[at + j], shift[j], rstd[j], offset[j], scale[j], cold)
            sums[j] += dy[at + j]
            products[j] = multiply_add(dy[at + j], xa, products[j])
            places[j] += xa
    add_to_lanes(sums, skip, width, totals, totals + lanes)
    add_to_lanes(products, skip, width, totals + 2 * lanes, totals + 3 * lanes)
    add_to_lanes(places, skip, width, totals + 4 * lanes, totals + 5 * lanes)


cdef inline void strips(
    Backward* p, Py_ssize_t outer, const floating* dy, const floating* x, Py_ssize_t rows, Py_ssize_t first,
    Py_ssize_t last, double* totals,
) noexcept nogil:
    # lanes first … last − 1 of at most FLUSH rows; the last strip as in columns_forward
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef const floating* parameters = <const floating*>p.parameters + outer * PARAMETERS * lanes
    cdef Py_ssize_t start, width
    cdef Py_ssize_t at = first
    while at < last:
        start = at if last - at >= LANES else max(<Py_ssize_t>0, last - LANES)
        width = min(<Py_ssize_t>LANES, last - start)
        if p.scaled[outer] or width < LANES:
            strip_products(
                dy + start, x + start, parameters + start, lanes, rows, at - start, width, True, totals + start)
        else:
            strip_products(
                dy + start, x + start, parameters + start, lanes, rows, at - start, LANES, False, totals + start)
        at += LANES


cdef inline void sum_span(Backward* p, Span* span, const floating* dy, const floating* x) noexcept nogil:
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t lanes = layout.lanes
    cdef double* totals = p.sums + (span.outer * layout.blocks + span.block) * SUMS * lanes
    cdef Py_ssize_t at, q
    cdef Py_ssize_t row = span.first_row
    for q in range(SUMS):
        memset(totals + q * lanes + span.first_lane, 0, (span.last_lane - span.first_lane) * sizeof(double))
    while row < span.last_row:
        at = span.outer * layout.size + row * lanes
        strips(
            p, span.outer, dy + at, x + at, min(<Py_ssize_t>FLUSH, span.last_row - row), span.first_lane,
            span.last_lane, totals)
        row += FLUSH
    if span.last_rest > span.first_lane:
        at = span.outer * layout.size + layout.rows * lanes
        strips(p, span.outer, dy + at, x + at, 1, span.first_lane, span.last_rest, totals)


cdef inline void close_outer(Backward* p, Py_ssize_t outer, floating* parameters) noexcept nogil:
    # sums → column totals, means and the last three parameters of one outer index
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef Py_ssize_t inner = p.view.inner
    cdef const unsigned char* mask = p.mask + outer * p.layout.size if p.mask != NULL else NULL
    cdef const floating* weight = <const floating*>p.weight
    cdef dd* totals = p.columns + outer * 2 * columns
    cdef const Group* group
    cdef Means means
    cdef Py_ssize_t s, j
    cdef double w, n, sum_g, sum_gx
    merge_blocks(&p.layout, SUMS, p.sums, outer)
    for s in range(p.view.groups):
        group = p.groups + outer * p.view.groups + s
        n = <double>count_of(mask + s * inner if mask != NULL else NULL, &p.view)
        sum_g = 0
        sum_gx = 0
        for j in range(s * inner, (s + 1) * inner):
            totals[j] = lane_total(&p.layout, SUMS, p.sums, outer, j, 0)
            totals[columns + j] = lane_total(&p.layout, SUMS, p.sums, outer, j, 2)
            if inner == 1 and mask == NULL and p.centered and not p.constant:
                # over a whole group Σx̂ = 0: design (E) of rows_backward
                totals[columns + j].high -= totals[j].high / n * lane_total(&p.layout, SUMS, p.sums, outer, j, 4).high
            w = weight[j] if weight != NULL else 1
            sum_g += w * totals[j].high
            sum_gx += w * totals[columns + j].high
        means = means_of(sum_g, sum_gx, n, p.centered, p.constant)
        for j in range(s * inner, (s + 1) * inner):
            w = weight[j] if weight != NULL else 1
            parameters[FACTOR * lanes + j] = <floating>(w * group.rstd)
            parameters[C1 * lanes + j] = <floating>(-means.g * group.rstd)
            parameters[C2 * lanes + j] = <floating>(-means.gx * group.rstd)
    repeat(p, parameters, FACTOR, PARAMETERS)


# ---- the input's gradient --------------------------------------------------------------------------------------------

cdef inline void strip_gradients(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, const floating* parameters,
    Py_ssize_t lanes, Py_ssize_t rows, Py_ssize_t width, bint cold,
) noexcept nogil:
    # `cold` is a constant where this is inlined: without it every scale is 1
    cdef Py_ssize_t r, j
    cdef floating xhat
    cdef floating shift[LANES]
    cdef floating scale[LANES]
    cdef floating rstd[LANES]
    cdef floating offset[LANES]
    cdef floating factor[LANES]
    cdef floating c1[LANES]
    cdef floating c2[LANES]
    for j in range(width):
        shift[j] = parameters[SHIFT * lanes + j]
        scale[j] = parameters[SCALE * lanes + j]
        rstd[j] = parameters[RSTD * lanes + j]
        offset[j] = parameters[OFFSET * lanes + j]
        factor[j] = parameters[FACTOR * lanes + j]
        c1[j] = parameters[C1 * lanes + j]
        c2[j] = parameters[C2 * lanes + j]
    for r in range(rows):
        for j in range(width):
            xhat = normalized(x[r * lanes + j], shift[j], rstd[j], offset[j], scale[j], cold)
            dx[r * lanes + j] = input_gradient(
                dy[r * lanes + j], xhat, factor[j], c1[j], c2[j], mask == NULL or mask[r * lanes + j] != 0, scale[j],
                cold)


cdef inline void gradient_lanes(
    Backward* p, Py_ssize_t outer, Py_ssize_t offset, const floating* dy, const floating* x, floating* dx,
    Py_ssize_t rows, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    # a few rows from element `offset` on, lanes first … last − 1
    cdef Py_ssize_t lanes = p.layout.lanes
    cdef const floating* parameters = <const floating*>p.parameters + outer * PARAMETERS * lanes
    cdef Py_ssize_t width, at
    cdef Py_ssize_t lane = first
    while lane < last:
        at = offset + lane
        width = min(<Py_ssize_t>LANES, last - lane)
        if p.mask != NULL:
            strip_gradients(dy + at, x + at, dx + at, p.mask + at, parameters + lane, lanes, rows, width, True)
        elif p.scaled[outer] or width < LANES:
            strip_gradients(dy + at, x + at, dx + at, NULL, parameters + lane, lanes, rows, width, True)
        else:
            strip_gradients(dy + at, x + at, dx + at, NULL, parameters + lane, lanes, rows, LANES, False)
        lane += LANES


cdef inline void gradient_span(
    Backward* p, Span* span, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    cdef Layout* layout = &p.layout
    cdef Py_ssize_t base = span.outer * layout.size
    cdef Py_ssize_t row = span.first_row
    while row < span.last_row:
        gradient_lanes(
            p, span.outer, base + row * layout.lanes, dy, x, dx, min(<Py_ssize_t>FLUSH, span.last_row - row),
            span.first_lane, span.last_lane)
        row += FLUSH
    if span.last_rest > span.first_lane:
        gradient_lanes(
            p, span.outer, base + layout.rows * layout.lanes, dy, x, dx, 1, span.first_lane, span.last_rest)


# ---- tasks: each step of one outer index or one span of it -----------------------------------------------------------

cdef void prepare_task(void* arguments, Py_ssize_t outer) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t at = outer * PARAMETERS * p.layout.lanes
    if p.double_precision:
        prepare(p, outer, <double*>p.parameters + at)
    else:
        prepare(p, outer, <float*>p.parameters + at)


cdef void sum_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Span span = span_of(&p.layout, task)
    if p.double_precision:
        sum_span(p, &span, <const double*>p.dy, <const double*>p.x)
    else:
        sum_span(p, &span, <const float*>p.dy, <const float*>p.x)


cdef void close_task(void* arguments, Py_ssize_t outer) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t at = outer * PARAMETERS * p.layout.lanes
    if p.double_precision:
        close_outer(p, outer, <double*>p.parameters + at)
    else:
        close_outer(p, outer, <float*>p.parameters + at)


cdef void gradient_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Span span = span_of(&p.layout, task)
    if p.double_precision:
        gradient_span(p, &span, <const double*>p.dy, <const double*>p.x, <double*>p.dx)
    else:
        gradient_span(p, &span, <const float*>p.dy, <const float*>p.x, <float*>p.dx)


cdef void outer_task(void* arguments, Py_ssize_t outer) noexcept nogil:
    # all steps of one outer index
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t spans = p.layout.blocks * p.layout.panels
    cdef Py_ssize_t task
    prepare_task(p, outer)
    for task in range(outer * spans, (outer + 1) * spans):
        sum_task(p, task)
    close_task(p, outer)
    for task in range(outer * spans, (outer + 1) * spans):
        gradient_task(p, task)


cdef void reduce_columns(Backward* p) noexcept nogil:
    # outer indices in order → dweight, dbias
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t j, outer
    cdef dd b, w
    for j in range(columns):
        b = p.columns[j]
        w = p.columns[columns + j]
        for outer in range(1, p.layout.outer):
            b = dd_add(b, p.columns[2 * outer * columns + j])
            w = dd_add(w, p.columns[(2 * outer + 1) * columns + j])
        if p.double_precision:
            (<double*>p.dbias)[j] = b.high + b.low
            (<double*>p.dweight)[j] = w.high + w.low
        else:
            (<float*>p.dbias)[j] = <float>(b.high + b.low)
            (<float*>p.dweight)[j] = <float>(w.high + w.low)


cdef void run_backward(Backward* p) noexcept nogil:
    cdef Py_ssize_t outer = p.layout.outer
    cdef Py_ssize_t spans = outer * p.layout.blocks * p.layout.panels
    cdef double bytes = 1.0 * outer * p.layout.size * (8 if p.double_precision else 4)
    if outer >= 2 * team_size(outer, 3 * bytes) or spans == outer:
        parallel_for(outer_task, p, outer, 3 * bytes)
    else:
        parallel_for(prepare_task, p, outer, 0)
        parallel_for(sum_task, p, spans, 2 * bytes)
        parallel_for(close_task, p, outer, 0)
        parallel_for(gradient_task, p, spans, 3 * bytes)
    if p.dweight != NULL:
        reduce_columns(p)


# ---- entry point -----------------------------------------------------------------------------------------------------

def columns_backward(
    cnp.ndarray dy, cnp.ndarray x, cnp.ndarray groups, tuple view, weight, mask, bint centered, bint constant,
    bint affine,
):
    """(dinput, dweight, dbias) of an array seen as view = (O, A, S, I); see Backward for the parameters.

    Arrays are C-contiguous, aligned and of one precision, groups those of forward. dweight and dbias have S·I
    elements, or are None unless `affine`.
    """
    cdef Backward p
    cdef cnp.npy_intp columns
    cdef size_t itemsize = cnp.PyArray_ITEMSIZE(x)
    p.view.outer, p.view.reduced, p.view.groups, p.view.inner = view
    columns = p.view.groups * p.view.inner
    dx = empty(x.ndim, x.shape, cnp.PyArray_TYPE(x))
    dweight = cnp.PyArray_ZEROS(1, &columns, cnp.PyArray_TYPE(x), 0) if affine else None
    dbias = cnp.PyArray_ZEROS(1, &columns, cnp.PyArray_TYPE(x), 0) if affine else None
    if cnp.PyArray_SIZE(x) == 0:
        return dx, dweight, dbias
    p.layout = layout_of(&p.view)
    p.dy = cnp.PyArray_DATA(dy)
    p.x = cnp.PyArray_DATA(x)
    p.dx = cnp.PyArray_DATA(<cnp.ndarray>dx)
    p.weight = cnp.PyArray_DATA(<cnp.ndarray>weight) if weight is not None else NULL
    p.mask = <const unsigned char*>cnp.PyArray_DATA(<cnp.ndarray>mask) if mask is not None else NULL
    p.groups = <const Group*>cnp.PyArray_DATA(groups)
    p.centered = centered
    p.constant = constant
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    p.dweight = cnp.PyArray_DATA(<cnp.ndarray>dweight) if affine else NULL
    p.dbias = cnp.PyArray_DATA(<cnp.ndarray>dbias) if affine else NULL
    p.sums = <double*>malloc(p.layout.outer * p.layout.blocks * SUMS * p.layout.lanes * sizeof(double))
    p.parameters = malloc(p.layout.outer * PARAMETERS * p.layout.lanes * itemsize)
    p.columns = <dd*>malloc(p.layout.outer * 2 * columns * sizeof(dd))
    p.scaled = <unsigned char*>malloc(p.layout.outer)
    if (p.sums == NULL or p.parameters == NULL or p.columns == NULL or p.scaled == NULL):
        free_scratch(&p)
        raise MemoryError("no memory for the partial sums of a norm's gradient")
    with nogil:
        run_backward(&p)
        free_scratch(&p)
    return dx, dweight, dbias


cdef void free_scratch(Backward* p) noexcept nogil:
    free(p.sums)
    free(p.parameters)
    free(p.columns)
    free(p.scaled)
