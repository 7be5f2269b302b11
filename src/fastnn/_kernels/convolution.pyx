"""Two-dimensional convolution: the product of weights with shifted images, and the gradient of the weights.

Design
  (A) No window is ever unfolded. Images are copied once into planes with zero padding around them; with stride s the
      copy sorts rows and columns into s·s planes by their remainder. Then kernel element k of all windows is one flat
      shift: result q takes planes[shift(k) + q]. Rows are `width` long, so a few q at the end of each row belong to no
      window; they are computed and not stored.
  (B) Result and gradient of the input are both `shifted_products`: out[m, q] = bias[m] + Σ a[m, k]·planes[shift(k) + q]
      over k in order, one fused multiply-add each. Every number is one sum in one order, so neither threads nor
      the ISA nor the tile's form change a bit, and it is the same sum in both layouts.
  (C) A tile (tiles.pxd) is ROWS results m by COLUMNS neighbours q in registers.
  (D) The gradient of the weights sums over pixels. From SIDE_BY_SIDE output channels of a group on, dy is copied with
      its channels side by side: a tile is TAPS terms by `wide` channels in registers, each weight one running sum of
      at most PIXELS pixels, then float64. Pixels of the planes' padding cost nothing here. With fewer channels, tiles
      of 4 by 3 weights sum over q, in LANES running sums each, at most QUANTUM elements, then float64; padding
      columns of dy are zero.
  (E) Several images share a plane (long runs); as many as make about a megabyte, so that the planes stay in cache.
      Copying and multiplying are separate parallel loops.
  (F) In a plan, weights are packed once, and residual and activation are applied to a tile before it is stored.
"""

cimport numpy as cnp
from cython cimport floating
from libc.stdint cimport int32_t
from libc.string cimport memset

from fastnn._kernels._plan cimport Finish, Operands, Step, finish_of, loop
from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.tiles cimport COLUMNS, HALVES, ROWS, WIDTH, tile

cnp.import_array()

__all__ = [
    "PLANE_MARGIN", "PLANE_MULTIPLE", "ConvolutionStep", "convolution_rows", "shifted_products", "weight_gradient",
]

cdef enum:
    MARGIN = 32     # zeros behind each plane: tiles read beyond its end
    BLOCK = 256     # results q of one task
    LANES = 16
    QUANTUM = 2048
    TOGETHER = 16   # channels that are neighbours in memory and copied together
    WEIGHTS = 48    # of one row, in one task of the weight gradient
    SIDE_BY_SIDE = 16
    TAPS = 9        # a 3×3 kernel's; their sums and the operands fit 32 registers, or 16 with half the columns
    WIDEST = 32
    PIXELS = 256

PLANE_MARGIN, PLANE_MULTIPLE = MARGIN, LANES


cdef struct Strides:
    # where (image, channel, row, column) of an array of images lies, in elements
    Py_ssize_t image
    Py_ssize_t channel
    Py_ssize_t row
    Py_ssize_t column


cdef struct Copy:
    # images → planes
    const void* x
    void* planes
    Strides at
    Py_ssize_t first            # image
    Py_ssize_t images
    Py_ssize_t sizes[2]         # rows and columns of an image
    Py_ssize_t steps[2]         # between the rows (columns) of one plane
    const Py_ssize_t* starts    # (phases, 2): the image's row and column that are (0, 0) of each plane
    Py_ssize_t phases           # planes of one channel
    Py_ssize_t channels
    Py_ssize_t together         # channels of one task
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t plane            # elements of a plane, with the margin
    bint double_precision


cdef struct Product:
    const void* planes
    const void* a               # (groups, blocks of ROWS, terms, ROWS)
    const void* bias            # (groups · rows) or NULL
    const Py_ssize_t* shifts    # (terms), then -1
    void* out
    const void* residual        # IN   like out, is added to it; or NULL
    Finish finish
    Strides at
    Py_ssize_t first            # image
    Py_ssize_t images
    Py_ssize_t sizes[2]         # rows and columns of the result
    Py_ssize_t rows             # of a, in one group
    Py_ssize_t terms
    Py_ssize_t group            # planes' elements of one group of channels
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t span             # q up to the last result
    Py_ssize_t tasks            # of one group
    bint double_precision


cdef struct Gradient:
    const void* planes
    const void* dy              # planes of dy
    double* total               # (groups · rows, terms), added to
    const Py_ssize_t* shifts
    Py_ssize_t rows
    Py_ssize_t terms
    Py_ssize_t group
    Py_ssize_t plane
    Py_ssize_t span             # q up to the last result
    Py_ssize_t row_tiles
    Py_ssize_t term_blocks
    Py_ssize_t images
    Py_ssize_t sizes[2]         # rows and columns of dy
    Py_ssize_t height
    Py_ssize_t width
    Strides at                  # of dy
    const void* source          # dy, from the pass's first image on
    bint double_precision


# ---- images → planes -----------------------------------------------------------------------------------------------

cdef inline void copy_planes(Copy* p, Py_ssize_t task, floating example) noexcept nogil:
    # one plane of `together` channels that are neighbours in memory: all its images and its margin
    cdef Py_ssize_t channel = task // p.phases * p.together
    cdef Py_ssize_t count = min(p.together, p.channels - channel)
    cdef Py_ssize_t phase = task % p.phases
    cdef Py_ssize_t top = p.starts[2 * phase]
    cdef Py_ssize_t left = p.starts[2 * phase + 1]
    cdef Py_ssize_t step = p.steps[1] * p.at.column
    cdef Py_ssize_t gap = p.phases * p.plane
    cdef floating* d = <floating*>p.planes + (channel * p.phases + phase) * p.plane
    cdef const floating* x
    cdef Py_ssize_t image, r, row, j, c, low, high
    # columns [low, high) of the plane are inside the image
    low = min(p.width, (p.steps[1] - 1 - left) // p.steps[1]) if left < 0 else 0
    high = p.sizes[1] - 1 - left
    high = min(p.width, high // p.steps[1] + 1) if high >= 0 else 0
    if high < low:
        high = low
    for image in range(p.images):
        for r in range(p.height):
            row = top + r * p.steps[0]
            if row < 0 or row >= p.sizes[0]:
                zero(d, count, gap, 0, p.width)
            else:
                x = (
                    <const floating*>p.x + (p.first + image) * p.at.image + channel * p.at.channel + row * p.at.row
                    + left * p.at.column
                )
                if p.together == 1 and step == 1:
                    copy_row(d, x, p.width, low, high)
                else:
                    zero(d, count, gap, 0, low)
                    for j in range(low, high):
                        for c in range(count):
                            d[c * gap + j] = x[j * step + c]
                    zero(d, count, gap, high, p.width)
            d += p.width
    zero(d, count, gap, 0, MARGIN)


cdef inline void copy_row(
    floating* d, const floating* x, Py_ssize_t width, Py_ssize_t low, Py_ssize_t high,
) noexcept nogil:
    # d[j] = x[j] in [low, high), else 0, for j < width: rows are short, so masks of constant length
    cdef int32_t j, n, first, end
    while width > 0:
        n = <int32_t>min(width, <Py_ssize_t>16)
        first, end = <int32_t>max(low, <Py_ssize_t>0), <int32_t>min(high, <Py_ssize_t>16)
        for j in range(16):
            if j < n:
                d[j] = x[j] if (j >= first) & (j < end) else <floating>0.0
        d += 16
        x += 16
        width -= 16
        low -= 16
        high -= 16


cdef inline void zero(
    floating* d, Py_ssize_t count, Py_ssize_t gap, Py_ssize_t low, Py_ssize_t high,
) noexcept nogil:
    cdef Py_ssize_t c, j
    for c in range(count):
        for j in range(low, high):
            d[c * gap + j] = 0


cdef void copy_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Copy* p = <Copy*>arguments
    if p.double_precision:
        copy_planes(p, task, <double>0)
    else:
        copy_planes(p, task, <float>0)


cdef void copy_all(Copy* p, loop each) noexcept nogil:
    cdef Py_ssize_t tasks = (p.channels + p.together - 1) // p.together * p.phases
    cdef Py_ssize_t item = 8 if p.double_precision else 4
    each(copy_task, p, tasks, 2.0 * p.channels * p.phases * p.plane * item)


# ---- result and gradient of the input ------------------------------------------------------------------------------

cdef inline void store_run(const floating* s, floating* d, Py_ssize_t n) noexcept nogil:
    # constant length with a mask: one store where the level has masks
    cdef Py_ssize_t j
    while n > 0:
        for j in range(16):
            if j < n:
                d[j] = s[j]
        s += 16
        d += 16
        n -= 16


cdef inline void add_run(
    floating* values, const floating* d, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t column, Py_ssize_t channel,
) noexcept nogil:
    cdef Py_ssize_t t, m
    for m in range(rows):
        for t in range(n):
            values[m * COLUMNS + t] += d[m * channel + t * column]


cdef inline void exchange_tile(
    Product* p, floating* values, floating* images, Py_ssize_t q, Py_ssize_t n, Py_ssize_t row, Py_ssize_t rows,
    bint add,
) noexcept nogil:
    # The tile's results that are in the image go into `images`, or if `add`, a constant where this is inlined, what
    # is there is added to them. `row` is the first one's channel.
    cdef Py_ssize_t image = q // (p.height * p.width)
    cdef Py_ssize_t oh = q // p.width % p.height
    cdef Py_ssize_t ow = q % p.width
    cdef Py_ssize_t j = 0
    cdef Py_ssize_t run, m, t
    cdef floating* d
    while j < n and image < p.images:
        run = min(n - j, p.width - ow)
        if oh < p.sizes[0] and ow < p.sizes[1]:
            t = min(run, p.sizes[1] - ow)
            d = (
                images + (p.first + image) * p.at.image + row * p.at.channel + oh * p.at.row + ow * p.at.column
            )
            if add:
                add_run(values + j, d, t, rows, p.at.column, p.at.channel)
            elif p.at.column == 1:
                for m in range(rows):
                    store_run(values + m * COLUMNS + j, d + m * p.at.channel, t)
            else:
                store_columns(values + j, d, t, rows, p.at.column, p.at.channel)
        j += run
        ow = 0
        oh += 1
        if oh == p.height:
            oh = 0
            image += 1


cdef inline void store_columns(
    const floating* values, floating* d, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t column, Py_ssize_t channel,
) noexcept nogil:
    cdef Py_ssize_t t, m
    if channel == 1 and rows == ROWS:
        for t in range(n):
            for m in range(ROWS):
                d[t * column + m] = values[m * COLUMNS + t]
    else:
        for t in range(n):
            for m in range(rows):
                d[t * column + m * channel] = values[m * COLUMNS + t]


cdef inline void product_block(Product* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t group = task // p.tasks
    cdef Py_ssize_t first = task % p.tasks * BLOCK
    cdef Py_ssize_t end = min(first + BLOCK, p.span)
    cdef Py_ssize_t blocks = (p.rows + ROWS - 1) // ROWS
    cdef const floating* planes = <const floating*>p.planes + group * p.group
    cdef const floating* a = <const floating*>p.a + group * blocks * p.terms * ROWS
    cdef const floating* bias = <const floating*>p.bias
    cdef floating values[ROWS * COLUMNS + 16]
    cdef floating start[ROWS]
    cdef Py_ssize_t block, q, m, rows, row, n
    memset(values, 0, sizeof(values))
    if floating is float:
        n = COLUMNS
    else:
        n = COLUMNS // 2
    for block in range(blocks):
        rows = min(<Py_ssize_t>ROWS, p.rows - block * ROWS)
        row = group * p.rows + block * ROWS
        for m in range(ROWS):
            start[m] = bias[row + m] if bias != NULL and m < rows else <floating>0.0
        q = first
        while q < end:
            tile(a, 1, ROWS, planes + q, p.shifts, start, values, n)
            if p.residual != NULL:
                exchange_tile(p, values, <floating*>p.residual, q, min(n, end - q), row, rows, True)
            if p.finish.apply != NULL:
                p.finish.apply(&p.finish, values, ROWS * COLUMNS)
            exchange_tile(p, values, <floating*>p.out, q, min(n, end - q), row, rows, False)
            q += n
        a += p.terms * ROWS


cdef void product_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Product* p = <Product*>arguments
    if p.double_precision:
        product_block(p, task, <double>0)
    else:
        product_block(p, task, <float>0)


# ---- gradient of the weights ---------------------------------------------------------------------------------------

cdef inline double lane_sum(const floating* s) noexcept nogil:
    cdef double t[8]
    cdef Py_ssize_t j
    for j in range(8):
        t[j] = <double>s[j] + <double>s[j + 8]
    return ((t[0] + t[4]) + (t[1] + t[5])) + ((t[2] + t[6]) + (t[3] + t[7]))


cdef inline void gradient_tile(
    const floating* d0, const floating* d1, const floating* d2, const floating* d3,     # IN (n) rows of dy
    const floating* x0, const floating* x1, const floating* x2,                         # IN (n) shifted planes
    Py_ssize_t n,
    double* sums,               # OUT (4, 3)
) noexcept nogil:
    # n elements, rounded up to LANES; WIDTH lanes in registers at a time
    cdef floating s[12][LANES]
    cdef floating a0[WIDTH]
    cdef floating a1[WIDTH]
    cdef floating a2[WIDTH]
    cdef floating b0[WIDTH]
    cdef floating b1[WIDTH]
    cdef floating b2[WIDTH]
    cdef floating c0[WIDTH]
    cdef floating c1[WIDTH]
    cdef floating c2[WIDTH]
    cdef floating e0[WIDTH]
    cdef floating e1[WIDTH]
    cdef floating e2[WIDTH]
    cdef Py_ssize_t part, lane, q, j
    cdef floating u, v, w, y
    for part in range(LANES // WIDTH):
        lane = part * WIDTH
        for j in range(WIDTH):
            a0[j] = a1[j] = a2[j] = b0[j] = b1[j] = b2[j] = 0
            c0[j] = c1[j] = c2[j] = e0[j] = e1[j] = e2[j] = 0
        q = lane
        while q < n:
            for j in range(WIDTH):
                u = x0[q + j]
                v = x1[q + j]
                w = x2[q + j]
                y = d0[q + j]
                a0[j] = multiply_add(y, u, a0[j])
                a1[j] = multiply_add(y, v, a1[j])
                a2[j] = multiply_add(y, w, a2[j])
                y = d1[q + j]
                b0[j] = multiply_add(y, u, b0[j])
                b1[j] = multiply_add(y, v, b1[j])
                b2[j] = multiply_add(y, w, b2[j])
                y = d2[q + j]
                c0[j] = multiply_add(y, u, c0[j])
                c1[j] = multiply_add(y, v, c1[j])
                c2[j] = multiply_add(y, w, c2[j])
                y = d3[q + j]
                e0[j] = multiply_add(y, u, e0[j])
                e1[j] = multiply_add(y, v, e1[j])
                e2[j] = multiply_add(y, w, e2[j])
            q += LANES
        for j in range(WIDTH):
            s[0][lane + j] = a0[j]
            s[1][lane + j] = a1[j]
            s[2][lane + j] = a2[j]
            s[3][lane + j] = b0[j]
            s[4][lane + j] = b1[j]
            s[5][lane + j] = b2[j]
            s[6][lane + j] = c0[j]
            s[7][lane + j] = c1[j]
            s[8][lane + j] = c2[j]
            s[9][lane + j] = e0[j]
            s[10][lane + j] = e1[j]
            s[11][lane + j] = e2[j]
    for j in range(12):
        sums[j] = lane_sum(s[j])


cdef inline void gradient_block(Gradient* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t group = task // (p.row_tiles * p.term_blocks)
    cdef Py_ssize_t row = task // p.term_blocks % p.row_tiles * 4
    cdef Py_ssize_t first = task % p.term_blocks * WEIGHTS
    cdef Py_ssize_t end = min(first + WEIGHTS, p.terms)
    cdef Py_ssize_t rows = min(<Py_ssize_t>4, p.rows - row)
    cdef const floating* planes = <const floating*>p.planes + group * p.group
    cdef const floating* dy = <const floating*>p.dy + (group * p.rows + row) * p.plane
    cdef double* total = p.total + (group * p.rows + row) * p.terms
    # rows and terms beyond the last repeat it and are not added
    cdef const floating* d1 = dy + min(<Py_ssize_t>1, rows - 1) * p.plane
    cdef const floating* d2 = dy + min(<Py_ssize_t>2, rows - 1) * p.plane
    cdef const floating* d3 = dy + min(<Py_ssize_t>3, rows - 1) * p.plane
    cdef const floating* x1
    cdef const floating* x2
    cdef double sums[12]
    cdef Py_ssize_t q, k, n, i, j
    q = 0
    while q < p.span:
        n = min(<Py_ssize_t>QUANTUM, p.span - q)
        k = first
        while k < end:
            x1 = planes + p.shifts[min(k + 1, end - 1)] + q
            x2 = planes + p.shifts[min(k + 2, end - 1)] + q
            gradient_tile(dy + q, d1 + q, d2 + q, d3 + q, planes + p.shifts[k] + q, x1, x2, n, sums)
            for i in range(rows):
                for j in range(min(<Py_ssize_t>3, end - k)):
                    total[i * p.terms + k + j] += sums[3 * i + j]
            k += 3
        q += QUANTUM


cdef void gradient_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Gradient* p = <Gradient*>arguments
    if p.double_precision:
        gradient_block(p, task, <double>0)
    else:
        gradient_block(p, task, <float>0)


# ---- gradient of the weights, channels side by side ----------------------------------------------------------------

cdef struct Patch:
    # pixels of one running sum: how many, and the steps between rows and images behind the last pixel of a row
    Py_ssize_t images
    Py_ssize_t rows
    Py_ssize_t columns
    Py_ssize_t x_row
    Py_ssize_t x_image
    Py_ssize_t y_row
    Py_ssize_t y_image


cdef inline Py_ssize_t wide(bint double_precision) noexcept nogil:
    # channels of a tile: two registers' worth where there are 32 registers, one where there are 16
    cdef Py_ssize_t n = COLUMNS if HALVES == 0 else COLUMNS // 2
    return n // 2 if double_precision else n


cdef inline inlined patch_sums(
    const Patch* p, const floating* x, const Py_ssize_t* shifts, const floating* y, double* sums, Py_ssize_t n,
    Py_ssize_t stride,
) noexcept nogil:
    # sums (TAPS, WIDEST) += Σ over the patch of x[shifts[k] + pixel]·y[pixel · stride + j], j < n, a constant
    cdef floating s0[WIDEST]
    cdef floating s1[WIDEST]
    cdef floating s2[WIDEST]
    cdef floating s3[WIDEST]
    cdef floating s4[WIDEST]
    cdef floating s5[WIDEST]
    cdef floating s6[WIDEST]
    cdef floating s7[WIDEST]
    cdef floating s8[WIDEST]
    cdef const floating* x0 = x + shifts[0]
    cdef const floating* x1 = x + shifts[1]
    cdef const floating* x2 = x + shifts[2]
    cdef const floating* x3 = x + shifts[3]
    cdef const floating* x4 = x + shifts[4]
    cdef const floating* x5 = x + shifts[5]
    cdef const floating* x6 = x + shifts[6]
    cdef const floating* x7 = x + shifts[7]
    cdef const floating* x8 = x + shifts[8]
    cdef Py_ssize_t images, rows, end, j
    cdef Py_ssize_t q = 0
    cdef floating v
    for j in range(n):
        s0[j] = s1[j] = s2[j] = s3[j] = s4[j] = s5[j] = s6[j] = s7[j] = s8[j] = 0
    images = p.images
    while images > 0:
        rows = p.rows
        while rows > 0:
            end = q + p.columns
            while q < end:
                for j in range(n):
                    v = y[j]
                    s0[j] = multiply_add(x0[q], v, s0[j])
                    s1[j] = multiply_add(x1[q], v, s1[j])
                    s2[j] = multiply_add(x2[q], v, s2[j])
                    s3[j] = multiply_add(x3[q], v, s3[j])
                    s4[j] = multiply_add(x4[q], v, s4[j])
                    s5[j] = multiply_add(x5[q], v, s5[j])
                    s6[j] = multiply_add(x6[q], v, s6[j])
                    s7[j] = multiply_add(x7[q], v, s7[j])
                    s8[j] = multiply_add(x8[q], v, s8[j])
                y += stride
                q += 1
            q += p.x_row
            y += p.y_row
            rows -= 1
        q += p.x_image
        y += p.y_image
        images -= 1
    for j in range(n):
        sums[j] += s0[j]
        sums[WIDEST + j] += s1[j]
        sums[2 * WIDEST + j] += s2[j]
        sums[3 * WIDEST + j] += s3[j]
        sums[4 * WIDEST + j] += s4[j]
        sums[5 * WIDEST + j] += s5[j]
        sums[6 * WIDEST + j] += s6[j]
        sums[7 * WIDEST + j] += s7[j]
        sums[8 * WIDEST + j] += s8[j]


cdef apart patch_wide(
    const Patch* p, const floating* x, const Py_ssize_t* shifts, const floating* y, double* sums,
) noexcept nogil:
    if floating is float:
        patch_sums(p, x, shifts, y, sums, wide(False), wide(False))
    else:
        patch_sums(p, x, shifts, y, sums, wide(True), wide(True))


cdef apart patch_half(
    const Patch* p, const floating* x, const Py_ssize_t* shifts, const floating* y, double* sums,
) noexcept nogil:
    if floating is float:
        patch_sums(p, x, shifts, y, sums, wide(False) // 2, wide(False))
    else:
        patch_sums(p, x, shifts, y, sums, wide(True) // 2, wide(True))


cdef inline void taps_block(Gradient* p, Py_ssize_t task, floating example) noexcept nogil:
    # one tile of weights over all pixels of the pass
    cdef Py_ssize_t n = wide(p.double_precision)
    cdef Py_ssize_t blocks = (p.rows + n - 1) // n
    cdef Py_ssize_t group = task // (blocks * p.term_blocks)
    cdef Py_ssize_t block = task // p.term_blocks % blocks
    cdef Py_ssize_t first = task % p.term_blocks * TAPS
    cdef Py_ssize_t rows = min(n, p.rows - block * n)
    cdef Py_ssize_t terms = min(<Py_ssize_t>TAPS, p.terms - first)
    cdef Py_ssize_t pixels = p.sizes[0] * p.sizes[1]
    cdef const floating* planes = <const floating*>p.planes + group * p.group
    cdef const floating* dy = <const floating*>p.dy + (group * blocks + block) * p.images * pixels * n
    cdef double* total = p.total + (group * p.rows + block * n) * p.terms + first
    cdef double sums[TAPS * WIDEST]
    cdef Py_ssize_t shifts[TAPS]
    cdef Patch patch
    cdef Py_ssize_t images = max(<Py_ssize_t>1, PIXELS // pixels)
    cdef Py_ssize_t height = min(p.sizes[0], max(<Py_ssize_t>1, PIXELS // p.sizes[1]))
    cdef Py_ssize_t width = min(p.sizes[1], <Py_ssize_t>PIXELS)
    cdef Py_ssize_t image, i, j, k
    cdef const floating* x
    cdef const floating* y
    memset(sums, 0, sizeof(sums))
    for k in range(TAPS):  # those beyond the last repeat it and are not added
        shifts[k] = p.shifts[first + min(k, terms - 1)]
    image = 0
    while image < p.images:
        patch.images = min(images, p.images - image)
        i = 0
        while i < p.sizes[0]:
            patch.rows = min(height, p.sizes[0] - i)
            patch.x_image = (p.height - patch.rows) * p.width
            patch.y_image = (p.sizes[0] - patch.rows) * p.sizes[1] * n
            j = 0
            while j < p.sizes[1]:
                patch.columns = min(width, p.sizes[1] - j)
                patch.x_row = p.width - patch.columns
                patch.y_row = (p.sizes[1] - patch.columns) * n
                x = planes + (image * p.height + i) * p.width + j
                y = dy + (image * pixels + i * p.sizes[1] + j) * n
                if rows <= n // 2:
                    patch_half(&patch, x, shifts, y, sums)
                else:
                    patch_wide(&patch, x, shifts, y, sums)
                j += width
            i += height
        image += images
    for j in range(rows):
        for k in range(terms):
            total[j * p.terms + k] += sums[k * WIDEST + j]


cdef void taps_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Gradient* p = <Gradient*>arguments
    if p.double_precision:
        taps_block(p, task, <double>0)
    else:
        taps_block(p, task, <float>0)


cdef inline void turn_block(Gradient* p, Py_ssize_t task, floating example) noexcept nogil:
    # dy of one image and block of channels, pixels by channels; zeros where there are fewer channels
    cdef Py_ssize_t n = wide(p.double_precision)
    cdef Py_ssize_t blocks = (p.rows + n - 1) // n
    cdef Py_ssize_t group = task // (blocks * p.images)
    cdef Py_ssize_t block = task // p.images % blocks
    cdef Py_ssize_t image = task % p.images
    cdef Py_ssize_t rows = min(n, p.rows - block * n)
    cdef floating* d = <floating*>p.dy + task * p.sizes[0] * p.sizes[1] * n
    cdef const floating* y = (
        <const floating*>p.source + image * p.at.image + (group * p.rows + block * n) * p.at.channel
    )
    cdef const floating* s
    cdef Py_ssize_t i, j, m
    for i in range(p.sizes[0]):
        s = y + i * p.at.row
        if p.at.channel == 1:
            for j in range(p.sizes[1]):
                for m in range(rows):
                    d[j * n + m] = s[j * p.at.column + m]
        else:
            for m in range(rows):
                for j in range(p.sizes[1]):
                    d[j * n + m] = s[m * p.at.channel + j * p.at.column]
        for m in range(rows, n):
            for j in range(p.sizes[1]):
                d[j * n + m] = 0
        d += p.sizes[1] * n


cdef void turn_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Gradient* p = <Gradient*>arguments
    if p.double_precision:
        turn_block(p, task, <double>0)
    else:
        turn_block(p, task, <float>0)


cdef void side_by_side(Gradient* p, Py_ssize_t groups) noexcept nogil:
    cdef Py_ssize_t n = wide(p.double_precision)
    cdef Py_ssize_t item = 8 if p.double_precision else 4
    cdef Py_ssize_t blocks = groups * ((p.rows + n - 1) // n)
    cdef double numbers = <double>blocks * p.images * p.sizes[0] * p.sizes[1] * n
    parallel_for(turn_task, p, blocks * p.images, 2.0 * numbers * item)
    parallel_for(taps_task, p, blocks * p.term_blocks, numbers * p.terms / 8.0 * (item / 4.0))


# ---- entry points --------------------------------------------------------------------------------------------------

cdef inline Strides strides_of(tuple numbers) except *:
    cdef Strides s
    s.image, s.channel, s.row, s.column = numbers
    return s


cdef inline Py_ssize_t span_of(
    Py_ssize_t images, Py_ssize_t height, Py_ssize_t width, const Py_ssize_t* sizes,
) noexcept nogil:
    # No tile of results up to here reads further than MARGIN behind its plane.
    return ((images - 1) * height + sizes[0] - 1) * width + sizes[1]


cdef inline void* aligned(void* start) noexcept nogil:
    # to a cache line: loads that straddle two cost twice
    return <void*>(((<size_t>start) + 63) & ~<size_t>63)


cdef inline Py_ssize_t plane_of(const Copy* p, Py_ssize_t images) noexcept nogil:
    return (images * p.height * p.width + MARGIN + LANES - 1) // LANES * LANES


cdef Copy copy_of(
    cnp.ndarray x, tuple at, tuple sizes, tuple steps, cnp.ndarray starts, tuple form, Py_ssize_t images,
    Py_ssize_t channels,
) except *:
    cdef Copy p
    p.x = cnp.PyArray_DATA(x)
    p.planes = NULL
    p.at = strides_of(at)
    p.first = 0
    p.images = images
    p.sizes[0], p.sizes[1] = sizes
    p.steps[0], p.steps[1] = steps
    p.starts = <const Py_ssize_t*>cnp.PyArray_DATA(starts)
    p.phases = cnp.PyArray_DIM(starts, 0)
    p.channels = channels
    p.together = TOGETHER if p.at.channel == 1 else 1
    p.height, p.width = form
    p.plane = plane_of(&p, images)
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    return p


cdef void pack(
    const floating* w, floating* a, const Py_ssize_t* places, Py_ssize_t groups, Py_ssize_t rows, Py_ssize_t terms,
    Py_ssize_t group_stride, Py_ssize_t row_stride,
) noexcept nogil:
    # a (groups, blocks, terms, ROWS) from the weights: row m, term k of a group at m · row_stride + places[k]
    cdef Py_ssize_t _g, b, k, m
    cdef Py_ssize_t blocks = (rows + ROWS - 1) // ROWS
    for _g in range(groups):
        for b in range(blocks):
            for k in range(terms):
                for m in range(ROWS):
                    a[m] = w[(b * ROWS + m) * row_stride + places[k]] if b * ROWS + m < rows else <floating>0.0
                a += ROWS
        w += group_stride


cdef void multiply_all(
    Copy* c, Product* p, Py_ssize_t groups, Py_ssize_t images, Py_ssize_t count, loop each,
) noexcept nogil:
    # `images` at a time
    cdef Py_ssize_t blocks = (p.rows + ROWS - 1) // ROWS
    cdef Py_ssize_t item = 8 if p.double_precision else 4
    cdef Py_ssize_t first = 0
    while first < count:
        c.first = p.first = first
        c.images = p.images = min(images, count - first)
        copy_all(c, each)
        p.span = span_of(p.images, p.height, p.width, p.sizes)
        p.tasks = (p.span + BLOCK - 1) // BLOCK
        # work in bytes: a core multiplies about eight numbers in the time it moves a byte
        each(
            product_task, p, groups * p.tasks,
            groups * p.tasks * (BLOCK / 8.0) * blocks * ROWS * p.terms * (item / 4.0),
        )
        first += images


def shifted_products(
    cnp.ndarray x, tuple x_at, tuple x_sizes, tuple steps, cnp.ndarray starts,
    tuple form, Py_ssize_t images, Py_ssize_t channels, Py_ssize_t groups, cnp.ndarray shifts,
    cnp.ndarray weight, cnp.ndarray places, Py_ssize_t rows, Py_ssize_t group_stride, Py_ssize_t row_stride,
    object bias, cnp.ndarray out, Py_ssize_t out_offset, tuple out_at, tuple out_sizes, Py_ssize_t count,
):
    """out[n, g·rows + m, i, j] = bias + Σ_k weight[g, m, k] · plane(k)[i, j] for `count` images; see the design.

    x_at, out_at: strides (image, channel, row, column) in elements, of x and of out from out_offset on; x_sizes,
    out_sizes: rows and columns; steps, starts (phases, 2): which rows and columns of x make each plane; form: rows
    and columns of a plane; images: how many share one; shifts (terms, and -1 behind them): where each term's plane
    starts, counted in elements within the group; places (terms), group_stride, row_stride: where the weights lie.
    """
    cdef Copy c = copy_of(x, x_at, x_sizes, steps, starts, form, images, channels)
    cdef Product p
    cdef Py_ssize_t terms = cnp.PyArray_SIZE(shifts) - 1
    cdef Py_ssize_t blocks = (rows + ROWS - 1) // ROWS
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(x)
    cdef cnp.npy_intp size = channels * c.phases * c.plane + groups * blocks * terms * ROWS + 2 * MARGIN
    cdef cnp.ndarray scratch = cnp.PyArray_EMPTY(1, &size, cnp.PyArray_TYPE(x), 0)
    c.planes = aligned(cnp.PyArray_DATA(scratch))
    cdef char* a = <char*>c.planes + channels * c.phases * c.plane * item
    cdef const void* w = cnp.PyArray_DATA(weight)
    cdef const Py_ssize_t* where = <const Py_ssize_t*>cnp.PyArray_DATA(places)
    p.planes, p.a = c.planes, a
    p.residual, p.finish.apply = NULL, NULL
    p.bias = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray>bias)
    p.shifts = <const Py_ssize_t*>cnp.PyArray_DATA(shifts)
    p.out = <char*>cnp.PyArray_DATA(out) + out_offset * item
    p.at = strides_of(out_at)
    p.sizes[0], p.sizes[1] = out_sizes
    p.rows, p.terms = rows, terms
    p.group = channels // groups * c.phases * c.plane
    p.height, p.width = c.height, c.width
    p.double_precision = c.double_precision
    with nogil:
        if c.double_precision:
            pack(<const double*>w, <double*>a, where, groups, rows, terms, group_stride, row_stride)
        else:
            pack(<const float*>w, <float*>a, where, groups, rows, terms, group_stride, row_stride)
        memset(a + groups * blocks * terms * ROWS * item, 0, MARGIN * item)
        multiply_all(&c, &p, groups, images, count, parallel_for)


def weight_gradient(
    cnp.ndarray x, tuple x_at, tuple x_sizes, tuple steps, cnp.ndarray starts,
    tuple form, Py_ssize_t images, Py_ssize_t channels, Py_ssize_t groups, cnp.ndarray shifts,
    cnp.ndarray dy, tuple dy_at, tuple dy_sizes, cnp.ndarray origin, Py_ssize_t rows, cnp.ndarray total,
    Py_ssize_t count,
):
    """total (groups · rows, terms), float64, += Σ dy[n, g·rows + m, i, j] · plane(k)[i, j]; see `shifted_products`.

    `origin` is the one start (0, 0) of the planes of dy.
    """
    cdef Copy c = copy_of(x, x_at, x_sizes, steps, starts, form, images, channels)
    cdef Copy d = copy_of(dy, dy_at, dy_sizes, (1, 1), origin, form, images, groups * rows)
    cdef Gradient p
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(x)
    cdef Py_ssize_t first = 0
    cdef bint turned = rows >= SIDE_BY_SIDE
    cdef Py_ssize_t n = wide(c.double_precision)
    # numbers of the copy of dy
    cdef Py_ssize_t numbers = (
        groups * ((rows + n - 1) // n * n) * images * d.sizes[0] * d.sizes[1] if turned else groups * rows * d.plane
    )
    cdef cnp.npy_intp size = channels * c.phases * c.plane + numbers + 2 * MARGIN
    cdef cnp.ndarray scratch = cnp.PyArray_EMPTY(1, &size, cnp.PyArray_TYPE(x), 0)
    c.planes = aligned(cnp.PyArray_DATA(scratch))
    d.planes = <char*>c.planes + channels * c.phases * c.plane * item
    p.planes, p.dy = c.planes, d.planes
    p.total = <double*>cnp.PyArray_DATA(total)
    p.shifts = <const Py_ssize_t*>cnp.PyArray_DATA(shifts)
    p.rows, p.terms = rows, cnp.PyArray_SIZE(shifts) - 1
    p.group = channels // groups * c.phases * c.plane
    p.plane = c.plane
    p.row_tiles = (rows + 3) // 4
    p.term_blocks = (p.terms + TAPS - 1) // TAPS if turned else (p.terms + WEIGHTS - 1) // WEIGHTS
    p.sizes[0], p.sizes[1] = d.sizes[0], d.sizes[1]
    p.height, p.width = c.height, c.width
    p.at = d.at
    p.double_precision = c.double_precision
    with nogil:
        while first < count:
            c.first = d.first = first
            c.images = d.images = p.images = min(images, count - first)
            copy_all(&c, parallel_for)
            if turned:
                p.source = <const char*>d.x + first * d.at.image * item
                side_by_side(&p, groups)
            else:
                p.span = span_of(c.images, c.height, c.width, d.sizes)
                copy_all(&d, parallel_for)
                parallel_for(
                    gradient_task, &p, groups * p.row_tiles * p.term_blocks,
                    groups * rows * p.terms * (p.span / 8.0) * (item / 4.0),
                )
            first += images


# ---- in a plan -----------------------------------------------------------------------------------------------------

cdef struct Convolution:
    Copy copy
    Product product
    const Py_ssize_t* taps      # (terms, 2): the plane within its group, and where in it
    Py_ssize_t groups
    Py_ssize_t images           # that share a plane, at most


cdef inline Py_ssize_t scratch_planes(const Convolution* s, Py_ssize_t samples) noexcept nogil:
    # elements of the planes and of a margin behind the last
    return s.copy.channels * s.copy.phases * plane_of(&s.copy, min(s.images, samples)) + MARGIN


cdef Py_ssize_t convolution_scratch(const void* settings, Py_ssize_t samples) noexcept nogil:
    cdef const Convolution* s = <const Convolution*>settings
    cdef Py_ssize_t item = 8 if s.copy.double_precision else 4
    return scratch_planes(s, samples) * item + 64 + (s.product.terms + 1) * sizeof(Py_ssize_t)


cdef void run_convolution(const void* settings, Operands* o) noexcept nogil:
    cdef const Convolution* s = <const Convolution*>settings
    cdef Copy c = s.copy
    cdef Product p = s.product
    cdef Py_ssize_t item = 8 if c.double_precision else 4
    cdef Py_ssize_t size = scratch_planes(s, o.samples)
    cdef Py_ssize_t* shifts = <Py_ssize_t*>aligned(<char*>o.scratch + size * item)
    cdef Py_ssize_t k
    c.plane = plane_of(&c, min(s.images, o.samples))
    for k in range(p.terms):
        shifts[k] = s.taps[2 * k] * c.plane + s.taps[2 * k + 1]
    shifts[p.terms] = -1
    c.x, c.planes = o.x, o.scratch
    memset(<char*>o.scratch + (size - MARGIN) * item, 0, MARGIN * item)
    p.planes, p.shifts, p.out, p.residual = o.scratch, shifts, o.y, o.residual
    p.group = c.channels // s.groups * c.phases * c.plane
    multiply_all(&c, &p, s.groups, s.images, o.samples, o.each)


def convolution_rows(cnp.ndarray weight, Py_ssize_t groups):
    """Regular weights (out, in / groups, KH, KW) as `ConvolutionStep` takes them: (groups, blocks, terms, ROWS)."""
    cdef Py_ssize_t rows = cnp.PyArray_DIM(weight, 0) // groups
    cdef Py_ssize_t terms = cnp.PyArray_SIZE(weight) // max(<Py_ssize_t>1, cnp.PyArray_DIM(weight, 0))
    cdef cnp.npy_intp shape[4]
    cdef cnp.npy_intp count = terms
    cdef cnp.ndarray places = cnp.PyArray_EMPTY(1, &count, cnp.NPY_INTP, 0)
    cdef Py_ssize_t* where = <Py_ssize_t*>cnp.PyArray_DATA(places)
    cdef Py_ssize_t k
    cdef cnp.ndarray packed
    for k in range(terms):
        where[k] = k
    shape[0], shape[1], shape[2], shape[3] = groups, (rows + ROWS - 1) // ROWS, terms, ROWS
    packed = cnp.PyArray_EMPTY(4, shape, cnp.PyArray_TYPE(weight), 0)
    cdef void* a = cnp.PyArray_DATA(packed)
    cdef const void* w = cnp.PyArray_DATA(weight)
    if cnp.PyArray_TYPE(weight) == cnp.NPY_DOUBLE:
        pack(<const double*>w, <double*>a, where, groups, rows, terms, rows * terms, terms)
    else:
        pack(<const float*>w, <float*>a, where, groups, rows, terms, rows * terms, terms)
    return packed


cdef class ConvolutionStep(Step):
    """Convolution as a step of a plan.

    packed: from `convolution_rows`; taps (terms, 2), intp: the plane and the place in it of each term; the other
    arguments as in `shifted_products`.
    """
    cdef Convolution convolution

    def __cinit__(
        self, cnp.ndarray packed, object bias, Py_ssize_t rows, Py_ssize_t groups, Py_ssize_t channels, tuple x_at,
        tuple x_sizes, tuple steps, cnp.ndarray starts, tuple form, Py_ssize_t images, cnp.ndarray taps,
        tuple out_at, tuple out_sizes, object finisher,
    ):
        cdef Product* p = &self.convolution.product
        self.kept = (packed, bias, starts, taps)
        self.convolution.copy = copy_of(packed, x_at, x_sizes, steps, starts, form, images, channels)
        self.convolution.taps = <const Py_ssize_t*>cnp.PyArray_DATA(taps)
        self.convolution.groups, self.convolution.images = groups, images
        p.a = cnp.PyArray_DATA(packed)
        p.bias = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray?>bias)
        p.finish = finish_of(finisher)
        p.at = strides_of(out_at)
        p.sizes[0], p.sizes[1] = out_sizes
        p.rows, p.terms = rows, cnp.PyArray_DIM(packed, 2)
        p.height, p.width = self.convolution.copy.height, self.convolution.copy.width
        p.double_precision = self.convolution.copy.double_precision
        self.run, self.scratch, self.settings = run_convolution, convolution_scratch, &self.convolution
