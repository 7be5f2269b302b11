"""Norms whose statistics run across contiguous memory: forward, and evaluation with given statistics.

Design
  (A) One kernel serves batch, instance and group norm of channels-last images, batch norm of tables, and
      standardisation over leading axes: they differ in the view (O, A, S, I) of the array. See columns.pxd for how
      its columns become lanes, blocks and units, and for the sums.
  (B) One pass for the statistics, around zero: a shift would cost a third of the operations more. The sums are so exact
      that the mean may lie many standard deviations off; a group where it lies farther is summed again around it.
  (C) y = fma(x − shift, factor, offset) with factor = rstd·weight and offset = bias − lo·factor, both rounded once: two
      operations and three parameters for each element.
  (D) Sums take some rows at a time, strip by strip: memory is read in long runs, and the sums of a strip stay in
      registers. What is left of a row beside whole strips goes in slim ones, the last of which starts early where there
      is room; its first lanes are left out. Results are written row by row: more streams at a time were slower.
  (E) With many outer indices, each unit is one task and its data stays in that core's cache between the passes; with
      few, blocks of whole rows are shared out pass by pass; in the second each thread begins where it ended in the
      first. What lies between the passes is shared where there are many columns. The bits are the same.
  (F) Groups of float data are closed SIDE at a time, as vectors: one by one, roots and quotients took as long as the
      sums of fifty rows.
  (G) A call that moves more than the caches hold writes its result past them: that saves reading the lines first, and
      the input stays where the second pass finds it.
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
from fastnn._kernels.lanes cimport (
    add_number, add_product, add_product_of_numbers, add_term, dd, dd_add, dd_divide, dd_scale, dd_square, join,
    wide_deviation,
)
from fastnn._kernels.norm cimport (
    COLD, DISTANT, LINE, SIDE, Group, Moments, Population, Settled, Verdict, View, claim_lines, clear_group,
    close_group, deviation, scale_of,
)
from fastnn._kernels.norm_call cimport Call, offer
from fastnn._kernels.settling cimport put_groups, settle_sums
from fastnn._kernels.streaming cimport stream_end

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
    bint whole                  # tasks are blocks of whole rows
    Group* groups               # IN if given, else OUT; (O · S)
    Population* population      # OUT  (O · S) or NULL
    double* sums                # scratch (O, blocks, rows of sums, stride): Σ(x − shift), Σ(x − shift)²
    void* parameters            # scratch (O, PARAMETERS, stride), see below
    unsigned char* states       # scratch (units), see below
    Py_ssize_t* counts          # scratch (O, S · I) if there is a mask: elements that count
    unsigned char* attempts     # scratch (units): sums closed so far

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
    # The mean of float data may be the root of FAR standard deviations off the shift, which costs a sum ten of its 53
    # bits; and of more where few rows are added to a sum, as long as rounding leaves 29 of them.
    FAR = 1024
    FAR_ROWS = 1 << 24
    # elements that are read before any of them is written
    CHUNK = 64
    # lanes under a mask that are taken at a time
    KEPT = 512

# What is known of a unit; a set of bits.
cdef enum State:
    UNDECIDED = 1       # has groups to sum once more
    SCALED = 2          # has groups whose scale is not 1
    SHIFTED = 4         # has groups whose shift is not 0, for the sums


# ---- statistics ------------------------------------------------------------------------------------------------------

cdef inline void set_shift(
    Forward* p, Py_ssize_t group, floating* parameters, floating shift, floating scale,
) noexcept nogil:
    cdef Py_ssize_t stride = p.layout.stride
    cdef Py_ssize_t lane = group * p.view.inner
    cdef Py_ssize_t i
    while lane < p.layout.lanes:
        for i in range(lane, lane + p.view.inner):
            parameters[SHIFT * stride + i] = shift
            parameters[SCALE * stride + i] = scale
        lane += p.layout.columns


cdef inline void start_unit(Layout* layout, Unit* unit, floating* parameters) noexcept nogil:
    cdef Py_ssize_t j
    cdef Py_ssize_t last = min(unit.first_lane + layout.panel, layout.lanes)
    for j in range(unit.first_lane, last):
        parameters[SHIFT * layout.stride + j] = 0
    for j in range(unit.first_lane, last):
        parameters[SCALE * layout.stride + j] = 1


cdef inline inlined strip_sums(
    const floating* x, const unsigned char* mask, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t skip, Py_ssize_t width, bint cold, double* totals,
) noexcept nogil:
    # some rows, added to totals (rows of sums, stride) from lane `skip` on; `width` and `cold` are constants where this
    # is inlined: without `cold` every scale is 1 and every shift 0
    cdef Py_ssize_t stride = layout.stride
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t j
    cdef dd d
    cdef double sums[STRIP]
    cdef double squares[STRIP]
    cdef double sums_low[STRIP]
    cdef double squares_low[STRIP]
    cdef double shift[STRIP]
    cdef double scale[STRIP]
    cdef double wide[STRIP]
    if cold:
        widen(parameters + SHIFT * stride, shift, width)
        widen(parameters + SCALE * stride, scale, width)
    for j in range(width):
        sums[j] = totals[FIRST * stride + j]
        squares[j] = totals[SECOND * stride + j]
        if floating is double:
            sums_low[j] = totals[FIRST_LOW * stride + j]
            squares_low[j] = totals[SECOND_LOW * stride + j]
    while rows > 0:
        widen(x, wide, width)
        for j in range(width):
            if not cold:
                add_number(&sums[j], &sums_low[j], wide[j], x[0])
                add_product_of_numbers(&squares[j], &squares_low[j], wide[j], wide[j], x[0])
                continue
            d = wide_deviation(wide[j], shift[j], scale[j], True, x[0])
            if mask != NULL and not mask[j]:
                d.high = 0
                d.low = 0
            add_term(&sums[j], &sums_low[j], d, x[0])
            add_product(&squares[j], &squares_low[j], d, d, x[0])
        x += lanes
        if mask != NULL:
            mask += lanes
        rows -= 1
    for j in range(skip, width):
        totals[FIRST * stride + j] = sums[j]
        totals[SECOND * stride + j] = squares[j]
        if floating is double:
            totals[FIRST_LOW * stride + j] = sums_low[j]
            totals[SECOND_LOW * stride + j] = squares_low[j]


cdef inline void sum_rows(
    const floating* x, const floating* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t first,
    Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    # Lanes first … last − 1 of some rows. Slim strips of float data always have their shift: GCC 12 takes so short a
    # loop without one apart into single numbers. The bits are the same.
    cdef Py_ssize_t strip = strip_of(x[0])
    cdef Py_ssize_t at = first
    cdef Py_ssize_t start, lane
    if floating is float and STRIP == SLIM:
        cold = True
    if not cold:
        while last - at >= strip:
            strip_sums(x + at, NULL, parameters + at, layout, rows, 0, strip_of(x[0]), False, totals + at)
            at += strip
    elif floating is float:
        while last - at >= strip:
            strip_sums(x + at, NULL, parameters + at, layout, rows, 0, STRIP, True, totals + at)
            at += strip
    while at < last:
        start = min(at, max(first, last - SLIM))
        if last - start < SLIM:
            for lane in range(start, last):
                strip_sums(x + lane, NULL, parameters + lane, layout, rows, 0, 1, True, totals + lane)
        elif cold or floating is float:
            strip_sums(x + start, NULL, parameters + start, layout, rows, at - start, SLIM, True, totals + start)
        else:
            strip_sums(x + start, NULL, parameters + start, layout, rows, at - start, SLIM, False, totals + start)
        at = start + SLIM


cdef inline apart keep_counted(
    const floating* x, const unsigned char* mask, const floating* shift, Py_ssize_t n, floating* kept,
) noexcept nogil:
    # the shift, whose deviation is 0, in place of what does not count
    cdef Py_ssize_t j
    cdef floating value, instead
    for j in range(n):
        value = x[j]
        instead = shift[j]
        kept[j] = value if mask[j] else instead


cdef inline void sum_masked_rows(
    const floating* x, const unsigned char* mask, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t first, Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    cdef floating kept[KEPT]
    cdef Py_ssize_t at, n
    while rows > 0:
        if floating is double and cold:     # shift / scale might not be exact
            for at in range(first, last):
                strip_sums(x + at, mask + at, parameters + at, layout, 1, 0, 1, True, totals + at)
        else:
            at = first
            while at < last:
                n = min(last - at, <Py_ssize_t>KEPT)
                keep_counted(x + at, mask + at, parameters + SHIFT * layout.stride + at, n, kept)
                if cold:
                    sum_rows(kept, parameters + at, layout, 1, 0, n, True, totals + at)
                else:
                    sum_rows(kept, parameters + at, layout, 1, 0, n, False, totals + at)
                at += n
        x += layout.lanes
        mask += layout.lanes
        rows -= 1


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


cdef inline void some_sums(
    const floating* x, const unsigned char* mask, const floating* parameters, Layout* layout, Py_ssize_t row,
    Py_ssize_t rows, Py_ssize_t first, Py_ssize_t last, bint cold, double* totals,
) noexcept nogil:
    # of `rows` rows from `row` on; x and mask at the outer index's start
    if mask != NULL:
        sum_masked_rows(
            x + row * layout.lanes, mask + row * layout.lanes, parameters, layout, rows, first, last, cold, totals)
    else:
        sum_rows(x + row * layout.lanes, parameters, layout, rows, first, last, cold, totals)


cdef inline double far_of(Layout* layout) noexcept nogil:
    return max(<Py_ssize_t>FAR, FAR_ROWS // layout.block_rows)


cdef inline bint is_far(double lo, double variance, double far) noexcept nogil:
    return lo * lo > far * variance


cdef inline bint is_far_double(dd s1, dd s2, double n) noexcept nogil:
    # the same for double data, of whose 106 bits forty may be lost; equal numbers are far from zero even if their
    # squares vanish
    cdef dd lo = dd_divide(s1, n)
    cdef dd variance = dd_add(dd_divide(s2, n), dd_scale(dd_square(lo), -1))
    return lo.high != 0 and lo.high * lo.high >= 1099511627776.0 * variance.high


cdef inline dd group_total(
    const double* high, const double* low, Py_ssize_t first, Py_ssize_t last, floating example,
) noexcept nogil:
    # the columns of one group, in order
    cdef dd total = lane_sum(high, low, first, example)
    cdef Py_ssize_t j
    for j in range(first + 1, last):
        total = join(total, lane_sum(high, low, j, example), example)
    return total


# Steps for SIDE groups of float data, as vectors; see columns.pxd for why each is a function of its own.

cdef inline apart settle_side(
    const double* s1, const double* s2, const double* n, double eps, bint centered, const double* shift, double far,
    Moments* moments, Settled* settled, bint* again,
) noexcept nogil:
    # and whether the shift of any was far from the mean
    cdef Py_ssize_t j
    cdef Py_ssize_t count = 0
    settle_sums(s1, s2, n, eps, centered, shift, moments, settled)
    for j in range(SIDE):
        count += is_far(moments.mean[j] - shift[j], moments.variance[j], far)
    again[0] = centered and count > 0


cdef inline apart store_groups(const Settled* settled, Group* groups) noexcept nogil:
    put_groups(settled, SIDE, groups)


cdef inline apart store_population(const Moments* moments, const double* n, Population* population) noexcept nogil:
    # no mean where there is no variance: a sum around zero may be infinite
    cdef Py_ssize_t j
    for j in range(SIDE):
        population[j].mean = moments.mean[j] if moments.variance[j] == moments.variance[j] else moments.variance[j]
        population[j].variance = moments.variance[j]
        population[j].count = n[j]


cdef inline int close_floats(
    Forward* p, Unit* unit, const Py_ssize_t* counts, const double* s1, const double* s2, float* parameters,
    Group* groups, Population* population,
) noexcept nogil:
    # Sums of float data in double precision leave no range; a shift far from the mean is all that can happen to them.
    cdef Py_ssize_t inner = p.view.inner
    cdef Py_ssize_t stride = p.layout.stride
    cdef double n[SIDE]
    cdef double shift[SIDE]
    cdef double t1[SIDE]
    cdef double t2[SIDE]
    cdef Group few[SIDE]
    cdef Population few_population[SIDE]
    cdef Moments moments
    cdef Settled settled
    cdef Py_ssize_t s, j, count
    cdef bint again
    cdef double far = far_of(&p.layout)
    cdef int state = 0
    for j in range(SIDE):
        n[j] = <double>(p.view.reduced * inner)
        t1[j] = t2[j] = shift[j] = 0
    s = unit.first_group
    while s < unit.last_group:
        count = min(<Py_ssize_t>SIDE, unit.last_group - s)
        if counts != NULL:
            count_groups(counts, &p.view, s, count, n)
        if inner == 1 and count == SIDE:
            widen(parameters + SHIFT * stride + s, shift, SIDE)
            settle_side(s1 + s, s2 + s, n, p.eps, p.centered, shift, far, &moments, &settled, &again)
        else:
            for j in range(count):
                t1[j] = group_total(s1, NULL, (s + j) * inner, (s + j + 1) * inner, parameters[0]).high
                t2[j] = group_total(s2, NULL, (s + j) * inner, (s + j + 1) * inner, parameters[0]).high
                shift[j] = parameters[SHIFT * stride + (s + j) * inner]
            settle_side(t1, t2, n, p.eps, p.centered, shift, far, &moments, &settled, &again)
        store_groups(&settled, groups + s if count == SIDE else few)
        if population != NULL:
            store_population(&moments, n, population + s if count == SIDE else few_population)
        if count < SIDE:
            for j in range(count):
                groups[s + j] = few[j]
                if population != NULL:
                    population[s + j] = few_population[j]
        if counts != NULL:
            for j in range(count):
                if n[j] == 0:
                    clear_group(groups + s + j, population + s + j if population != NULL else NULL)
        if again:
            for j in range(count):
                if is_far(moments.mean[j] - shift[j], moments.variance[j], far):
                    set_shift(p, s + j, parameters, <float>moments.mean[j], <float>1)
                    state = UNDECIDED | SHIFTED
        s += SIDE
    return state


cdef inline int close_doubles(
    Forward* p, Unit* unit, const double* x, const unsigned char* mask, const Py_ssize_t* counts, const double* sums,
    double* parameters, Group* groups, Population* population,
) noexcept nogil:
    cdef Py_ssize_t inner = p.view.inner
    cdef Py_ssize_t stride = p.layout.stride
    cdef const unsigned char* group_mask = NULL
    cdef Py_ssize_t s, at
    cdef dd s1, s2
    cdef double n, scale
    cdef Verdict verdict
    cdef int state = 0
    for s in range(unit.first_group, unit.last_group):
        at = s * inner
        s1 = group_total(sums + FIRST * stride, sums + FIRST_LOW * stride, at, at + inner, x[0])
        s2 = group_total(sums + SECOND * stride, sums + SECOND_LOW * stride, at, at + inner, x[0])
        if mask != NULL:
            group_mask = mask + at
        count_groups(counts, &p.view, s, 1, &n)
        verdict = close_group(
            s1, s2, n, p.eps, p.centered, parameters[SHIFT * stride + at], parameters[SCALE * stride + at], groups + s,
            population + s if population != NULL else NULL)
        if verdict == COLD:
            scale = scale_of(x + at, group_mask, &p.view, p.eps)
            set_shift(p, s, parameters, <double>0, scale)
            state |= UNDECIDED
        elif p.centered and is_far_double(s1, s2, n):
            # the group may have gone back to the data's own unit
            scale = parameters[SCALE * stride + at]
            set_shift(p, s, parameters, groups[s].shift * (scale / groups[s].scale), scale)
            state |= UNDECIDED
        if parameters[SCALE * stride + at] != 1:
            state |= SCALED
        if parameters[SHIFT * stride + at] != 0:
            state |= SHIFTED
    return state


cdef inline int close_unit(
    Forward* p, Unit* unit, const floating* x, const unsigned char* mask, floating* parameters,
) noexcept nogil:
    # sums → groups of one unit; a group to be summed once more gets another shift or another scale
    cdef Py_ssize_t stride = p.layout.stride
    cdef double* sums = p.sums + unit.outer * p.layout.blocks * sums_of(x[0]) * stride
    cdef Group* groups = p.groups + unit.outer * p.view.groups
    cdef Population* population = p.population + unit.outer * p.view.groups if p.population != NULL else NULL
    cdef Py_ssize_t* counts = p.counts + unit.outer * p.layout.columns if mask != NULL else NULL
    if mask != NULL:
        count_elements(mask, &p.view, unit, counts)
    merge_blocks(&p.layout, unit, p.sums, x[0])
    fold_lanes(&p.layout, unit, p.sums, x[0])
    if floating is float:
        return close_floats(
            p, unit, counts, sums + FIRST * stride, sums + SECOND * stride, parameters, groups, population)
    else:
        return close_doubles(p, unit, x, mask, counts, sums, parameters, groups, population)


# ---- applying them ---------------------------------------------------------------------------------------------------

cdef inline int prepare(Forward* p, Unit* unit, floating* parameters) noexcept nogil:
    # groups → parameters of one unit; whether a scale is not 1
    cdef const Group* groups = p.groups + unit.outer * p.view.groups
    cdef Settled loaded
    cdef Py_ssize_t count
    cdef Py_ssize_t s = unit.first_group
    cdef int state = 0
    while s < unit.last_group:
        count = min(<Py_ssize_t>SIDE, unit.last_group - s)
        if load_groups(groups + s, count, &loaded, parameters[0]):
            state = SCALED
        if p.view.inner == 1 and count == SIDE:
            set_side(
                &loaded, <const floating*>p.weight + s if p.weight != NULL else NULL,
                <const floating*>p.bias + s if p.bias != NULL else NULL, p.layout.stride, parameters + s)
        else:
            set_lines(p, s, count, &loaded, parameters)
        s += SIDE
    repeat(&p.layout, unit, parameters, SHIFT, PARAMETERS)
    return state


cdef inline void set_lines(
    Forward* p, Py_ssize_t group, Py_ssize_t count, const Settled* loaded, floating* parameters,
) noexcept nogil:
    # the parameters of `count` groups from `group` on
    cdef const floating* weight = <const floating*>p.weight
    cdef const floating* bias = <const floating*>p.bias
    cdef Py_ssize_t stride = p.layout.stride
    cdef Py_ssize_t j, c
    cdef double factor
    for j in range(count):
        for c in range((group + j) * p.view.inner, (group + j + 1) * p.view.inner):
            factor = factor_of(loaded, j, weight[c] if weight != NULL else <floating>1)
            parameters[SHIFT * stride + c] = <floating>loaded.shift[j]
            parameters[SCALE * stride + c] = <floating>loaded.scale[j]
            parameters[FACTOR * stride + c] = <floating>factor
            parameters[OFFSET * stride + c] = <floating>((bias[c] if bias != NULL else 0) - loaded.lo[j] * factor)


cdef inline apart set_side(
    const Settled* loaded, const floating* weight, const floating* bias, Py_ssize_t stride, floating* parameters,
) noexcept nogil:
    # the same for SIDE groups of one column
    cdef double factor[SIDE]
    cdef double offset[SIDE]
    cdef Py_ssize_t j
    for j in range(SIDE):
        factor[j] = 1
        offset[j] = 0
    if weight != NULL:
        widen(weight, factor, SIDE)
    if bias != NULL:
        widen(bias, offset, SIDE)
    for j in range(SIDE):
        factor[j] = factor_of(loaded, j, <floating>factor[j])
        offset[j] -= loaded.lo[j] * factor[j]
    for j in range(SIDE):
        parameters[SHIFT * stride + j] = <floating>loaded.shift[j]
    for j in range(SIDE):
        parameters[SCALE * stride + j] = <floating>loaded.scale[j]
    for j in range(SIDE):
        parameters[FACTOR * stride + j] = <floating>factor[j]
    for j in range(SIDE):
        parameters[OFFSET * stride + j] = <floating>offset[j]


cdef inline inlined apply_chunk(
    const floating* x, floating* y, const floating* parameters, Py_ssize_t stride, Py_ssize_t n, bint streamed,
    bint cold,
) noexcept nogil:
    # up to CHUNK elements, read before any is written: x may be y, and the compiler needs no test of overlap. `n` and
    # `cold` are constants where this is inlined: without `cold` every scale is 1
    cdef floating out[CHUNK]
    cdef Py_ssize_t j
    for j in range(n):
        out[j] = multiply_add(
            deviation(x[j], parameters[SHIFT * stride + j], parameters[SCALE * stride + j], cold),
            parameters[FACTOR * stride + j], parameters[OFFSET * stride + j])
    put(out, y, n, streamed)


cdef inline inlined apply_row(
    const floating* x, floating* y, const floating* parameters, Py_ssize_t stride, Py_ssize_t n, bint streamed,
    bint cold,
) noexcept nogil:
    cdef Py_ssize_t j = 0
    while n - j >= CHUNK:
        apply_chunk(x + j, y + j, parameters + j, stride, CHUNK, streamed, cold)
        j += CHUNK
    while n - j >= SLIM:
        apply_chunk(x + j, y + j, parameters + j, stride, SLIM, streamed, cold)
        j += SLIM
    if j < n and n >= SLIM and x != y and not streamed:      # the last elements, some of them a second time
        j = n - SLIM
        apply_chunk(x + j, y + j, parameters + j, stride, SLIM, streamed, cold)
        return
    while j < n:
        apply_chunk(x + j, y + j, parameters + j, stride, 1, False, cold)
        j += 1


cdef inline inlined apply_even_rows(
    const floating* x, floating* y, const floating* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t n,
    bint distant,
) noexcept nogil:
    # n lanes of some rows; `n` is a constant where this is inlined
    cdef floating shift[EVEN_MOST]
    cdef floating factor[EVEN_MOST]
    cdef floating offset[EVEN_MOST]
    cdef floating out[EVEN_MOST]
    cdef Py_ssize_t r, j
    for j in range(n):
        shift[j] = parameters[SHIFT * layout.stride + j]
        factor[j] = parameters[FACTOR * layout.stride + j]
        offset[j] = parameters[OFFSET * layout.stride + j]
    for r in range(rows):
        if distant and r + 1 < rows:
            claim_lines(y + layout.lanes, n)
        for j in range(n):
            out[j] = multiply_add(deviation(x[j], shift[j], <floating>1, False), factor[j], offset[j])
        put(out, y, n, False)
        x += layout.lanes
        y += layout.lanes


cdef inline bint even_rows_done(
    const float* x, float* y, const float* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t n, bint distant,
) noexcept nogil:
    # whether there is a loop for so many lanes
    if n == EVEN:
        apply_even_rows(x, y, parameters, layout, rows, EVEN, distant)
    elif n == 2 * EVEN:
        apply_even_rows(x, y, parameters, layout, rows, 2 * EVEN, distant)
    elif n == EVEN_MOST:
        apply_even_rows(x, y, parameters, layout, rows, EVEN_MOST, distant)
    else:
        return False
    return True


cdef inline void apply_rows(
    const floating* x, floating* y, const floating* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t n,
    bint cold, bint distant, bint streamed,
) noexcept nogil:
    # n lanes of some rows
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t r, at
    if floating is float and not cold and not streamed and even_rows_done(
        x, y, parameters, layout, rows, n, distant,
    ):
        return
    for r in range(rows):
        at = r * lanes
        if distant and r + 1 < rows:
            claim_lines(y + at + lanes, n)
        if cold:
            apply_row(x + at, y + at, parameters, layout.stride, n, False, True)
        elif streamed:
            apply_row(x + at, y + at, parameters, layout.stride, n, True, False)
        else:
            apply_row(x + at, y + at, parameters, layout.stride, n, False, False)
    if streamed:
        stream_end()


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
        p.states[number] = prepare(p, &unit, <double*>p.parameters + at)
    else:
        p.states[number] = prepare(p, &unit, <float*>p.parameters + at)


cdef void apply_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Span span = span_of(&p.layout, task, p.whole)
    while next_lanes(&p.layout, p.states, &span):
        if p.double_precision:
            apply_span(p, &span, <const double*>p.x, <double*>p.y)
        else:
            apply_span(p, &span, <const float*>p.x, <float*>p.y)


cdef void unit_task(void* arguments, Py_ssize_t number) noexcept nogil:
    # all steps of one unit
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t first = number * p.layout.blocks
    cdef Py_ssize_t last = first + p.layout.blocks
    cdef Py_ssize_t task
    if p.given:
        close_task(p, number)
    else:
        start_task(p, number)
        while p.states[number] & UNDECIDED:
            for task in range(first, last):
                sum_task(p, task)
            close_task(p, number)
    for task in range(last - 1, first - 1, -1):
        apply_task(p, task)


cdef void run_forward(Forward* p) noexcept nogil:
    cdef Py_ssize_t units = p.layout.outer * p.layout.panels
    cdef Py_ssize_t tasks = p.layout.outer * p.layout.blocks
    cdef double half = 1.0 * p.layout.outer * p.layout.size * (8 if p.double_precision else 4)
    cdef double closing = 1.0 * p.layout.outer * p.layout.columns * CLOSING
    p.streamed = p.x != p.y and may_stream(p.y, &p.layout, 2 * half, 8 if p.double_precision else 4)
    p.distant = not p.streamed and 2 * half >= DISTANT and p.x != p.y and not p.given
    p.whole = p.layout.blocks > 1 and p.layout.outer < 2 * team_size(units, 2 * half)
    if not p.whole:
        parallel_for(unit_task, p, units, 2 * half)
        return
    if p.given:
        parallel_for(close_task, p, units, closing)
    else:
        parallel_for(start_task, p, units, 0)
        while undecided(p, units):
            parallel_for(sum_task, p, tasks, half)
            parallel_for(close_task, p, units, closing)
    parallel_back(apply_task, p, tasks, half)


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
        whole_lines(groups) + whole_lines(sums) + whole_lines(parameters) + whole_lines(counts) + 2 * units + LINE)
    if scratch == NULL:
        return -1
    rest = scratch
    p.groups = <Group*>carve(&rest, groups)         # that nobody keeps
    if call.groups != NULL:
        p.groups = call.groups
    p.sums = <double*>carve(&rest, sums)
    p.parameters = carve(&rest, parameters)
    p.counts = <Py_ssize_t*>carve(&rest, counts)
    p.states = <unsigned char*>carve(&rest, 2 * units)
    p.attempts = p.states + units
    run_forward(&p)
    free(scratch)
    return 0


columns_forward = offer(forward)
