"""The gradient of a convolution with respect to its weights: sums over pixels of dy times shifted images.

Design
  (A) Images are planes as in the convolution itself: see planes.pxd.
  (B) From SIDE_BY_SIDE output channels of a group on, dy is copied with its channels side by side: each weight is one
      running sum of at most PIXELS pixels, then float64 (channel_sums.pxd). The planes' padding costs nothing here.
  (C) With fewer channels, tiles of 4 by 3 weights sum over whole planes, at most QUANTUM elements, then float64
      (pixel_sums.pxd); padding columns of dy are zero. Up to SINGLE channels are taken one by one.
"""

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memset

from fastnn._kernels._runtime cimport less_shared, parallel_for
from fastnn._kernels.channel_sums cimport TAPS, WIDEST, Patch, patch_sums, wide
from fastnn._kernels.inlining cimport apart
from fastnn._kernels.pixel_sums cimport gradient_tile, row_sums
from fastnn._kernels.planes cimport (
    MARGIN, SIDE_BY_SIDE, SINGLE, Copy, Strides, aligned, copy_all, copy_of, plane_bytes, span_of
)
from fastnn._kernels.runs cimport copy_run
from fastnn._kernels.turned cimport copy_transposed

cnp.import_array()

__all__ = ["weight_gradient"]

cdef enum:
    QUANTUM = 2048
    WEIGHTS = 48    # of one row, in one task
    PIXELS = 256


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


# ---- pixels side by side ---------------------------------------------------------------------------------------------

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


cdef apart row_tile(
    const floating* d, const floating* x, const Py_ssize_t* shifts, Py_ssize_t n, double* sums,
) noexcept nogil:
    row_sums(d, x, shifts, n, sums)


cdef inline void singles_block(Gradient* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t row = task // p.term_blocks     # of all groups
    cdef Py_ssize_t first = task % p.term_blocks * TAPS
    cdef Py_ssize_t terms = min(<Py_ssize_t>TAPS, p.terms - first)
    cdef const floating* planes = <const floating*>p.planes + row // p.rows * p.group
    cdef const floating* dy = <const floating*>p.dy + row * p.plane
    cdef double* total = p.total + row * p.terms + first
    cdef Py_ssize_t shifts[TAPS]
    cdef double sums[TAPS]
    cdef Py_ssize_t q, k
    for k in range(TAPS):  # those beyond the last repeat it and are not added
        shifts[k] = p.shifts[first + min(k, terms - 1)]
    q = 0
    while q < p.span:
        row_tile(dy + q, planes + q, shifts, min(<Py_ssize_t>QUANTUM, p.span - q), sums)
        for k in range(terms):
            total[k] += sums[k]
        q += QUANTUM


cdef void singles_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Gradient* p = <Gradient*>arguments
    if p.double_precision:
        singles_block(p, task, <double>0)
    else:
        singles_block(p, task, <float>0)


cdef void gradient_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Gradient* p = <Gradient*>arguments
    if p.double_precision:
        gradient_block(p, task, <double>0)
    else:
        gradient_block(p, task, <float>0)


# ---- channels side by side -------------------------------------------------------------------------------------------

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
                copy_run(s + j * p.at.column, d + j * n, rows)
        else:
            copy_transposed(s, p.at.channel, rows, p.sizes[1], d, n)
        for j in range(p.sizes[1] if rows < n else 0):
            for m in range(rows, n):
                d[j * n + m] = 0
        d += p.sizes[1] * n


cdef void turn_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Gradient* p = <Gradient*>arguments
    if p.double_precision:
        turn_block(p, task, <double>0)
    else:
        turn_block(p, task, <float>0)


cdef void side_by_side(Gradient* p, Py_ssize_t groups, double work) noexcept nogil:
    cdef Py_ssize_t n = wide(p.double_precision)
    cdef Py_ssize_t item = 8 if p.double_precision else 4
    cdef Py_ssize_t blocks = groups * ((p.rows + n - 1) // n)
    cdef double numbers = <double>blocks * p.images * p.sizes[0] * p.sizes[1] * n
    parallel_for(turn_task, p, blocks * p.images, min(work, 2.0 * numbers * item))
    parallel_for(taps_task, p, blocks * p.term_blocks, work)


# ---- entry point -----------------------------------------------------------------------------------------------------

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
    cdef double work
    cdef bint turned = rows >= SIDE_BY_SIDE
    cdef bint single = rows <= SINGLE
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
    p.row_tiles = rows if single else (rows + 3) // 4
    p.term_blocks = (p.terms + TAPS - 1) // TAPS if turned or single else (p.terms + WEIGHTS - 1) // WEIGHTS
    p.sizes[0], p.sizes[1] = d.sizes[0], d.sizes[1]
    p.height, p.width = c.height, c.width
    p.at = d.at
    p.double_precision = c.double_precision
    with nogil:
        while first < count:
            c.first = d.first = first
            c.images = d.images = p.images = min(images, count - first)
            # in bytes: a core multiplies about three numbers in the time it moves a byte; threads read both copies
            p.span = span_of(c.images, c.height, c.width, d.sizes)
            work = <double>groups * rows * p.terms * p.span / 3 * (item / 4)
            work = less_shared(work, plane_bytes(&c) + numbers * item)
            copy_all(&c, work, parallel_for)
            if turned:
                p.source = <const char*>d.x + first * d.at.image * item
                side_by_side(&p, groups, work)
            else:
                copy_all(&d, work, parallel_for)
                parallel_for(
                    singles_task if single else gradient_task, &p, groups * p.row_tiles * p.term_blocks, work)
            first += images
