"""Gaussian noise on an array: y = x·(1 + σε) or x + σε, where ε is a function of (seed, stream, position).

Design
  (A) ε is what `fill_normal` writes for the same stream, so noise and normal fills have one definition.
  (B) A chunk of normals is made in a buffer in the cache and used at once: memory sees x and y only.
"""

cimport numpy as cnp
from cython cimport floating
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.normal cimport normal_chunk
from fastnn._kernels.threefry cimport CHUNK, Key, stream_key

cnp.import_array()

__all__ = ["noise"]

cdef enum:
    BLOCK = 32  # chunks to a task

# Making a normal costs about as much as moving this many bytes (measured); the thread policy counts bytes.
cdef double NORMAL_WORK = 24

ctypedef struct Noise:
    const void* x  # IN   (size,)
    void* y  # OUT  (size,)
    Py_ssize_t size
    Key key
    double sigma
    bint multiply


cdef inline inlined noise_block(floating* y, const floating* x, const Noise* noise, Py_ssize_t block) noexcept nogil:
    cdef Py_ssize_t count = CHUNK * sizeof(float) // sizeof(floating)
    cdef floating factor[CHUNK]
    cdef floating values[CHUNK]
    cdef Py_ssize_t i, index, n
    for index in range(block * BLOCK, (block + 1) * BLOCK):
        n = min(count, noise.size - index * count)
        if n <= 0:
            return
        normal_chunk(factor, &noise.key, index, <floating>noise.sigma, <floating>noise.multiply)
        memcpy(values, x + index * count, n * sizeof(floating))
        if noise.multiply:
            for i in range(count):
                values[i] = values[i] * factor[i]
        else:
            for i in range(count):
                values[i] = values[i] + factor[i]
        memcpy(y + index * count, values, n * sizeof(floating))


cdef void noise_task_float(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Noise* noise = <Noise*>arguments
    noise_block(<float*>noise.y, <const float*>noise.x, noise, block)


cdef void noise_task_double(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Noise* noise = <Noise*>arguments
    noise_block(<double*>noise.y, <const double*>noise.x, noise, block)


def noise(cnp.ndarray x, cnp.ndarray y, double sigma, bint multiply, uint64_t seed, uint64_t stream):
    """y = x·(1 + σε) or x + σε; y may be x."""
    if not (cnp.PyArray_ISCARRAY_RO(x) and cnp.PyArray_ISCARRAY(y) and cnp.PyArray_SAMESHAPE(x, y)
            and cnp.PyArray_TYPE(x) == cnp.PyArray_TYPE(y)):
        raise ValueError("x and y must be C-contiguous arrays of one shape and dtype, y writeable")
    cdef Noise arguments
    arguments.x = cnp.PyArray_DATA(x)
    arguments.y = cnp.PyArray_DATA(y)
    arguments.size = cnp.PyArray_SIZE(x)
    arguments.key = stream_key(seed, stream)
    arguments.sigma = sigma
    arguments.multiply = multiply
    cdef Py_ssize_t floats = cnp.PyArray_NBYTES(x) // sizeof(float)
    cdef Py_ssize_t blocks = (floats + BLOCK * CHUNK - 1) // (BLOCK * CHUNK)
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        with nogil:
            parallel_for(noise_task_float, &arguments, blocks, NORMAL_WORK * floats)
    elif cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64:
        with nogil:
            parallel_for(noise_task_double, &arguments, blocks, NORMAL_WORK * floats)
    else:
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
