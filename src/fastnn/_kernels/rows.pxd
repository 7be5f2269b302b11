# What the rows kernels share: how groups are taken together, and sums along a run of contiguous elements.
#
# Sums run in twice the data's precision, over LANES lanes, the element's place in its run deciding the lane: float data
# in double, double data in double-double, every rounding of differences, products and sums included. So no sum needs to
# begin near its mean, and none suffers from equal elements, which round alike.

from cython cimport floating
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport (
    WIDE, WideSum, add_multiple, add_number, add_product, add_term, dd, dd_add, exact_deviation, two_sum,
)
from fastnn._kernels.norm cimport LINE, SIDE, View, claim_lines
from fastnn._kernels.streaming cimport STREAM_BYTES

cdef enum:
    LANES = 32
    # groups taken together at the most: enough to hide the latency of roots and quotients
    BATCH = 64
    # bytes that a batch of groups may fill: groups of one run, which are read and written at once, of each operand in
    # the first-level cache; groups of several runs, with their results, in the second level
    NEAR = 24576
    FAR = 655360
    # Elements that a thread claims at a time, about: half as many where there are few, so that whoever comes late finds
    # some left.
    BLOCK = 16384
    SOME_BLOCKS = 8


cdef inline Py_ssize_t batch_of(View* view, Py_ssize_t itemsize, Py_ssize_t operands) noexcept nogil:
    # Groups of one batch. Of groups of several runs, the more there are the longer are the neighbouring runs that are
    # read in one go; but batches are few then, so there are some for every thread, all about as large, and their number
    # comes out even for 2 or 4 threads.
    cdef Py_ssize_t bytes = view.reduced * view.inner * itemsize
    cdef Py_ssize_t fitting = NEAR // (operands * bytes) if view.reduced == 1 else FAR // ((operands + 1) * bytes)
    cdef Py_ssize_t count = max(<Py_ssize_t>1, min(<Py_ssize_t>BATCH, fitting))
    cdef Py_ssize_t batches
    if view.reduced > 1:
        batches = view.groups * view.reduced * view.inner // BLOCK      # that are worth another thread
        batches = even(max((view.groups + count - 1) // count, min(<Py_ssize_t>SOME_BLOCKS, batches)))
        count = (view.groups + batches - 1) // batches
    return count


cdef inline Py_ssize_t even(Py_ssize_t number) noexcept nogil:
    # rounded up to what 2 or 4 threads share evenly
    return (number + 3) // 4 * 4 if number > 1 else 1


cdef inline Py_ssize_t block_of(View* view, Py_ssize_t batch) noexcept nogil:
    # groups that a thread claims: blocks that are all about as large, of whole batches, or SIDEs of groups of one run
    cdef Py_ssize_t groups = view.outer * view.groups
    cdef Py_ssize_t elements = groups * view.reduced * view.inner
    cdef Py_ssize_t blocks = even(max(elements // BLOCK, min(<Py_ssize_t>SOME_BLOCKS, 1 + 2 * elements // BLOCK)))
    cdef Py_ssize_t whole = batch if view.reduced > 1 else min(batch, <Py_ssize_t>SIDE)
    cdef Py_ssize_t block = ((groups + blocks - 1) // blocks + whole - 1) // whole * whole
    # Three blocks are what two threads share worst, with the middle one's lines going to and fro between them.
    return (groups + 3) // 4 if (groups + block - 1) // block == 3 else block


cdef inline bint may_stream(const void* result, View* view, double moved) noexcept nogil:
    # whether a result of float data goes past the caches: the call moves more than they hold, and runs are whole lines
    return moved > STREAM_BYTES and <size_t>result % LINE == 0 and view.inner * sizeof(float) % LINE == 0


cdef inline Py_ssize_t jump_after(View* view, Py_ssize_t a, Py_ssize_t elements) noexcept nogil:
    # from the end of a batch's neighbouring runs, so many elements of one index a, to those that are read next: its
    # next ones, or the first ones of the batch that follows
    cdef Py_ssize_t stride = view.groups * view.inner
    return stride - elements if a + 1 < view.reduced else -a * stride


# ---- lanes ---------------------------------------------------------------------------------------------------------

cdef struct Lanes:
    double high[LANES]
    double low[LANES]       # of double data only


cdef inline inlined clear_lanes(Lanes* lanes, Py_ssize_t n, floating example) noexcept nogil:
    # `example` only chooses the precision, here and below
    cdef Py_ssize_t j
    for j in range(n):
        lanes.high[j] = 0
        if floating is double:
            lanes.low[j] = 0


cdef inline double sum_of(double* part) noexcept nogil:
    # of WIDE numbers, halved three times: one vector operation each
    cdef double half[4]
    cdef double quarter[2]
    cdef Py_ssize_t j
    for j in range(4):
        half[j] = part[j] + part[j + 4]
    for j in range(2):
        quarter[j] = half[j] + half[j + 2]
    return quarter[0] + quarter[1]


cdef inline dd exact_sum_of(const WideSum* parts) noexcept nogil:
    cdef dd s = two_sum(parts.high[0], parts.low[0])
    cdef Py_ssize_t j
    for j in range(1, WIDE):
        s = dd_add(s, two_sum(parts.high[j], parts.low[j]))
    return s


cdef inline inlined merge_lanes(Lanes* lanes, Py_ssize_t n, dd* total, floating example) noexcept nogil:
    # total += the first n lanes, WIDE or LANES; n is a constant where this is inlined
    cdef Py_ssize_t i, j
    cdef dd s
    cdef WideSum parts
    for j in range(WIDE):
        if floating is float and n == LANES:
            parts.high[j] = (lanes.high[j] + lanes.high[j + 8]) + (lanes.high[j + 16] + lanes.high[j + 24])
        else:
            parts.high[j] = lanes.high[j]
            parts.low[j] = lanes.low[j] if floating is double else 0
    if floating is float:
        total.high += sum_of(parts.high)
    else:
        for i in range(1, n // WIDE):
            for j in range(WIDE):
                s = two_sum(parts.high[j], lanes.high[i * WIDE + j])
                parts.high[j] = s.high
                parts.low[j] += s.low + lanes.low[i * WIDE + j]
        total[0] = dd_add(total[0], exact_sum_of(&parts))


# ---- sums of one run -------------------------------------------------------------------------------------------------

cdef inline inlined add_squares(
    const floating* x, const unsigned char* mask, Py_ssize_t n, Py_ssize_t skip, double shift, double scale,
    double* sum_high, double* sum_low, double* square_high, double* square_low,
) noexcept nogil:
    # lanes skip … n − 1; `n` is a constant where this is inlined, and so is a scale of 1
    cdef Py_ssize_t j
    cdef dd d
    for j in range(n):
        d = exact_deviation(x[j], shift, scale, scale != 1)
        if j < skip or (mask != NULL and not mask[j]):
            d.high = d.low = 0
        add_term(sum_high + j, sum_low + j, d, x[0])
        add_product(square_high + j, square_low + j, d, d, x[0])


cdef inline inlined add_lanes_of_squares(
    const floating* x, const unsigned char* mask, double shift, double scale, Lanes* sums, Lanes* squares,
) noexcept nogil:
    # LANES elements, in steps of WIDE: a vector of float data then becomes one of doubles while it is read
    add_squares(x, mask, WIDE, 0, shift, scale, sums.high, sums.low, squares.high, squares.low)
    add_squares(
        x + 8, mask + 8 if mask != NULL else NULL, WIDE, 0, shift, scale, sums.high + 8, sums.low + 8,
        squares.high + 8, squares.low + 8)
    add_squares(
        x + 16, mask + 16 if mask != NULL else NULL, WIDE, 0, shift, scale, sums.high + 16, sums.low + 16,
        squares.high + 16, squares.low + 16)
    add_squares(
        x + 24, mask + 24 if mask != NULL else NULL, WIDE, 0, shift, scale, sums.high + 24, sums.low + 24,
        squares.high + 24, squares.low + 24)


cdef inline inlined sum_end(
    const floating* x, const unsigned char* mask, Py_ssize_t i, Py_ssize_t n, double shift, double scale,
    double* sum_high, double* sum_low, double* square_high, double* square_low,
) noexcept nogil:
    # elements i … n − 1 of a run of n ≥ WIDE, WIDE at a time
    while n - i >= WIDE:
        add_squares(
            x + i, mask + i if mask != NULL else NULL, WIDE, 0, shift, scale, sum_high, sum_low, square_high,
            square_low)
        i += WIDE
    if i < n:       # the last WIDE elements again, without those that have been added
        add_squares(
            x + n - WIDE, mask + n - WIDE if mask != NULL else NULL, WIDE, WIDE - (n - i), shift, scale, sum_high,
            sum_low, square_high, square_low)


cdef inline inlined sum_run(
    const floating* x, const unsigned char* mask, const floating* result, Py_ssize_t n, double shift, double scale,
    bint short, dd* s1, dd* s2,
) noexcept nogil:
    # n ≥ WIDE; whether there is a mask, a result to claim, and less than a few LANES, are constants where this is
    # inlined
    cdef Lanes sums, squares
    cdef Py_ssize_t i = 0
    if short:
        clear_lanes(&sums, WIDE, x[0])
        clear_lanes(&squares, WIDE, x[0])
        sum_end(x, mask, 0, n, shift, scale, sums.high, sums.low, squares.high, squares.low)
        merge_lanes(&sums, WIDE, s1, x[0])
        merge_lanes(&squares, WIDE, s2, x[0])
        return
    clear_lanes(&sums, LANES, x[0])
    clear_lanes(&squares, LANES, x[0])
    while n - i >= LANES:
        if result != NULL:
            claim_lines(result + i, LANES)
        add_lanes_of_squares(x + i, mask + i if mask != NULL else NULL, shift, scale, &sums, &squares)
        i += LANES
    sum_end(x, mask, i, n, shift, scale, sums.high, sums.low, squares.high, squares.low)
    merge_lanes(&sums, LANES, s1, x[0])
    merge_lanes(&squares, LANES, s2, x[0])


cdef inline apart run_sums(
    const floating* x,              # IN   (n)
    const unsigned char* mask,      # IN   likewise, or NULL
    const floating* result,         # what will be written next, likewise, or NULL
    Py_ssize_t n, double shift, double scale,
    dd* s1, dd* s2,                 # INOUT  += Σ(x·scale − shift), Σ(x·scale − shift)²
) noexcept nogil:
    # Float data without a mask in runs of WIDE or more goes through row_floats; only double data has a scale.
    cdef Py_ssize_t j
    if n < WIDE:
        for j in range(n):
            if mask == NULL or mask[j]:
                add_squares(x + j, NULL, 1, 0, shift, scale, &s1.high, &s1.low, &s2.high, &s2.low)
        s1[0] = two_sum(s1.high, s1.low)
        s2[0] = two_sum(s2.high, s2.low)
    elif n < 2 * LANES:
        sum_run(x, mask, NULL, n, shift, scale, True, s1, s2)
    elif mask != NULL:
        sum_run(x, mask, NULL, n, shift, scale, False, s1, s2)
    elif scale != 1:
        sum_run(x, NULL, NULL, n, shift, scale, False, s1, s2)
    elif result != NULL:
        sum_run(x, NULL, result, n, shift, 1, False, s1, s2)
    else:
        sum_run(x, NULL, NULL, n, shift, 1, False, s1, s2)


# ---- sums of products of one run -------------------------------------------------------------------------------------

cdef inline inlined add_products(
    const floating* dy, const floating* x, Py_ssize_t n, Py_ssize_t skip, double shift, double scale,
    double* sum_high, double* sum_low, double* product_high, double* product_low,
) noexcept nogil:
    # lanes skip … n − 1; `n` is a constant where this is inlined
    cdef Py_ssize_t j
    cdef double g
    for j in range(n):
        g = dy[j] if j >= skip else <floating>0
        add_number(sum_high + j, sum_low + j, g, x[0])
        add_multiple(product_high + j, product_low + j, g, exact_deviation(x[j], shift, scale, True), x[0])


cdef inline inlined add_lanes_of_products(
    const floating* dy, const floating* x, double shift, double scale, Lanes* sums, Lanes* products,
) noexcept nogil:
    # LANES elements, in steps of WIDE
    add_products(dy, x, WIDE, 0, shift, scale, sums.high, sums.low, products.high, products.low)
    add_products(
        dy + 8, x + 8, WIDE, 0, shift, scale, sums.high + 8, sums.low + 8, products.high + 8, products.low + 8)
    add_products(
        dy + 16, x + 16, WIDE, 0, shift, scale, sums.high + 16, sums.low + 16, products.high + 16, products.low + 16)
    add_products(
        dy + 24, x + 24, WIDE, 0, shift, scale, sums.high + 24, sums.low + 24, products.high + 24, products.low + 24)


cdef inline inlined product_end(
    const floating* dy, const floating* x, Py_ssize_t i, Py_ssize_t n, double shift, double scale,
    double* sum_high, double* sum_low, double* product_high, double* product_low,
) noexcept nogil:
    # elements i … n − 1 of a run of n ≥ WIDE, WIDE at a time
    while n - i >= WIDE:
        add_products(dy + i, x + i, WIDE, 0, shift, scale, sum_high, sum_low, product_high, product_low)
        i += WIDE
    if i < n:       # the last WIDE elements again, without those that have been added
        add_products(
            dy + n - WIDE, x + n - WIDE, WIDE, WIDE - (n - i), shift, scale, sum_high, sum_low, product_high,
            product_low)


cdef inline inlined product_run(
    const floating* dy, const floating* x, const floating* result, Py_ssize_t n, double shift, double scale,
    bint short, dd* s1, dd* s2,
) noexcept nogil:
    # n ≥ WIDE; whether there is a result to claim, and less than a few LANES, are constants where this is inlined
    cdef Lanes sums, products
    cdef Py_ssize_t i = 0
    if short:
        clear_lanes(&sums, WIDE, x[0])
        clear_lanes(&products, WIDE, x[0])
        product_end(dy, x, 0, n, shift, scale, sums.high, sums.low, products.high, products.low)
        merge_lanes(&sums, WIDE, s1, x[0])
        merge_lanes(&products, WIDE, s2, x[0])
        return
    clear_lanes(&sums, LANES, x[0])
    clear_lanes(&products, LANES, x[0])
    while n - i >= LANES:
        if result != NULL:
            claim_lines(result + i, LANES)
        add_lanes_of_products(dy + i, x + i, shift, scale, &sums, &products)
        i += LANES
    product_end(dy, x, i, n, shift, scale, sums.high, sums.low, products.high, products.low)
    merge_lanes(&sums, LANES, s1, x[0])
    merge_lanes(&products, LANES, s2, x[0])


cdef inline apart run_products(
    const floating* dy,             # IN   (n)
    const floating* x,              # IN   (n)
    const floating* result,         # what will be written next, likewise, or NULL
    Py_ssize_t n, double shift, double scale,
    dd* s1, dd* s2,                 # INOUT  += Σdy, Σdy·(x·scale − shift)
) noexcept nogil:
    # float data goes through row_floats where a batch is in its own unit and runs have WIDE elements or more
    cdef Py_ssize_t j
    if n < WIDE:
        for j in range(n):
            add_products(dy + j, x + j, 1, 0, shift, scale, &s1.high, &s1.low, &s2.high, &s2.low)
        s1[0] = two_sum(s1.high, s1.low)
        s2[0] = two_sum(s2.high, s2.low)
    elif n < 2 * LANES:
        product_run(dy, x, NULL, n, shift, scale, True, s1, s2)
    elif result != NULL:
        product_run(dy, x, result, n, shift, scale, False, s1, s2)
    else:
        product_run(dy, x, NULL, n, shift, scale, False, s1, s2)
