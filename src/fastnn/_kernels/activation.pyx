"""Element-wise activations and their gradients, one pass over memory each.

Design
  (A) A formula is one inline function; forward and backward each run through one chunk loop that picks the formula
      once per chunk of CHUNK elements. Chunks are copied into local arrays: loops of constant length over them become
      vector code without run-time tests for overlap, the last chunk is padded and takes the same path, and the
      result may be written over the input.
  (B) Backward uses the result where the derivative follows from it (ReLU, sigmoid, tanh), else the input.
  (C) Entry points return None for arrays that are not as kernels need them; the caller then passes the array gate.
"""

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memcpy, memset

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.gate cimport like, regular, same_form, shifted

cnp.import_array()

__all__ = ["ACTIVATIONS", "activation_backward", "activation_forward"]

cdef enum:
    CHUNK = 64
    BLOCK = 16384  # elements that a thread claims at a time

cdef enum Kind:
    RELU

ACTIVATIONS = {"relu": RELU}


# ---- formulas ----------------------------------------------------------------------------------------------------

cdef inline floating relu(floating x) noexcept nogil:
    # NaN stays
    return <floating>0 if x <= 0 else x


cdef inline floating relu_gradient(floating dy, floating y) noexcept nogil:
    return <floating>0 if y <= 0 else dy


cdef inline void forward_chunk(Kind kind, floating* x, floating p, floating q) noexcept nogil:
    # IN and OUT x (CHUNK)
    cdef Py_ssize_t j
    if kind == RELU:
        for j in range(CHUNK):
            x[j] = relu(x[j])


cdef inline void backward_chunk(Kind kind, floating* dy, const floating* s, floating p, floating q) noexcept nogil:
    # IN and OUT dy (CHUNK); IN s (CHUNK), the result or the input of the forward pass
    cdef Py_ssize_t j
    if kind == RELU:
        for j in range(CHUNK):
            dy[j] = relu_gradient(dy[j], s[j])


# ---- blocks ------------------------------------------------------------------------------------------------------

cdef struct Elementwise:
    Kind kind
    const void* x       # IN   (n), forward's input or the gradient of its result
    const void* saved   # IN   (n) in backward, else NULL
    void* out           # OUT  (n); may be x
    Py_ssize_t n
    double p            # the activation's parameters
    double q
    bint double_precision


cdef inline void block_of(Elementwise* args, Py_ssize_t block, floating example) noexcept nogil:
    # `example` only chooses the precision
    cdef const floating* x = <const floating*>args.x
    cdef const floating* saved = <const floating*>args.saved
    cdef floating* out = <floating*>args.out
    cdef floating a[CHUNK]
    cdef floating s[CHUNK]
    cdef floating p = <floating>args.p
    cdef floating q = <floating>args.q
    cdef Py_ssize_t i = block * BLOCK
    cdef Py_ssize_t end = min(args.n, i + BLOCK)
    cdef Py_ssize_t bytes
    while i < end:
        if end - i >= CHUNK:
            memcpy(a, x + i, CHUNK * sizeof(floating))
            if saved == NULL:
                forward_chunk(args.kind, a, p, q)
            else:
                memcpy(s, saved + i, CHUNK * sizeof(floating))
                backward_chunk(args.kind, a, s, p, q)
            memcpy(out + i, a, CHUNK * sizeof(floating))
        else:
            bytes = (end - i) * sizeof(floating)
            memset(a, 0, sizeof(a))
            memcpy(a, x + i, bytes)
            if saved == NULL:
                forward_chunk(args.kind, a, p, q)
            else:
                memset(s, 0, sizeof(s))
                memcpy(s, saved + i, bytes)
                backward_chunk(args.kind, a, s, p, q)
            memcpy(out + i, a, bytes)
        i += CHUNK


cdef void block_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef Elementwise* args = <Elementwise*>arguments
    if args.double_precision:
        block_of(args, block, <double>0)
    else:
        block_of(args, block, <float>0)


# ---- entry points --------------------------------------------------------------------------------------------------

cdef object run(Kind kind, cnp.ndarray x, object saved, object out, double p, double q):
    cdef Elementwise args
    cdef cnp.ndarray result
    if out is None:
        result = like(x)
    elif same_form(x, out) and not shifted(x, out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
        result = <cnp.ndarray>out
    else:
        return None
    args.kind = kind
    args.x = cnp.PyArray_DATA(x)
    args.saved = NULL if saved is None else cnp.PyArray_DATA(<cnp.ndarray>saved)
    args.out = cnp.PyArray_DATA(result)
    args.n = cnp.PyArray_SIZE(x)
    args.p = p
    args.q = q
    args.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    with nogil:
        parallel_for(
            block_task, &args, (args.n + BLOCK - 1) // BLOCK,
            args.n * (8.0 if args.double_precision else 4.0) * (2 if args.saved == NULL else 3),
        )
    return result


def activation_forward(int kind, object x, object out=None, double p=0, double q=0):
    """The activation of x; None if the array gate has to see x or out first."""
    if not regular(x):
        return None
    return run(<Kind>kind, <cnp.ndarray>x, None, out, p, q)


def activation_backward(int kind, object dy, object saved, double p=0, double q=0):
    """The input's gradient; None if the array gate has to see dy first. `saved` is what forward kept: regular."""
    if not same_form(<cnp.ndarray>saved, dy):
        return None
    return run(<Kind>kind, <cnp.ndarray>dy, saved, None, p, q)
