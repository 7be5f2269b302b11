# Neighbouring runs of float data as it mostly is: without a mask, in float's ordinary range, not too short. Values are
# those of row_values and rows_backward to the same bits; here they and the sums stay in registers, and a batch of runs
# costs one call. Sums of several runs of a group stay in eight parts until all of them are there.

from fastnn._kernels.inlining cimport apart, fetch, given, inlined
from fastnn._kernels.lanes cimport WIDE
from fastnn._kernels.norm cimport LINE, SIDE, Group, claim_lines, offset_of
from fastnn._kernels.rows cimport BATCH, LANES
from fastnn._kernels.vectors cimport (
    VECTOR, add, add16, d8, f16, fma8, fma16, lanes_from, load16, multiply16, spread, spread16, store16, stream16,
    subtract16, widen,
)

# ---- sums ------------------------------------------------------------------------------------------------------------

cdef struct Pair:
    # two sums of some lanes
    d8 first
    d8 second


cdef inline Pair no_pair() noexcept nogil:
    cdef Pair p
    p.first = p.second = spread(0)
    return p


cdef inline Pair with_terms(Pair p, d8 a, d8 b) noexcept nogil:
    # Σa, Σa·b
    p.first = add(p.first, a)
    p.second = fma8(a, b, p.second)
    return p


cdef struct Sums:
    # of a batch of runs
    double shift[BATCH]
    d8 first[BATCH]         # Σ(x − shift), or Σdy, in eight parts
    d8 second[BATCH]        # Σ(x − shift)², or Σdy·(x − shift)


cdef inline void clear_sums(Sums* sums, Py_ssize_t count) noexcept nogil:
    # of whole SIDEs
    cdef Py_ssize_t r
    for r in range((count + SIDE - 1) // SIDE * SIDE):
        sums.shift[r] = 0
        sums.first[r] = sums.second[r] = spread(0)


cdef struct About:
    # a shift, negated, and one
    d8 minus
    d8 one


cdef inline About around(double shift) noexcept nogil:
    cdef About about
    about.minus, about.one = spread(-shift), spread(1)
    return about


cdef inline d8 deviation(const float* x, About about) noexcept nogil:
    # x − shift. A multiply-add by one rounds like the difference, and leaves the adders to the conversion and the sum.
    return fma8(widen(x), about.one, about.minus)


cdef inline Pair with_floats(Pair p, const float* dy, const float* x, Py_ssize_t i, About about) noexcept nogil:
    # Σdy, Σdy·(x − shift); without dy Σ(x − shift), Σ(x − shift)²
    cdef d8 d = deviation(x + i, about)
    return with_terms(p, widen(dy + i) if dy != NULL else d, d)


cdef inline Pair joined(Pair p, Pair q) noexcept nogil:
    p.first = add(p.first, q.first)
    p.second = add(p.second, q.second)
    return p


# ---- values ----------------------------------------------------------------------------------------------------------

# A run is written in whole vectors. Where they do not come out even, the last one overlaps the one before it: it is
# computed first and stored last, so that the result may be the input.

cdef struct Affine:
    f16 shift
    f16 factor
    f16 offset


cdef inline f16 value(
    const Affine* a, const float* x, const float* weight, const float* bias, Py_ssize_t i,
) noexcept nogil:
    # fma(x − shift, factor, offset), times weight and plus bias where there are such
    cdef f16 y = fma16(subtract16(load16(x + i), a.shift), a.factor, a.offset)
    if weight != NULL and bias != NULL:
        return fma16(y, load16(weight + i), load16(bias + i))
    if weight != NULL:
        return multiply16(y, load16(weight + i))
    if bias != NULL:
        return add16(y, load16(bias + i))
    return y


cdef inline Affine affine_of(float shift, float factor, float offset) noexcept nogil:
    cdef Affine a
    a.shift, a.factor, a.offset = spread16(shift), spread16(factor), spread16(offset)
    return a


# ---- what is asked for before it is read -----------------------------------------------------------------------------

cdef enum:
    # Groups of several runs: a batch's runs form stretches that lie a whole sample apart. Each begins on a page of its
    # own, which the hardware does not fetch ahead and whose address has to be translated first. So what follows in the
    # next stretch is asked for so many elements before it is read: sums then take up to a half less.
    AHEAD = 1024

cdef struct Ahead:
    Py_ssize_t distance     # AHEAD, or less where a stretch is shorter
    Py_ssize_t left         # elements from a run's first to its stretch's end
    Py_ssize_t jump         # from there to the stretch that is read next


cdef inline inlined fetch_ahead(
    const float* dy, const float* x, Py_ssize_t i, Py_ssize_t n, const Ahead* ahead,
) noexcept nogil:
    # what is read so long after elements i … i + n − 1; whether there is dy is a constant where this is inlined
    cdef Py_ssize_t at = i + ahead.distance
    cdef Py_ssize_t end
    if at >= ahead.left:
        at += ahead.jump
    end = at + n
    while at < end:
        if dy != NULL:
            fetch(dy + at, LINE)
        fetch(x + at, LINE)
        at += LINE // 4


# ---- one pass: the values of one run, the sums of another, or both ---------------------------------------------------

cdef enum Passes:
    VALUES = 1
    SUMS = 2
    BOTH = 3
    STREAMED = 5    # values past the caches: y and n are whole cache lines


cdef inline inlined put(Passes passes, float* y, f16 values) noexcept nogil:
    if passes == STREAMED:
        stream16(y, values)
    else:
        store16(y, values)


cdef inline inlined pass_runs(
    Passes passes, Py_ssize_t n, bint short,
    const float* x,                                 # IN   (n)
    float* y,                                       # OUT  (n), the values of x; may be x
    const Affine* a, const float* weight, const float* bias,
    const float* dy, const float* next,             # IN   (n): whose sums are taken, see with_floats
    const float* result,                            # what will be written next, likewise, or NULL
    const Ahead* ahead,                             # or NULL
    double shift, Pair* sums,                       # OUT
) noexcept nogil:
    # `passes`, which operands there are, and `short`, less than two times LANES, are constants where this is inlined.
    # n ≥ VECTOR for values, n ≥ WIDE for sums. Both at once take less time than one after the other: values are bound
    # by loads and stores, sums by arithmetic.
    cdef About about = around(shift)
    cdef Pair p0 = no_pair()
    cdef Pair p1 = no_pair()
    cdef Pair p2 = no_pair()
    cdef Pair p3 = no_pair()
    cdef d8 d
    cdef f16 end
    cdef Py_ssize_t last = n - VECTOR
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    if passes & VALUES and n % VECTOR != 0:
        end = value(a, x, weight, bias, last)
    while not short and n - i >= LANES:
        if passes & VALUES:
            put(passes, y + i, value(a, x, weight, bias, i))
            put(passes, y + i + 16, value(a, x, weight, bias, i + 16))
        if passes & SUMS:
            if ahead != NULL:
                fetch_ahead(dy, next, i, LANES, ahead)
            if result != NULL:
                claim_lines(result + i, LANES)
            p0 = with_floats(p0, dy, next, i, about)
            p1 = with_floats(p1, dy, next, i + 8, about)
            p2 = with_floats(p2, dy, next, i + 16, about)
            p3 = with_floats(p3, dy, next, i + 24, about)
        i += LANES
    if passes & VALUES:
        j = i
        while n - j >= VECTOR:
            put(passes, y + j, value(a, x, weight, bias, j))
            j += VECTOR
        if n % VECTOR != 0:
            store16(y + last, end)
    if passes & SUMS:
        while n - i >= WIDE:
            p0 = with_floats(p0, dy, next, i, about)
            i += WIDE
        if i < n:       # the last WIDE elements again, without those that have been added
            d = deviation(next + n - WIDE, about)
            if dy == NULL:
                d = lanes_from(d, WIDE - (n - i))
            p0 = with_terms(p0, lanes_from(widen(dy + n - WIDE), WIDE - (n - i)) if dy != NULL else d, d)
        sums[0] = p0 if short else joined(joined(p0, p1), joined(p2, p3))


cdef inline inlined write_run(
    Passes passes, Py_ssize_t n, bint short, const float* x, float* y, const Affine* a, const float* weight,
    const float* bias,
) noexcept nogil:
    # VALUES or STREAMED
    pass_runs(passes, n, short, x, y, a, weight, bias, NULL, NULL, NULL, NULL, 0, NULL)


cdef inline inlined sum_run(
    const float* dy, const float* x, const float* result, const Ahead* ahead, double shift, Py_ssize_t n, Pair* sums,
) noexcept nogil:
    # whether there are dy and something ahead is a constant where this is inlined
    if n < 2 * LANES:
        pass_runs(SUMS, n, True, NULL, NULL, NULL, NULL, NULL, dy, x, NULL, NULL, shift, sums)
    elif result != NULL:
        pass_runs(SUMS, n, False, NULL, NULL, NULL, NULL, NULL, dy, x, result, ahead, shift, sums)
    else:
        pass_runs(SUMS, n, False, NULL, NULL, NULL, NULL, NULL, dy, x, NULL, ahead, shift, sums)


cdef inline inlined sum_all(
    const float* dy, const float* x, const float* result, Py_ssize_t count, Py_ssize_t n, Ahead* ahead, Sums* sums,
) noexcept nogil:
    # whether there are dy and something ahead is a constant where this is inlined
    cdef Pair pair
    cdef Py_ssize_t r
    for r in range(count):
        if ahead != NULL:
            ahead.left = (count - r) * n
        sum_run(
            dy + r * n if dy != NULL else NULL, x + r * n, result + r * n if result != NULL else NULL, ahead,
            sums.shift[r], n, &pair)
        sums.first[r] = add(sums.first[r], pair.first)
        sums.second[r] = add(sums.second[r], pair.second)


cdef inline apart multiply_runs(
    const float* dy,            # IN   (count, n)
    const float* x,             # IN   likewise
    const float* result,        # what will be written next, likewise, or NULL
    Py_ssize_t count, Py_ssize_t n,
    Sums* sums,                 # INOUT += Σdy, Σdy·(x − shift)
) noexcept nogil:
    given(dy)
    sum_all(dy, x, result, count, n, NULL, sums)


# The same of a stretch; `jump` leads from its end to the one that is read next.

cdef inline apart multiply_stretch(
    const float* dy, const float* x, const float* result, Py_ssize_t count, Py_ssize_t n, Py_ssize_t jump, Sums* sums,
) noexcept nogil:
    cdef Ahead ahead
    ahead.distance, ahead.jump = min(<Py_ssize_t>AHEAD, count * n), jump
    given(dy)
    if n < 2 * LANES:
        fetch(dy + count * n + jump, ahead.distance * 4)
        fetch(x + count * n + jump, ahead.distance * 4)
        sum_all(dy, x, NULL, count, n, NULL, sums)
    else:
        sum_all(dy, x, result, count, n, &ahead, sums)


cdef inline apart sum_stretch(
    const float* x, const float* result, Py_ssize_t count, Py_ssize_t n, Py_ssize_t jump,
    Sums* sums,                 # INOUT += Σ(x − shift), Σ(x − shift)²
) noexcept nogil:
    cdef Ahead ahead
    ahead.distance, ahead.jump = min(<Py_ssize_t>AHEAD, count * n), jump
    if n < 2 * LANES:
        fetch(x + count * n + jump, ahead.distance * 4)
        sum_all(NULL, x, NULL, count, n, NULL, sums)
    else:
        sum_all(NULL, x, result, count, n, &ahead, sums)


cdef inline inlined stream_affine(
    const float* x, float* y, Py_ssize_t n, float shift, float factor, float offset,
) noexcept nogil:
    # past the caches: y and n are whole cache lines
    cdef Affine a = affine_of(shift, factor, offset)
    write_run(STREAMED, n, False, x, y, &a, NULL, NULL)


cdef inline apart apply_affine(
    const float* x,             # IN   (n), n ≥ VECTOR
    float* y,                   # OUT  (n); may be x
    Py_ssize_t n, float shift, float factor, float offset,
    const float* weight,        # IN   (n) or NULL
    const float* bias,          # IN   likewise
) noexcept nogil:
    cdef Affine a = affine_of(shift, factor, offset)
    if weight != NULL and bias != NULL:
        write_run(VALUES, n, False, x, y, &a, weight, bias)
    elif weight != NULL:
        write_run(VALUES, n, False, x, y, &a, weight, NULL)
    elif bias != NULL:
        write_run(VALUES, n, False, x, y, &a, NULL, bias)
    else:
        write_run(VALUES, n, False, x, y, &a, NULL, NULL)


# ---- the input's gradient --------------------------------------------------------------------------------------------

cdef struct Gradient:
    f16 shift
    f16 factor
    f16 c1
    f16 c2


cdef inline f16 gradient(Gradient a, const float* dy, const float* x) noexcept nogil:
    # fma(dy, factor, fma(x − shift, c₂, c₁))
    return fma16(load16(dy), a.factor, fma16(subtract16(load16(x), a.shift), a.c2, a.c1))


cdef inline Gradient gradient_of(double shift, double factor, double c1, double c2) noexcept nogil:
    cdef Gradient a
    a.shift, a.factor = spread16(<float>shift), spread16(<float>factor)
    a.c1, a.c2 = spread16(<float>c1), spread16(<float>c2)
    return a


cdef inline inlined stream_gradient(
    const float* dy, const float* x, float* dx, Py_ssize_t n, double shift, double factor, double c1, double c2,
) noexcept nogil:
    # past the caches: dx and n are whole cache lines
    cdef Gradient a = gradient_of(shift, factor, c1, c2)
    cdef Py_ssize_t i = 0
    while i < n:
        stream16(dx + i, gradient(a, dy + i, x + i))
        i += VECTOR


cdef inline inlined gradient_one(
    const float* dy, const float* x, float* dx, Py_ssize_t n, double shift, double factor, double c1, double c2,
) noexcept nogil:
    # n ≥ VECTOR
    cdef Gradient a = gradient_of(shift, factor, c1, c2)
    cdef Py_ssize_t last = n - VECTOR
    cdef Py_ssize_t i = 0
    cdef f16 end = gradient(a, dy + last, x + last)
    while i < last:
        store16(dx + i, gradient(a, dy + i, x + i))
        i += VECTOR
    store16(dx + last, end)


cdef inline inlined multiply_by(const float* dy, float* dx, Py_ssize_t n, float by, bint streamed) noexcept nogil:
    # n ≥ VECTOR; `streamed`, a constant where this is inlined: past the caches, dx and n are whole cache lines
    cdef f16 factor = spread16(by)
    cdef Py_ssize_t last = n - VECTOR
    cdef Py_ssize_t i = 0
    while streamed and i < n:
        stream16(dx + i, multiply16(load16(dy + i), factor))
        i += VECTOR
    while not streamed and i < last:
        store16(dx + i, multiply16(load16(dy + i), factor))
        i += VECTOR
    if not streamed:
        store16(dx + last, multiply16(load16(dy + last), factor))


cdef inline apart multiply_all(
    const float* dy,            # IN   (count, n)
    float* dx,                  # OUT  likewise
    Py_ssize_t count, Py_ssize_t n,
    const float* factors,       # IN   (count)
    bint streamed,
) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(count):
        if streamed:
            multiply_by(dy + r * n, dx + r * n, n, factors[r], True)
        else:
            multiply_by(dy + r * n, dx + r * n, n, factors[r], False)
