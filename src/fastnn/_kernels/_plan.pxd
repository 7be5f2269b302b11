# A plan is a list of steps that the kernels make and that run one after the other without Python in between.
#
# A step is a function and its settings, both owned by the kernel module that made it. It knows the form of one sample;
# how many samples there are, and where they lie, comes with each run: one step serves every batch, in many threads at
# once. A step's results for a sample depend on that sample alone.

from fastnn._kernels._runtime cimport task

# How a step runs the blocks of its work: `parallel_for`, or the same loop in the calling thread.
ctypedef void (*loop)(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil

cdef struct Operands:
    const void* x           # IN   (samples, …)
    const void* residual    # IN   like y, is added to it; or NULL
    void* y                 # OUT  (samples, …); overlaps nothing
    void* scratch           # as many bytes as Step.scratch asks for, from a cache line on
    Py_ssize_t samples
    loop each
    void* failures          # a Python list; steps in Python put their exceptions there

ctypedef void (*runner)(const void* settings, Operands* o) noexcept nogil
ctypedef Py_ssize_t (*sizer)(const void* settings, Py_ssize_t samples) noexcept nogil

cdef class Step:
    cdef runner run
    cdef sizer scratch      # bytes; or NULL: none
    cdef const void* settings
    cdef object kept        # what the settings point into

# What is done to a result while it is in cache: an element-wise activation of n neighbours, or nothing.
ctypedef void (*finisher)(const Finish* f, void* values, Py_ssize_t n) noexcept nogil

cdef struct Finish:
    finisher apply          # or NULL
    int kind
    double p
    double q
    bint double_precision

cdef class Finisher:
    cdef Finish finish


cdef inline Finish finish_of(object finisher_or_none) except *:
    cdef Finish nothing
    if finisher_or_none is not None:
        return (<Finisher?>finisher_or_none).finish
    nothing.apply = NULL
    return nothing
