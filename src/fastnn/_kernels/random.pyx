"""Fills from the counter-based generator: raw words, uniform and normal numbers, permutations.

Design
  (A) A stream is (seed, stream number); an array takes one stream from its start, so element i depends on (seed,
      stream, i) alone: not on threads, not on the array's size.
  (B) A task fills a fixed number of chunks; a chunk cut by the end of the array goes through a buffer.
"""

cimport numpy as cnp
from cython cimport floating
from libc.math cimport nextafter, nextafterf
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.normal cimport normal_chunk
from fastnn._kernels.threefry cimport (
    CHUNK, MAX_ROUNDS, MOST_CHUNKS, PLANE_MAIN, Key, draw_chunks, stream_key, threefry4x32 as threefry4x32_block,
)

cnp.import_array()

__all__ = ["fill_normal", "fill_uniform", "fill_words", "permutation", "threefry4x32", "uniform_interval"]

cdef enum:
    STEP = MOST_CHUNKS  # chunks made in step
    STEPS = 8
    BLOCK = STEPS * STEP  # chunks to a task: 2048 words

# A random number costs about as much as moving this many bytes (measured); the thread policy counts bytes.
cdef double WORD_WORK = 8
cdef double NORMAL_WORK = 24

ctypedef struct Fill:
    void* out  # OUT  (size,)
    Py_ssize_t size
    Key key
    double a, b


cdef Fill new_fill(cnp.ndarray out, uint64_t seed, uint64_t stream) except *:
    cdef Fill fill
    if not cnp.PyArray_ISCARRAY(out):
        raise ValueError("out must be C-contiguous, aligned and writeable")
    fill.out = cnp.PyArray_DATA(out)
    fill.size = cnp.PyArray_SIZE(out)
    fill.key = stream_key(seed, stream)
    return fill


# Number of tasks over `size` numbers of `words` words each.
cdef inline Py_ssize_t blocks(Py_ssize_t size, Py_ssize_t words) noexcept nogil:
    cdef Py_ssize_t per_block = BLOCK * CHUNK // words
    return (size + per_block - 1) // per_block


def threefry4x32(counter, key, int rounds=20):
    """One block, (4,) words from a (4,) counter and a (4,) key, by the code that the fills use."""
    cdef uint32_t x[4]
    cdef Key k
    cdef int i
    if not 0 <= rounds <= MAX_ROUNDS:
        raise ValueError(f"rounds must be between 0 and {MAX_ROUNDS}, got {rounds}")
    if len(counter) != 4 or len(key) != 4:
        raise ValueError(f"counter and key must have four 32-bit words each, got {len(counter)} and {len(key)}")
    for i in range(4):
        x[i] = counter[i]
        k.word[i] = key[i]
    threefry4x32_block(x, &k, rounds, 1)
    return x[0], x[1], x[2], x[3]


# -- raw words ---------------------------------------------------------------------------------------------------------

cdef void words_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Fill fill = (<Fill*>arguments)[0]  # a copy that no store into out can change
    cdef uint32_t* out = <uint32_t*>fill.out
    cdef uint32_t buffer[STEP * CHUNK]
    cdef Py_ssize_t step, index, left
    for step in range(block * STEPS, (block + 1) * STEPS):
        index = step * STEP
        left = fill.size - index * CHUNK
        if left <= 0:
            return
        if left >= STEP * CHUNK:
            draw_chunks(out + index * CHUNK, &fill.key, PLANE_MAIN, index, STEP)
        else:
            draw_chunks(buffer, &fill.key, PLANE_MAIN, index, STEP)
            memcpy(out + index * CHUNK, buffer, left * sizeof(uint32_t))


def fill_words(cnp.ndarray out, uint64_t seed, uint64_t stream):
    """Fill a uint32 array with the stream's words."""
    if cnp.PyArray_TYPE(out) != cnp.NPY_UINT32:
        raise TypeError(f"out must be uint32, got {out.dtype}")
    cdef Fill fill = new_fill(out, seed, stream)
    with nogil:
        parallel_for(words_task, &fill, blocks(fill.size, 1), WORD_WORK * fill.size)


# -- uniform -----------------------------------------------------------------------------------------------------------

ctypedef struct Interval:
    double low, width, top


ctypedef struct UniformFill:
    Fill fill
    Interval interval


# low + width·u with u of 24 or 53 bits in [0, 1); rounding may reach the upper end, so `top`, the number below it,
# bounds the result.
cdef inline inlined uniform_chunk(
    floating* x,  # OUT  (CHUNK,) or (CHUNK/2,)
    const uint32_t* words,  # IN   (CHUNK,)
    const Interval* interval,
) noexcept nogil:
    cdef floating low = <floating>interval.low, width = <floating>interval.width, top = <floating>interval.top
    cdef floating u
    cdef int j
    if floating is float:
        for j in range(CHUNK):
            u = low + width * (<float><int32_t>(words[j] >> 8) * <float>(2.0 ** -24))
            x[j] = u if u < top else top
    else:
        for j in range(CHUNK // 2):
            u = <double><int32_t>(words[j] >> 5) * 2.0 ** 26 + <double><int32_t>(words[CHUNK // 2 + j] >> 6)
            u = low + width * (u * 2.0 ** -53)
            x[j] = u if u < top else top


cdef inline inlined uniform_block(const UniformFill* shared, floating* out, Py_ssize_t block) noexcept nogil:
    cdef UniformFill uniform = shared[0]  # a copy that no store into out can change
    cdef Py_ssize_t count = CHUNK * sizeof(float) // sizeof(floating)
    cdef uint32_t words[STEP * CHUNK]
    cdef floating buffer[STEP * CHUNK]
    cdef floating* target
    cdef Py_ssize_t step, index, left, k
    for step in range(block * STEPS, (block + 1) * STEPS):
        index = step * STEP
        left = uniform.fill.size - index * count
        if left <= 0:
            return
        target = out + index * count if left >= STEP * count else buffer
        draw_chunks(words, &uniform.fill.key, PLANE_MAIN, index, STEP)
        for k in range(STEP):
            uniform_chunk(target + k * count, words + k * CHUNK, &uniform.interval)
        if left < STEP * count:
            memcpy(out + index * count, buffer, left * sizeof(floating))


cdef void uniform_task_float(void* arguments, Py_ssize_t block) noexcept nogil:
    uniform_block(<UniformFill*>arguments, <float*>(<UniformFill*>arguments).fill.out, block)


cdef void uniform_task_double(void* arguments, Py_ssize_t block) noexcept nogil:
    uniform_block(<UniformFill*>arguments, <double*>(<UniformFill*>arguments).fill.out, block)


def uniform_interval(double low, double high, bint single):
    """(low, width, top) of [low, high) in float32 if `single`, else in float64; an overflowing width is infinite."""
    if single:
        return <float>low, <float>(<float>high - <float>low), nextafterf(<float>high, <float>low)
    return low, high - low, nextafter(high, low)


def fill_uniform(cnp.ndarray out, uint64_t seed, uint64_t stream, double low, double width, double top):
    """Fill a float32 or float64 array with low + width·u, u uniform in [0, 1), nowhere more than `top`."""
    cdef UniformFill uniform
    uniform.fill = new_fill(out, seed, stream)
    uniform.interval = Interval(low, width, top)
    cdef Py_ssize_t size = uniform.fill.size
    if cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT32:
        with nogil:
            parallel_for(uniform_task_float, &uniform, blocks(size, 1), WORD_WORK * size)
    elif cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT64:
        with nogil:
            parallel_for(uniform_task_double, &uniform, blocks(size, 2), 2 * WORD_WORK * size)
    else:
        raise TypeError(f"out must be float32 or float64, got {out.dtype}")


# -- normal ------------------------------------------------------------------------------------------------------------

cdef inline void normal_block(Fill* fill, floating* out, Py_ssize_t block) noexcept nogil:
    cdef Py_ssize_t count = CHUNK * sizeof(float) // sizeof(floating)
    cdef floating buffer[CHUNK]
    cdef floating* target
    cdef Py_ssize_t index, left
    for index in range(block * BLOCK, (block + 1) * BLOCK):
        left = fill.size - index * count
        if left <= 0:
            return
        target = out + index * count if left >= count else buffer
        normal_chunk(target, &fill.key, index, <floating>fill.b, <floating>fill.a)
        if left < count:
            memcpy(out + index * count, buffer, left * sizeof(floating))


cdef void normal_task_float(void* arguments, Py_ssize_t block) noexcept nogil:
    normal_block(<Fill*>arguments, <float*>(<Fill*>arguments).out, block)


cdef void normal_task_double(void* arguments, Py_ssize_t block) noexcept nogil:
    normal_block(<Fill*>arguments, <double*>(<Fill*>arguments).out, block)


def fill_normal(cnp.ndarray out, uint64_t seed, uint64_t stream, double mean, double std):
    """Fill a float32 or float64 array with mean + std·ε, ε standard normal."""
    cdef Fill fill = new_fill(out, seed, stream)
    fill.a = mean
    fill.b = std
    if cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT32:
        with nogil:
            parallel_for(normal_task_float, &fill, blocks(fill.size, 1), NORMAL_WORK * fill.size)
    elif cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT64:
        with nogil:
            parallel_for(normal_task_double, &fill, blocks(fill.size, 2), 2 * NORMAL_WORK * fill.size)
    else:
        raise TypeError(f"out must be float32 or float64, got {out.dtype}")


# -- permutations ------------------------------------------------------------------------------------------------------

cdef void shuffle(int64_t* x, uint32_t n, const Key* key) noexcept nogil:
    """Fisher and Yates's shuffle; indices below m without bias by Lemire's multiplication with rejection (2019)."""
    cdef uint32_t words[CHUNK]
    cdef uint32_t i, m, threshold
    cdef uint64_t product, drawn = 0
    for i in range(n):
        x[i] = i
    for m in range(n, 1, -1):
        while True:
            if drawn % CHUNK == 0:
                draw_chunks(words, key, PLANE_MAIN, drawn // CHUNK, 1)
            product = <uint64_t>words[drawn % CHUNK] * m
            drawn += 1
            threshold = (0 - m) % m if <uint32_t>product < m else 0
            if <uint32_t>product >= threshold:
                break
        i = <uint32_t>(product >> 32)
        x[m - 1], x[i] = x[i], x[m - 1]


def permutation(Py_ssize_t n, uint64_t seed, uint64_t stream):
    """The numbers 0 … n−1 in random order, (n,) int64."""
    if not 0 <= n < 2**32:
        raise ValueError(f"n must be at least 0 and below 2**32, got {n}")
    cdef cnp.npy_intp size = n
    cdef cnp.ndarray out = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INT64, 0)
    cdef Key key = stream_key(seed, stream)
    with nogil:
        shuffle(<int64_t*>cnp.PyArray_DATA(out), <uint32_t>n, &key)
    return out
