# The one place where threads start. A kernel describes its work as a task: a function of (arguments, block number)
# that cannot fail, over blocks that its shape alone determines. Which thread runs a block never changes a bit.

ctypedef void (*task)(void* arguments, Py_ssize_t block) noexcept nogil

# Runs function(arguments, b) for b = 0 … blocks−1. `work` is the bytes the call moves or an equivalent: below the
# measured threshold, in a forked child, or with one thread, the loop runs in the calling thread.
cdef void parallel_for(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil

# The same, each thread beginning at the end of its share: for the second of two passes, which then meets in the cache
# what the first read last.
cdef void parallel_back(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil

# How many threads parallel_for would use; for kernels that choose between two schedules of the same blocks.
cdef int team_size(Py_ssize_t blocks, double work) noexcept nogil
