"""Norms whose statistics run along contiguous memory: forward, and evaluation with given statistics.

Design
  (A) One kernel serves batch, instance and group norm of channels-first images, layer norm, RMS norm and
      standardisation: they differ in the view (O, A, S, I) of the array and in which weight belongs to an element.
  (B) One pass for the statistics: sums of x − shift and (x − shift)² around a first estimate of the mean taken from a
      sample spread over the group. When the estimate turns out further than half a standard deviation from the mean,
      cancellation would cost more than a quarter of the error bound, and the sums are taken again around the mean.
      Against a full pass for the mean this saves a read of the data, and it is as exact: the correction
      var = S2/n − (S1/n)² removes the shift to second order.
  (C) Running sums: LANES of the data's precision, at most FLUSH additions each, then double (double-double). The
      element's place in its run decides its lane, the run's place in the group decides the piece; threads decide
      nothing.
  (D) A group is normalised by the thread that summed it, while its data is in that core's cache. Only when there are
      fewer large groups than threads could use are the pieces of one group shared out; the bits are the same.
  (E) y = fma(fma(x − shift, rstd, −lo·rstd), weight, bias): three roundings before the affine map.
"""

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cython cimport floating
from libc.math cimport sqrt
from libc.string cimport memset

from fastnn._kernels._memory cimport empty
from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.lanes cimport FLUSH, LANES, SINGLE, WideSum, clear, dd, dd_add, merge, total_of
from fastnn._kernels.norm cimport (
    AGAIN, COLD, FINAL, PIECE, SAMPLE, SAMPLE_RUN, Group, Pieces, Population, Verdict, View, close_group, count_of,
    deviation, normalized, offset_of, pieces_of, scale_of, start_of,
)

cnp.import_array()

__all__ = ["rows_forward", "rows_layer_norm"]

cdef enum:
    # rows that one merge of the lanes serves are short, and are taken so many at a time
    SHORT = FLUSH * LANES
    BATCH = 16
    # elements that a thread claims at a time, at least
    BLOCK = 16384


cdef struct Sample:
    # the elements that give the first estimate of a mean: `runs` times SAMPLE_RUN neighbours, evenly spread
    Py_ssize_t runs
    Py_ssize_t step_a
    Py_ssize_t step_i


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
    bint double_precision
    bint short_rows
    Sample sample
    Pieces pieces
    Py_ssize_t groups_per_block


# ---- statistics of one group ---------------------------------------------------------------------------------------

cdef inline Sample sample_of(View* view) noexcept nogil:
    cdef Sample sample
    cdef Py_ssize_t n = view.reduced * view.inner
    cdef Py_ssize_t step = SAMPLE_RUN
    sample.runs = (n + step - 1) // step
    if n > SAMPLE:
        sample.runs = max(<Py_ssize_t>(SAMPLE // SAMPLE_RUN), <Py_ssize_t>(sqrt(<double>n) / 4))
        step = n // sample.runs
    sample.step_a = step // view.inner
    sample.step_i = step % view.inner
    return sample


cdef inline floating row_shift(const floating* x, Py_ssize_t step) noexcept nogil:
    # mean of SAMPLE elements of one run; every addition doubles when the elements are equal, so it is exact for those
    cdef floating lanes[SAMPLE_RUN]
    cdef Py_ssize_t i
    for i in range(SAMPLE_RUN):
        lanes[i] = (x[i] + x[step + i]) + (x[2 * step + i] + x[3 * step + i])
    for i in range(8):
        lanes[i] += lanes[i + 8]
    for i in range(4):
        lanes[i] += lanes[i + 4]
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) * <floating>(1.0 / SAMPLE)


cdef inline floating sampled_shift(
    const floating* x, const unsigned char* mask, View* view, Sample* sample, double scale,
) noexcept nogil:
    # mean of a sample of x·scale spread over the group; in double, so exact for equal float elements
    cdef Py_ssize_t stride = view.groups * view.inner
    cdef Py_ssize_t length, _run, i
    cdef Py_ssize_t a = 0
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t count = 0
    cdef double lanes[SAMPLE_RUN]
    cdef double total = 0
    cdef const floating* run
    memset(lanes, 0, sizeof(lanes))
    for _run in range(sample.runs):
        length = min(<Py_ssize_t>SAMPLE_RUN, view.inner - at)
        run = x + a * stride + at
        if mask != NULL:
            for i in range(length):
                if mask[a * stride + at + i]:
                    lanes[i] += run[i] * scale
                    count += 1
        else:
            for i in range(length):
                lanes[i] += run[i] * scale
            count += length
        a += sample.step_a
        at += sample.step_i
        if at >= view.inner:
            at -= view.inner
            a += 1
        if a >= view.reduced:
            break
    if count == 0:
        return <floating>(first_counted(x, mask, view) * scale)
    for i in range(SAMPLE_RUN):
        total += lanes[i]
    return <floating>(total / count)


cdef floating first_counted(const floating* x, const unsigned char* mask, View* view) noexcept nogil:
    cdef Py_ssize_t a, i, at
    for a in range(view.reduced):
        for i in range(view.inner):
            at = a * view.groups * view.inner + i
            if mask[at]:
                return x[at]
    return 0


cdef inline void add_lanes(
    const floating* x, const unsigned char* mask, Py_ssize_t n, floating shift, floating scale, bint cold,
    floating* sums, floating* squares,
) noexcept nogil:
    # `cold` is a constant where this is inlined: without it scale is 1
    cdef Py_ssize_t j
    cdef floating d
    for j in range(n):
        d = deviation(x[j], shift, scale, cold)
        if mask != NULL:
            d = d if mask[j] else 0
        sums[j] += d
        squares[j] = multiply_add(d, d, squares[j])


cdef inline void add_quad(
    const floating* x, Py_ssize_t stride, floating shift, floating scale, bint cold, floating* sums, floating* squares,
) noexcept nogil:
    # LANES neighbours in each of 4 places `stride` apart: added as a tree, so that equal roundings do not pile up
    cdef Py_ssize_t j
    cdef floating a, b, c, d
    for j in range(LANES):
        a = deviation(x[j], shift, scale, cold)
        b = deviation(x[stride + j], shift, scale, cold)
        c = deviation(x[2 * stride + j], shift, scale, cold)
        d = deviation(x[3 * stride + j], shift, scale, cold)
        sums[j] += (a + b) + (c + d)
        squares[j] += multiply_add(b, b, a * a) + multiply_add(d, d, c * c)


cdef inline void piece_sums(
    const floating* x,              # IN   at the piece's first element
    const unsigned char* mask,      # IN   likewise, or NULL
    Py_ssize_t runs, Py_ssize_t length, Py_ssize_t stride, floating shift, floating scale, bint cold,
    dd* s1, dd* s2,                 # OUT  Σ(x·scale − shift), Σ(x·scale − shift)²
) noexcept nogil:
    cdef floating sums[LANES]
    cdef floating squares[LANES]
    cdef WideSum total, total_squares
    cdef Py_ssize_t _a, _c, i, quads
    cdef Py_ssize_t filled = 0
    clear(&total)
    clear(&total_squares)
    memset(sums, 0, sizeof(sums))
    memset(squares, 0, sizeof(squares))
    for _a in range(runs):
        i = 0
        while i < length:
            quads = min((FLUSH - filled) // 4, (length - i) // (4 * LANES)) if mask == NULL else 0
            if quads > 0:
                for _c in range(quads):
                    add_quad(x + i, LANES, shift, scale, cold, sums, squares)
                    i += 4 * LANES
                filled += 4 * quads
            else:
                if mask != NULL:
                    add_lanes(x + i, mask + i, min(<Py_ssize_t>LANES, length - i), shift, scale, cold, sums, squares)
                elif length - i >= LANES:
                    add_lanes(x + i, NULL, LANES, shift, scale, cold, sums, squares)
                else:
                    add_lanes(x + i, NULL, length - i, shift, scale, cold, sums, squares)
                i += LANES
                filled += SINGLE
            if filled > FLUSH - SINGLE:
                merge(sums, &total)
                merge(squares, &total_squares)
                filled = 0
        x += stride
        if mask != NULL:
            mask += stride
    if filled:
        merge(sums, &total)
        merge(squares, &total_squares)
    s1[0] = total_of(&total, shift)
    s2[0] = total_of(&total_squares, shift)


cdef inline void group_sums(
    Forward* p, const floating* x, const unsigned char* mask, floating shift, double scale, dd* s1, dd* s2,
) noexcept nogil:
    # the pieces of a group in order; x and mask at the group's start
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef Py_ssize_t piece, a, i, at, runs, length
    cdef dd t1, t2
    s1.high = s1.low = s2.high = s2.low = 0
    for piece in range(p.pieces.count):
        a = piece // p.pieces.parts * p.pieces.runs
        i = piece % p.pieces.parts * PIECE
        at = a * stride + i
        runs = min(p.pieces.runs, p.view.reduced - a)
        length = min(<Py_ssize_t>PIECE, p.view.inner - i)
        if scale == 1:
            piece_sums(
                x + at, mask + at if mask != NULL else NULL, runs, length, stride, shift, <floating>1, False, &t1, &t2)
        else:
            piece_sums(
                x + at, mask + at if mask != NULL else NULL, runs, length, stride, shift, <floating>scale, True,
                &t1, &t2)
        s1[0] = dd_add(s1[0], t1)
        s2[0] = dd_add(s2[0], t2)


cdef inline floating first_shift(
    Forward* p, const floating* x, const unsigned char* mask, double scale,
) noexcept nogil:
    if not p.centered:
        return 0
    if p.view.reduced == 1 and mask == NULL and p.view.inner >= SAMPLE and p.view.inner <= SHORT and scale == 1:
        return row_shift(x, p.view.inner // (SAMPLE // SAMPLE_RUN))
    return sampled_shift(x, mask, &p.view, &p.sample, scale)


cdef inline void statistics(
    Forward* p, const floating* x, const unsigned char* mask, Group* group, Population* population,
) noexcept nogil:
    # any group; x and mask at the group's start
    cdef double n = <double>count_of(mask, &p.view)
    cdef double scale = 1
    cdef floating shift = first_shift(p, x, mask, scale)
    cdef dd s1, s2
    cdef Py_ssize_t _attempt
    cdef Verdict verdict
    for _attempt in range(3):
        group_sums(p, x, mask, shift, scale, &s1, &s2)
        verdict = close_group(s1, s2, n, p.eps, p.centered, shift, scale, group, population)
        if verdict == AGAIN:
            shift = <floating>group.shift
        elif verdict == COLD:
            scale = scale_of(x, mask, &p.view, p.eps)
            shift = first_shift(p, x, mask, scale)
        else:
            break


cdef inline void short_statistics(Forward* p, const floating* x, Py_ssize_t rows, Group* groups) noexcept nogil:
    # `rows` neighbouring groups of one short run each, step by step for all of them, so that the long latencies of
    # one row (horizontal sums, roots, quotients) hide behind the others; the same sums as `statistics`
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t r
    cdef floating shift[BATCH]
    cdef dd s1[BATCH]
    cdef dd s2[BATCH]
    for r in range(rows):
        shift[r] = first_shift(p, x + r * n, NULL, 1)
    for r in range(rows):
        piece_sums(x + r * n, NULL, 1, n, n, shift[r], <floating>1, False, s1 + r, s2 + r)
    for r in range(rows):
        if close_group(s1[r], s2[r], <double>n, p.eps, p.centered, shift[r], 1, groups + r, NULL) != FINAL:
            statistics(p, x + r * n, NULL, groups + r, NULL)


# ---- applying them -------------------------------------------------------------------------------------------------

cdef inline void apply_run(
    const floating* x,          # IN   (n)
    floating* y,                # OUT  (n); may be x
    Py_ssize_t n,
    const floating* weight,     # IN   (n) if each, else one
    const floating* bias,       # IN   likewise
    bint each, bint weighted, bint biased, const Group* group, bint cold,
) noexcept nogil:
    # y = x̂·weight + bias; `each`, `weighted`, `biased` and `cold` are constants where this is inlined
    cdef floating shift = <floating>group.shift
    cdef floating rstd = <floating>group.rstd
    cdef floating offset = offset_of(group, shift)
    cdef floating scale = <floating>group.scale
    cdef floating value
    cdef Py_ssize_t i
    for i in range(n):
        value = normalized(x[i], shift, rstd, offset, scale, cold)
        if weighted and biased:
            value = multiply_add(value, weight[i if each else 0], bias[i if each else 0])
        elif weighted:
            value = value * weight[i if each else 0]
        elif biased:
            value = value + bias[i if each else 0]
        y[i] = value


cdef inline void apply_hot(
    const floating* x, floating* y, Py_ssize_t n, const floating* weight, const floating* bias, bint each, Group* group,
) noexcept nogil:
    if weight != NULL and bias != NULL:
        apply_run(x, y, n, weight, bias, each, True, True, group, False)
    elif weight != NULL:
        apply_run(x, y, n, weight, bias, each, True, False, group, False)
    elif bias != NULL:
        apply_run(x, y, n, weight, bias, each, False, True, group, False)
    else:
        apply_run(x, y, n, weight, bias, each, False, False, group, False)


cdef inline void apply(
    const floating* x, floating* y, Py_ssize_t n, const floating* weight, const floating* bias, bint each, Group* group,
) noexcept nogil:
    if group.scale != 1:
        apply_run(x, y, n, weight, bias, each, weight != NULL, bias != NULL, group, True)
    elif x == y:    # told apart so that the compiler sees one array and still vectorises
        apply_hot(<const floating*>y, y, n, weight, bias, each, group)
    else:
        apply_hot(x, y, n, weight, bias, each, group)


cdef inline void apply_runs(
    Forward* p, Py_ssize_t first, Py_ssize_t last, Py_ssize_t g, const floating* x, floating* y, Group* group,
) noexcept nogil:
    # runs first … last − 1 of group g, whose first elements are x and y
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef Py_ssize_t length = p.view.inner // p.entries
    cdef Py_ssize_t at = (g % p.period) * p.entries
    cdef const floating* weight = <const floating*>p.weight + at if p.weight != NULL else NULL
    cdef const floating* bias = <const floating*>p.bias + at if p.bias != NULL else NULL
    cdef Py_ssize_t a, k
    for a in range(first, last):
        if length == 1 or (weight == NULL and bias == NULL):
            apply(x + a * stride, y + a * stride, p.view.inner, weight, bias, True, group)
        else:
            for k in range(p.entries):
                apply(
                    x + a * stride + k * length, y + a * stride + k * length, length,
                    weight + k if weight != NULL else NULL, bias + k if bias != NULL else NULL, False, group,
                )


# ---- tasks -----------------------------------------------------------------------------------------------------------

cdef inline void forward_groups(
    Forward* p, Py_ssize_t first, Py_ssize_t last, const floating* x, floating* y,
) noexcept nogil:
    cdef Group own[BATCH]
    cdef Group* group
    cdef Py_ssize_t g, r, start, rows
    if p.short_rows:
        g = first
        while g < last:
            rows = min(<Py_ssize_t>BATCH, last - g)
            group = p.groups + g if p.groups != NULL else own
            short_statistics(p, x + g * p.view.inner, rows, group)
            for r in range(rows):
                start = (g + r) * p.view.inner
                apply_runs(p, 0, 1, g + r, x + start, y + start, group + r)
            g += rows
        return
    for g in range(first, last):
        start = start_of(&p.view, g)
        group = p.groups + g if p.groups != NULL else own
        if not p.given:
            statistics(
                p, x + start, p.mask + start if p.mask != NULL else NULL, group,
                p.population + g if p.population != NULL else NULL,
            )
        apply_runs(p, 0, p.view.reduced, g, x + start, y + start, group)


cdef void forward_block(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Forward* p = <Forward*>arguments
    cdef Py_ssize_t first = block * p.groups_per_block
    cdef Py_ssize_t last = min(first + p.groups_per_block, p.view.outer * p.view.groups)
    if p.double_precision:
        forward_groups(p, first, last, <const double*>p.x, <double*>p.y)
    else:
        forward_groups(p, first, last, <const float*>p.x, <float*>p.y)


cdef void run_forward(Forward* p) noexcept nogil:
    cdef Py_ssize_t groups = p.view.outer * p.view.groups
    cdef Py_ssize_t n = p.view.reduced * p.view.inner
    cdef double work = 2.0 * groups * n * (8 if p.double_precision else 4)
    if groups == 0 or n == 0:
        return
    p.short_rows = (
        p.view.reduced == 1 and n <= SHORT and p.mask == NULL and p.population == NULL and not p.given
    )
    p.sample = sample_of(&p.view)
    p.pieces = pieces_of(&p.view)
    p.groups_per_block = max(<Py_ssize_t>1, BLOCK // n)
    parallel_for(forward_block, p, (groups + p.groups_per_block - 1) // p.groups_per_block, work)


# ---- entry points ----------------------------------------------------------------------------------------------------

cdef inline void* data_of(object array) noexcept:
    return cnp.PyArray_DATA(<cnp.ndarray>array) if array is not None else NULL


def rows_forward(
    cnp.ndarray x, tuple view, Py_ssize_t entries, Py_ssize_t period, weight, bias, double eps, bint centered, mask,
    given, out, bint keep, bint population,
):
    """(y, groups, populations) of an array seen as view = (O, A, S, I); see Forward for the parameters.

    Arrays are C-contiguous, aligned and of one precision (the gate in fastnn._arrays); `given` and the returned
    groups are float64 (O·S, 4), populations float64 (O·S, 3), None where not asked for.
    """
    cdef Forward p
    cdef cnp.npy_intp shape[2]
    p.view.outer, p.view.reduced, p.view.groups, p.view.inner = view
    shape[0] = p.view.outer * p.view.groups
    if out is None:
        out = empty(x.ndim, x.shape, cnp.PyArray_TYPE(x))
    groups = given
    if keep and given is None:
        shape[1] = sizeof(Group) // sizeof(double)
        groups = cnp.PyArray_ZEROS(2, shape, cnp.NPY_DOUBLE, 0)
    populations = None
    if population:
        shape[1] = sizeof(Population) // sizeof(double)
        populations = cnp.PyArray_ZEROS(2, shape, cnp.NPY_DOUBLE, 0)
    p.x = cnp.PyArray_DATA(x)
    p.y = data_of(out)
    p.weight = data_of(weight)
    p.bias = data_of(bias)
    p.mask = <const unsigned char*>data_of(mask)
    p.entries = entries
    p.period = period
    p.eps = eps
    p.centered = centered
    p.given = given is not None
    p.groups = <Group*>data_of(groups)
    p.population = <Population*>data_of(populations)
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    with nogil:
        run_forward(&p)
    return out, groups, populations


cdef inline bint plain(object array, int type_number) noexcept:
    # an array exactly as kernels take it
    return (
        cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(<cnp.ndarray>array) == type_number
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array)
    )


cdef inline bint same_tail(cnp.ndarray x, object shape) except -1:
    # whether `shape`, an int or a tuple of ints, is the end of x's shape
    cdef Py_ssize_t i, count
    cdef int beyond = 0    # whether a number is beyond C's integers: then it is no length
    if type(shape) is int:
        return (
            cnp.PyArray_NDIM(x) >= 1
            and PyLong_AsLongLongAndOverflow(shape, &beyond) == cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
        )
    if type(shape) is not tuple:
        return False
    count = len(<tuple>shape)
    if count == 0 or count > cnp.PyArray_NDIM(x):
        return False
    for i in range(count):
        one = (<tuple>shape)[i]
        if type(one) is not int:
            return False
        if PyLong_AsLongLongAndOverflow(one, &beyond) != cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - count + i):
            return False
    return True


cdef inline bint fits(cnp.ndarray array, cnp.ndarray x, int trailing) noexcept:
    # whether the array's shape is that of the last `trailing` axes of x
    cdef int i
    if cnp.PyArray_NDIM(array) != trailing:
        return False
    for i in range(trailing):
        if cnp.PyArray_DIM(array, i) != cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - trailing + i):
            return False
    return True


def rows_layer_norm(x, normalized_shape, weight, bias, eps, bint centered):
    """Layer or RMS norm of the common case in one step: None if any argument needs the gate, which then decides.

    The common case: plain float32 or float64 arrays, `eps` a float, `normalized_shape` an int or a tuple of ints, `weight` and
    `bias` of that shape or None.
    """
    cdef Forward p
    cdef int type_number
    cdef Py_ssize_t n
    if not cnp.PyArray_CheckExact(x) or type(eps) is not float:
        return None
    type_number = cnp.PyArray_TYPE(<cnp.ndarray>x)
    if type_number != cnp.NPY_FLOAT and type_number != cnp.NPY_DOUBLE:
        return None
    if not plain(x, type_number) or not same_tail(<cnp.ndarray>x, normalized_shape):
        return None
    n = 1
    cdef int i, trailing = len(<tuple>normalized_shape) if type(normalized_shape) is tuple else 1
    for i in range(cnp.PyArray_NDIM(<cnp.ndarray>x) - trailing, cnp.PyArray_NDIM(<cnp.ndarray>x)):
        n *= cnp.PyArray_DIM(<cnp.ndarray>x, i)
    if weight is not None and not (plain(weight, type_number) and fits(<cnp.ndarray>weight, <cnp.ndarray>x, trailing)):
        return None
    if bias is not None and not (plain(bias, type_number) and fits(<cnp.ndarray>bias, <cnp.ndarray>x, trailing)):
        return None
    out = empty(cnp.PyArray_NDIM(<cnp.ndarray>x), cnp.PyArray_DIMS(<cnp.ndarray>x), type_number)
    if n == 0:
        return out
    p.view.outer = 1
    p.view.reduced = 1
    p.view.groups = cnp.PyArray_SIZE(x) // n
    p.view.inner = n
    p.x = cnp.PyArray_DATA(<cnp.ndarray>x)
    p.y = cnp.PyArray_DATA(<cnp.ndarray>out)
    p.weight = data_of(weight)
    p.bias = data_of(bias)
    p.mask = NULL
    p.entries = n
    p.period = 1
    p.eps = eps
    p.centered = centered
    p.given = False
    p.groups = NULL
    p.population = NULL
    p.double_precision = type_number == cnp.NPY_DOUBLE
    with nogil:
        run_forward(&p)
    return out
