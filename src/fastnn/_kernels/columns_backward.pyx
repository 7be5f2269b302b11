"""Norms whose statistics run across contiguous memory: backward. The formulas are those of rows_backward.

Design
  (A) As columns_forward: lanes, blocks, units and exact sums of columns.pxd; sums strip by strip, results row by row,
      past the caches if the call is large; one task for each unit, or blocks of whole rows shared out pass by pass.
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
from fastnn._kernels.columns cimport (
    CLOSING, EVEN, EVEN_MOST, FIRST, FIRST_LOW, SECOND, SECOND_LOW, SLIM, SMALL_PANEL, STRIP, SUMS, Layout, Span, Unit,
    carve, count_elements, count_groups, factor_of, fold_lanes, lane_sum, layout_of, load_groups, may_stream,
    merge_blocks, next_lanes, put, repeat, rows_of, span_of, strip_of, sums_of, unit_of, whole_lines, widen,
)
from fastnn._kernels.fused cimport multiply_add_once as multiply_add
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport add_product, add_term, dd, dd_add, dd_scale, dd_times, wide_deviation
from fastnn._kernels.norm cimport LINE, SIDE, Group, Settled, Tangent, View, deviation, masked_gradient, tangent_of
from fastnn._kernels.norm_call cimport Call, offer
from fastnn._kernels.streaming cimport stream_end

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
    bint streamed               # the result goes past the caches
    bint whole                  # tasks are blocks of whole rows
    double* sums                # scratch (O, blocks, rows of sums, stride): Σdy, Σdy·(x − shift)
    void* parameters            # scratch (O, PARAMETERS, stride), see below
    double* columns             # scratch (O, rows of sums, S · I): Σdy, Σdy·x̂
    Py_ssize_t* counts          # scratch (O, S · I) if there is a mask: elements that count
    unsigned char* scaled       # scratch (units): has groups whose scale is not 1
    void* dweight               # OUT  (S · I) or NULL
    void* dbias                 # OUT  likewise


# Rows of parameters; those from CONSTANT on are known once the sums are, and the last three, what rounding took off,
# are for double data under a mask.
cdef enum:
    SHIFT
    SCALE
    FACTOR          # rstd · weight
    CONSTANT        # −rstd · Σg/n − lo · SLOPE
    SLOPE           # −rstd² · Σgx̂/n
    FACTOR_LOW
    CONSTANT_LOW
    SLOPE_LOW
    PARAMETERS

cdef enum:
    # elements that are read before any of them is written
    CHUNK = 64


cdef inline void prepare(Backward* p, Py_ssize_t number, Unit* unit, floating* parameters) noexcept nogil:
    # the first three of one unit
    cdef const Group* groups = p.groups + unit.outer * p.view.groups
    cdef Settled loaded
    cdef Py_ssize_t count
    cdef Py_ssize_t s = unit.first_group
    p.scaled[number] = False
    while s < unit.last_group:
        count = min(<Py_ssize_t>SIDE, unit.last_group - s)
        if load_groups(groups + s, count, &loaded, parameters[0]):
            p.scaled[number] = True
        if p.view.inner == 1 and count == SIDE:
            set_side(
                &loaded, <const floating*>p.weight + s if p.weight != NULL else NULL, p.layout.stride, parameters + s)
        else:
            set_factors(p, s, count, &loaded, parameters)
        s += SIDE
    repeat(&p.layout, unit, parameters, SHIFT, CONSTANT)


cdef inline void set_factors(
    Backward* p, Py_ssize_t group, Py_ssize_t count, const Settled* loaded, floating* parameters,
) noexcept nogil:
    # of `count` groups from `group` on
    cdef const floating* weight = <const floating*>p.weight
    cdef Py_ssize_t stride = p.layout.stride
    cdef Py_ssize_t j, c
    for j in range(count):
        for c in range((group + j) * p.view.inner, (group + j + 1) * p.view.inner):
            parameters[SHIFT * stride + c] = <floating>loaded.shift[j]
            parameters[SCALE * stride + c] = <floating>loaded.scale[j]
            parameters[FACTOR * stride + c] = <floating>factor_of(
                loaded, j, weight[c] if weight != NULL else <floating>1)


# Steps for SIDE groups of one column, as vectors; see columns.pxd for why each is a function of its own.

cdef inline apart set_side(
    const Settled* loaded, const floating* weight, Py_ssize_t stride, floating* parameters,
) noexcept nogil:
    cdef double factor[SIDE]
    cdef Py_ssize_t j
    for j in range(SIDE):
        factor[j] = 1
    if weight != NULL:
        widen(weight, factor, SIDE)
    for j in range(SIDE):
        factor[j] = factor_of(loaded, j, <floating>factor[j])
    for j in range(SIDE):
        parameters[SHIFT * stride + j] = <floating>loaded.shift[j]
    for j in range(SIDE):
        parameters[SCALE * stride + j] = <floating>loaded.scale[j]
    for j in range(SIDE):
        parameters[FACTOR * stride + j] = <floating>factor[j]


# ---- sums ------------------------------------------------------------------------------------------------------------

cdef inline inlined strip_products(
    const floating* dy, const floating* x, floating* dx, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t skip, Py_ssize_t width, bint written, bint streamed, bint cold, double* totals,
) noexcept nogil:
    # some rows, added to totals (rows of sums, stride) from lane `skip` on, and if the statistics are constants their
    # gradients; from `width` to `cold` all are constants where this is inlined: without `cold` every scale is 1
    cdef Py_ssize_t stride = layout.stride
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t j
    cdef dd g
    cdef double sums[STRIP]
    cdef double products[STRIP]
    cdef double sums_low[STRIP]
    cdef double products_low[STRIP]
    cdef double shift[STRIP]
    cdef double scale[STRIP]
    cdef double wide[STRIP]
    cdef double upstream[STRIP]
    cdef floating factor[STRIP]
    cdef floating out[STRIP]
    for j in range(width):
        factor[j] = parameters[FACTOR * stride + j]
    widen(parameters + SHIFT * stride, shift, width)
    widen(parameters + SCALE * stride, scale, width)
    for j in range(width):
        sums[j] = totals[FIRST * stride + j]
        products[j] = totals[SECOND * stride + j]
        if floating is double:
            sums_low[j] = totals[FIRST_LOW * stride + j]
            products_low[j] = totals[SECOND_LOW * stride + j]
    g.low = 0
    while rows > 0:
        if written:
            for j in range(width):
                out[j] = dy[j] * factor[j]
            put(out, dx, width, streamed)
            dx += lanes
        widen(x, wide, width)
        widen(dy, upstream, width)
        for j in range(width):
            g.high = upstream[j]
            add_term(&sums[j], &sums_low[j], g, x[0])
            add_product(
                &products[j], &products_low[j], g, wide_deviation(wide[j], shift[j], scale[j], cold, x[0]), x[0])
        dy += lanes
        x += lanes
        rows -= 1
    for j in range(skip, width):
        totals[FIRST * stride + j] = sums[j]
        totals[SECOND * stride + j] = products[j]
        if floating is double:
            totals[FIRST_LOW * stride + j] = sums_low[j]
            totals[SECOND_LOW * stride + j] = products_low[j]


cdef inline void sum_rows(
    const floating* dy, const floating* x, floating* dx, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t first, Py_ssize_t last, bint streamed, bint cold, double* totals,
) noexcept nogil:
    # lanes first … last − 1 of some rows; what is left beside whole strips as in columns_forward. With dx, gradients of
    # constant statistics too.
    cdef Py_ssize_t strip = strip_of(x[0])
    cdef Py_ssize_t at = first
    cdef Py_ssize_t start
    if cold:
        pass
    elif dx == NULL:
        while last - at >= strip:
            strip_products(
                dy + at, x + at, NULL, parameters + at, layout, rows, 0, strip_of(x[0]), False, False, False,
                totals + at)
            at += strip
    elif streamed:
        while last - at >= strip:
            strip_products(
                dy + at, x + at, dx + at, parameters + at, layout, rows, 0, strip_of(x[0]), True, True, False,
                totals + at)
            at += strip
        stream_end()
    else:
        while last - at >= strip:
            strip_products(
                dy + at, x + at, dx + at, parameters + at, layout, rows, 0, strip_of(x[0]), True, False, False,
                totals + at)
            at += strip
    if dx != NULL and at < last:
        gradient_rows(dy + at, x + at, dx + at, NULL, parameters + at, layout, rows, last - at, True, False, cold)
    while at < last:
        start = min(at, max(first, last - SLIM))
        if last - start < SLIM:
            strip_products(
                dy + start, x + start, NULL, parameters + start, layout, rows, 0, last - start, False, False, True,
                totals + start)
        elif cold:
            strip_products(
                dy + start, x + start, NULL, parameters + start, layout, rows, at - start, SLIM, False, False, True,
                totals + start)
        else:
            strip_products(
                dy + start, x + start, NULL, parameters + start, layout, rows, at - start, SLIM, False, False, False,
                totals + start)
        at = start + SLIM


cdef inline void close_unit(Backward* p, Unit* unit, floating* parameters) noexcept nogil:
    # sums → column totals, means and the last two parameters of one unit
    cdef const Group* groups = p.groups + unit.outer * p.view.groups
    cdef const unsigned char* mask = p.mask + unit.outer * p.layout.size if p.mask != NULL else NULL
    cdef Py_ssize_t* counts = p.counts + unit.outer * p.layout.columns if mask != NULL else NULL
    cdef double n[SIDE]
    cdef Settled loaded
    cdef Py_ssize_t j, count
    cdef Py_ssize_t s = unit.first_group
    if mask != NULL:
        count_elements(mask, &p.view, unit, counts)
    merge_blocks(&p.layout, unit, p.sums, parameters[0])
    fold_lanes(&p.layout, unit, p.sums, parameters[0])
    for j in range(SIDE):
        n[j] = <double>(p.view.reduced * p.view.inner)
    while s < unit.last_group:
        count = min(<Py_ssize_t>SIDE, unit.last_group - s)
        load_groups(groups + s, count, &loaded, parameters[0])
        if mask != NULL:
            count_groups(counts, &p.view, s, count, n)
        if floating is float and p.view.inner == 1 and count == SIDE:
            close_side(p, unit.outer, s, &loaded, n, parameters + s)
        else:
            close_groups(p, unit.outer, s, count, &loaded, n, parameters)
        s += SIDE
    repeat(&p.layout, unit, parameters, CONSTANT, PARAMETERS if floating is double and mask != NULL else FACTOR_LOW)


cdef inline void close_groups(
    Backward* p, Py_ssize_t outer, Py_ssize_t group, Py_ssize_t count, const Settled* loaded, const double* n,
    floating* parameters,
) noexcept nogil:
    # `count` groups from `group` on, of n elements
    cdef Py_ssize_t columns = p.layout.columns
    cdef Py_ssize_t stride = p.layout.stride
    cdef Py_ssize_t kinds = sums_of(parameters[0])
    cdef const double* sums = p.sums + outer * p.layout.blocks * kinds * stride
    cdef double* totals = p.columns + outer * kinds * columns
    cdef const floating* weight = <const floating*>p.weight
    cdef Tangent tangent
    cdef dd total, product, sum_g, sum_gx, rstd
    cdef double w
    cdef Py_ssize_t j, c
    for j in range(count):
        rstd.high = loaded.rstd[j]
        rstd.low = loaded.rstd_low[j] if floating is double else 0
        sum_g.high = sum_g.low = sum_gx.high = sum_gx.low = 0
        for c in range((group + j) * p.view.inner, (group + j + 1) * p.view.inner):
            total = lane_sum(sums + FIRST * stride, sums + FIRST_LOW * stride, c, parameters[0])
            product = lane_sum(sums + SECOND * stride, sums + SECOND_LOW * stride, c, parameters[0])
            if floating is float:
                product.high = product_of(total.high, product.high, loaded.lo[j], loaded.rstd[j])
            else:
                product = dd_times(dd_add(product, dd_scale(total, -loaded.lo[j])), rstd)
                totals[FIRST_LOW * columns + c] = total.low
                totals[SECOND_LOW * columns + c] = product.low
            totals[FIRST * columns + c] = total.high
            totals[SECOND * columns + c] = product.high
            w = weight[c] if weight != NULL else 1
            if floating is float:
                sum_g.high += w * total.high
                sum_gx.high += w * product.high
            else:
                sum_g = dd_add(sum_g, dd_scale(total, w))
                sum_gx = dd_add(sum_gx, dd_scale(product, w))
        tangent = tangent_of(
            sum_g, sum_gx, n[j], p.centered, p.constant, loaded.lo[j], rstd, parameters[0])
        for c in range((group + j) * p.view.inner, (group + j + 1) * p.view.inner):
            parameters[CONSTANT * stride + c] = <floating>tangent.constant
            parameters[SLOPE * stride + c] = <floating>tangent.slope
            if floating is double and p.mask != NULL:
                w = weight[c] if weight != NULL else 1
                parameters[FACTOR_LOW * stride + c] = dd_scale(rstd, w).low
                parameters[CONSTANT_LOW * stride + c] = tangent.constant_low
                parameters[SLOPE_LOW * stride + c] = tangent.slope_low


cdef inline apart close_side(
    Backward* p, Py_ssize_t outer, Py_ssize_t group, const Settled* loaded, const double* n, floating* parameters,
) noexcept nogil:
    # the same for SIDE groups of one column of float data; parameters at the first of them
    cdef const double* sums = p.sums + outer * p.layout.blocks * FIRST_LOW * p.layout.stride + group
    cdef const double* second = sums + SECOND * p.layout.stride
    cdef double* totals = p.columns + outer * FIRST_LOW * p.layout.columns + group
    cdef const floating* weight = <const floating*>p.weight
    cdef floating* constants = parameters + CONSTANT * p.layout.stride
    cdef floating* slopes = parameters + SLOPE * p.layout.stride
    cdef bint centered = p.centered
    cdef bint constant = p.constant
    cdef Tangent tangent
    cdef dd sum_g, sum_gx, rstd
    cdef double total[SIDE]
    cdef double product[SIDE]
    cdef double w[SIDE]
    cdef double tangent_constant[SIDE]
    cdef double slope[SIDE]
    cdef Py_ssize_t j
    for j in range(SIDE):
        total[j] = sums[j]
        product[j] = product_of(sums[j], second[j], loaded.lo[j], loaded.rstd[j])
        w[j] = 1
    for j in range(SIDE):
        totals[j] = total[j]
    for j in range(SIDE):
        totals[p.layout.columns + j] = product[j]
    if weight != NULL:
        widen(weight + group, w, SIDE)
    sum_g.low = sum_gx.low = rstd.low = 0
    for j in range(SIDE):
        sum_g.high, sum_gx.high, rstd.high = w[j] * total[j], w[j] * product[j], loaded.rstd[j]
        tangent = tangent_of(sum_g, sum_gx, n[j], centered, constant, loaded.lo[j], rstd, <float>0)
        tangent_constant[j] = tangent.constant
        slope[j] = tangent.slope
    for j in range(SIDE):
        constants[j] = <floating>tangent_constant[j]
    for j in range(SIDE):
        slopes[j] = <floating>slope[j]


cdef inline double product_of(double total, double product, double lo, double rstd) noexcept nogil:
    # Σdy·x̂
    return (product - lo * total) * rstd


# ---- the input's gradient --------------------------------------------------------------------------------------------

cdef inline inlined gradient_chunk(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, const floating* parameters,
    Py_ssize_t stride, Py_ssize_t n, bint constant, bint streamed, bint cold,
) noexcept nogil:
    # up to CHUNK elements, read before any is written: the compiler needs no test of overlap. `n`, `constant` and
    # `cold` are constants where this is inlined: without `cold` every scale is 1
    cdef const floating* scale = parameters + SCALE * stride
    cdef const floating* factor = parameters + FACTOR * stride
    cdef floating out[CHUNK]
    cdef floating value
    cdef Py_ssize_t j
    for j in range(n):
        if constant or (mask != NULL and mask[j] == 0):
            value = dy[j] * factor[j]
        elif floating is double and mask != NULL:
            value = masked_gradient(
                dy[j], factor[j], parameters[FACTOR_LOW * stride + j],
                wide_deviation(x[j], parameters[SHIFT * stride + j], scale[j], cold, x[0]),
                parameters[SLOPE * stride + j], parameters[SLOPE_LOW * stride + j], parameters[CONSTANT * stride + j],
                parameters[CONSTANT_LOW * stride + j], True)
        else:
            value = multiply_add(
                deviation(x[j], parameters[SHIFT * stride + j], scale[j], cold), parameters[SLOPE * stride + j],
                multiply_add(dy[j], factor[j], parameters[CONSTANT * stride + j]))
        out[j] = value * scale[j] if cold else value
    put(out, dx, n, streamed)


cdef inline inlined gradient_row(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, const floating* parameters,
    Py_ssize_t stride, Py_ssize_t n, bint constant, bint streamed, bint cold,
) noexcept nogil:
    cdef Py_ssize_t j = 0
    while n - j >= CHUNK:
        gradient_chunk(
            dy + j, x + j, dx + j, mask + j if mask != NULL else NULL, parameters + j, stride, CHUNK, constant,
            streamed, cold)
        j += CHUNK
    while j < n:
        if n - j < SLIM and n >= SLIM:      # the last elements, some of them a second time
            j = n - SLIM
        if n - j >= SLIM:
            gradient_chunk(
                dy + j, x + j, dx + j, mask + j if mask != NULL else NULL, parameters + j, stride, SLIM, constant,
                streamed, cold)
            j += SLIM
        else:
            gradient_chunk(
                dy + j, x + j, dx + j, mask + j if mask != NULL else NULL, parameters + j, stride, 1, constant, False,
                cold)
            j += 1


cdef inline inlined gradient_even_rows(
    const floating* dy, const floating* x, floating* dx, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t n,
) noexcept nogil:
    # n lanes of some rows; `n` is a constant where this is inlined
    cdef floating shift[EVEN_MOST]
    cdef floating factor[EVEN_MOST]
    cdef floating constant[EVEN_MOST]
    cdef floating slope[EVEN_MOST]
    cdef floating out[EVEN_MOST]
    cdef Py_ssize_t _r, j
    for j in range(n):
        shift[j] = parameters[SHIFT * layout.stride + j]
        factor[j] = parameters[FACTOR * layout.stride + j]
        constant[j] = parameters[CONSTANT * layout.stride + j]
        slope[j] = parameters[SLOPE * layout.stride + j]
    for _r in range(rows):
        for j in range(n):
            out[j] = multiply_add(
                deviation(x[j], shift[j], <floating>1, False), slope[j], multiply_add(dy[j], factor[j], constant[j]))
        put(out, dx, n, False)
        dy += layout.lanes
        x += layout.lanes
        dx += layout.lanes


cdef inline bint even_rows_done(
    const float* dy, const float* x, float* dx, const float* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    # whether there is a loop for so many lanes
    if n == EVEN:
        gradient_even_rows(dy, x, dx, parameters, layout, rows, EVEN)
    elif n == 2 * EVEN:
        gradient_even_rows(dy, x, dx, parameters, layout, rows, 2 * EVEN)
    elif n == EVEN_MOST:
        gradient_even_rows(dy, x, dx, parameters, layout, rows, EVEN_MOST)
    else:
        return False
    return True


cdef inline void gradient_rows(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, const floating* parameters,
    Layout* layout, Py_ssize_t rows, Py_ssize_t n, bint constant, bint streamed, bint cold,
) noexcept nogil:
    # n lanes of some rows
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t stride = layout.stride
    cdef Py_ssize_t r, at
    if floating is float and mask == NULL and not (constant or cold or streamed) and even_rows_done(
        dy, x, dx, parameters, layout, rows, n,
    ):
        return
    for r in range(rows):
        at = r * lanes
        if constant:
            if cold:
                gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, True, False, True)
            else:
                gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, True, False, False)
        elif mask != NULL:
            gradient_row(dy + at, x + at, dx + at, mask + at, parameters, stride, n, False, False, True)
        elif cold:
            gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, False, False, True)
        elif streamed:
            gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, False, True, False)
        else:
            gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, False, False, False)
    if streamed:
        stream_end()


# ---- both: the rows of a span ----------------------------------------------------------------------------------------

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
    cdef const floating* parameters = <const floating*>p.parameters + span.outer * PARAMETERS * p.layout.stride
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
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.stride
    if p.double_precision:
        prepare(p, number, &unit, <double*>p.parameters + at)
    else:
        prepare(p, number, &unit, <float*>p.parameters + at)


cdef inline void rows_task(Backward* p, Py_ssize_t task, bint sums, bint gradients) noexcept nogil:
    cdef Span span = span_of(&p.layout, task, p.whole)
    while next_lanes(&p.layout, p.scaled, &span):
        if p.double_precision:
            span_rows(p, &span, <const double*>p.dy, <const double*>p.x, <double*>p.dx, sums, gradients)
        else:
            span_rows(p, &span, <const float*>p.dy, <const float*>p.x, <float*>p.dx, sums, gradients)


cdef void sum_task(void* arguments, Py_ssize_t task) noexcept nogil:
    # with constant statistics the gradients too
    cdef Backward* p = <Backward*>arguments
    rows_task(p, task, p.summed, p.constant)


cdef void close_task(void* arguments, Py_ssize_t number) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Unit unit = unit_of(&p.layout, &p.view, number)
    cdef Py_ssize_t at = unit.outer * PARAMETERS * p.layout.stride
    if p.double_precision:
        close_unit(p, &unit, <double*>p.parameters + at)
    else:
        close_unit(p, &unit, <float*>p.parameters + at)


cdef void gradient_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    rows_task(p, task, False, True)


cdef void unit_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # all steps of one unit
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t first = number * p.layout.blocks
    cdef Py_ssize_t last = first + p.layout.blocks
    cdef Py_ssize_t task
    prepare_task(p, number)
    for task in range(first, last):
        sum_task(p, task)
    if p.summed:
        close_task(p, number)
    if not p.constant:
        for task in range(last - 1, first - 1, -1):
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
    cdef Py_ssize_t tasks = p.layout.outer * p.layout.blocks
    cdef double bytes = 1.0 * p.layout.outer * p.layout.size * (8 if p.double_precision else 4)
    cdef double closing = 1.0 * p.layout.outer * p.layout.columns * CLOSING
    # two operands that are read twice fill the caches sooner than one
    p.streamed = may_stream(
        p.dx, &p.layout, (3 if p.constant else 3.5) * bytes, 8 if p.double_precision else 4)
    p.whole = p.layout.blocks > 1 and p.layout.outer < 2 * team_size(units, 3 * bytes)
    if not p.whole:
        parallel_for(unit_task, p, units, 3 * bytes)
    else:
        parallel_for(prepare_task, p, units, closing)
        parallel_for(sum_task, p, tasks, 2 * bytes)
        if p.summed:
            parallel_for(close_task, p, units, closing)
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
    cdef size_t sums, parameters, totals, counts, units
    cdef char* scratch
    cdef char* rest
    p.view = call.view
    p.layout = layout_of(&p.view, SMALL_PANEL)
    p.dy, p.x, p.dx, p.weight, p.mask = call.dy, call.x, call.y, call.weight, call.mask
    p.groups = call.groups
    p.dweight, p.dbias = call.dweight, call.dbias
    p.centered, p.constant, p.double_precision = call.centered, call.given, call.double_precision
    p.summed = p.dweight != NULL or not p.constant
    units = p.layout.outer * p.layout.panels
    sums = p.layout.outer * p.layout.blocks * kinds * p.layout.stride * sizeof(double)
    parameters = p.layout.outer * PARAMETERS * p.layout.stride * (8 if p.double_precision else 4)
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
