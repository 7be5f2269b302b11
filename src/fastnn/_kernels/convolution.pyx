"""Two-dimensional convolution and its gradient with respect to the input: the product of weights with shifted images.

Design
  (A) No window is ever unfolded. Images are copied once into planes with zero padding around them (planes.pxd), in
      which kernel element k of all windows is one flat shift.
  (B) Result and gradient of the input are both `shifted_products`: out[m, q] = bias[m] + Σ a[m, k]·planes[shift(k) + q]
      over k in order, one fused multiply-add each. Every number is one sum in one order, so neither threads nor
      the ISA nor the tile's form change a bit, and it is the same sum in both layouts.
  (C) Sums are in registers for a tile of channels by pixels. Vectors are of channels where a group has SIDE_BY_SIDE
      results (channel_tiles.pxd), else of pixels (pixel_tiles.pxd). Depthwise convolutions of images whose channels
      come last are elsewhere (depthwise.pyx), with the same sums.
  (D) Packing the weights, copying and multiplying are separate parallel loops.
  (E) In a plan, weights are packed once, and residual and activation are applied to a tile before it is stored.
"""

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memset

from fastnn._kernels._plan cimport Operands, Step, finish_of, loop
from fastnn._kernels._runtime cimport less_shared, parallel_for
from fastnn._kernels.channel_tiles cimport (
    PAIR, PIXELS, WIDEST, Place, exchange_channels, exchange_pixels, pixels_by_channels, walk, wide
)
from fastnn._kernels.convolution_product cimport Product, blocks_of
from fastnn._kernels.pixel_tiles cimport LONG_RUN, RUN, pixels_task, singles_task
from fastnn._kernels.inlining cimport apart
from fastnn._kernels.planes cimport (
    MARGIN, MULTIPLE, SIDE_BY_SIDE, SINGLE, Copy, aligned, copy_all, copy_of, plane_bytes, plane_of, span_of, strides_of
)
from fastnn._kernels.tiles cimport COLUMNS, ROWS
from fastnn._kernels.turned cimport copy_transposed

cnp.import_array()

__all__ = ["PLANE_MARGIN", "PLANE_MULTIPLE", "ConvolutionStep", "convolution_rows", "shifted_products"]

PLANE_MARGIN, PLANE_MULTIPLE = MARGIN, MULTIPLE

cdef enum:
    WORK = 32 * 1024    # multiplications of `wide` numbers in one task, about


# ---- packing ---------------------------------------------------------------------------------------------------------

cdef struct Pack:
    const void* w
    void* a                     # OUT  (groups, blocks, terms, block)
    const Py_ssize_t* places    # row m, term k of a group is at w[m · row_stride + places[k]]
    bint in_order               # whether places[k] = k
    Py_ssize_t groups
    Py_ssize_t rows
    Py_ssize_t block
    Py_ssize_t terms
    Py_ssize_t group_stride
    Py_ssize_t row_stride
    bint double_precision


cdef inline Py_ssize_t block_of(Py_ssize_t rows, bint double_precision) noexcept nogil:
    # channels of a tile
    if rows >= SIDE_BY_SIDE:
        return wide(double_precision)
    return 1 if rows <= SINGLE else ROWS


cdef inline Py_ssize_t packed_size(
    Py_ssize_t groups, Py_ssize_t rows, Py_ssize_t terms, Py_ssize_t block,
) noexcept nogil:
    return groups * ((rows + block - 1) // block * block) * terms


cdef inline void pack_block(Pack* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t blocks = (p.rows + p.block - 1) // p.block
    cdef Py_ssize_t first = task % blocks * p.block
    cdef Py_ssize_t rows = min(p.block, p.rows - first)
    cdef const floating* w = <const floating*>p.w + task // blocks * p.group_stride + first * p.row_stride
    cdef floating* a = <floating*>p.a + task * p.terms * p.block
    cdef Py_ssize_t k, m
    if p.in_order:
        copy_transposed(w, p.row_stride, rows, p.terms, a, p.block)
    else:
        for k in range(p.terms):
            for m in range(rows):
                a[k * p.block + m] = w[m * p.row_stride + p.places[k]]
    for k in range(p.terms if rows < p.block else 0):
        for m in range(rows, p.block):
            a[k * p.block + m] = 0


cdef void pack_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Pack* p = <Pack*>arguments
    if p.double_precision:
        pack_block(p, task, <double>0)
    else:
        pack_block(p, task, <float>0)


cdef void pack(Pack* p, double following) noexcept nogil:
    cdef Py_ssize_t blocks = (p.rows + p.block - 1) // p.block
    cdef Py_ssize_t k
    p.in_order = True
    for k in range(p.terms):
        p.in_order = p.in_order and p.places[k] == k
    # the transposition of a number takes as long as moving some twenty bytes; one thread if one alone multiplies
    parallel_for(
        pack_task, p, p.groups * blocks, min(following, 20.0 * packed_size(p.groups, p.rows, p.terms, p.block)))


# ---- channels side by side -------------------------------------------------------------------------------------------

cdef apart wide_tile(
    const floating* a, const floating* x, const Py_ssize_t* places, const Py_ssize_t* shifts, const floating* start,
    floating* out,
) noexcept nogil:
    if floating is float:
        pixels_by_channels(a, x, places, shifts, start, out, COLUMNS, COLUMNS)
    else:
        pixels_by_channels(a, x, places, shifts, start, out, COLUMNS // 2, COLUMNS // 2)


cdef apart half_tile(
    const floating* a, const floating* x, const Py_ssize_t* places, const Py_ssize_t* shifts, const floating* start,
    floating* out,
) noexcept nogil:
    if floating is float:
        pixels_by_channels(a, x, places, shifts, start, out, COLUMNS // 2, COLUMNS)
    else:
        pixels_by_channels(a, x, places, shifts, start, out, COLUMNS // 4, COLUMNS // 2)


cdef inline void channels_block(Product* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t stride = COLUMNS if floating is float else COLUMNS // 2
    cdef Py_ssize_t blocks = blocks_of(p)
    cdef Py_ssize_t block = task // p.chunks % blocks
    cdef Py_ssize_t group = task // p.chunks // blocks
    cdef Py_ssize_t q = task % p.chunks * p.chunk
    cdef Py_ssize_t pixels = p.sizes[0] * p.sizes[1]
    cdef Py_ssize_t end = min(q + p.chunk, p.images * pixels)
    cdef Py_ssize_t rows = min(stride, p.rows - block * stride)
    cdef Py_ssize_t row = group * p.rows + block * stride
    cdef const floating* planes = <const floating*>p.planes + group * p.group
    cdef const floating* a = <const floating*>p.a + (group * blocks + block) * p.terms * stride
    cdef const floating* bias = <const floating*>p.bias
    cdef floating* out = <floating*>p.out + row * p.at.channel
    cdef floating* residual = NULL if p.residual == NULL else <floating*>p.residual + row * p.at.channel
    cdef floating start[WIDEST]
    cdef floating values[PAIR * WIDEST]
    cdef floating turned[PAIR * WIDEST]
    cdef Py_ssize_t sources[PAIR]
    cdef Py_ssize_t targets[PAIR]
    cdef Place place
    cdef Py_ssize_t m, n, t
    place.image = q // pixels
    place.row = q % pixels // p.sizes[1]
    place.column = q % pixels % p.sizes[1]
    memset(values, 0, sizeof(values))
    memset(turned, 0, sizeof(turned))
    for m in range(WIDEST):
        start[m] = bias[row + m] if bias != NULL and m < rows else <floating>0.0
    while q < end:
        n = min(<Py_ssize_t>PAIR, end - q)
        walk(p, &place, n, sources, targets)
        t = 0
        while t < n:
            if rows <= stride // 2:
                half_tile(a, planes, sources + t, p.shifts, start, values + t * stride)
            else:
                wide_tile(a, planes, sources + t, p.shifts, start, values + t * stride)
            t += PIXELS
        if p.at.channel == 1:
            if residual != NULL:
                exchange_channels(values, residual, targets, n, rows, stride, True)
            if p.finish.apply != NULL:
                p.finish.apply(&p.finish, values, PAIR * stride)
            exchange_channels(values, out, targets, n, rows, stride, False)
        else:
            copy_transposed(values, stride, PAIR, rows, turned, PAIR)
            if residual != NULL:
                exchange_pixels(turned, residual, targets, n, rows, p.at.channel, True)
            if p.finish.apply != NULL:
                p.finish.apply(&p.finish, turned, PAIR * stride)
            exchange_pixels(turned, out, targets, n, rows, p.at.channel, False)
        q += PAIR


cdef void channels_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Product* p = <Product*>arguments
    if p.double_precision:
        channels_block(p, task, <double>0)
    else:
        channels_block(p, task, <float>0)


# ---- multiplication --------------------------------------------------------------------------------------------------

cdef double work_of(Copy* c, Product* p, Py_ssize_t groups) noexcept nogil:
    # Of multiplying, in bytes: a core multiplies about three numbers in the time it moves a byte. Each thread reads all
    # weights and its pixels of the planes, half of which others have copied.
    cdef Py_ssize_t item = 8 if p.double_precision else 4
    cdef double weights = 1.0 * groups * blocks_of(p) * p.block * p.terms
    cdef Py_ssize_t pixels = p.images * p.sizes[0] * p.sizes[1]
    if p.rows < SIDE_BY_SIDE:
        pixels = span_of(p.images, p.height, p.width, p.sizes)
    return less_shared(weights * pixels / 3 * (item / 4), weights * item + plane_bytes(c) / 2)


cdef void multiply(Product* p, Py_ssize_t groups, double work, loop each) noexcept nogil:
    cdef Py_ssize_t pixels = p.images * p.sizes[0] * p.sizes[1]
    cdef Py_ssize_t blocks = blocks_of(p)
    cdef Py_ssize_t span
    if p.rows >= SIDE_BY_SIDE:
        # whole pairs of tiles, enough for each task, few enough for all threads
        p.chunk = min(<Py_ssize_t>256, max(<Py_ssize_t>2, WORK // 16 // max(<Py_ssize_t>1, p.terms)) * 16)
        p.chunks = (pixels + p.chunk - 1) // p.chunk
        each(channels_task, p, groups * blocks * p.chunks, work)
    else:
        span = span_of(p.images, p.height, p.width, p.sizes)
        p.chunk = LONG_RUN if p.rows <= SINGLE else RUN
        p.chunks = (span + p.chunk - 1) // p.chunk
        each(singles_task if p.rows <= SINGLE else pixels_task, p, groups * p.chunks, work)


cdef void multiply_all(
    Copy* c, Product* p, Py_ssize_t groups, Py_ssize_t images, Py_ssize_t count, loop each,
) noexcept nogil:
    # `images` at a time
    cdef Py_ssize_t first = 0
    cdef double work
    while first < count:
        c.first = p.first = first
        c.images = p.images = min(images, count - first)
        work = work_of(c, p, groups)
        copy_all(c, work, each)
        multiply(p, groups, work, each)
        first += images


# ---- the convolution itself, and its gradient with respect to the input ----------------------------------------------

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
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(x)
    cdef Py_ssize_t block = block_of(rows, c.double_precision)
    cdef Py_ssize_t numbers = packed_size(groups, rows, terms, block)
    cdef cnp.npy_intp size = channels * c.phases * c.plane + numbers + 2 * MARGIN
    cdef cnp.ndarray scratch = cnp.PyArray_EMPTY(1, &size, cnp.PyArray_TYPE(x), 0)
    c.planes = aligned(cnp.PyArray_DATA(scratch))
    cdef char* a = <char*>c.planes + channels * c.phases * c.plane * item
    cdef Pack packing
    packing.w, packing.a = cnp.PyArray_DATA(weight), a
    packing.places = <const Py_ssize_t*>cnp.PyArray_DATA(places)
    packing.groups, packing.rows, packing.block, packing.terms = groups, rows, block, terms
    packing.group_stride, packing.row_stride = group_stride, row_stride
    packing.double_precision = c.double_precision
    p.planes, p.a = c.planes, a
    p.residual, p.finish.apply = NULL, NULL
    p.bias = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray>bias)
    p.shifts = <const Py_ssize_t*>cnp.PyArray_DATA(shifts)
    p.out = <char*>cnp.PyArray_DATA(out) + out_offset * item
    p.at = strides_of(out_at)
    p.sizes[0], p.sizes[1] = out_sizes
    p.rows, p.block, p.terms = rows, block, terms
    p.group = channels // groups * c.phases * c.plane
    p.height, p.width = c.height, c.width
    p.double_precision = c.double_precision
    with nogil:
        c.images = p.images = min(images, count)
        pack(&packing, work_of(&c, &p, groups))
        memset(a + numbers * item, 0, MARGIN * item)
        multiply_all(&c, &p, groups, images, count, parallel_for)


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
    """Regular weights (out, in / groups, KH, KW) as `ConvolutionStep` takes them: (groups, blocks, terms, block)."""
    cdef Pack p
    cdef cnp.npy_intp shape[4]
    cdef cnp.npy_intp count
    cdef Py_ssize_t* places
    cdef Py_ssize_t k
    p.groups, p.rows = groups, cnp.PyArray_DIM(weight, 0) // groups
    p.terms = cnp.PyArray_SIZE(weight) // max(<Py_ssize_t>1, cnp.PyArray_DIM(weight, 0))
    p.group_stride, p.row_stride = p.rows * p.terms, p.terms
    p.double_precision = cnp.PyArray_TYPE(weight) == cnp.NPY_DOUBLE
    p.block = block_of(p.rows, p.double_precision)
    count = p.terms
    cdef cnp.ndarray order = cnp.PyArray_EMPTY(1, &count, cnp.NPY_INTP, 0)
    places = <Py_ssize_t*>cnp.PyArray_DATA(order)
    for k in range(p.terms):
        places[k] = k
    shape[0], shape[1], shape[2], shape[3] = groups, (p.rows + p.block - 1) // p.block, p.terms, p.block
    cdef cnp.ndarray packed = cnp.PyArray_EMPTY(4, shape, cnp.PyArray_TYPE(weight), 0)
    p.w, p.a, p.places = cnp.PyArray_DATA(weight), cnp.PyArray_DATA(packed), places
    with nogil:
        pack(&p, 0)     # once for a plan: one thread will do
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
        p.rows, p.block, p.terms = rows, cnp.PyArray_DIM(packed, 3), cnp.PyArray_DIM(packed, 2)
        p.height, p.width = self.convolution.copy.height, self.convolution.copy.width
        p.double_precision = self.convolution.copy.double_precision
        self.run, self.scratch, self.settings = run_convolution, convolution_scratch, &self.convolution
