# One call of a norm, forward or backward, as the entry points (norms.pyx) hand it to the kernel that runs it.
#
# Kernels are modules of their own, of the same build. Each offers its function as a capsule, so that a call goes from
# module to module as a C pointer, without Python objects in between.

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New

from fastnn._kernels.norm cimport Group, Population, View
from fastnn._kernels.norm_running cimport Running

cdef struct Call:
    View view
    bint rows                   # whether the rows kernels run, else the columns kernels
    Py_ssize_t entries          # rows: weights for each run of I elements, each shared by I / entries neighbours
    Py_ssize_t period           # rows: group g uses those from (g % period) · entries on; columns: each (s, i) its own
    bint double_precision
    bint centered               # False: RMS norm, no mean is taken
    bint given                  # the statistics come with the call and do not depend on x (evaluation)
    double eps
    const void* x               # IN   (O, A, S, I), at least one element
    const void* dy              # IN   the same; backward only
    void* y                     # OUT  the same: the result, which may be x; backward the input's gradient
    const void* weight          # IN   the parameters' shape, or NULL
    const void* bias            # IN   likewise; forward only
    const unsigned char* mask   # IN   like x, or NULL
    Group* groups               # (O · S)  IN if given or backward, else OUT unless NULL
    Population* population      # OUT  (O · S) or NULL; forward only
    const Running* running      # INOUT (O · S) or NULL: what the kernel updates where it closes a group; forward only
    void* dweight               # OUT  the parameters' shape; backward only, NULL together with dbias
    void* dbias                 # OUT  likewise

# Returns −1, with nothing written, if there is no memory for what lies between.
ctypedef int (*kernel)(const Call* call) noexcept nogil


cdef inline object offer(kernel function):
    return PyCapsule_New(<void*>function, "fastnn norm", NULL)


cdef inline kernel offered(object capsule) except NULL:
    return <kernel>PyCapsule_GetPointer(capsule, "fastnn norm")
