"""Dropout: y = kept ? scale·x + shift : fill; the mask is a function of (seed, stream, position) and never stored.

Design
  (A) A chunk of 64 random words decides 128 elements with 16 bits each: elements 0 … 63 of the chunk take the upper
      halves of the words, their first bit flipped, elements 64 … 127 the lower. Dropped if the 16 bits are below the
      first 16 bits of p. (The flip makes the upper half's comparison one of signed words, which AVX2 has.)
  (B) Bits equal to the first 16 bits of p (once in 65 536 elements) are a tie: 48 more bits of another plane decide, at
      the element's position, so the probability of a drop is p to 2⁻⁶⁴ for the price of 16 bits. Ties are looked for
      in vectors over a run of groups and settled one by one, after the run was written with all of them kept.
  (C) Selection, not multiplication by a mask: a dropped inf or NaN is gone.
  (D) Plain dropout has no shift and fills with zero: the same body inlined with these constants, so that selection
      and product are one instruction; alpha dropout needs both.
  (E) The products go through a local array: neither in place nor out of place need the compiler look for overlaps.
  (F) Large results, unless in place, bypass the caches: a run is made in a buffer and streamed out.
  (G) Small arrays are divided evenly, one task to a thread. In smaller tasks the thread that is ready first would take
      some of the other's: their lines, still in the other's cache from the call before, take longer to come over (and
      to go back at the next call) than their elements to compute.
  (H) One mask over several axes (broadcast) is a small 0/1 array drawn by this same kernel from ones and then applied
      along lines, each of which has either one mask value or one for each element.
"""

cimport numpy as cnp
from cython cimport floating
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastnn._kernels._runtime cimport even_block, parallel_for, team_size
from fastnn._kernels._streams cimport StreamCounter
from fastnn._kernels.gate cimport like, regular, same_form, shifted
from fastnn._kernels.inlining cimport apart, fetch, inlined
from fastnn._kernels.streaming cimport STREAM_BYTES, stream_copy, stream_end
from fastnn._kernels.threefry cimport (
    CHUNK, LANES, MOST_CHUNKS, PLANE_MAIN, PLANE_TIES, ROUNDS, Key, draw_chunks, stream_key, threefry4x32
)

cnp.import_array()

__all__ = ["apply_mask", "draw_dropout", "dropout", "ready", "redraw_dropout"]

cdef enum:
    GROUP = 128  # elements decided by one chunk
    STEP = MOST_CHUNKS  # chunks made in step
    BATCH = STEP * GROUP
    BATCHES = 8
    RUN = BATCHES * BATCH  # elements between two looks at the ties
    STREAM_RUN = 2 * BATCH  # the same where results go through a buffer, which should not fill the first-level cache
    AHEAD = 2 * BATCH  # elements between the ones that are computed and the ones that are fetched
    SMALL = 1 << 18  # elements up to which an array has one task for each thread
    TASKS = 64  # of a larger one, enough for a team to share evenly
    MOST_BLOCK = 64 * RUN  # elements of a task, a megabyte of float32: long stretches of memory are read ahead better
    LINE = 8192  # elements of a broadcast task
    TIE = 0x80008000

ctypedef struct Rule:
    double scale, shift, fill

ctypedef struct Dropout:
    const void* x  # IN   (size,)
    void* y  # OUT  (size,)
    Py_ssize_t size
    Py_ssize_t block  # elements to a task, whole runs
    Key key
    uint64_t first  # the group at which x starts
    int32_t upper, lower  # the first 16 bits of p as the two halves of a word are compared with them
    uint32_t both  # and as both halves look at a tie
    uint64_t rest  # the next 48 bits of p
    bint streamed  # whether y bypasses the caches
    Rule rule


# -- one mask value for each element -----------------------------------------------------------------------------------

# Bits of TIE are set if and only if a half of z is zero (bits outside TIE mean nothing).
cdef inline uint32_t tie_bits(uint32_t z) noexcept nogil:
    return (z - 0x00010001) & ~z


# The elements that one chunk decides.
cdef inline inlined select_group(
    floating* y,  # OUT  (GROUP,), may be x
    const floating* x,  # IN   (GROUP,)
    const uint32_t* words,  # IN   (CHUNK,)
    const Dropout* d,
    bint affine,
) noexcept nogil:
    cdef floating scale = <floating>d.rule.scale, shift = <floating>d.rule.shift
    cdef floating fill = <floating>d.rule.fill if affine else 0
    cdef floating first[LANES]
    cdef floating second[LANES]
    cdef uint32_t word[LANES]
    cdef int i, j
    for i in range(CHUNK // LANES):
        for j in range(LANES):
            first[j] = x[i * LANES + j] * scale + shift if affine else x[i * LANES + j] * scale
        for j in range(LANES):
            second[j] = x[CHUNK + i * LANES + j] * scale + shift if affine else x[CHUNK + i * LANES + j] * scale
        for j in range(LANES):
            word[j] = words[i * LANES + j]
        for j in range(LANES):
            y[i * LANES + j] = first[j] if <int32_t>word[j] >= d.upper else fill
        for j in range(LANES):
            y[CHUNK + i * LANES + j] = second[j] if <int32_t>(word[j] & 0xFFFF) >= d.lower else fill


cdef inline inlined select_batch(
    floating* y,  # OUT  (BATCH,), may be x
    const floating* x,  # IN   (BATCH,)
    const uint32_t* words,  # IN   (STEP·CHUNK,)
    uint32_t* ties,  # OUT  (LANES,), bits of TIE set where an element may tie, and was kept
    uint32_t* any_tie,  # IN and OUT  (LANES,), the same of all batches so far
    const Dropout* d,
    bint affine,
) noexcept nogil:
    cdef uint32_t tie
    cdef int j, k
    for j in range(LANES):
        tie = 0
        for k in range(STEP * CHUNK // LANES):
            tie |= tie_bits(words[k * LANES + j] ^ d.both)
        ties[j] = tie
        any_tie[j] |= tie
    # Not a loop: words and elements then take turns in the registers, a sixth of the time with x off its cache lines.
    select_group(y, x, words, d, affine)
    select_group(y + GROUP, x + GROUP, words + CHUNK, d, affine)
    select_group(y + 2 * GROUP, x + 2 * GROUP, words + 2 * CHUNK, d, affine)
    select_group(y + 3 * GROUP, x + 3 * GROUP, words + 3 * CHUNK, d, affine)


# Settle the ties of a batch: of the elements kept although their 16 bits equal p's, drop the ones whose next 48 bits
# say so. Not inlined: compilers would make vectors of it, and draw a block for every element.
cdef apart settle(
    floating* y,  # OUT  (n,)
    Py_ssize_t n,
    const uint32_t* ties,  # IN   (LANES,)
    const Dropout* d,
    uint64_t index,
) noexcept nogil:
    cdef uint32_t words[STEP * CHUNK]
    cdef uint32_t differ, tie = 0
    cdef Py_ssize_t lane, k, j
    for lane in range(LANES):
        tie |= ties[lane]
    if tie & TIE == 0:
        return
    draw_chunks(words, &d.key, PLANE_MAIN, index, STEP)
    for lane in range(LANES):
        if ties[lane] & TIE == 0:
            continue
        for k in range(STEP * CHUNK // LANES):
            differ = words[k * LANES + lane] ^ d.both
            j = k * LANES // CHUNK * GROUP + k * LANES % CHUNK + lane
            if differ >> 16 == 0 and j < n:
                settle_element(y + j, d, index * GROUP + j)
            if differ & 0xFFFF == 0 and j + CHUNK < n:
                settle_element(y + j + CHUNK, d, index * GROUP + j + CHUNK)


cdef apart settle_element(floating* y, const Dropout* d, uint64_t position) noexcept nogil:
    cdef uint32_t x[4]
    x[0] = <uint32_t>position
    x[1] = <uint32_t>(position >> 32)
    x[2] = PLANE_TIES
    x[3] = 0
    threefry4x32(x, &d.key, ROUNDS, 1)
    if (<uint64_t>(x[0] & 0xFFFF) << 32 | x[1]) < d.rest:
        y[0] = <floating>d.rule.fill


cdef inline inlined drop_block(
    floating* y, const floating* x, const Dropout* shared, Py_ssize_t block, bint affine
) noexcept nogil:
    cdef Dropout d = shared[0]  # a copy that no store into y can change
    cdef Py_ssize_t start = block * d.block, end = min(start + d.block, d.size), n, k
    cdef uint64_t index  # of the run's first group
    cdef const floating* source
    cdef floating* target
    cdef floating results[STREAM_RUN]
    cdef floating tail[BATCH]
    cdef uint32_t words[STEP * CHUNK]
    cdef uint32_t ties[BATCHES * LANES]
    cdef uint32_t any_tie[LANES]
    cdef uint32_t tie
    cdef int j
    while start < end:
        n = min(end - start, <Py_ssize_t>(STREAM_RUN if d.streamed else RUN))
        index = d.first + start // GROUP
        source = x + start
        target = &results[0] if d.streamed else y + start
        for j in range(LANES):
            any_tie[j] = 0
        for k in range(n // BATCH):  # no calls inside: they would spill every vector register
            draw_chunks(words, &d.key, PLANE_MAIN, index + STEP * k, STEP)
            # not beyond the task: another thread may write there
            fetch(source + min(k * BATCH + AHEAD, end - start - BATCH), BATCH * sizeof(floating))
            select_batch(target + k * BATCH, source + k * BATCH, words, ties + k * LANES, any_tie, &d, affine)
        if n % BATCH > 0:
            k = n // BATCH
            draw_chunks(words, &d.key, PLANE_MAIN, index + STEP * k, STEP)
            memcpy(tail, source + k * BATCH, n % BATCH * sizeof(floating))
            select_batch(tail, tail, words, ties + k * LANES, any_tie, &d, affine)
            memcpy(target + k * BATCH, tail, n % BATCH * sizeof(floating))
        tie = 0
        for j in range(LANES):
            tie |= any_tie[j]
        if tie & TIE and d.rest:
            for k in range((n + BATCH - 1) // BATCH):
                settle(target + k * BATCH, min(n - k * BATCH, <Py_ssize_t>BATCH), ties + k * LANES, shared,
                       index + STEP * k)
        if d.streamed:
            stream_copy(y + start, results, n * sizeof(floating))
        start += n
    if d.streamed:
        stream_end()


cdef void drop_task_float(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Dropout* d = <Dropout*>arguments
    if d.rule.shift == 0 and d.rule.fill == 0:
        drop_block(<float*>d.y, <const float*>d.x, d, block, False)
    else:
        drop_block(<float*>d.y, <const float*>d.x, d, block, True)


cdef void drop_task_double(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Dropout* d = <Dropout*>arguments
    if d.rule.shift == 0 and d.rule.fill == 0:
        drop_block(<double*>d.y, <const double*>d.x, d, block, False)
    else:
        drop_block(<double*>d.y, <const double*>d.x, d, block, True)


# Whether results for x may be written straight into `out`.
cdef inline bint direct(cnp.ndarray x, object out) noexcept:
    return same_form(x, out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out) and not shifted(x, <cnp.ndarray>out)


# A new array for the result, or `out` where it is given and fits.
cdef inline cnp.ndarray output(cnp.ndarray x, object out):
    if out is None:
        return like(x)
    if not direct(x, out):
        raise ValueError("out must be a writeable array like the input, which it may be but not partly overlap")
    return out


def ready(object x):
    """Whether `dropout` takes this as it is: then it need not pass the array gate."""
    return regular(x)


cdef cnp.ndarray run(
    cnp.ndarray x, double p, const Rule* rule, uint64_t seed, uint64_t stream, uint64_t first, object out
):
    cdef cnp.ndarray y = output(x, out)
    cdef Dropout d
    if p >= 1:
        memset(cnp.PyArray_DATA(y), 0, cnp.PyArray_NBYTES(y))
        return y
    d.x = cnp.PyArray_DATA(x)
    d.y = cnp.PyArray_DATA(y)
    d.size = cnp.PyArray_SIZE(x)
    d.key = stream_key(seed, stream)
    d.first = first
    d.lower = <int32_t>(p * 65536.0)
    d.upper = (d.lower - 32768) * 65536
    d.both = <uint32_t>d.upper | <uint32_t>d.lower
    d.rest = <uint64_t>((p * 65536.0 - d.lower) * 281474976710656.0)  # all exact: powers of two
    d.rule = rule[0]
    d.streamed = d.x != d.y and cnp.PyArray_NBYTES(y) >= STREAM_BYTES
    cdef double work = 2.0 * cnp.PyArray_NBYTES(x)
    cdef Py_ssize_t runs = max((d.size + RUN - 1) // RUN, <Py_ssize_t>1)
    cdef Py_ssize_t tasks = team_size(runs, work) if d.size <= SMALL else TASKS
    d.block = min((runs + tasks - 1) // tasks * RUN, <Py_ssize_t>MOST_BLOCK)
    cdef Py_ssize_t blocks = (d.size + d.block - 1) // d.block
    if blocks == 1:  # shorter than handing over the interpreter's lock
        if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
            drop_task_float(&d, 0)
        else:
            drop_task_double(&d, 0)
        return y
    with nogil:
        if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
            parallel_for(drop_task_float, &d, blocks, work)
        else:
            parallel_for(drop_task_double, &d, blocks, work)
    return y


def dropout(cnp.ndarray x, double p, double scale, uint64_t seed, uint64_t stream, object out=None,
            double shift=-0.0, double fill=0.0, uint64_t first=0):
    """kept ? scale·x + shift : fill, from group `first` of the stream's mask; p = 1 gives zeros."""
    if not regular(x):
        raise TypeError("x must be a C-contiguous array of float32 or float64")
    cdef Rule rule = Rule(scale, shift, fill)
    return run(x, p, &rule, seed, stream, first, out)


def draw_dropout(object x, object p, str mode, object source, object out=None):
    """The quick way for small arrays: `dropout` with the next stream of `source` and the scale that `mode` asks for.

    Returns (result, seed, stream, scale); None, and nothing taken, for whatever needs checks or conversions first.
    """
    if not (regular(x) and type(p) is float and 0.0 <= <double>p <= 1.0 and isinstance(source, StreamCounter)):
        return None
    if out is not None and not direct(<cnp.ndarray>x, out):
        return None
    cdef Rule rule = Rule(1.0, -0.0, 0.0)
    if mode == "inverted":
        rule.scale = 1.0 / (1.0 - <double>p) if <double>p < 1.0 else 0.0
    elif mode != "classic":
        return None
    cdef uint64_t stream = (<StreamCounter>source).next()
    y = run(<cnp.ndarray>x, p, &rule, (<StreamCounter>source)._seed, stream, 0, out)
    return y, (<StreamCounter>source)._seed, stream, rule.scale


def redraw_dropout(object dy, uint64_t seed, uint64_t stream, double p, double scale, tuple axes, tuple shape, dtype):
    """The quick way backward: `dropout` of dy with the fields of its context; None for what needs checks first."""
    if axes or (p == 0 and scale == 1) or not regular(dy) or dy.dtype is not dtype or dy.shape != shape:
        return None
    cdef Rule rule = Rule(scale, -0.0, 0.0)
    return run(<cnp.ndarray>dy, p, &rule, seed, stream, 0, None)


# -- one mask value for many elements ----------------------------------------------------------------------------------

ctypedef struct Broadcast:
    const void* x  # IN   (outer, repeats, middle, inner)
    const void* mask  # IN   (outer, middle), 0 where dropped
    void* y  # OUT  like x
    Py_ssize_t repeats, middle, inner
    Py_ssize_t lines, length  # the same elements as lines
    Py_ssize_t group, pieces  # lines to a task, or tasks to a line
    Rule rule


cdef inline inlined apply_along(
    floating* y,  # OUT  (n,), may be x
    const floating* x,  # IN   (n,)
    const floating* mask,  # IN   (n,)
    Py_ssize_t n,
    const Rule* rule,
) noexcept nogil:
    cdef floating scale = <floating>rule.scale, shift = <floating>rule.shift, fill = <floating>rule.fill
    cdef floating value
    cdef Py_ssize_t i
    for i in range(n):
        value = x[i] * scale + shift
        y[i] = value if mask[i] != 0 else fill


cdef inline inlined apply_one(
    floating* y,  # OUT  (n,), may be x
    const floating* x,  # IN   (n,)
    bint kept,
    Py_ssize_t n,
    const Rule* rule,
) noexcept nogil:
    cdef floating scale = <floating>rule.scale, shift = <floating>rule.shift, fill = <floating>rule.fill
    cdef Py_ssize_t i
    if kept:
        for i in range(n):
            y[i] = x[i] * scale + shift
    else:
        for i in range(n):
            y[i] = fill


cdef inline inlined broadcast_block(
    floating* y, const floating* x, const floating* mask, const Broadcast* b, Py_ssize_t block
) noexcept nogil:
    cdef Py_ssize_t line, start, n, outer
    for line in range(block // b.pieces * b.group, min(block // b.pieces * b.group + b.group, b.lines)):
        start = block % b.pieces * LINE
        n = b.length if b.pieces == 1 else min(<Py_ssize_t>LINE, b.length - start)
        if b.inner > 1:
            outer = line // (b.repeats * b.middle)
            apply_one(y + line * b.length + start, x + line * b.length + start,
                      mask[outer * b.middle + line % b.middle] != 0, n, &b.rule)
        else:
            outer = line // b.repeats
            apply_along(y + line * b.length + start, x + line * b.length + start,
                        mask + outer * b.middle + start, n, &b.rule)


cdef void broadcast_task_float(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Broadcast* b = <Broadcast*>arguments
    broadcast_block(<float*>b.y, <const float*>b.x, <const float*>b.mask, b, block)


cdef void broadcast_task_double(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Broadcast* b = <Broadcast*>arguments
    broadcast_block(<double*>b.y, <const double*>b.x, <const double*>b.mask, b, block)


def apply_mask(cnp.ndarray x, cnp.ndarray mask, Py_ssize_t repeats, Py_ssize_t inner, double scale, object out=None,
               double shift=-0.0, double fill=0.0):
    """mask ≠ 0 ? scale·x + shift : fill, where x is (outer, repeats, middle, inner) and mask (outer, middle)."""
    if mask.ndim != 2 or not (regular(x) and regular(mask)) or cnp.PyArray_TYPE(mask) != cnp.PyArray_TYPE(x):
        raise ValueError("mask must be a matrix of x's dtype, both C-contiguous")
    if cnp.PyArray_SIZE(mask) * repeats * inner != cnp.PyArray_SIZE(x):
        raise ValueError(f"mask {mask.size} x repeats {repeats} x inner {inner} must be x's size, got {x.size}")
    cdef cnp.ndarray y = output(x, out)
    cdef Broadcast b
    cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
    if size == 0:
        return y
    b.x = cnp.PyArray_DATA(x)
    b.mask = cnp.PyArray_DATA(mask)
    b.y = cnp.PyArray_DATA(y)
    b.repeats = repeats
    b.middle = cnp.PyArray_DIM(mask, 1)
    b.inner = inner
    b.length = inner if inner > 1 else b.middle
    b.lines = size // b.length
    b.group = even_block(b.lines, max(<Py_ssize_t>1, LINE // b.length), 1)
    b.pieces = max(1, (b.length + LINE - 1) // LINE)
    b.rule.scale = scale
    b.rule.shift = shift
    b.rule.fill = fill
    cdef Py_ssize_t blocks = (b.lines + b.group - 1) // b.group * b.pieces
    cdef double work = 0.75 * cnp.PyArray_NBYTES(x)  # moving is all there is to do, and the mask is read by all
    with nogil:
        if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
            parallel_for(broadcast_task_float, &b, blocks, work)
        else:
            parallel_for(broadcast_task_double, &b, blocks, work)
    return y
