# What the rows kernels share: how groups are taken together, and sums along a run of contiguous elements.
#
# Sums run in twice the data's precision, over LANES lanes, the element's place in its run deciding the lane: float data
# in double, double data in double-double, every rounding of differences, products and sums included. So no sum needs to
# begin near its mean, and none suffers from equal elements, which round alike.

from cython cimport floating
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport (
    WIDE, WideSum, add_product, add_term, dd, dd_add, exact_deviation, two_sum,
)
from fastnn._kernels.norm cimport View, claim_lines

cdef enum:
    LANES = 32
    # groups taken together at the most: enough to hide the latency of roots and quotients
    BATCH = 16
    # bytes of one array that a batch of groups may fill: the first-level cache holds groups of one run, which are
    # read and written at once; the second level holds groups of several runs
    NEAR = 24576
    FAR = 131072
    # elements that a thread claims at a time, at least
    BLOCK = 16384


cdef inline Py_ssize_t batch_of(View* view, Py_ssize_t itemsize) noexcept nogil:
    # groups of one batch
    cdef Py_ssize_t bytes = view.reduced * view.inner * itemsize
    return max(<Py_ssize_t>1, min(<Py_ssize_t>BATCH, (NEAR if view.reduced == 1 else FAR) // bytes))


cdef inline Py_ssize_t block_of(View* view, Py_ssize_t batch) noexcept nogil:
    # groups that a thread claims: whole batches
    return batch * max(<Py_ssize_t>1, BLOCK // (batch * view.reduced * view.inner))


# ---- lanes ---------------------------------------------------------------------------------------------------------

cdef struct Lanes:
    double high[LANES]
    double low[LANES]       # of double data only


cdef inline inlined clear_lanes(Lanes* lanes, floating example) noexcept nogil:
    # `example` only chooses the precision, here and below
    cdef Py_ssize_t j
    for j in range(LANES):
        lanes.high[j] = 0
        if floating is double:
            lanes.low[j] = 0


cdef inline inlined clear_sum(WideSum* total, floating example) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(WIDE):
        total.high[j] = 0
        if floating is double:
            total.low[j] = 0


cdef inline inlined merge_lanes(const Lanes* lanes, WideSum* total, floating example) noexcept nogil:
    # total += lanes
    cdef Py_ssize_t i, j
    cdef dd s
    if floating is float:
        for j in range(WIDE):
            total.high[j] += (lanes.high[j] + lanes.high[j + 8]) + (lanes.high[j + 16] + lanes.high[j + 24])
    else:
        for i in range(0, LANES, 8):
            for j in range(WIDE):
                s = two_sum(total.high[j], lanes.high[i + j])
                total.high[j] = s.high
                total.low[j] += s.low + lanes.low[i + j]


cdef inline double plain_total(const WideSum* total) noexcept nogil:
    # of float data, which has no low parts
    return (((total.high[0] + total.high[4]) + (total.high[2] + total.high[6]))
            + ((total.high[1] + total.high[5]) + (total.high[3] + total.high[7])))


cdef inline dd wide_total(const WideSum* total, floating example) noexcept nogil:
    cdef dd s
    cdef Py_ssize_t j
    if floating is float:
        s.high = plain_total(total)
        s.low = 0
    else:
        s = two_sum(total.high[0], total.low[0])
        for j in range(1, WIDE):
            s = dd_add(s, two_sum(total.high[j], total.low[j]))
    return s


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


cdef inline inlined sum_end(
    const floating* x, const unsigned char* mask, Py_ssize_t i, Py_ssize_t n, double shift, double scale,
    double* sum_high, double* sum_low, double* square_high, double* square_low,
) noexcept nogil:
    # elements i … n − 1 of a run of n, WIDE at a time
    while n - i >= WIDE:
        add_squares(
            x + i, mask + i if mask != NULL else NULL, WIDE, 0, shift, scale, sum_high, sum_low, square_high,
            square_low)
        i += WIDE
    if i < n and n >= WIDE:     # the last WIDE elements again, without those that have been added
        add_squares(
            x + n - WIDE, mask + n - WIDE if mask != NULL else NULL, WIDE, WIDE - (n - i), shift, scale, sum_high,
            sum_low, square_high, square_low)
    elif i < n:
        add_squares(x, mask, n, 0, shift, scale, sum_high, sum_low, square_high, square_low)


cdef inline inlined sum_run(
    const floating* x, const unsigned char* mask, const floating* result, Py_ssize_t n, double shift, double scale,
    WideSum* s1, WideSum* s2,
) noexcept nogil:
    # whether there is a mask, and a result to claim, are constants where this is inlined
    cdef Lanes sums, squares
    cdef WideSum short1, short2
    cdef Py_ssize_t i = 0
    if n < 2 * LANES:
        if result != NULL:
            claim_lines(result, n)
        short1 = s1[0]
        short2 = s2[0]
        sum_end(x, mask, 0, n, shift, scale, short1.high, short1.low, short2.high, short2.low)
        s1[0] = short1
        s2[0] = short2
        return
    clear_lanes(&sums, x[0])
    clear_lanes(&squares, x[0])
    while n - i >= LANES:
        if result != NULL:
            claim_lines(result + i, LANES)
        add_squares(
            x + i, mask + i if mask != NULL else NULL, LANES, 0, shift, scale, sums.high, sums.low, squares.high,
            squares.low)
        i += LANES
    sum_end(x, mask, i, n, shift, scale, sums.high, sums.low, squares.high, squares.low)
    merge_lanes(&sums, s1, x[0])
    merge_lanes(&squares, s2, x[0])


cdef inline apart run_sums(
    const floating* x,              # IN   (n)
    const unsigned char* mask,      # IN   likewise, or NULL
    const floating* result,         # what will be written next, likewise, or NULL
    Py_ssize_t n, double shift, double scale,
    WideSum* s1, WideSum* s2,       # INOUT  += Σ(x·scale − shift), Σ(x·scale − shift)²
) noexcept nogil:
    if mask != NULL:
        sum_run(x, mask, NULL, n, shift, scale, s1, s2)
    elif scale != 1:
        sum_run(x, NULL, NULL, n, shift, scale, s1, s2)
    elif result != NULL:
        sum_run(x, NULL, result, n, shift, 1, s1, s2)
    else:
        sum_run(x, NULL, NULL, n, shift, 1, s1, s2)


# ---- sums of products of one run -------------------------------------------------------------------------------------

cdef inline inlined add_products(
    const floating* dy, const floating* x, Py_ssize_t n, Py_ssize_t skip, double shift, double scale,
    double* sum_high, double* sum_low, double* product_high, double* product_low,
) noexcept nogil:
    # lanes skip … n − 1; `n` is a constant where this is inlined
    cdef Py_ssize_t j
    cdef dd g
    g.low = 0
    for j in range(n):
        g.high = dy[j] if j >= skip else <floating>0
        add_term(sum_high + j, sum_low + j, g, x[0])
        add_product(product_high + j, product_low + j, g, exact_deviation(x[j], shift, scale, True), x[0])


cdef inline inlined product_end(
    const floating* dy, const floating* x, Py_ssize_t i, Py_ssize_t n, double shift, double scale,
    double* sum_high, double* sum_low, double* product_high, double* product_low,
) noexcept nogil:
    # elements i … n − 1 of a run of n, WIDE at a time
    while n - i >= WIDE:
        add_products(dy + i, x + i, WIDE, 0, shift, scale, sum_high, sum_low, product_high, product_low)
        i += WIDE
    if i < n and n >= WIDE:     # the last WIDE elements again, without those that have been added
        add_products(
            dy + n - WIDE, x + n - WIDE, WIDE, WIDE - (n - i), shift, scale, sum_high, sum_low, product_high,
            product_low)
    elif i < n:
        add_products(dy, x, n, 0, shift, scale, sum_high, sum_low, product_high, product_low)


cdef inline inlined product_run(
    const floating* dy, const floating* x, const floating* result, Py_ssize_t n, double shift, double scale,
    WideSum* s1, WideSum* s2,
) noexcept nogil:
    # whether there is a result to claim is a constant where this is inlined
    cdef Lanes sums, products
    cdef WideSum short1, short2
    cdef Py_ssize_t i = 0
    if n < 2 * LANES:
        if result != NULL:
            claim_lines(result, n)
        short1 = s1[0]
        short2 = s2[0]
        product_end(dy, x, 0, n, shift, scale, short1.high, short1.low, short2.high, short2.low)
        s1[0] = short1
        s2[0] = short2
        return
    clear_lanes(&sums, x[0])
    clear_lanes(&products, x[0])
    while n - i >= LANES:
        if result != NULL:
            claim_lines(result + i, LANES)
        add_products(
            dy + i, x + i, LANES, 0, shift, scale, sums.high, sums.low, products.high, products.low)
        i += LANES
    product_end(dy, x, i, n, shift, scale, sums.high, sums.low, products.high, products.low)
    merge_lanes(&sums, s1, x[0])
    merge_lanes(&products, s2, x[0])


cdef inline apart run_products(
    const floating* dy,             # IN   (n)
    const floating* x,              # IN   (n)
    const floating* result,         # what will be written next, likewise, or NULL
    Py_ssize_t n, double shift, double scale,
    WideSum* s1, WideSum* s2,       # INOUT  += Σdy, Σdy·(x·scale − shift)
) noexcept nogil:
    if result != NULL:
        product_run(dy, x, result, n, shift, scale, s1, s2)
    else:
        product_run(dy, x, NULL, n, shift, scale, s1, s2)
