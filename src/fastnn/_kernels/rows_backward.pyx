"""Norms whose statistics run along contiguous memory: backward, where neighbours share a weight or there is none.

With g = dy·weight, x̂ the normalised input and n the elements counted in a group,

    dinput  = rstd · (g − Σg/n − x̂ · Σ(g·x̂)/n)        (elements outside the mask: rstd · g)
    dweight = Σ dy·x̂,  dbias = Σ dy                     over all that share a weight

Design
  (A) Batch, instance and group norm of channels-first images, and norms without parameters; layer norm's weights are
      in rows_backward_own. The two sums of each *segment*, the elements of a group that share a weight, give both the
      group's means and the parameter gradients.
  (B) The sums Σdy and Σdy·(x − shift) run in double precision (double-double), products included: equal elements round
      alike, and over 10⁵ of them float products would be off by tens of units where the terms cancel. x̂ itself never
      enters them: Σdy·x̂ = rstd·(Σdy·(x − shift) − lo·Σdy).
  (C) Groups are taken in batches, and float data goes through registers, as in rows_forward (C) and (E). A batch's
      runs are summed in the order of memory and written in the opposite one: what was read last is nearest.
  (D) dinput = fma(dy, rstd·weight, fma(x − shift, c₂, c₁)), the coefficients computed in double and rounded once.
      With given statistics (evaluation) c₁ = c₂ = 0, so each run is finished when it has been summed.
"""

from cython cimport floating
from libc.math cimport fabs
from libc.stdlib cimport free, malloc

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport WIDE, dd, dd_add, dd_scale, dd_times
from fastnn._kernels.norm cimport DISTANT, SIDE, Group, Tangent, View, count_of, lo_of, rstd_of, start_of, tangent_of
from fastnn._kernels.norm_call cimport Call, offer
from fastnn._kernels.row_floats cimport Sums, clear_sums, multiply_runs, multiply_stretch
from fastnn._kernels.row_gradients cimport Line, Lines, gradient_runs, line_of, scale_runs, segment_run, set_factor
from fastnn._kernels.rows cimport BATCH, batch_of, block_of, jump_after, may_stream, run_products
from fastnn._kernels.streaming cimport stream_end
from fastnn._kernels.vectors cimport (
    VECTOR, d8, load8, multiply8, narrow, spread, store8, subtract8, totals, transpose8,
)
from fastnn._kernels.wide cimport has_extremes, may_join, ordinary, suspect, wide_gradient

__all__ = ["rows_backward"]


cdef extern from *:
    """
    #define FASTNN_FAR 1e30
    """
    # the inverse of which is far from the ends of float's range too
    const double FAR "FASTNN_FAR"


cdef struct Backward:
    const Call* call
    View view
    const void* dy              # IN   (O, A, S, I)
    const void* x               # IN   the same
    void* dx                    # OUT  the same
    const void* weight          # IN   (period · entries) or NULL
    const unsigned char* mask   # IN   like x, or NULL
    const Group* groups         # IN   (O · S)
    Py_ssize_t entries          # segments of a group: weights for each run, each for I / entries neighbours
    Py_ssize_t length           # I / entries
    Py_ssize_t period           # group g uses the weights from (g % period) · entries
    bint centered               # False: RMS norm, no mean was taken
    bint constant               # the statistics do not depend on x
    bint double_precision
    bint simple                 # float data without a mask, in segments that are neither short nor very many
    bint distant                # the result does not fit a near cache
    bint streamed               # nor any
    Py_ssize_t batch            # groups
    Py_ssize_t block            # groups
    # Σdy and Σdy·x̂, (O · S, entries, 2), where a group has several, or samples share weights. Else NULL: to write what
    # another core reads, and to read it, takes longer than to compute it.
    dd* segments
    void* dweight               # OUT  (period · entries) or NULL
    void* dbias                 # OUT  likewise


# ---- sums ------------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t group_of(Backward* p, Py_ssize_t segment) noexcept nogil:
    return segment // p.entries if p.entries > 1 else segment


cdef inline double weight_of(Backward* p, Py_ssize_t g, Py_ssize_t k, floating example) noexcept nogil:
    if p.weight == NULL:
        return 1
    return (<const floating*>p.weight)[(g % p.period if p.period > 1 else 0) * p.entries + k]


cdef inline void close_segment(
    dd sum, dd product, const Group* group, dd* segment, floating example,
) noexcept nogil:
    segment[0] = sum
    if floating is float:
        segment[1].high = (product.high - group.lo * sum.high) * group.rstd
        segment[1].low = 0
    else:
        segment[1] = dd_times(dd_add(product, dd_scale(dd_times(sum, lo_of(group)), -1)), rstd_of(group))


cdef inline inlined move_totals(d8* parts, Py_ssize_t count, dd* sums) noexcept nogil:
    # of whole SIDEs; run by run, as the other sums are, so that a group's bits do not depend on its neighbours
    cdef double side[SIDE]
    cdef Py_ssize_t j
    cdef Py_ssize_t s = 0
    while s < count:
        store8(side, totals(parts + s))
        for j in range(SIDE):
            sums[s + j].high += side[j]
            parts[s + j] = spread(0)
        s += SIDE


cdef inline void batch_sums(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const floating* dy, const floating* x, floating* dx, dd* segments,
) noexcept nogil:
    # OUT segments of `count` neighbouring groups; dy, x, dx at the start of group g. With constant statistics the
    # input's gradient as well.
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef dd sums[BATCH]
    cdef dd products[BATCH]
    cdef Sums runs
    cdef floating factors[BATCH]
    cdef const Group* group
    cdef Py_ssize_t first, last, s, a, at
    cdef bint plain
    # segments are numbered through the groups of a batch; at most BATCH of them at a time
    first = 0
    while first < count * p.entries:
        last = min(first + BATCH, count * p.entries)
        for s in range(BATCH):
            sums[s].high = sums[s].low = products[s].high = products[s].low = 0
        clear_sums(&runs, last - first)
        plain = floating is float and p.length >= WIDE
        for s in range(first, last):
            group = p.groups + g + group_of(p, s)
            runs.shift[s - first] = group.shift
            plain = plain and group.scale == 1
            if p.constant:
                factors[s - first] = <floating>(
                    weight_of(p, g + group_of(p, s), s % p.entries, x[0]) * group.rstd * group.scale)
        for a in range(p.view.reduced):
            at = a * stride + first * p.length
            if floating is float and plain and p.view.reduced == 1:
                multiply_runs(dy + at, x + at, dx + at if p.distant else NULL, last - first, p.length, &runs)
            elif floating is float and plain:
                multiply_stretch(
                    dy + at, x + at, dx + at if p.distant else NULL, last - first, p.length,
                    jump_after(&p.view, a, (last - first) * p.length), &runs)
            else:
                for s in range(first, last):
                    at = a * stride + s * p.length
                    run_products(
                        dy + at, x + at, dx + at if p.distant else NULL, p.length, runs.shift[s - first],
                        p.groups[g + group_of(p, s)].scale, sums + s - first, products + s - first)
            if floating is float and plain:
                move_totals(runs.first, last - first, sums)
                move_totals(runs.second, last - first, products)
            if p.constant:
                at = a * stride + first * p.length
                scale_runs(dy + at, dx + at, last - first, p.length, factors, p.streamed)
        for s in range(first, last):
            close_segment(
                sums[s - first], products[s - first], p.groups + g + group_of(p, s), segments + 2 * s, x[0])
        first = last


# ---- the input's gradient --------------------------------------------------------------------------------------------

cdef inline void batch_lines(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const unsigned char* mask, const dd* segment, Line* lines,
) noexcept nogil:
    # of neighbouring groups of float data; mask and segments at the first one's
    cdef const float* weight = <const float*>p.weight
    cdef double each = 1 / <double>(p.view.reduced * p.view.inner)
    cdef Py_ssize_t c = g % p.period
    cdef bint centered = p.centered
    cdef double w, sum_g, sum_gx
    cdef Py_ssize_t r, k, n
    for r in range(count):
        if mask != NULL:
            n = count_of(mask + r * p.view.inner, &p.view)
            each = 1 / <double>n if n else 0
        sum_g = sum_gx = 0
        for k in range(p.entries):
            w = weight[c * p.entries + k] if weight != NULL else 1
            sum_g += w * segment[2 * k].high
            sum_gx += w * segment[2 * k + 1].high
        w = weight[c * p.entries] if weight != NULL else 1
        lines[r] = line_of(p.groups + g + r, w, sum_g, sum_gx, each, centered)
        segment += 2 * p.entries
        c = c + 1 if c + 1 < p.period else 0


cdef inline Line exact_line(
    Backward* p, Py_ssize_t g, const unsigned char* mask, const dd* segment,
) noexcept nogil:
    # of group g of double data, with its first weight; mask and segments at the group's start
    cdef const Group* group = p.groups + g
    cdef dd sum_g, sum_gx
    cdef Tangent tangent
    cdef Line line
    cdef double w
    cdef Py_ssize_t k
    sum_g.high = sum_g.low = sum_gx.high = sum_gx.low = 0
    for k in range(p.entries):
        w = weight_of(p, g, k, <double>0)
        sum_g = dd_add(sum_g, dd_scale(segment[2 * k], w))
        sum_gx = dd_add(sum_gx, dd_scale(segment[2 * k + 1], w))
    tangent = tangent_of(
        sum_g, sum_gx, <double>count_of(mask, &p.view), p.centered, False, group.lo, rstd_of(group), <double>0)
    line.shift = group.shift
    line.scale = group.scale
    line.c2, line.c2_low = tangent.slope, tangent.slope_low
    line.c1, line.c1_low = tangent.constant, tangent.constant_low
    set_factor(&line, weight_of(p, g, 0, <double>0), rstd_of(group))
    return line


cdef inline bint needs_range(
    Backward* p, Py_ssize_t g, const Line* line, const dd* segment, floating example,
) noexcept nogil:
    # whether the gradient of group g, with its sums, may leave the range on its way; `line` unless the statistics are
    # constants
    cdef const Group* group = p.groups + g
    cdef bint needs = False
    cdef double sum_gx = 0
    cdef double w
    cdef Py_ssize_t k
    for k in range(p.entries):
        w = weight_of(p, g, k, example)
        needs = needs or not may_join(group.rstd * w, w, group.rstd, example)
        if p.constant:
            needs = needs or not may_join(group.rstd * w * group.scale, w, group.rstd, example)
        elif floating is double:
            needs = needs or (segment[2 * k + 1].high != 0 and suspect(segment[2 * k + 1].high, group.rstd))
            sum_gx += w * segment[2 * k + 1].high
    if p.constant or needs:
        return needs
    if floating is float:
        # NaN is the answer, unless it is a mask that should have left it out
        if line.c1 != line.c1 or line.c2 != line.c2:
            return p.mask != NULL
    if (group.scale != 1 or (floating is double and suspect(sum_gx, group.rstd))) and has_extremes(
        p.call, g, <const floating*>p.dy, <const floating*>p.x, group.scale,
    ):
        return True
    if line.c2 == 0 and sum_gx != 0:        # less than the least number
        return True
    return not ordinary(line.c1, line.c2, group.rstd, line.scale, example)


cdef inline void wide_gradients(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const Line* lines, const dd* segments, floating example,
) noexcept nogil:
    # once more, of those of the groups that need it
    cdef Py_ssize_t r
    for r in range(count):
        if needs_range(p, g + r, lines + r, segments + 2 * r * p.entries, example):
            wide_gradient(p.call, g + r, <const floating*>p.dy, <const floating*>p.x, <floating*>p.dx)


cdef inline void batch_gradients(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const floating* dy, const floating* x, floating* dx,
    const unsigned char* mask, const dd* segments,
) noexcept nogil:
    # everything at the start of group g
    cdef Line lines[BATCH]
    cdef Py_ssize_t r
    if floating is float:
        batch_lines(p, g, count, mask, segments, lines)
    else:
        for r in range(count):
            lines[r] = exact_line(
                p, g + r, mask + r * p.view.inner if mask != NULL else NULL, segments + 2 * r * p.entries)
    write_gradients(p, g, count, dy, x, dx, mask, lines)
    wide_gradients(p, g, count, lines, segments, x[0])


cdef inline void write_gradients(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const floating* dy, const floating* x, floating* dx,
    const unsigned char* mask, Line* lines,
) noexcept nogil:
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef Py_ssize_t r, a, k, at
    for a in range(p.view.reduced):
        for r in range(count):
            for k in range(p.entries):
                at = a * stride + r * p.view.inner + k * p.length
                if p.entries > 1:
                    set_factor(lines + r, weight_of(p, g + r, k, x[0]), rstd_of(p.groups + g + r))
                segment_run(dy + at, x + at, dx + at, mask + at if mask != NULL else NULL, p.length, lines + r)


cdef inline void put(void* target, Py_ssize_t at, dd value, bint double_precision) noexcept nogil:
    if double_precision:
        (<double*>target)[at] = value.high + value.low
    else:
        (<float*>target)[at] = <float>(value.high + value.low)


cdef inline void put_segments(Backward* p, const dd* segments, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    # → dweight, dbias
    cdef Py_ssize_t j
    for j in range(count):
        put(p.dbias, first + j, segments[2 * j], p.double_precision)
        put(p.dweight, first + j, segments[2 * j + 1], p.double_precision)

cdef inline apart backward_batch(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const floating* dy, const floating* x, floating* dx,
    const unsigned char* mask,
) noexcept nogil:
    # everything at the start of group g
    cdef dd own[2 * BATCH]
    cdef dd* segments = p.segments + 2 * g * p.entries if p.segments != NULL else own
    batch_sums(p, g, count, dy, x, dx, segments)
    if p.constant:
        wide_gradients(p, g, count, NULL, segments, dy[0])
    else:
        batch_gradients(p, g, count, dy, x, dx, mask, segments)
    if p.segments == NULL and p.dweight != NULL:
        put_segments(p, segments, g, count)


# ---- float data as it mostly is --------------------------------------------------------------------------------------

cdef inline void put_side(void* target, Py_ssize_t first, Py_ssize_t count, d8 values) noexcept nogil:
    cdef float side[SIDE]
    cdef Py_ssize_t j
    narrow(side, values)
    for j in range(count):
        (<float*>target)[first + j] = side[j]


cdef inline apart close_side(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const d8* first, const d8* second,
    Lines* lines, Py_ssize_t at,    # OUT  from `at` on
    bint* plain,                    # OUT  which of them these do for, likewise
) noexcept nogil:
    # up to SIDE groups of one weight each: sums → segments or parameters' gradients, and lines, which do for groups in
    # their own unit if all that is computed with them is far from the ends of the range
    cdef Group few[SIDE]
    cdef const Group* groups = p.groups + g
    cdef double fields[4 * SIDE]
    cdef double weight[SIDE]
    cdef double each = 1 / <double>(p.view.reduced * p.view.inner)
    cdef double sums[SIDE]
    cdef double products[SIDE]
    cdef double factors[SIDE]
    cdef double slopes[SIDE]
    cdef double constants[SIDE]
    cdef d8 lo, rstd, w, sum, product, mean_g, mean_gx, slope, constant
    cdef dd* segment
    cdef Py_ssize_t j, c
    if count < SIDE:
        for j in range(SIDE):
            few[j] = groups[min(j, count - 1)]
        groups = few
    transpose8(&groups.shift, sizeof(Group) // sizeof(double), fields)
    lo, rstd = load8(fields + SIDE), load8(fields + 2 * SIDE)
    c = g % p.period
    for j in range(SIDE):
        weight[j] = (<const float*>p.weight)[c] if p.weight != NULL else 1
        c = c + 1 if c + 1 < p.period else 0
    w = load8(weight)
    sum = totals(first)
    product = multiply8(subtract8(totals(second), multiply8(lo, sum)), rstd)
    mean_g = multiply8(multiply8(w, sum), spread(each)) if p.centered else spread(0)
    mean_gx = multiply8(multiply8(w, product), spread(each))
    slope = multiply8(multiply8(mean_gx, rstd), rstd)
    constant = multiply8(subtract8(multiply8(multiply8(mean_gx, lo), rstd), mean_g), rstd)
    store8(factors, multiply8(w, rstd))
    store8(slopes, slope)
    store8(constants, constant)
    store8(products, product)
    for j in range(SIDE):
        plain[at + j] = (
            (fields[3 * SIDE + j] == 1) & (fabs(constants[j]) <= FAR)
            & ((weight[j] == 0) | ((fabs(factors[j]) >= 1 / FAR) & (fabs(factors[j]) <= FAR)))
            & ((weight[j] == 0) | (products[j] == 0) | (
                (fabs(slopes[j]) >= 1 / FAR) & (fabs(slopes[j]) <= FAR * min(<double>1, fields[2 * SIDE + j])))))
    narrow(lines.shift + at, load8(fields))
    narrow(lines.factor + at, multiply8(w, rstd))
    narrow(lines.c1 + at, constant)
    narrow(lines.c2 + at, subtract8(spread(-0.0), slope))
    if p.segments != NULL:
        store8(sums, sum)
        for j in range(count):
            segment = p.segments + 2 * (g + j)
            segment[0].high, segment[1].high = sums[j], products[j]
            segment[0].low = segment[1].low = 0
    elif p.dweight != NULL:
        put_side(p.dbias, g, count, sum)
        put_side(p.dweight, g, count, product)


cdef inline bint put_lines(Backward* p, Py_ssize_t g, const Line* line, Lines* lines, Py_ssize_t at) noexcept nogil:
    # of the segments of group g, from `at` on; whether they do, as above
    cdef double rstd = p.groups[g].rstd
    cdef bint plain = True
    cdef double factor, w
    cdef Py_ssize_t k
    for k in range(p.entries):
        w = weight_of(p, g, k, <float>0)
        factor = w * rstd
        plain &= (w == 0) | ((fabs(factor) >= 1 / FAR) & (fabs(factor) <= FAR))
        lines.factor[at + k] = <float>factor
        lines.shift[at + k] = <float>line.shift
        lines.c1[at + k] = <float>line.c1
        lines.c2[at + k] = <float>line.c2
    return plain and line.scale == 1 and fabs(line.c1) <= FAR and (
        line.c2 == 0 or 1 / FAR <= fabs(line.c2) <= FAR * min(<double>1, rstd))


cdef inline apart close_segments(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const Sums* sums, Lines* lines, bint* plain,
) noexcept nogil:
    # the same of groups of several weights, by the loops of all others
    cdef dd* segments = p.segments + 2 * g * p.entries
    cdef double side[SIDE]
    cdef double products[SIDE]
    cdef Line own[BATCH]
    cdef dd sum, product
    cdef Py_ssize_t s, r
    sum.low = product.low = 0
    for s in range(count * p.entries):
        if s % SIDE == 0:
            store8(side, totals(sums.first + s))
            store8(products, totals(sums.second + s))
        sum.high, product.high = side[s % SIDE], products[s % SIDE]
        close_segment(sum, product, p.groups + g + group_of(p, s), segments + 2 * s, <float>0)
    batch_lines(p, g, count, NULL, segments, own)
    for r in range(count):
        plain[r] = put_lines(p, g + r, own + r, lines, r * p.entries)


cdef inline void backward_floats(
    Backward* p, Py_ssize_t g, Py_ssize_t count, const float* dy, const float* x, float* dx,
) noexcept nogil:
    # a batch at the start of group g; then those that are not plain once more, each by itself
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t stride = p.view.groups * n
    cdef Py_ssize_t runs = count * p.entries
    cdef Sums sums
    cdef Lines lines
    cdef bint plain[BATCH]
    cdef Py_ssize_t r, a, at
    clear_sums(&sums, runs)
    for r in range(runs):
        sums.shift[r] = p.groups[g + group_of(p, r)].shift
    for a in range(p.view.reduced):
        at = a * stride
        if p.view.reduced == 1:
            multiply_runs(dy, x, dx if p.distant else NULL, runs, p.length, &sums)
        else:
            multiply_stretch(
                dy + at, x + at, dx + at if p.distant else NULL, count, n, jump_after(&p.view, a, count * n), &sums)
    if p.entries > 1:
        close_segments(p, g, count, &sums, &lines, plain)
    else:
        r = 0
        while r < count:
            close_side(p, g + r, min(<Py_ssize_t>SIDE, count - r), sums.first + r, sums.second + r, &lines, r, plain)
            r += SIDE
    for a in range(p.view.reduced - 1, -1, -1):     # what was read last is nearest
        at = a * stride
        gradient_runs(dy + at, x + at, dx + at, runs, p.length, &lines, p.streamed)
    for r in range(count):
        if not plain[r]:
            backward_batch(p, g + r, 1, dy + r * n, x + r * n, dx + r * n, <const unsigned char*>NULL)


# ---- tasks -----------------------------------------------------------------------------------------------------------

cdef inline void backward_groups(
    Backward* p, Py_ssize_t first, Py_ssize_t last, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    # a batch does not reach beyond its outer index
    cdef Py_ssize_t g = first
    cdef Py_ssize_t count, start
    while g < last:
        count = min(p.batch, last - g, p.view.groups - g % p.view.groups)
        start = start_of(&p.view, g)
        if floating is float and p.simple:
            backward_floats(p, g, count, dy + start, x + start, dx + start)
        else:
            backward_batch(
                p, g, count, dy + start, x + start, dx + start, p.mask + start if p.mask != NULL else NULL)
        g += count


cdef void backward_block(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t first = block * p.block
    cdef Py_ssize_t last = min(first + p.block, p.view.outer * p.view.groups)
    if p.double_precision:
        backward_groups(p, first, last, <const double*>p.dy, <const double*>p.x, <double*>p.dx)
    else:
        backward_groups(p, first, last, <const float*>p.dy, <const float*>p.x, <float*>p.dx)
    if p.streamed:
        stream_end()


cdef void reduce_segments(Backward* p) noexcept nogil:
    # groups that share weights, in order, into the first of them → dweight, dbias
    cdef Py_ssize_t total = p.period * p.entries
    cdef Py_ssize_t j, c
    cdef dd* sums = p.segments
    cdef dd* more
    for c in range(1, p.view.outer * p.view.groups // p.period):
        more = p.segments + 2 * c * total
        for j in range(2 * total):
            if p.double_precision:
                sums[j] = dd_add(sums[j], more[j])
            else:
                sums[j].high += more[j].high
    put_segments(p, sums, 0, total)


cdef void run_backward(Backward* p) noexcept nogil:
    cdef Py_ssize_t groups = p.view.outer * p.view.groups
    cdef Py_ssize_t itemsize = 8 if p.double_precision else 4
    cdef double work = 3.0 * groups * p.view.reduced * p.view.inner * itemsize
    p.streamed = not p.double_precision and p.entries == 1 and may_stream(p.dx, &p.view, work)
    p.distant = work >= DISTANT and not p.streamed
    p.simple = (
        not p.double_precision and not p.constant and p.mask == NULL and p.length >= VECTOR
        and (p.entries == 1 or (p.view.reduced == 1 and p.entries <= BATCH)))
    p.batch = batch_of(&p.view, itemsize, 2)
    if p.simple:
        p.batch = min(p.batch, BATCH // p.entries)
    p.block = block_of(&p.view, p.batch)
    parallel_for(backward_block, p, (groups + p.block - 1) // p.block, work)
    if p.segments != NULL and p.dweight != NULL:
        reduce_segments(p)


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef int backward(const Call* call) noexcept nogil:
    cdef Backward p
    cdef Py_ssize_t groups
    p.call, p.view = call, call.view
    p.dy, p.x, p.dx, p.weight, p.mask = call.dy, call.x, call.y, call.weight, call.mask
    p.groups = call.groups
    p.dweight, p.dbias = call.dweight, call.dbias
    p.entries, p.period, p.length = call.entries, call.period, call.view.inner // call.entries
    p.centered, p.constant, p.double_precision = call.centered, call.given, call.double_precision
    p.segments = NULL
    groups = p.view.outer * p.view.groups
    if p.entries > 1 or (p.dweight != NULL and groups > p.period):
        p.segments = <dd*>malloc(2 * groups * p.entries * sizeof(dd))
        if p.segments == NULL:
            return -1
    run_backward(&p)
    free(p.segments)
    return 0


rows_backward = offer(backward)
