"""Norms whose statistics run along contiguous memory: backward.

With g = dy·weight, x̂ the normalised input and n the elements counted in a group,

    dinput  = rstd · (g − Σg/n − x̂ · Σ(g·x̂)/n)        (elements outside the mask: rstd · g)
    dweight = Σ dy·x̂,  dbias = Σ dy                     over all that share a weight

Design
  (A) Two ways to hold a weight, hence two kernels over one set of formulas. *Segments*: neighbours share a weight
      (batch, instance, group norm of channels-first images, or none at all); the two sums of each segment give both
      the group's means and the parameter gradients. *Columns*: each place in a row has its own weight (layer norm,
      RMS norm); rows are taken TILE_ROWS at a time, and the second pass adds dy·x̂ and dy down the columns, tile by
      tile, while it writes dinput.
  (B) x̂ is computed again from x and the saved statistics by the same inline function as in forward: nothing but
      four numbers for each group is kept.
  (C) Running sums as in rows_forward (C). Parameter gradients of columns: float over TILE_ROWS rows, then double
      (double-double) over a chunk of rows, chunks added in order; the chunks depend on the shape alone.
  (D) Normwise error: dinput = fma(dy, w·rstd, fma(x̂, −rstd·Σgx̂/n, −rstd·Σg/n)), its coefficients rounded once.
  (E) Where a weight belongs to one whole group, Σx̂ = 0; what the rounded x̂ add up to instead, times the mean of dy,
      is taken off Σ dy·x̂. Without it, data of few distinct values and dy of one sign would add equal rounding errors
      n times, hundreds of units.
"""

cimport numpy as cnp
from cython cimport floating
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastnn._kernels._memory cimport empty
from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.lanes cimport (
    FLUSH, LANES, SINGLE, WideSum, add_to_lanes, clear, dd, dd_add, merge, total_of, two_sum,
)
from fastnn._kernels.norm cimport (
    PIECE, Group, Means, Pieces, View, count_of, input_gradient, means_of, normalized, offset_of, pieces_of,
    start_of,
)

cnp.import_array()

__all__ = ["rows_backward"]

cdef enum:
    # rows and columns of a tile: it fits the first-level cache, and its rows are long enough to be read ahead
    TILE_ROWS = 8
    TILE = 256
    # rows of one chunk of parameter gradients, at least; and the most chunks
    CHUNK_ROWS = 64
    CHUNKS = 32
    # elements that a thread claims at a time, at least
    BLOCK = 16384


cdef struct Backward:
    View view
    const void* dy              # IN   (O, A, S, I)
    const void* x               # IN   the same
    void* dx                    # OUT  the same
    const void* weight          # IN   (period · entries) or NULL
    const unsigned char* mask   # IN   like x, or NULL
    const Group* groups         # IN   (O · S)
    Py_ssize_t entries          # weights for each run, each for I / entries neighbours
    Py_ssize_t period           # group g uses the weights from (g % period) · entries
    bint centered               # False: RMS norm, no mean was taken
    bint constant               # the statistics do not depend on x
    bint double_precision
    Pieces pieces               # of one segment's runs
    Py_ssize_t per_block
    double* segments            # OUT  (O · S, entries, 2): Σdy, Σdy·x̂, or NULL
    Py_ssize_t chunk_rows       # of one residue of the period
    Py_ssize_t chunks
    double* columns             # OUT  (chunks, 4, period · entries): Σdy, Σdy·x̂, high and low parts, or NULL
    void* dweight               # OUT  (period · entries)
    void* dbias                 # OUT  likewise


# ---- sums of products ------------------------------------------------------------------------------------------------

cdef struct Products:
    dd g        # Σ g
    dd gx       # Σ g·x̂
    dd x        # Σ x̂


cdef inline void add_products(
    const floating* dy, const floating* x, const floating* weight, Py_ssize_t n,
    floating shift, floating rstd, floating offset, floating scale, bint cold, floating* sums, floating* products,
    floating* places,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating g, xhat
    for j in range(n):
        g = dy[j] * weight[j] if weight != NULL else dy[j]
        xhat = normalized(x[j], shift, rstd, offset, scale, cold)
        sums[j] += g
        products[j] = multiply_add(g, xhat, products[j])
        places[j] += xhat


cdef inline void add_product_quad(
    const floating* dy, const floating* x, const floating* weight,
    floating shift, floating rstd, floating offset, floating scale, bint cold, floating* sums, floating* products,
    floating* places,
) noexcept nogil:
    # 4·LANES neighbours, added as a tree
    cdef Py_ssize_t j
    cdef floating ga, gb, gc, gd, xa, xb, xc, xd
    for j in range(LANES):
        ga = dy[j] * weight[j] if weight != NULL else dy[j]
        gb = dy[LANES + j] * weight[LANES + j] if weight != NULL else dy[LANES + j]
        gc = dy[2 * LANES + j] * weight[2 * LANES + j] if weight != NULL else dy[2 * LANES + j]
        gd = dy[3 * LANES + j] * weight[3 * LANES + j] if weight != NULL else dy[3 * LANES + j]
        xa = normalized(x[j], shift, rstd, offset, scale, cold)
        xb = normalized(x[LANES + j], shift, rstd, offset, scale, cold)
        xc = normalized(x[2 * LANES + j], shift, rstd, offset, scale, cold)
        xd = normalized(x[3 * LANES + j], shift, rstd, offset, scale, cold)
        sums[j] += (ga + gb) + (gc + gd)
        products[j] += multiply_add(gb, xb, ga * xa) + multiply_add(gd, xd, gc * xc)
        places[j] += (xa + xb) + (xc + xd)


cdef inline Products run_products(
    const floating* dy, const floating* x, const floating* weight, Py_ssize_t runs, Py_ssize_t length,
    Py_ssize_t stride, const Group* group, bint cold,
) noexcept nogil:
    # over `runs` runs; `weight`, of one run, only when there is one run
    cdef floating sums[LANES]
    cdef floating products[LANES]
    cdef floating places[LANES]
    cdef WideSum total, total_products, total_places
    cdef floating shift = <floating>group.shift
    cdef floating rstd = <floating>group.rstd
    cdef floating offset = offset_of(group, shift)
    cdef floating scale = <floating>group.scale
    cdef Py_ssize_t _a, _c, i, quads
    cdef Py_ssize_t filled = 0
    cdef Products result
    clear(&total)
    clear(&total_products)
    clear(&total_places)
    memset(sums, 0, sizeof(sums))
    memset(products, 0, sizeof(products))
    memset(places, 0, sizeof(places))
    for _a in range(runs):
        i = 0
        while i < length:
            quads = min((FLUSH - filled) // 4, (length - i) // (4 * LANES))
            if quads > 0:
                for _c in range(quads):
                    if weight != NULL:
                        add_product_quad(
                            dy + i, x + i, weight + i, shift, rstd, offset, scale, cold, sums, products, places)
                    else:
                        add_product_quad(dy + i, x + i, NULL, shift, rstd, offset, scale, cold, sums, products, places)
                    i += 4 * LANES
                filled += 4 * quads
            else:
                if weight != NULL:
                    add_products(
                        dy + i, x + i, weight + i, min(<Py_ssize_t>LANES, length - i), shift, rstd, offset, scale,
                        cold, sums, products, places)
                elif length - i >= LANES:
                    add_products(
                        dy + i, x + i, NULL, LANES, shift, rstd, offset, scale, cold, sums, products, places)
                else:
                    add_products(
                        dy + i, x + i, NULL, length - i, shift, rstd, offset, scale, cold, sums, products, places)
                i += LANES
                filled += SINGLE
            if filled > FLUSH - SINGLE:
                merge(sums, &total)
                merge(products, &total_products)
                merge(places, &total_places)
                filled = 0
        dy += stride
        x += stride
    if filled:
        merge(sums, &total)
        merge(products, &total_products)
        merge(places, &total_places)
    result.g = total_of(&total, shift)
    result.gx = total_of(&total_products, shift)
    result.x = total_of(&total_places, shift)
    return result


cdef inline Products piecewise_products(
    Backward* p, const floating* dy, const floating* x, const floating* weight, Py_ssize_t length, const Group* group,
) noexcept nogil:
    # one segment of a group: A runs of `length`, in pieces added in order
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef Py_ssize_t piece, a, i, at, runs, part
    cdef const floating* weights = NULL
    cdef Products total, one
    memset(&total, 0, sizeof(total))
    for piece in range(p.pieces.count):
        a = piece // p.pieces.parts * p.pieces.runs
        i = piece % p.pieces.parts * PIECE
        at = a * stride + i
        runs = min(p.pieces.runs, p.view.reduced - a)
        part = min(<Py_ssize_t>PIECE, length - i)
        if weight != NULL:
            weights = weight + i
        if group.scale == 1:
            one = run_products(dy + at, x + at, weights, runs, part, stride, group, False)
        else:
            one = run_products(dy + at, x + at, weights, runs, part, stride, group, True)
        total.g = dd_add(total.g, one.g)
        total.gx = dd_add(total.gx, one.gx)
        total.x = dd_add(total.x, one.x)
    return total


# ---- segments: neighbours share a weight -----------------------------------------------------------------------------

cdef inline void segment_gradient(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, Py_ssize_t n, double weight,
    Means* means, const Group* group, bint cold,
) noexcept nogil:
    cdef floating shift = <floating>group.shift
    cdef floating rstd = <floating>group.rstd
    cdef floating offset = offset_of(group, shift)
    cdef floating scale = <floating>group.scale
    cdef floating factor = <floating>(weight * group.rstd)
    cdef floating c1 = <floating>(-means.g * group.rstd)
    cdef floating c2 = <floating>(-means.gx * group.rstd)
    cdef floating xhat
    cdef Py_ssize_t i
    for i in range(n):
        xhat = normalized(x[i], shift, rstd, offset, scale, cold)
        dx[i] = input_gradient(dy[i], xhat, factor, c1, c2, mask == NULL or mask[i] != 0, scale, cold)


cdef inline void segmented_group(
    Backward* p, Py_ssize_t g, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    # dy, x, dx at the group's start
    cdef const Group* group = p.groups + g
    cdef Py_ssize_t stride = p.view.groups * p.view.inner
    cdef Py_ssize_t length = p.view.inner // p.entries
    cdef const floating* weight = <const floating*>p.weight + g % p.period * p.entries if p.weight != NULL else NULL
    cdef const unsigned char* mask = p.mask + start_of(&p.view, g) if p.mask != NULL else NULL
    cdef Py_ssize_t k, a, at
    cdef Products sums
    cdef double w, sum_gx
    cdef double total_g = 0
    cdef double total_gx = 0
    cdef double n = <double>count_of(mask, &p.view)
    cdef Means means
    for k in range(p.entries):
        at = k * length
        sums = piecewise_products(p, dy + at, x + at, <const floating*>NULL, length, group)
        sum_gx = sums.gx.high
        if p.entries == 1 and mask == NULL and p.centered and not p.constant:
            # (E): over a whole group Σx̂ = 0
            sum_gx -= sums.g.high / n * sums.x.high
        w = weight[k] if weight != NULL else 1
        total_g += w * sums.g.high
        total_gx += w * sum_gx
        if p.segments != NULL:
            p.segments[2 * (g * p.entries + k)] = sums.g.high
            p.segments[2 * (g * p.entries + k) + 1] = sum_gx
    means = means_of(total_g, total_gx, n, p.centered, p.constant)
    for a in range(p.view.reduced):
        for k in range(p.entries):
            at = a * stride + k * length
            w = weight[k] if weight != NULL else 1
            if group.scale != 1:
                segment_gradient(
                    dy + at, x + at, dx + at, mask + at if mask != NULL else NULL, length, w, &means, group, True)
            elif mask == NULL:
                segment_gradient(dy + at, x + at, dx + at, NULL, length, w, &means, group, False)
            else:
                segment_gradient(dy + at, x + at, dx + at, mask + at, length, w, &means, group, False)


# ---- columns: each place of a row has its own weight -----------------------------------------------------------------

# What a row of a tile needs.
cdef enum:
    SHIFT
    SCALE
    RSTD
    OFFSET
    C1              # −rstd · Σg/n
    C2              # −rstd · Σgx̂/n
    ROW_PARAMETERS


cdef inline void tile_gradients(
    const floating* dy, const floating* x, floating* dx,    # first row; rows lie `stride` apart
    const unsigned char* mask, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width, const floating* weight,
    const floating* parameters,                             # (rows, ROW_PARAMETERS), see below
    bint cold, double* sums, Py_ssize_t columns,            # INOUT (4, columns): Σdy, Σdy·x̂, high and low parts
) noexcept nogil:
    # `cold` is a constant where this is inlined: without it every scale is 1
    cdef floating shift, scale, rstd, offset, c1, c2, xhat, d
    cdef floating sum_dy[TILE]
    cdef floating sum_dyx[TILE]
    cdef Py_ssize_t r, j
    for j in range(width):
        sum_dy[j] = 0
        sum_dyx[j] = 0
    for r in range(rows):
        shift = parameters[r * ROW_PARAMETERS + SHIFT]
        scale = parameters[r * ROW_PARAMETERS + SCALE]
        rstd = parameters[r * ROW_PARAMETERS + RSTD]
        offset = parameters[r * ROW_PARAMETERS + OFFSET]
        c1 = parameters[r * ROW_PARAMETERS + C1]
        c2 = parameters[r * ROW_PARAMETERS + C2]
        for j in range(width):
            d = dy[r * stride + j]
            xhat = normalized(x[r * stride + j], shift, rstd, offset, scale, cold)
            sum_dy[j] += d
            sum_dyx[j] = multiply_add(d, xhat, sum_dyx[j])
            dx[r * stride + j] = input_gradient(
                d * weight[j], xhat, rstd, c1, c2, mask == NULL or mask[r * stride + j] != 0, scale, cold)
    add_to_lanes(sum_dy, 0, width, sums, sums + columns)
    add_to_lanes(sum_dyx, 0, width, sums + 2 * columns, sums + 3 * columns)


cdef inline void column_rows(
    Backward* p, Py_ssize_t first, Py_ssize_t rows, double* sums, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    # groups first, first + period, … of one chunk, `rows` ≤ TILE_ROWS of them
    cdef Py_ssize_t n = p.view.inner
    cdef Py_ssize_t stride = p.period * n
    cdef Py_ssize_t start = first * n
    cdef Py_ssize_t columns = p.period * n
    cdef const floating* weight = <const floating*>p.weight + first % p.period * n
    cdef const unsigned char* mask = p.mask + start if p.mask != NULL else NULL
    cdef const Group* group
    cdef floating parameters[TILE_ROWS * ROW_PARAMETERS]
    cdef floating* row
    cdef Means means
    cdef Products products
    cdef Py_ssize_t r, i
    cdef bint cold = False
    for r in range(rows):
        group = p.groups + first + r * p.period
        products = piecewise_products(p, dy + start + r * stride, x + start + r * stride, weight, n, group)
        means = means_of(
            products.g.high, products.gx.high, <double>count_of(mask + r * stride if mask != NULL else NULL, &p.view),
            p.centered, p.constant)
        row = parameters + r * ROW_PARAMETERS
        row[SHIFT] = <floating>group.shift
        row[SCALE] = <floating>group.scale
        row[RSTD] = <floating>group.rstd
        row[OFFSET] = offset_of(group, row[0])
        row[C1] = <floating>(-means.g * group.rstd)
        row[C2] = <floating>(-means.gx * group.rstd)
        cold = cold or group.scale != 1
    dy += start
    x += start
    dx += start
    i = 0
    while i < n:
        if cold or mask != NULL:
            tile_gradients(
                dy + i, x + i, dx + i, mask + i if mask != NULL else NULL, stride, rows, min(<Py_ssize_t>TILE, n - i),
                weight + i, parameters, True, sums + i, columns)
        else:
            tile_gradients(
                dy + i, x + i, dx + i, NULL, stride, rows, min(<Py_ssize_t>TILE, n - i), weight + i, parameters,
                False, sums + i, columns)
        i += TILE


cdef inline void column_chunk(
    Backward* p, Py_ssize_t block, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    cdef Py_ssize_t residue = block % p.period
    cdef Py_ssize_t chunk = block // p.period
    cdef double* sums = p.columns + 4 * chunk * p.period * p.view.inner + residue * p.view.inner
    cdef Py_ssize_t last = min((chunk + 1) * p.chunk_rows, p.view.groups // p.period)
    cdef Py_ssize_t row = chunk * p.chunk_rows
    while row < last:
        column_rows(p, row * p.period + residue, min(<Py_ssize_t>TILE_ROWS, last - row), sums, dy, x, dx)
        row += TILE_ROWS


# ---- tasks -----------------------------------------------------------------------------------------------------------

cdef void column_block(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    if p.double_precision:
        column_chunk(p, block, <const double*>p.dy, <const double*>p.x, <double*>p.dx)
    else:
        column_chunk(p, block, <const float*>p.dy, <const float*>p.x, <float*>p.dx)


cdef inline void segmented_groups(
    Backward* p, Py_ssize_t first, Py_ssize_t last, const floating* dy, const floating* x, floating* dx,
) noexcept nogil:
    cdef Py_ssize_t g, start
    for g in range(first, last):
        start = start_of(&p.view, g)
        segmented_group(p, g, dy + start, x + start, dx + start)


cdef void segment_block(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Backward* p = <Backward*>arguments
    cdef Py_ssize_t first = block * p.per_block
    cdef Py_ssize_t last = min(first + p.per_block, p.view.outer * p.view.groups)
    if p.double_precision:
        segmented_groups(p, first, last, <const double*>p.dy, <const double*>p.x, <double*>p.dx)
    else:
        segmented_groups(p, first, last, <const float*>p.dy, <const float*>p.x, <float*>p.dx)


cdef inline void put(void* target, Py_ssize_t at, double value, bint double_precision) noexcept nogil:
    if double_precision:
        (<double*>target)[at] = value
    else:
        (<float*>target)[at] = <float>value


cdef void reduce_columns(Backward* p) noexcept nogil:
    # chunks, in order → dweight, dbias
    cdef Py_ssize_t total = p.period * p.view.inner
    cdef double* sums = p.columns
    cdef double* chunk
    cdef Py_ssize_t c, j
    for c in range(1, p.chunks):
        chunk = sums + 4 * c * total
        add_to_lanes(chunk, 0, total, sums, sums + total)
        add_to_lanes(chunk + 2 * total, 0, total, sums + 2 * total, sums + 3 * total)
        for j in range(total):
            sums[total + j] += chunk[total + j]
            sums[3 * total + j] += chunk[3 * total + j]
    for j in range(total):
        put(p.dbias, j, sums[j] + sums[total + j], p.double_precision)
        put(p.dweight, j, sums[2 * total + j] + sums[3 * total + j], p.double_precision)


cdef void reduce_segments(Backward* p) noexcept nogil:
    # groups that share weights, in order → dweight, dbias
    cdef Py_ssize_t total = p.period * p.entries
    cdef Py_ssize_t j, c
    cdef dd b, w, none
    none.high = none.low = 0
    for j in range(total):
        b = none
        w = none
        for c in range(p.view.outer * p.view.groups // p.period):
            b = dd_add(b, two_sum(p.segments[2 * (c * total + j)], 0))
            w = dd_add(w, two_sum(p.segments[2 * (c * total + j) + 1], 0))
        put(p.dbias, j, b.high + b.low, p.double_precision)
        put(p.dweight, j, w.high + w.low, p.double_precision)


cdef void run_backward(Backward* p) noexcept nogil:
    cdef Py_ssize_t n = p.view.reduced * p.view.inner
    cdef Py_ssize_t groups = p.view.outer * p.view.groups
    cdef View segment = p.view
    cdef double work = 3.0 * groups * n * (8 if p.double_precision else 4)
    if p.columns != NULL:
        p.pieces = pieces_of(&segment)
        parallel_for(column_block, p, p.chunks * p.period, work)
        reduce_columns(p)
        return
    segment.inner //= p.entries
    p.pieces = pieces_of(&segment)
    p.per_block = max(<Py_ssize_t>1, BLOCK // n)
    parallel_for(segment_block, p, (groups + p.per_block - 1) // p.per_block, work)
    if p.segments != NULL:
        reduce_segments(p)


# ---- entry point -----------------------------------------------------------------------------------------------------

def rows_backward(
    cnp.ndarray dy, cnp.ndarray x, cnp.ndarray groups, tuple view, Py_ssize_t entries, Py_ssize_t period, weight,
    mask, bint centered, bint constant, bint affine,
):
    """(dinput, dweight, dbias) of an array seen as view = (O, A, S, I); see Backward for the parameters.

    Arrays are C-contiguous, aligned and of one precision, groups those of forward. dweight and dbias have
    period·entries elements, or are None unless `affine`. Where each place of a row has its own weight
    (entries == I), `weight` must be given.
    """
    cdef Backward p
    cdef cnp.npy_intp count
    cdef Py_ssize_t rows
    cdef bint by_column
    p.view.outer, p.view.reduced, p.view.groups, p.view.inner = view
    by_column = affine and entries == p.view.inner and p.view.reduced == 1
    count = period * entries
    dx = empty(x.ndim, x.shape, cnp.PyArray_TYPE(x))
    dweight = cnp.PyArray_ZEROS(1, &count, cnp.PyArray_TYPE(x), 0) if affine else None
    dbias = cnp.PyArray_ZEROS(1, &count, cnp.PyArray_TYPE(x), 0) if affine else None
    if cnp.PyArray_SIZE(x) == 0:
        return dx, dweight, dbias
    p.dy = cnp.PyArray_DATA(dy)
    p.x = cnp.PyArray_DATA(x)
    p.dx = cnp.PyArray_DATA(<cnp.ndarray>dx)
    p.weight = cnp.PyArray_DATA(<cnp.ndarray>weight) if weight is not None else NULL
    p.mask = <const unsigned char*>cnp.PyArray_DATA(<cnp.ndarray>mask) if mask is not None else NULL
    p.groups = <const Group*>cnp.PyArray_DATA(groups)
    p.dweight = cnp.PyArray_DATA(<cnp.ndarray>dweight) if affine else NULL
    p.dbias = cnp.PyArray_DATA(<cnp.ndarray>dbias) if affine else NULL
    p.entries = entries
    p.period = period
    p.centered = centered
    p.constant = constant
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    p.segments = NULL
    p.columns = NULL
    if by_column:
        rows = p.view.groups // period
        p.chunk_rows = max(<Py_ssize_t>CHUNK_ROWS, (rows + CHUNKS - 1) // CHUNKS)
        p.chunks = (rows + p.chunk_rows - 1) // p.chunk_rows
        p.columns = <double*>calloc(4 * p.chunks * count, sizeof(double))
    elif affine:
        p.segments = <double*>calloc(2 * p.view.outer * p.view.groups * entries, sizeof(double))
    if affine and p.columns == NULL and p.segments == NULL:
        raise MemoryError("no memory for the partial sums of dweight and dbias")
    with nogil:
        run_backward(&p)
        free(p.columns)
        free(p.segments)
    return dx, dweight, dbias
