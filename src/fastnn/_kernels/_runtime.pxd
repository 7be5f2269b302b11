# The one place where threads start. A kernel describes its work as a task: a function of (arguments, block number)
# that cannot fail, over blocks that its shape alone determines. Which thread runs a block never changes a bit.

ctypedef void (*task)(void* arguments, Py_ssize_t block) noexcept nogil

# Runs function(arguments, b) for b = 0 … blocks−1. `work` is the bytes the call moves or an equivalent: below the
# measured threshold, in a forked child, or with one thread, the loop runs in the calling thread.
cdef void parallel_for(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil

# The same, each thread beginning at the end of its share: for the second of two passes, which then meets in the cache
# what the first read last.
cdef void parallel_back(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil

# The length of n items' blocks, in whole `wholes`: as few blocks as `most` items each allow, an even number of equal
# ones. Of two blocks, or three, a short last one would leave a thread with little.
cdef inline Py_ssize_t even_block(Py_ssize_t n, Py_ssize_t most, Py_ssize_t whole) noexcept nogil:
    cdef Py_ssize_t blocks = max(<Py_ssize_t>1, (n + most - 1) // most)
    if blocks > 1:
        blocks += blocks % 2
    return max(<Py_ssize_t>1, ((n + blocks - 1) // blocks + whole - 1) // whole) * whole

# What `work` amounts to where threads read so many bytes that others have just written, and that are written anew at
# the next call. Lines come over from another core's cache one by one: a byte takes as long as twelve of a core's own.
# Beyond SHARED they come in streams, or from a cache that is nobody's, and cost little beside the work.
cdef enum:
    SHARED = 1 << 16

cdef inline double less_shared(double work, double nbytes) noexcept nogil:
    return max(0.0, work - 12 * min(nbytes, <double>SHARED))

# How many threads parallel_for would use; for kernels that choose between two schedules of the same blocks.
cdef int team_size(Py_ssize_t blocks, double work) noexcept nogil
