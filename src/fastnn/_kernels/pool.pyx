"""Maximum and average over windows of images, forward and backward, channels first or last.

Design
  (A) One body for both layouts: a chunk is up to LANES results that are neighbours in memory and take each window
      element together: output columns of one plane (channels first), or channels of one pixel (channels last). Their
      window elements lie `step` apart in the input. All LANES are loaded, within the whole input array, and those
      that do not count are masked: loops of constant length are vector code, however short the lines are.
  (B) Windows are walked element by element (kh, kw) outside that loop, with ranges trimmed to the input (a table, made
      once per call) instead of tests for padding.
  (C) Maximum keeps, for backward, where in its plane (image) each winner lies (int32); the first of equals, and NaN
      wins. Backward is one addition per result. A task owns whole planes (images), as many as make TASK bytes, since
      claiming a task costs as much as a tiny plane: no two threads add to one place, and the sums' order is fixed by
      the shape.
  (D) Averages add in float64 and divide once.
  (E) The usual windows, two by two, have chunks that reach across lines and planes: see pool_pairs.pxd.
"""

cimport numpy as cnp
from cython cimport floating
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset

from fastnn._kernels._plan cimport Operands, Step
from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.pool_pairs cimport LANES, in_pairs, pool_pairs, spread_pairs
from fastnn._kernels.window cimport Axis, axis_of, end_inside, first_inside, position

cnp.import_array()

__all__ = ["PoolStep", "pool_backward", "pool_forward"]

cdef enum:
    TASK = 32 * 1024
    WORK = 2    # a byte takes as long as moving so many, at least

cdef struct Pool:
    const void* x               # IN   (planes, H, W, run); dy (planes, OH, OW, run) in backward
    void* y                     # OUT  (planes, OH, OW, run); dx (planes, H, W, run) in backward
    int32_t* winner             # OUT  like the forward result, IN in backward; NULL for averages and where not wanted
    const Py_ssize_t* ranges    # IN   (KW, 2): the windows whose element kw is inside the input
    Axis h
    Axis w
    Py_ssize_t planes
    Py_ssize_t together         # planes of one task
    Py_ssize_t run              # 1, or channels
    Py_ssize_t total            # elements of x
    bint maximum
    bint count_padding
    Py_ssize_t divisor          # 0: the number of elements
    bint double_precision


cdef struct Chunk:
    # results oh, [at, at + n) of a plane's line of OW · run results
    Py_ssize_t oh
    Py_ssize_t at
    Py_ssize_t n


cdef struct Source:
    # where a chunk's results [low, high) find one window element in the plane: offset + j · step
    Py_ssize_t low
    Py_ssize_t high
    Py_ssize_t offset


cdef inline Source source_of(Pool* p, Chunk* chunk, Py_ssize_t ih, Py_ssize_t kw) noexcept nogil:
    cdef Source source
    cdef Py_ssize_t ow
    if p.run == 1:
        source.low = max(p.ranges[2 * kw] - chunk.at, <Py_ssize_t>0)
        source.high = min(p.ranges[2 * kw + 1] - chunk.at, chunk.n)
        source.offset = ih * p.w.size + position(&p.w, chunk.at, kw)
    else:
        ow = chunk.at // p.run
        source.low = 0
        source.high = chunk.n if p.ranges[2 * kw] <= ow < p.ranges[2 * kw + 1] else 0
        source.offset = (ih * p.w.size + position(&p.w, ow, kw)) * p.run + chunk.at % p.run
    return source


cdef inline Chunk chunk_at(Pool* p, Py_ssize_t oh, Py_ssize_t at) noexcept nogil:
    # chunks end with the line, and channels-last ones with the pixel
    cdef Chunk chunk
    cdef Py_ssize_t left = p.w.out - at if p.run == 1 else p.run - at % p.run
    chunk.oh = oh
    chunk.at = at
    chunk.n = min(<Py_ssize_t>LANES, left)
    return chunk


cdef inline void load(
    const floating* x, Py_ssize_t total, Py_ssize_t start, Py_ssize_t step, Source* source, floating* v,
) noexcept nogil:
    # v[j] = x[start + j · step] for j in [low, high), anything in the other lanes
    cdef floating two[2 * LANES]
    cdef Py_ssize_t j
    if step == 1 and 0 <= start <= total - LANES:
        memcpy(v, x + start, LANES * sizeof(floating))
    elif step == 2 and 0 <= start <= total - 2 * LANES:
        memcpy(two, x + start, 2 * LANES * sizeof(floating))
        for j in range(LANES):
            v[j] = two[2 * j]
    else:
        for j in range(LANES):
            v[j] = 0
        for j in range(source.low, source.high):
            v[j] = x[start + j * step]


# ---- maximum -------------------------------------------------------------------------------------------------------

cdef inline void max_chunk(
    Pool* p, const floating* x, Py_ssize_t plane, Chunk* chunk, floating* y, int32_t* winner,
) noexcept nogil:
    # IN x the whole array, plane the place of the plane's first element; OUT y, winner at the chunk's first result
    cdef floating best[LANES]
    cdef floating v[LANES]
    cdef int32_t where[LANES]
    cdef int32_t low, high, offset, lane, stride
    cdef bint take
    cdef Py_ssize_t step = p.w.stride if p.run == 1 else 1
    cdef Py_ssize_t ih, kh, kw, j
    cdef Source source
    stride = <int32_t>step
    for j in range(LANES):
        best[j] = <floating>(-1.0 / 0.0)
        where[j] = -1  # until the first element
    for kh in range(p.h.kernel):
        ih = position(&p.h, chunk.oh, kh)
        if ih < 0 or ih >= p.h.size:
            continue
        for kw in range(p.w.kernel):
            source = source_of(p, chunk, ih, kw)
            if source.low >= source.high:
                continue
            load(x, p.total, plane + source.offset, step, &source, v)
            low, high, offset = <int32_t>source.low, <int32_t>source.high, <int32_t>source.offset
            for lane in range(LANES):
                take = (v[lane] > best[lane]) | (v[lane] != v[lane]) | (where[lane] < 0)
                take = take & (lane >= low) & (lane < high)
                where[lane] = offset + lane * stride if take else where[lane]
                best[lane] = v[lane] if take else best[lane]
    if chunk.n == LANES:
        memcpy(y, best, LANES * sizeof(floating))
        if winner != NULL:
            memcpy(winner, where, LANES * sizeof(int32_t))
    else:
        for j in range(chunk.n):
            y[j] = best[j]
        if winner != NULL:
            for j in range(chunk.n):
                winner[j] = where[j]


cdef inline void max_plane_backward(Pool* p, Py_ssize_t plane, floating example) noexcept nogil:
    cdef Py_ssize_t count = p.h.out * p.w.out * p.run
    cdef const floating* dy = <const floating*>p.x + plane * count
    cdef const int32_t* winner = p.winner + plane * count
    cdef floating* dx = <floating*>p.y + plane * p.h.size * p.w.size * p.run
    cdef Py_ssize_t j
    memset(dx, 0, p.h.size * p.w.size * p.run * sizeof(floating))
    for j in range(count):
        if winner[j] >= 0:  # else the window saw padding only
            dx[winner[j]] += dy[j]


# ---- average -------------------------------------------------------------------------------------------------------

cdef inline double count_of(Pool* p, Py_ssize_t oh, Py_ssize_t ow) noexcept nogil:
    """What a sum over window (oh, ow) is divided by. The padding behind the input counts as far as it goes."""
    cdef Py_ssize_t top = position(&p.h, oh, 0)
    cdef Py_ssize_t left = position(&p.w, ow, 0)
    cdef Py_ssize_t bottom = min(top + p.h.kernel, p.h.size + p.h.padding)
    cdef Py_ssize_t right = min(left + p.w.kernel, p.w.size + p.w.padding)
    if p.divisor:
        return <double>p.divisor
    if not p.count_padding:
        top, left = max(top, <Py_ssize_t>0), max(left, <Py_ssize_t>0)
        bottom, right = min(bottom, p.h.size), min(right, p.w.size)
    return <double>((bottom - top) * (right - left))


cdef inline double run_sum(const floating* x, Py_ssize_t n) noexcept nogil:
    cdef double lanes[16]
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    memset(lanes, 0, sizeof(lanes))
    while i + 16 <= n:
        for j in range(16):
            lanes[j] += x[i + j]
        i += 16
    for j in range(n - i):
        lanes[j] += x[i + j]
    for j in range(8):
        lanes[j] += lanes[j + 8]
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]))


cdef inline void average_chunk(
    Pool* p, const floating* x, Py_ssize_t plane, Chunk* chunk, floating* y,
) noexcept nogil:
    # IN x the whole array, plane the place of the plane's first element; OUT y at the chunk's first result
    cdef double sums[LANES]
    cdef floating v[LANES]
    cdef int32_t low, high, lane
    cdef Py_ssize_t step = p.w.stride if p.run == 1 else 1
    cdef Py_ssize_t ih, kh, kw, j, left
    cdef Source source
    memset(sums, 0, sizeof(sums))
    for kh in range(p.h.kernel):
        ih = position(&p.h, chunk.oh, kh)
        if ih < 0 or ih >= p.h.size:
            continue
        if p.run == 1 and p.w.out == 1:  # one window over the whole width: along the row
            left = max(-p.w.padding, <Py_ssize_t>0)
            j = min(p.w.kernel - p.w.padding, p.w.size) - left
            sums[0] += run_sum(x + plane + ih * p.w.size + left, j)
            continue
        for kw in range(p.w.kernel):
            source = source_of(p, chunk, ih, kw)
            if source.low >= source.high:
                continue
            load(x, p.total, plane + source.offset, step, &source, v)
            low, high = <int32_t>source.low, <int32_t>source.high
            for lane in range(LANES):
                sums[lane] += v[lane] if (lane >= low) & (lane < high) else <floating>0.0
    for j in range(chunk.n):
        y[j] = <floating>(sums[j] / count_of(p, chunk.oh, (chunk.at + j) // p.run))


cdef inline void average_chunk_backward(Pool* p, const floating* dy, Chunk* chunk, floating* dx) noexcept nogil:
    # dy at the chunk's first result; dx the plane
    cdef floating shares[LANES]
    cdef Py_ssize_t step = p.w.stride if p.run == 1 else 1
    cdef Py_ssize_t ih, kh, kw, j
    cdef Source source
    for j in range(chunk.n):
        shares[j] = <floating>(dy[j] / count_of(p, chunk.oh, (chunk.at + j) // p.run))
    for kh in range(p.h.kernel):
        ih = position(&p.h, chunk.oh, kh)
        if ih < 0 or ih >= p.h.size:
            continue
        for kw in range(p.w.kernel):
            source = source_of(p, chunk, ih, kw)
            if step == 1:
                for j in range(source.low, source.high):
                    dx[source.offset + j] += shares[j]
            else:
                for j in range(source.low, source.high):
                    dx[source.offset + j * step] += shares[j]


# ---- planes --------------------------------------------------------------------------------------------------------

cdef inline void forward_plane(Pool* p, Py_ssize_t plane, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>p.x
    cdef Py_ssize_t origin = plane * p.h.size * p.w.size * p.run
    cdef Py_ssize_t line = p.w.out * p.run
    cdef Py_ssize_t start = plane * p.h.out * line
    cdef floating* y = <floating*>p.y
    cdef Py_ssize_t oh, at
    cdef Chunk chunk
    for oh in range(p.h.out):
        at = 0
        while at < line:
            chunk = chunk_at(p, oh, at)
            if p.maximum:
                max_chunk(p, x, origin, &chunk, y + start + at, p.winner + start + at if p.winner != NULL else NULL)
            else:
                average_chunk(p, x, origin, &chunk, y + start + at)
            at += chunk.n
        start += line


cdef inline void backward_plane(Pool* p, Py_ssize_t plane, floating example) noexcept nogil:
    cdef Py_ssize_t line = p.w.out * p.run
    cdef const floating* dy = <const floating*>p.x + plane * p.h.out * line
    cdef floating* dx = <floating*>p.y + plane * p.h.size * p.w.size * p.run
    cdef Py_ssize_t count = p.divisor if p.divisor else p.w.kernel * p.h.kernel
    cdef Py_ssize_t oh, at
    cdef Chunk chunk
    if p.maximum:
        max_plane_backward(p, plane, example)
        return
    memset(dx, 0, p.h.size * p.w.size * p.run * sizeof(floating))
    # where the divisor is a number of this precision its quotients are the same in double precision
    if in_pairs(&p.h, &p.w, p.run) and <double><floating>count == <double>count:
        spread_pairs(dy, &p.h, &p.w, <floating>count, dx)
        return
    for oh in range(p.h.out):
        at = 0
        while at < line:
            chunk = chunk_at(p, oh, at)
            average_chunk_backward(p, dy + at, &chunk, dx)
            at += chunk.n
        dy += line


cdef inline void forward_planes(Pool* p, Py_ssize_t first, Py_ssize_t end, floating example) noexcept nogil:
    cdef Py_ssize_t plane
    if in_pairs(&p.h, &p.w, p.run):
        pool_pairs(
            <const floating*>p.x, &p.h, &p.w, first, end, p.maximum, p.divisor, <floating*>p.y, p.winner,
        )
    else:
        for plane in range(first, end):
            forward_plane(p, plane, example)


cdef void forward_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Pool* p = <Pool*>arguments
    cdef Py_ssize_t first = task * p.together
    cdef Py_ssize_t end = min(p.planes, first + p.together)
    if p.double_precision:
        forward_planes(p, first, end, <double>0)
    else:
        forward_planes(p, first, end, <float>0)


cdef void backward_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Pool* p = <Pool*>arguments
    cdef Py_ssize_t plane
    for plane in range(task * p.together, min(p.planes, (task + 1) * p.together)):
        if p.double_precision:
            backward_plane(p, plane, <double>0)
        else:
            backward_plane(p, plane, <float>0)


# ---- entry points --------------------------------------------------------------------------------------------------

cdef cnp.ndarray ranges_of(const Axis* w):
    cdef cnp.npy_intp size = 2 * w.kernel
    cdef cnp.ndarray table = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INTP, 0)
    cdef Py_ssize_t* ranges = <Py_ssize_t*>cnp.PyArray_DATA(table)
    cdef Py_ssize_t kw
    for kw in range(w.kernel):
        ranges[2 * kw] = first_inside(w, kw)
        ranges[2 * kw + 1] = end_inside(w, kw)
    return table


cdef inline Py_ssize_t together_of(double bytes) noexcept nogil:
    # planes of one task, from those that one moves
    return max(<Py_ssize_t>1, <Py_ssize_t>(TASK / (bytes + 1)))


cdef void run_tasks(
    bint backward, cnp.ndarray x, cnp.ndarray y, object winner, Py_ssize_t planes, Py_ssize_t run, tuple h, tuple w,
    bint maximum, bint count_padding, Py_ssize_t divisor,
) except *:
    cdef Pool p
    p.h, p.w = axis_of(h), axis_of(w)
    cdef cnp.ndarray table = ranges_of(&p.w)
    p.ranges = <const Py_ssize_t*>cnp.PyArray_DATA(table)
    p.x, p.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    p.winner = NULL if winner is None else <int32_t*>cnp.PyArray_DATA(<cnp.ndarray>winner)
    cdef double bytes = cnp.PyArray_NBYTES(x) + cnp.PyArray_NBYTES(y)
    p.planes, p.run = planes, run
    p.together = together_of(bytes / planes) if planes else 1
    p.total = cnp.PyArray_SIZE(x)
    p.maximum, p.count_padding, p.divisor = maximum, count_padding, divisor
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    with nogil:
        parallel_for(
            backward_task if backward else forward_task, &p, (planes + p.together - 1) // p.together, WORK * bytes,
        )


def pool_forward(
    cnp.ndarray x, cnp.ndarray y, object winner, Py_ssize_t planes, Py_ssize_t run, tuple h, tuple w,
    bint maximum, bint count_padding=True, Py_ssize_t divisor=0,
):
    """y (planes, OH, OW, run) from x (planes, H, W, run), both C-contiguous; `winner` int32 like y, or None."""
    run_tasks(False, x, y, winner, planes, run, h, w, maximum, count_padding, divisor)


def pool_backward(
    cnp.ndarray dy, cnp.ndarray dx, object winner, Py_ssize_t planes, Py_ssize_t run, tuple h, tuple w,
    bint maximum, bint count_padding=True, Py_ssize_t divisor=0,
):
    """dx (planes, H, W, run) from dy (planes, OH, OW, run), both C-contiguous; `winner` as forward wrote it."""
    run_tasks(True, dy, dx, winner, planes, run, h, w, maximum, count_padding, divisor)


# ---- in a plan -----------------------------------------------------------------------------------------------------

cdef void run_pool(const void* settings, Operands* o) noexcept nogil:
    cdef Pool p = (<const Pool*>settings)[0]
    cdef double bytes = (p.h.size * p.w.size + p.h.out * p.w.out) * p.run * (8.0 if p.double_precision else 4.0)
    p.x, p.y = o.x, o.y
    p.planes *= o.samples
    p.together = together_of(bytes)
    p.total = p.planes * p.h.size * p.w.size * p.run
    o.each(forward_task, &p, (p.planes + p.together - 1) // p.together, WORK * bytes * p.planes)


cdef class PoolStep(Step):
    """Pooling as a step of a plan: `planes` of each sample; the other arguments as in `pool_forward`."""
    cdef Pool pool      # its planes are those of one sample

    def __cinit__(
        self, Py_ssize_t planes, Py_ssize_t run, tuple h, tuple w, bint maximum, bint count_padding,
        Py_ssize_t divisor, bint double_precision,
    ):
        cdef Pool* p = &self.pool
        p.h, p.w, p.planes, p.run, p.winner = axis_of(h), axis_of(w), planes, run, NULL
        p.maximum, p.count_padding, p.divisor = maximum, count_padding, divisor
        p.double_precision = double_precision
        self.kept = ranges_of(&p.w)
        p.ranges = <const Py_ssize_t*>cnp.PyArray_DATA(<cnp.ndarray>self.kept)
        self.run, self.settings = run_pool, &self.pool
