# Images copied into planes with zero padding around them.
#
#   (a) With stride s the copy sorts rows and columns into s·s planes, the phases, by their remainder. Then kernel
#       element k of all windows is one flat shift: window q takes planes[shift(k) + q].
#   (b) Several images share a plane, as many as make about a megabyte, so that the planes stay in cache.

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memcpy, memset

from fastnn._kernels._plan cimport loop
from fastnn._kernels.runs cimport copy_run
from fastnn._kernels.turned cimport copy_transposed

cdef enum:
    MARGIN = 32     # zeros behind each plane: tiles read beyond its end
    MULTIPLE = 16   # elements that planes are rounded up to
    TOGETHER = 16   # channels that are neighbours in memory and copied together
    SIDE_BY_SIDE = 16   # result channels of a group, from which on vectors are of channels and not of pixels
    SINGLE = 2          # result channels of a group, up to which they are taken one by one
    SPAN = 16       # zeros that are written together; no more than MARGIN


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


cdef inline void copy_planes(Copy* p, Py_ssize_t task, floating example) noexcept nogil:
    # one plane of `together` channels that are neighbours in memory: all its images and its margin
    cdef Py_ssize_t channel = task // p.phases * p.together
    cdef Py_ssize_t count = min(p.together, p.channels - channel)
    cdef Py_ssize_t phase = task % p.phases
    cdef Py_ssize_t gap = p.phases * p.plane
    cdef floating* d = <floating*>p.planes + (channel * p.phases + phase) * p.plane
    cdef const floating* x = <const floating*>p.x + p.first * p.at.image + channel * p.at.channel
    cdef Inside rows = inside(p.starts[2 * phase], p.steps[0], p.sizes[0], p.height)
    cdef Inside columns = inside(p.starts[2 * phase + 1], p.steps[1], p.sizes[1], p.width)
    cdef Py_ssize_t _image, r
    x += p.starts[2 * phase] * p.at.row + p.starts[2 * phase + 1] * p.at.column
    for _image in range(p.images):
        zero(d, count, gap, rows.low * p.width)
        for r in range(rows.low, rows.high):
            if p.together == 1 and p.steps[1] * p.at.column == 2:
                zero(d + r * p.width, 1, 0, p.width)
                copy_halves(
                    d + r * p.width + columns.low, x + r * p.steps[0] * p.at.row + 2 * columns.low,
                    columns.high - columns.low,
                )
            elif p.together == 1 and p.steps[1] * p.at.column == 1:
                copy_row(d + r * p.width, x + r * p.steps[0] * p.at.row, p.width, columns.low, columns.high)
            else:
                zero(d + r * p.width, count, gap, columns.low)
                copy_transposed(
                    x + r * p.steps[0] * p.at.row + columns.low * p.steps[1] * p.at.column, p.steps[1] * p.at.column,
                    columns.high - columns.low, count, d + r * p.width + columns.low, gap,
                )
                zero(d + r * p.width + columns.high, count, gap, p.width - columns.high)
        zero(d + rows.high * p.width, count, gap, (p.height - rows.high) * p.width)
        d += p.height * p.width
        x += p.at.image
    zero(d, count, gap, MARGIN)


cdef struct Inside:
    # rows or columns [low, high) of a plane are inside the image
    Py_ssize_t low
    Py_ssize_t high


cdef inline Inside inside(Py_ssize_t start, Py_ssize_t step, Py_ssize_t size, Py_ssize_t n) noexcept nogil:
    cdef Inside range
    range.low = min(n, (step - 1 - start) // step) if start < 0 else 0
    range.high = max(range.low, min(n, (size - 1 - start) // step + 1)) if size > start else range.low
    return range


cdef inline void copy_row(
    floating* d, const floating* x, Py_ssize_t width, Py_ssize_t low, Py_ssize_t high,
) noexcept nogil:
    # d[j] = x[j] in [low, high), else 0, for j < width. Zeros go up to the next whole SPAN: what is written too much
    # belongs to the next row, which comes later, or to the margin.
    cdef floating zeros[SPAN]
    cdef Py_ssize_t j
    memset(zeros, 0, sizeof(zeros))
    if low > 0 or high < width:
        for j in range((width + SPAN - 1) // SPAN):
            memcpy(d + j * SPAN, zeros, sizeof(zeros))
    copy_run(x + low, d + low, high - low)


cdef inline void copy_halves(floating* d, const floating* x, Py_ssize_t n) noexcept nogil:
    # d[j] = x[2·j]
    cdef floating pairs[2 * SPAN]
    cdef floating v[SPAN]
    cdef Py_ssize_t j
    while n > SPAN:  # so that all the pairs are inside the row
        memcpy(pairs, x, sizeof(pairs))
        for j in range(SPAN):
            v[j] = pairs[2 * j]
        memcpy(d, v, sizeof(v))
        d += SPAN
        x += 2 * SPAN
        n -= SPAN
    for j in range(n):
        d[j] = x[2 * j]


cdef inline void zero(floating* d, Py_ssize_t count, Py_ssize_t gap, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t c, j
    for c in range(count):
        for j in range(n):
            d[c * gap + j] = 0


cdef inline void copy_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Copy* p = <Copy*>arguments
    if p.double_precision:
        copy_planes(p, task, <double>0)
    else:
        copy_planes(p, task, <float>0)


cdef inline double plane_bytes(Copy* p) noexcept nogil:
    # of all planes
    return 1.0 * p.channels * p.phases * p.plane * (8 if p.double_precision else 4)


cdef inline void copy_all(Copy* p, double following, loop each) noexcept nogil:
    # by as many threads as are worth it, unless one alone does the work that follows
    cdef Py_ssize_t tasks = (p.channels + p.together - 1) // p.together * p.phases
    each(copy_task, p, tasks, min(following, 2 * plane_bytes(p)))


# ---- what an entry point needs ---------------------------------------------------------------------------------------

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
    return (images * p.height * p.width + MARGIN + MULTIPLE - 1) // MULTIPLE * MULTIPLE


cdef inline Copy copy_of(
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
