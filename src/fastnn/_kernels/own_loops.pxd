# Rows in which each place has its own weight: the sums along a row, and the input's gradient with the sums down the
# columns, in loops over local arrays. For double data, masks, and rows not in the data's own unit; the rest takes
# own_floats.pxd, with the same bits down the columns.

from cython cimport floating
from libc.math cimport isfinite

from fastnn._kernels.fused cimport fma
from fastnn._kernels.fused cimport multiply_add_once as multiply_add
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport (
    FLUSH, LANES, WIDE, WideSum, add_multiple, add_number, add_product, add_term, dd, dd_product, dd_scale,
    exact_deviation, merge,
)
from fastnn._kernels.norm cimport Group, Tangent, claim_lines, deviation, input_gradient, masked_gradient
from fastnn._kernels.own_doubles cimport FLUSH_DOUBLE
from fastnn._kernels.own_floats cimport CONSTANT, RSTD, SCALE, SHIFT, SLOPE, TILE_ROWS, Columns, Exact, RowSums
from fastnn._kernels.rows cimport exact_sum_of, sum_of

cdef enum:
    # columns of a strip: its sums fit the registers
    STRIP = 32
    NARROW = 16


cdef struct Masked:
    # what a row of double data under a mask needs
    Tangent tangent
    dd rstd


# ---- sums along a row ------------------------------------------------------------------------------------------------

cdef inline inlined add_some(
    const floating* dy, const floating* x, const floating* weight, Py_ssize_t n, floating shift, floating scale,
    floating* sums, floating* products,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating g
    for j in range(n):
        g = dy[j] * weight[j]
        sums[j] += g
        products[j] = multiply_add(g, multiply_add(x[j], scale, -shift), products[j])


cdef inline void put_exact(dd g, dd gd, RowSums* sums, Py_ssize_t row) noexcept nogil:
    sums.g[row], sums.g_low[row] = g.high, g.low
    sums.gd[row], sums.gd_low[row] = gd.high, gd.low


cdef inline apart row_products(
    const floating* dy,         # IN   (n)
    const floating* x,          # IN   (n)
    const floating* weight,     # IN   (n)
    const floating* result,     # what will be written next, (n), or NULL
    Py_ssize_t n, const Group* group,
    RowSums* sums_of_rows, Py_ssize_t row,  # OUT  at the row
) noexcept nogil:
    cdef WideSum total_g, total_gd
    cdef floating sums[LANES]
    cdef floating products[LANES]
    cdef floating shift = <floating>group.shift
    cdef floating scale = <floating>group.scale
    cdef Py_ssize_t j
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t filled = 0
    cdef Py_ssize_t flush = FLUSH
    if floating is double:
        flush = FLUSH_DOUBLE
    for j in range(WIDE):
        total_g.high[j] = total_g.low[j] = 0
        total_gd.high[j] = total_gd.low[j] = 0
    for j in range(LANES):
        sums[j] = 0
        products[j] = 0
    while n - i >= LANES:
        if result != NULL:
            claim_lines(result + i, LANES)
        add_some(dy + i, x + i, weight + i, LANES, shift, scale, sums, products)
        i += LANES
        filled += 1
        if filled == flush:
            merge(sums, &total_g)
            merge(products, &total_gd)
            filled = 0
    while n - i >= NARROW:
        add_some(dy + i, x + i, weight + i, NARROW, shift, scale, sums, products)
        i += NARROW
    add_some(dy + i, x + i, weight + i, n - i, shift, scale, sums, products)
    merge(sums, &total_g)
    merge(products, &total_gd)
    if floating is float:
        sums_of_rows.g[row] = sum_of(total_g.high)
        sums_of_rows.gd[row] = sum_of(total_gd.high)
    else:
        put_exact(exact_sum_of(&total_g), exact_sum_of(&total_gd), sums_of_rows, row)


cdef inline apart exact_row_products(
    const floating* dy, const floating* x, const floating* weight, Py_ssize_t n, const Group* group, RowSums* sums,
    Py_ssize_t row,
) noexcept nogil:
    # The same in twice the data's precision from the products on, for rows under a mask: x̂ of what it leaves out may
    # be so large that roundings of its terms exceed the sum.
    cdef WideSum total_g, total_gd
    cdef Py_ssize_t j
    cdef Py_ssize_t i = 0
    cdef dd g, d
    for j in range(WIDE):
        total_g.high[j] = total_g.low[j] = 0
        total_gd.high[j] = total_gd.low[j] = 0
    while i < n:
        for j in range(min(<Py_ssize_t>WIDE, n - i)):
            if floating is float:
                g.high = <double>dy[i + j] * weight[i + j]
            else:
                g = dd_product(dy[i + j], weight[i + j])
            d = exact_deviation(x[i + j], group.shift, group.scale, True)
            add_term(&total_g.high[j], &total_g.low[j], g, x[0])
            add_product(&total_gd.high[j], &total_gd.low[j], g, d, x[0])
        i += WIDE
    put_exact(exact_sum_of(&total_g), exact_sum_of(&total_gd), sums, row)


# ---- the input's gradient, and sums down the columns -----------------------------------------------------------------

cdef inline inlined add_to_columns(
    floating dy, floating x, floating shift, floating scale, const Exact* exact, Py_ssize_t row, bint cold,
    double* sum_dy, double* sum_dyx, double* low_dy, double* low_dyx,
) noexcept nogil:
    cdef dd d, xhat
    add_number(sum_dy, low_dy, dy, x)
    if floating is float:
        xhat.high = fma(<double>x * scale if cold else <double>x, exact.rstd[row], exact.offset[row])
        xhat.low = 0
    else:
        d = exact_deviation(x, shift, scale, cold)
        d.low += exact.offset[row]
        xhat = dd_product(d.high, exact.rstd[row])
        xhat.low += d.high * exact.rstd_low[row] + d.low * exact.rstd[row]
    if cold and dy == 0 and isfinite(x) and isfinite(exact.offset[row]):
        return      # x̂ of what the mask leaves out may have overflowed
    add_multiple(sum_dyx, low_dyx, dy, xhat, x)


cdef inline inlined strip(
    const floating* dy, const floating* x, floating* dx,    # at the strip of the first row; rows lie `stride` apart
    const unsigned char* mask, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width, const floating* weight,
    const floating* parameters,                             # (ROW_PARAMETERS, TILE_ROWS)
    const Exact* exact,
    const Masked* masked,                                   # (rows), for double data under a mask
    bint cold, const Columns* to, Py_ssize_t column,
) noexcept nogil:
    # `width` and `cold` are constants where this is inlined: without `cold` every scale is 1, and mask NULL
    cdef floating shift, scale, rstd, slope, constant, d
    cdef double sum_dy[STRIP]
    cdef double sum_dyx[STRIP]
    cdef double low_dy[STRIP]
    cdef double low_dyx[STRIP]
    cdef floating out[STRIP]
    cdef dd factor
    cdef Tangent tangent
    cdef Py_ssize_t r, j
    for j in range(width):
        sum_dy[j] = to.sum_dy[column + j] if to.begun else 0
        sum_dyx[j] = to.sum_dyx[column + j] if to.begun else 0
        if floating is double:
            low_dy[j] = to.low_dy[column + j] if to.begun else 0
            low_dyx[j] = to.low_dyx[column + j] if to.begun else 0
    for r in range(rows):
        shift = parameters[SHIFT * TILE_ROWS + r]
        scale = parameters[SCALE * TILE_ROWS + r]
        rstd = parameters[RSTD * TILE_ROWS + r]
        slope = parameters[SLOPE * TILE_ROWS + r]
        constant = parameters[CONSTANT * TILE_ROWS + r]
        for j in range(width):
            d = dy[r * stride + j]
            add_to_columns(
                d, x[r * stride + j], shift, scale, exact, r, cold, &sum_dy[j], &sum_dyx[j], &low_dy[j], &low_dyx[j])
            if floating is double and mask != NULL:
                factor = dd_scale(masked[r].rstd, weight[j])
                tangent = masked[r].tangent
                out[j] = scale * masked_gradient(
                    d, factor.high, factor.low, exact_deviation(x[r * stride + j], shift, scale, True),
                    tangent.slope, tangent.slope_low, tangent.constant, tangent.constant_low, mask[r * stride + j])
                continue
            out[j] = input_gradient(
                d * weight[j], rstd, deviation(x[r * stride + j], shift, scale, cold), slope, constant,
                mask == NULL or mask[r * stride + j] != 0, scale, cold)
        for j in range(width):      # apart, so that nothing that is read can be what is written
            dx[r * stride + j] = out[j]
    for j in range(width):
        if floating is double:
            to.low_dy[column + j] = low_dy[j]
            to.low_dyx[column + j] = low_dyx[j]
        elif to.dbias != NULL:
            to.dbias[column + j] = <float>sum_dy[j]
            to.dweight[column + j] = <float>sum_dyx[j]
            continue
        to.sum_dy[column + j] = sum_dy[j]
        to.sum_dyx[column + j] = sum_dyx[j]


cdef inline apart strips(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, Py_ssize_t stride, Py_ssize_t rows,
    Py_ssize_t n, const floating* weight, const floating* parameters, const Exact* exact, const Masked* masked,
    bint cold, const Columns* to,
) noexcept nogil:
    # all strips of a tile
    cdef Py_ssize_t i = 0
    if cold or mask != NULL:
        while i < n:
            strip(
                dy + i, x + i, dx + i, mask + i if mask != NULL else NULL, stride, rows, min(<Py_ssize_t>STRIP, n - i),
                weight + i, parameters, exact, masked, True, to, i)
            i += STRIP
        return
    while n - i >= STRIP:
        strip(dy + i, x + i, dx + i, NULL, stride, rows, STRIP, weight + i, parameters, exact, NULL, False, to, i)
        i += STRIP
    while n - i >= NARROW:
        strip(dy + i, x + i, dx + i, NULL, stride, rows, NARROW, weight + i, parameters, exact, NULL, False, to, i)
        i += NARROW
    if i < n:
        strip(dy + i, x + i, dx + i, NULL, stride, rows, n - i, weight + i, parameters, exact, NULL, False, to, i)
