"""Norms whose statistics run along contiguous memory: forward, and evaluation with given statistics.

Design
  (A) One kernel serves batch, instance and group norm of channels-first images, layer norm, RMS norm and
      standardisation: they differ in the view (O, A, S, I) of the array and in which weight belongs to an element.
  (B) One pass for the statistics: Σ(x − x₀) and Σ(x − x₀)² in twice the data's precision, x₀ being the group's first
      element. The mean is at most √n standard deviations from x₀, which costs log₂n of the 29 bits (double data: 53)
      that there are to spare. Converting to double takes no longer than a second pass, or the search for an x₀ that
      is near enough for sums in float.
  (C) Neighbouring groups are taken in batches, step by step: so the latencies of one group (horizontal sums, roots,
      quotients) hide behind the others, short runs of many groups are read as one stretch of memory, and the batch's
      data is still in a near cache when it is normalised. See rows.pxd; threads decide nothing.
  (D) x̂ = fma(x − shift, rstd, −lo·rstd). Where neighbours share a weight, it and bias go into the two coefficients,
      y = fma(x − shift, rstd·weight, bias − lo·rstd·weight); otherwise y = fma(x̂, weight, bias).
  (E) Float data without a mask, nearly all there is, takes row_floats.pxd: sums in registers, a whole batch in a call,
      closed as vectors, and values likewise where they are in the data's own unit. Where groups are single runs, the
      sums of the next batch are taken together with the values of the present one (row_batches.pxd); beyond the caches
      the two are kept apart, since sums alone have more lines on their way. Loops over local arrays, in
      row_statistics.pxd and row_values.pxd, are for the rest.
  (F) Groups of several runs: a batch fills the second-level cache. Its runs are summed sample by sample, the next
      sample's asked for ahead, and written from the last sample to the first: what was read last is nearest. Results
      beyond the caches are streamed where runs are whole cache lines. With given statistics samples go one by one.
"""

cimport numpy as cnp
from cython cimport floating
from libc.stdlib cimport free, malloc

from fastnn._kernels._plan cimport Finish, Operands, Step, finish_of, loop
from fastnn._kernels._runtime cimport even_block, less_shared, parallel_for
from fastnn._kernels.inlining cimport apart
from fastnn._kernels.lanes cimport WIDE
from fastnn._kernels.norm cimport DISTANT, SIDE, Group, Population, Settled, View, most_of, start_of
from fastnn._kernels.norm_call cimport Call, offer
from fastnn._kernels.norm_running cimport Running, update_running
from fastnn._kernels.row_batches cimport MANY, SIDES, TOGETHER, Lines, are_long, sum_batch, write_batch
from fastnn._kernels.row_floats cimport Sums, apply_affine, clear_sums, stream_affine, sum_stretch
from fastnn._kernels.row_statistics cimport Wanted, batch_statistics
from fastnn._kernels.row_values cimport Line, apply_line, apply_own_run, line_of
from fastnn._kernels.rows cimport BATCH, BLOCK, NEAR, batch_of, block_of, jump_after, may_stream
from fastnn._kernels.settling cimport Moments8, Settled8, moments_of, put_groups, settle8, store_settled
from fastnn._kernels.streaming cimport stream_end
from fastnn._kernels.vectors cimport VECTOR, d8, load8, multiply8, narrow, spread, store8, subtract8, totals
from fastnn._kernels.wide cimport goes_far, may_join, wide_values

cnp.import_array()

__all__ = ["NormStep", "rows_forward"]


cdef struct Forward:
    View view
    const void* x               # IN   (O, A, S, I)
    void* y                     # OUT  the same; may be x
    const void* weight          # IN   (period · entries) or NULL
    const void* bias            # IN   likewise
    const unsigned char* mask   # IN   like x, or NULL
    Py_ssize_t entries          # weights for each run, each for I / entries neighbours
    Py_ssize_t period           # group g uses the weights from (g % period) · entries
    double eps
    bint centered
    bint given                  # the statistics come with the call
    Group* groups               # IN if given, else OUT unless NULL; (O · S)
    Population* population      # OUT  (O · S) or NULL
    const Running* running      # INOUT (O · S) or NULL, by whoever closes a group: others would have to fetch it
    Line* lines                 # scratch (O · S) if `given` and `shared`
    bint double_precision
    Py_ssize_t length           # I / entries
    bint shared                 # a group has one weight and one bias
    bint simple                 # and all lines are folded and unscaled, with given statistics
    bint uniform                # or all groups have the same, one for each element
    bint floats                 # runs of float data without a mask, not too short, whose statistics are to be found
    Py_ssize_t segments         # of a group, that have one weight each and are written as a batch; else 1
    bint long_runs              # such groups have weights that do not fit the nearest cache beside them
    bint distant                # the result does not fit a near cache
    bint streamed               # nor any
    Py_ssize_t batch            # groups
    Py_ssize_t block            # groups, or runs where the statistics are given
    # In a plan, where blocks are contiguous: applied to each while it is in cache.
    const void* residual        # IN   like y, or NULL
    Finish finish


# ---- runs ------------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t first_weight(Forward* p, Py_ssize_t g) noexcept nogil:
    return (g % p.period if p.period > 1 else 0) * p.entries


cdef inline void group_lines(
    Forward* p, Py_ssize_t g, Py_ssize_t count, const Group* groups, Line* lines, floating example,
) noexcept nogil:
    # of groups g … g + count − 1, in each of which all elements share a weight; `example` only chooses the precision
    cdef Py_ssize_t at = g % p.period
    cdef Py_ssize_t r
    for r in range(count):
        lines[r] = line_of(
            groups + r, (<const floating*>p.weight)[at] if p.weight != NULL else 1,
            (<const floating*>p.bias)[at] if p.bias != NULL else 0, example)
        at = at + 1 if at + 1 < p.period else 0


cdef inline const floating* entry(const floating* parameters, Py_ssize_t k) noexcept nogil:
    return parameters + k if parameters != NULL else NULL


cdef inline void apply_run(
    Forward* p, Py_ssize_t g, const floating* x, floating* y, const Group* group, const Line* line,
) noexcept nogil:
    # one run of group g; `line` if the whole group shares a weight
    cdef Py_ssize_t n = p.view.inner
    cdef const floating* weight = entry(<const floating*>p.weight, first_weight(p, g))
    cdef const floating* bias = entry(<const floating*>p.bias, first_weight(p, g))
    cdef Py_ssize_t k
    cdef Line segment
    if p.shared:
        apply_shared(p, x, y, n, weight, bias, group, line)
    elif p.length > 1:
        for k in range(p.entries):
            segment = line_of(group, weight[k] if weight != NULL else 1, bias[k] if bias != NULL else 0, x[0])
            apply_shared(
                p, x + k * p.length, y + k * p.length, p.length, entry(weight, k), entry(bias, k), group, &segment)
    elif (p.mask != NULL or group.rstd > most_of(x[0])) and goes_far(x, n, group):
        for k in range(n):
            if goes_far(x + k, 1, group):
                wide_values(x + k, y + k, 1, 0, 1, entry(weight, k), entry(bias, k), 1, group)
            else:
                apply_own_run(x + k, y + k, 1, entry(weight, k), entry(bias, k), group)
    else:
        apply_own_run(x, y, n, weight, bias, group)


cdef inline void apply_shared(
    Forward* p, const floating* x, floating* y, Py_ssize_t n, const floating* weight, const floating* bias,
    const Group* group, const Line* line,
) noexcept nogil:
    # Neighbours that share a weight. In the data's own unit only values that are out of range overflow. In another,
    # elements may that a mask leaves out, or of given statistics; this changes no other value's bits.
    cdef Py_ssize_t i
    if not line.folded:
        wide_values(x, y, 1, 0, n, weight, bias, n, group)
    elif group.scale != 1 and (p.mask != NULL or p.given) and goes_far(x, n, group):
        for i in range(n):
            if goes_far(x + i, 1, group):
                wide_values(x + i, y + i, 1, 0, 1, weight, bias, 1, group)
            else:
                apply_line(x + i, y + i, 1, line)
    else:
        apply_line(x, y, n, line)


# ---- float data without a mask, in runs that are not too short -------------------------------------------------------

cdef inline apart gather_weights(
    Forward* p, Py_ssize_t g, Py_ssize_t count, d8 rstd, double* weight, double* bias, bint* simple,
) noexcept nogil:
    # of groups that have one weight each
    cdef double each[SIDE]
    cdef Py_ssize_t at = g % p.period
    cdef Py_ssize_t j
    store8(each, rstd)
    for j in range(count):
        if p.weight != NULL:
            weight[j] = (<const float*>p.weight)[at]
            simple[0] = simple[0] and may_join(each[j] * weight[j], weight[j], each[j], <float>0)
        if p.bias != NULL:
            bias[j] = (<const float*>p.bias)[at]
        at = at + 1 if at + 1 < p.period else 0


cdef inline apart put_side(
    Forward* p, Py_ssize_t g, Py_ssize_t count, const Moments8* moments, const Settled8* settled,
) noexcept nogil:
    cdef Settled fields
    cdef double mean[SIDE]
    cdef double variance[SIDE]
    cdef Py_ssize_t j
    if p.groups != NULL:
        store_settled(settled[0], &fields)
        put_groups(&fields, count, p.groups + g)
    if p.population != NULL:
        store8(mean, moments.mean)
        store8(variance, moments.variance)
        for j in range(count):
            p.population[g + j].mean = mean[j]
            p.population[g + j].variance = variance[j]
            p.population[g + j].count = <double>(p.view.reduced * p.view.inner)


cdef inline apart close_side(
    Forward* p, Py_ssize_t g, Py_ssize_t count, double each, const double* shift, const d8* first, const d8* second,
    Settled8* settled, float* line_shift, float* line_factor, float* line_offset, bint* simple,
) noexcept nogil:
    # up to SIDE groups: sums → statistics and lines; `simple`, whether the lines are all that their values need.
    # each = 1/n
    cdef Moments8 moments = moments_of(
        totals(first), totals(second), spread(each), p.eps, p.centered, load8(shift))
    cdef double weight[SIDE]
    cdef double bias[SIDE]
    cdef d8 factor, offset
    cdef Py_ssize_t j
    simple[0] = settle8(&moments, settled)
    factor = settled.rstd
    offset = multiply8(settled.lo, factor)
    if p.shared:
        for j in range(SIDE):
            weight[j], bias[j] = 1, 0
        if p.weight != NULL or p.bias != NULL:
            gather_weights(p, g, count, factor, weight, bias, simple)
        factor = multiply8(factor, load8(weight))
        offset = subtract8(load8(bias), multiply8(offset, load8(weight)))
    else:
        offset = subtract8(spread(-0.0), offset)        # −0, which leaves a zero its sign
    narrow(line_shift, settled.shift)
    narrow(line_factor, factor)
    narrow(line_offset, offset)
    if p.groups != NULL or p.population != NULL:
        put_side(p, g, count, &moments, settled)


cdef inline bint close_batch(
    Forward* p, Py_ssize_t g, Py_ssize_t count, const Sums* sums, Settled8* settled, Lines* lines,
) noexcept nogil:
    # whether the lines are all that the values need
    cdef double each = 1 / <double>(p.view.reduced * p.view.inner)
    cdef bint simple = p.uniform and p.view.inner >= VECTOR
    cdef bint side
    cdef Py_ssize_t j = 0
    while j < count:
        close_side(
            p, g + j, min(<Py_ssize_t>SIDE, count - j), each, sums.shift + j, sums.first + j, sums.second + j,
            settled + j // SIDE, lines.shift + j, lines.factor + j, lines.offset + j, &side)
        simple = simple and side
        j += SIDE
    return simple


cdef inline apart write_each(
    Forward* p, Py_ssize_t g, Py_ssize_t count, const float* x, float* y, const Settled8* settled,
) noexcept nogil:
    # one group after the other; x and y at the first one's start
    cdef Py_ssize_t n = p.view.inner
    cdef Group groups[SIDE]
    cdef Line lines[SIDE]
    cdef Settled fields
    cdef Py_ssize_t r, a, at, several
    cdef Py_ssize_t j = 0
    while j < count:
        several = min(<Py_ssize_t>SIDE, count - j)
        store_settled(settled[j // SIDE], &fields)
        put_groups(&fields, several, groups)
        if p.shared:
            group_lines(p, g + j, several, groups, lines, <float>0)
        for a in range(p.view.reduced):
            for r in range(several):
                at = (a * p.view.groups + j + r) * n
                apply_run(p, g + j + r, x + at, y + at, groups + r, lines + r)
        j += SIDE


cdef inline bint close_segments(
    Forward* p, Py_ssize_t g, Py_ssize_t count, const Settled8* settled, Lines* lines,
) noexcept nogil:
    # lines of all segments of groups of several weights; whether they are all that the values need
    cdef const float* weight = <const float*>p.weight
    cdef const float* bias = <const float*>p.bias
    cdef Group groups[SIDE]
    cdef Settled fields
    cdef Line line
    cdef Py_ssize_t r, k, at
    cdef Py_ssize_t s = 0
    for r in range(count):
        if r % SIDE == 0:
            store_settled(settled[r // SIDE], &fields)
            put_groups(&fields, SIDE, groups)
        at = first_weight(p, g + r)
        for k in range(at, at + p.entries):
            line = line_of(
                groups + r % SIDE, weight[k] if weight != NULL else 1, bias[k] if bias != NULL else 0, <float>0)
            if line.scale != 1 or not line.folded:
                return False
            lines.shift[s] = <float>line.shift
            lines.factor[s] = <float>line.factor
            lines.offset[s] = <float>line.offset
            s += 1
    return True


cdef inline void forward_floats(
    Forward* p, Py_ssize_t first, Py_ssize_t last, const float* x, float* y,
) noexcept nogil:
    # groups of one run each
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t g = first
    cdef Py_ssize_t count = min(p.batch, last - g)
    cdef Py_ssize_t more
    cdef bint own = not p.shared and p.segments == 1
    cdef const float* weight = <const float*>p.weight if own else NULL
    cdef const float* bias = <const float*>p.bias if own else NULL
    cdef Sums sums
    cdef Lines lines
    cdef Settled8 settled[SIDES]
    cdef bint near = not p.distant and not p.streamed and not p.long_runs and p.segments == 1
    cdef bint simple
    clear_sums(&sums, p.batch)
    sum_batch(x + g * n, y + g * n if p.distant else NULL, count, n, p.centered, &sums)
    while count > 0:
        simple = close_batch(p, g, count, &sums, settled, &lines)
        if p.segments > 1:
            simple = close_segments(p, g, count, settled, &lines)
        more = min(p.batch, last - g - count)
        if simple:
            write_batch(
                x + g * n, y + g * n, &lines, count * p.segments, n // p.segments, weight, bias, more if near else 0,
                p.streamed, p.centered, &sums)
        else:
            write_each(p, g, count, x + g * n, y + g * n, settled)
        g += count
        count = more
        if not (near and simple):
            sum_batch(x + g * n, y + g * n if p.distant else NULL, count, n, p.centered, &sums)


cdef inline void forward_stretches(
    Forward* p, Py_ssize_t first, Py_ssize_t last, const float* x, float* y,
) noexcept nogil:
    # groups of several runs each; a batch does not reach beyond its outer index
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t stride = p.view.groups * n
    cdef Py_ssize_t g = first
    cdef Py_ssize_t count, start, a, at, r
    cdef Sums sums
    cdef Lines lines
    cdef Settled8 settled[SIDES]
    while g < last:
        count = min(p.batch, last - g, p.view.groups - g % p.view.groups)
        start = start_of(&p.view, g)
        clear_sums(&sums, count)
        for r in range(count):
            sums.shift[r] = x[start + r * n] if p.centered else 0
        for a in range(p.view.reduced):
            at = start + a * stride
            sum_stretch(x + at, y + at if p.distant else NULL, count, n, jump_after(&p.view, a, count * n), &sums)
        if close_batch(p, g, count, &sums, settled, &lines) and p.shared:
            for a in range(p.view.reduced - 1, -1, -1):     # what was read last is nearest
                at = start + a * stride
                write_batch(x + at, y + at, &lines, count, n, NULL, NULL, 0, p.streamed, p.centered, &sums)
        else:
            write_each(p, g, count, x + start, y + start, settled)
        g += count


# ---- tasks -----------------------------------------------------------------------------------------------------------

cdef inline bint shared_and_simple(Forward* p, Py_ssize_t count, const Line* lines) noexcept nogil:
    # groups of one weight each
    cdef Py_ssize_t r
    cdef Py_ssize_t special = 0
    if p.view.inner < VECTOR:
        return False
    for r in range(count):
        special += lines[r].scale != 1 or not lines[r].folded
    return special == 0


cdef inline apart apply_lines(
    const float* x, float* y, Py_ssize_t count, Py_ssize_t n, const Line* lines, bint streamed,
) noexcept nogil:
    # neighbouring runs, folded and unscaled
    cdef Py_ssize_t r
    if streamed:
        for r in range(count):
            stream_affine(x + r * n, y + r * n, n, lines[r].shift, lines[r].factor, lines[r].offset)
        return
    for r in range(count):
        apply_affine(x + r * n, y + r * n, n, lines[r].shift, lines[r].factor, lines[r].offset, NULL, NULL)


cdef inline void forward_batch(
    Forward* p, Py_ssize_t g, Py_ssize_t count, const floating* x, floating* y,
) noexcept nogil:
    # groups g … g + count − 1, of one outer index
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef Py_ssize_t start = start_of(&p.view, g)
    cdef Wanted wanted
    cdef Group own[BATCH]
    cdef Line lines[BATCH]
    cdef Group* groups = p.groups + g if p.groups != NULL else own
    cdef Py_ssize_t a, r, at
    wanted.view, wanted.eps, wanted.centered, wanted.distant = p.view, p.eps, p.centered, p.distant
    batch_statistics(
        &wanted, count, x + start, y + start, p.mask + start if p.mask != NULL else NULL, groups,
        p.population + g if p.population != NULL else NULL)
    if p.shared:
        group_lines(p, g, count, groups, lines, x[0])
    for a in range(p.view.reduced):
        for r in range(count):
            at = start + a * stride + r * p.view.inner
            apply_run(p, g + r, x + at, y + at, groups + r, lines + r)


cdef inline void forward_groups(
    Forward* p, Py_ssize_t first, Py_ssize_t last, const floating* x, floating* y,
) noexcept nogil:
    # a batch does not reach beyond its outer index
    cdef Py_ssize_t g = first
    cdef Py_ssize_t count
    while g < last:
        count = min(p.batch, last - g, p.view.groups - g % p.view.groups)
        forward_batch(p, g, count, x, y)
        g += count


cdef inline void forward_runs(
    Forward* p, Py_ssize_t first, Py_ssize_t last, const floating* x, floating* y,
) noexcept nogil:
    # runs in the order of memory, with given statistics; those of all groups of one sample go together
    cdef Py_ssize_t run = first
    cdef Py_ssize_t s, g, count, r, at
    while run < last:
        s = run % p.view.groups
        g = run // (p.view.reduced * p.view.groups) * p.view.groups + s
        count = min(last - run, p.view.groups - s)
        at = run * p.view.inner
        if floating is float and p.simple:
            apply_lines(x + at, y + at, count, p.view.inner, p.lines + g, p.streamed)
        else:
            for r in range(count):
                apply_run(
                    p, g + r, x + at + r * p.view.inner, y + at + r * p.view.inner, p.groups + g + r,
                    p.lines + g + r)
        run += count


cdef inline void finish_runs(Forward* p, Py_ssize_t first, Py_ssize_t last, floating example) noexcept nogil:
    # runs in the order of memory
    cdef floating* y = <floating*>p.y + first * p.view.inner
    cdef const floating* residual
    cdef Py_ssize_t n = (last - first) * p.view.inner
    cdef Py_ssize_t i
    if p.residual != NULL:
        residual = <const floating*>p.residual + first * p.view.inner
        for i in range(n):
            y[i] += residual[i]
    if p.finish.apply != NULL:
        p.finish.apply(&p.finish, y, n)


cdef inline void finish_block(Forward* p, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    if p.residual == NULL and p.finish.apply == NULL:
        return
    if p.double_precision:
        finish_runs(p, first, last, <double>0)
    else:
        finish_runs(p, first, last, <float>0)


cdef void forward_block(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t first = block * p.block
    cdef Py_ssize_t last = min(first + p.block, p.view.outer * p.view.groups)
    if p.double_precision:
        forward_groups(p, first, last, <const double*>p.x, <double*>p.y)
    elif p.floats and p.view.reduced == 1:
        forward_floats(p, first, last, <const float*>p.x, <float*>p.y)
    elif p.floats:
        forward_stretches(p, first, last, <const float*>p.x, <float*>p.y)
    else:
        forward_groups(p, first, last, <const float*>p.x, <float*>p.y)
    if p.streamed:
        stream_end()
    if p.running != NULL:
        update_running(p.running, p.population, 1, first, last)
    finish_block(p, first, last)


cdef void given_block(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t first = block * p.block
    cdef Py_ssize_t last = min(first + p.block, p.view.outer * p.view.reduced * p.view.groups)
    if p.double_precision:
        forward_runs(p, first, last, <const double*>p.x, <double*>p.y)
    else:
        forward_runs(p, first, last, <const float*>p.x, <float*>p.y)
    if p.streamed:
        stream_end()
    finish_block(p, first, last)


cdef inline Py_ssize_t batch_of_floats(View* view, Py_ssize_t bytes) noexcept nogil:
    # runs that fill so many, whole SIDEs if they are more
    cdef Py_ssize_t count = max(<Py_ssize_t>1, min(<Py_ssize_t>MANY, bytes // (4 * view.inner)))
    return count if count < SIDE else count // SIDE * SIDE


cdef void run_forward(Forward* p, loop each) noexcept nogil:
    cdef Py_ssize_t groups = p.view.outer * p.view.groups
    cdef Py_ssize_t runs = groups * p.view.reduced
    cdef Py_ssize_t itemsize = 8 if p.double_precision else 4
    cdef double work = 2.0 * runs * p.view.inner * itemsize
    if work == 0:
        return
    p.length = p.view.inner // p.entries
    p.distant = work >= DISTANT and p.x != p.y
    p.shared = p.entries == 1 or (p.weight == NULL and p.bias == NULL)
    p.uniform = p.shared or (p.length == 1 and p.period == 1)
    p.floats = not p.double_precision and not p.given and p.mask == NULL and p.view.inner >= WIDE
    p.streamed = (
        p.distant and ((p.given and p.shared and not p.double_precision) or (p.floats and p.uniform))
        and p.residual == NULL and p.finish.apply == NULL and may_stream(p.y, &p.view, work))
    p.distant = p.distant and not p.streamed
    p.simple = False
    if p.given:
        if p.shared and p.double_precision:
            group_lines(p, 0, groups, p.groups, p.lines, <double>0)
        elif p.shared:
            group_lines(p, 0, groups, p.groups, p.lines, <float>0)
            p.simple = shared_and_simple(p, groups, p.lines)
        if p.shared:
            work = less_shared(work, 4.0 * groups * sizeof(Line))  # each of them is waited for
        p.block = even_block(runs, max(<Py_ssize_t>1, BLOCK // p.view.inner), 1)
        each(given_block, p, (runs + p.block - 1) // p.block, work)
    else:
        p.batch = batch_of(&p.view, itemsize, 1)
        if p.floats and p.view.reduced == 1:
            p.batch = batch_of_floats(&p.view, NEAR if p.distant or p.streamed else NEAR // 2)
            p.long_runs = p.uniform and not p.shared and are_long(p.view.inner, p.weight, p.bias)
            p.segments = 1
            if p.length >= VECTOR and not p.shared and p.entries <= BATCH:
                p.segments = p.entries
                p.batch = min(p.batch, BATCH // p.segments)
            if p.long_runs:
                p.batch = max(<Py_ssize_t>1, min(<Py_ssize_t>TOGETHER, groups // 2))
        p.block = block_of(&p.view, p.batch)
        each(forward_block, p, (groups + p.block - 1) // p.block, work)


# ---- entry point -----------------------------------------------------------------------------------------------------

cdef int forward(const Call* call) noexcept nogil:
    cdef Forward p
    p.view = call.view
    p.x, p.y, p.weight, p.bias, p.mask = call.x, call.y, call.weight, call.bias, call.mask
    p.entries, p.period = call.entries, call.period
    p.eps, p.centered, p.given = call.eps, call.centered, call.given
    p.groups, p.population, p.running = call.groups, call.population, call.running
    p.double_precision = call.double_precision
    p.residual, p.finish.apply, p.lines = NULL, NULL, NULL
    if p.given:
        p.lines = <Line*>malloc(p.view.outer * p.view.groups * sizeof(Line))
        if p.lines == NULL:
            return -1
    run_forward(&p, parallel_for)
    free(p.lines)
    return 0


rows_forward = offer(forward)


# ---- in a plan -------------------------------------------------------------------------------------------------------

cdef inline void* data_of(object array) noexcept:
    return cnp.PyArray_DATA(<cnp.ndarray>array) if array is not None else NULL


cdef void run_norm(const void* settings, Operands* o) noexcept nogil:
    cdef Forward p = (<const Forward*>settings)[0]
    p.x, p.y, p.residual, p.lines = o.x, o.y, o.residual, <Line*>o.scratch
    if p.given:
        p.view.reduced *= o.samples
    else:
        p.view.groups *= o.samples
    run_forward(&p, o.each)


cdef Py_ssize_t line_bytes(const void* settings, Py_ssize_t samples) noexcept nogil:
    return (<const Forward*>settings).view.groups * sizeof(Line)


cdef class NormStep(Step):
    """A norm whose groups are contiguous, as a step of a plan: `groups` of n elements in each sample.

    weight and bias are regular arrays or None; `entries` and `period` as in `Forward`. With `given` statistics, float64
    (channels, fields) for runs of n elements, `groups` counts how often the channels follow each other in a sample.
    """
    cdef Forward forward

    def __cinit__(
        self, Py_ssize_t groups, Py_ssize_t n, Py_ssize_t entries, Py_ssize_t period, object weight, object bias,
        double eps, bint centered, object given, object finisher, bint double_precision,
    ):
        cdef Forward* p = &self.forward
        self.kept = (weight, bias, given)
        p.view.outer, p.view.reduced, p.view.groups, p.view.inner = 1, 1, groups, n
        p.given, p.groups, p.population, p.running = given is not None, <Group*>data_of(given), NULL, NULL
        if p.given:
            p.view.reduced, p.view.groups = groups, cnp.PyArray_DIM(<cnp.ndarray?>given, 0)
            self.scratch = line_bytes
        p.weight, p.bias, p.mask = data_of(weight), data_of(bias), NULL
        p.entries, p.period, p.eps, p.centered = entries, period, eps, centered
        p.finish = finish_of(finisher)
        p.double_precision = double_precision
        self.run, self.settings = run_norm, &self.forward
