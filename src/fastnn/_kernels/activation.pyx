"""Element-wise activations and their gradients, one pass over memory each.

Design
  (A) A formula is one inline function; forward and backward each run through one chunk loop, which is compiled for
      each formula. Chunks are copied into local arrays: loops of constant length over them become vector code without
      run-time tests for overlap, the last chunk is padded and takes the same path, and the result may be written over
      the input.
  (B) Backward uses the result where the derivative follows from it (ReLU, sigmoid, tanh), else the input.
  (C) Results of 32 MB and more go past the caches (streaming.pxd): with 64 MB ReLU takes 0.73, its backward 0.67 of the
      time. With 25 MB GELU would take 1.1 times as long.
  (D) Entry points return None for arrays that are not as kernels need them; the caller then passes the array gate.
"""

cimport numpy as cnp
from cython cimport floating
from libc.string cimport memcpy, memset

from fastnn._kernels._plan cimport Finish, Finisher, Operands, Step, finish_of
from fastnn._kernels._runtime cimport even_block, parallel_for
from fastnn._kernels.elementary cimport (
    exponential, exponential_minus_one, exponential_within, hyperbolic_tangent, log_one_plus, logistic, logistic_parts,
    magnitude, normal_distribution, scale_back, scaled_gaussian, tail_magnitude, with_sign_of,
)
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.gate cimport like, regular, same_form, shifted
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.streaming cimport STREAM_BYTES, stream_copy, stream_end

cnp.import_array()

__all__ = ["ACTIVATIONS", "ActivationFinisher", "ElementwiseStep", "activation_backward", "activation_forward"]

cdef enum:
    CHUNK = 64     # loops of 16 GCC unrolls before it makes vectors of them, and then makes none
    BLOCK = 16384  # elements that a thread claims at a time, about
    PIECE = 512    # elements that are streamed at a time

cdef enum Kind:
    RELU
    LEAKY_RELU      # p: slope
    ELU             # p: alpha
    GELU
    GELU_TANH
    SILU
    SIGMOID
    TANH
    SOFTPLUS        # p: beta, q: threshold

ACTIVATIONS = {
    "relu": RELU, "leaky_relu": LEAKY_RELU, "elu": ELU, "gelu": GELU, "gelu_tanh": GELU_TANH, "silu": SILU,
    "sigmoid": SIGMOID, "tanh": TANH, "softplus": SOFTPLUS,
}


# ---- formulas ----------------------------------------------------------------------------------------------------
# x is the input, y the result; NaN stays NaN

cdef inline floating relu(floating x) noexcept nogil:
    return <floating>0 if x <= 0 else x


cdef inline floating relu_gradient(floating dy, floating y) noexcept nogil:
    return <floating>0 if y <= 0 else dy


cdef inline floating leaky_relu(floating x, floating slope) noexcept nogil:
    return slope * x if x <= 0 else x


cdef inline floating leaky_relu_gradient(floating dy, floating x, floating slope) noexcept nogil:
    return slope * dy if x <= 0 else dy


cdef inline floating elu(floating x, floating alpha) noexcept nogil:
    cdef floating below = alpha * exponential_minus_one(<floating>0 if x > 0 else x)
    return x if x > 0 else below


cdef inline floating elu_gradient(floating dy, floating x, floating alpha) noexcept nogil:
    cdef floating below = dy * (alpha * exponential(<floating>0 if x > 0 else x))
    return dy if x > 0 else below


cdef inline floating clipped(floating x, floating limit) noexcept nogil:
    x = limit if x > limit else x
    return -limit if x < -limit else x


cdef inline floating gelu(floating x) noexcept nogil:
    cdef floating a = tail_magnitude(x)
    return x * normal_distribution(x, a, scaled_gaussian(a))


cdef inline floating gelu_gradient(floating dy, floating x) noexcept nogil:
    # Φ(x) + x·φ(x)
    cdef floating a = tail_magnitude(x)
    cdef floating density = scaled_gaussian(a)
    cdef floating c = with_sign_of(a, x)
    return dy * multiply_add(c * scale_back(<floating>0.3989422804014327), density, normal_distribution(x, a, density))


cdef inline void gelu_tanh_parts(floating x, floating* upper, floating* lower) noexcept nogil:
    # OUT σ(w) and 1 − σ(w), w = 2·√(2/π)·(x + 0.044715·x³). Rounding errors of w would come out multiplied by w, so
    # they are kept: first + second is w to twice the precision.
    cdef floating linear = <floating>1.5957691216057308
    cdef floating cubic = <floating>0.07135481627260025
    cdef floating square = x * x
    cdef floating p = cubic * square
    cdef floating t = linear + p
    cdef floating back = t - linear
    cdef floating lost = (linear - (t - back)) + (p - back)
    cdef floating first = x * t
    lost += multiply_add(cubic, square, -p) + cubic * multiply_add(x, x, -square)
    if floating is float:  # what the constants lack
        lost += multiply_add(square, <float>2.3988323959931355e-09, <float>-4.534068042105272e-08)
    else:
        lost += multiply_add(square, -6.175149918155315e-19, -9.96930880911092e-17)
    logistic_parts(first, multiply_add(x, t, -first) + x * lost, upper, lower)


cdef inline floating gelu_tanh(floating x) noexcept nogil:
    # x/2·(1 + tanh(w/2)) = x·σ(w)
    cdef floating upper, lower
    gelu_tanh_parts(clipped(x, 40), &upper, &lower)
    return x * upper


cdef inline floating gelu_tanh_gradient(floating dy, floating x) noexcept nogil:
    cdef floating c = clipped(x, 40)
    cdef floating upper, lower, slope
    gelu_tanh_parts(c, &upper, &lower)
    slope = <floating>1.5957691216057308 * c * multiply_add(<floating>0.134145 * c, c, <floating>1.0)
    return dy * multiply_add(slope * upper, lower, upper)


cdef inline floating silu(floating x) noexcept nogil:
    return x * logistic(x)


cdef inline floating silu_gradient(floating dy, floating x) noexcept nogil:
    # σ + x·σ·(1 − σ); from |x| = 110 (800) on both terms have their limits, and inf·0 is avoided
    cdef floating a = magnitude(x)
    cdef floating limit, e, large, small
    if floating is float:
        limit = <float>110.0
    else:
        limit = 800.0
    a = limit if a > limit else a
    e = exponential_within(-a)
    large = <floating>1.0 / (<floating>1.0 + e)     # σ(|x|)
    small = e * large
    return dy * multiply_add(with_sign_of(a, x), large * small, small if x < 0 else large)


cdef inline floating sigmoid_gradient(floating dy, floating y) noexcept nogil:
    return dy * (y * (<floating>1.0 - y))


cdef inline floating tanh_gradient(floating dy, floating y) noexcept nogil:
    return dy * multiply_add(-y, y, <floating>1.0)


cdef inline floating softplus(floating x, floating beta, floating threshold) noexcept nogil:
    # log(1 + e^z)/β = (max(z, 0) + log(1 + e^−|z|))/β, z = βx
    cdef floating z = beta * x
    cdef floating soft = ((z if z > 0 else <floating>0.0) + log_one_plus(exponential(-magnitude(z)))) / beta
    return x if z > threshold else soft


cdef inline floating softplus_gradient(floating dy, floating x, floating beta, floating threshold) noexcept nogil:
    cdef floating z = beta * x
    cdef floating soft = dy * logistic(z)
    return dy if z > threshold else soft


cdef inline floating value(Kind kind, floating x, floating p, floating q) noexcept nogil:
    # `kind` is a constant where this is inlined
    if kind == RELU:
        return relu(x)
    elif kind == LEAKY_RELU:
        return leaky_relu(x, p)
    elif kind == ELU:
        return elu(x, p)
    elif kind == GELU:
        return gelu(x)
    elif kind == GELU_TANH:
        return gelu_tanh(x)
    elif kind == SILU:
        return silu(x)
    elif kind == SIGMOID:
        return logistic(x)
    elif kind == TANH:
        return hyperbolic_tangent(x)
    elif kind == SOFTPLUS:
        return softplus(x, p, q)
    return x


cdef inline floating gradient(Kind kind, floating dy, floating s, floating p, floating q) noexcept nogil:
    # s is the result (ReLU, sigmoid, tanh) or the input of the forward pass
    if kind == RELU:
        return relu_gradient(dy, s)
    elif kind == LEAKY_RELU:
        return leaky_relu_gradient(dy, s, p)
    elif kind == ELU:
        return elu_gradient(dy, s, p)
    elif kind == GELU:
        return gelu_gradient(dy, s)
    elif kind == GELU_TANH:
        return gelu_tanh_gradient(dy, s)
    elif kind == SILU:
        return silu_gradient(dy, s)
    elif kind == SIGMOID:
        return sigmoid_gradient(dy, s)
    elif kind == TANH:
        return tanh_gradient(dy, s)
    elif kind == SOFTPLUS:
        return softplus_gradient(dy, s, p, q)
    return dy


# ---- blocks ------------------------------------------------------------------------------------------------------

cdef struct Elementwise:
    Kind kind
    const void* x       # IN   (n), forward's input or the gradient of its result
    const void* saved   # IN   (n) in backward, else NULL
    void* out           # OUT  (n); may be x
    Py_ssize_t n
    Py_ssize_t block    # elements that a thread claims at a time
    double p            # the activation's parameters
    double q
    bint double_precision
    bint streamed       # past the caches; out is not x


cdef inline inlined run_of(
    Kind kind, const floating* x, const floating* saved, floating* out, Py_ssize_t n, floating p, floating q,
) noexcept nogil:
    # n numbers, whole CHUNKs; `kind` is a constant
    cdef floating v[CHUNK]
    cdef floating s[CHUNK]
    cdef Py_ssize_t i, j
    for i in range(n // CHUNK):
        memcpy(v, x + i * CHUNK, sizeof(v))
        if saved == NULL:
            for j in range(CHUNK):
                v[j] = value(kind, v[j], p, q)
        else:
            memcpy(s, saved + i * CHUNK, sizeof(s))
            for j in range(CHUNK):
                v[j] = gradient(kind, v[j], s[j], p, q)
        memcpy(out + i * CHUNK, v, sizeof(v))


cdef apart forward_run(
    Kind kind, const floating* x, floating* out, Py_ssize_t n, floating p, floating q,
) noexcept nogil:
    if kind == RELU:
        run_of(RELU, x, NULL, out, n, p, q)
    elif kind == LEAKY_RELU:
        run_of(LEAKY_RELU, x, NULL, out, n, p, q)
    elif kind == ELU:
        run_of(ELU, x, NULL, out, n, p, q)
    elif kind == GELU:
        run_of(GELU, x, NULL, out, n, p, q)
    elif kind == GELU_TANH:
        run_of(GELU_TANH, x, NULL, out, n, p, q)
    elif kind == SILU:
        run_of(SILU, x, NULL, out, n, p, q)
    elif kind == SIGMOID:
        run_of(SIGMOID, x, NULL, out, n, p, q)
    elif kind == TANH:
        run_of(TANH, x, NULL, out, n, p, q)
    elif kind == SOFTPLUS:
        run_of(SOFTPLUS, x, NULL, out, n, p, q)


cdef apart backward_run(
    Kind kind, const floating* dy, const floating* saved, floating* out, Py_ssize_t n, floating p, floating q,
) noexcept nogil:
    if kind == RELU:
        run_of(RELU, dy, saved, out, n, p, q)
    elif kind == LEAKY_RELU:
        run_of(LEAKY_RELU, dy, saved, out, n, p, q)
    elif kind == ELU:
        run_of(ELU, dy, saved, out, n, p, q)
    elif kind == GELU:
        run_of(GELU, dy, saved, out, n, p, q)
    elif kind == GELU_TANH:
        run_of(GELU_TANH, dy, saved, out, n, p, q)
    elif kind == SILU:
        run_of(SILU, dy, saved, out, n, p, q)
    elif kind == SIGMOID:
        run_of(SIGMOID, dy, saved, out, n, p, q)
    elif kind == TANH:
        run_of(TANH, dy, saved, out, n, p, q)
    elif kind == SOFTPLUS:
        run_of(SOFTPLUS, dy, saved, out, n, p, q)


cdef inline inlined whole_chunks(
    Elementwise* args, const floating* x, const floating* saved, floating* out, Py_ssize_t n,
) noexcept nogil:
    if args.saved == NULL:
        forward_run(args.kind, x, out, n, <floating>args.p, <floating>args.q)
    else:
        backward_run(args.kind, x, saved, out, n, <floating>args.p, <floating>args.q)


cdef inline inlined stream_chunks(
    Elementwise* args, const floating* x, const floating* saved, floating* out, Py_ssize_t n,
) noexcept nogil:
    cdef floating results[PIECE]
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t m
    while i < n:
        m = min(n - i, <Py_ssize_t>PIECE)
        whole_chunks(args, x + i, saved + i, results, m)
        stream_copy(out + i, results, m * sizeof(floating))
        i += m
    stream_end()


cdef inline void block_of(Elementwise* args, Py_ssize_t block, floating example) noexcept nogil:
    # `example` only chooses the precision
    cdef Py_ssize_t start = block * args.block
    cdef Py_ssize_t n = min(args.n - start, args.block)
    cdef Py_ssize_t whole = n // CHUNK * CHUNK
    cdef const floating* x = <const floating*>args.x + start
    cdef const floating* saved = <const floating*>args.saved + start
    cdef floating* out = <floating*>args.out + start
    cdef floating a[CHUNK]
    cdef floating s[CHUNK]
    if args.streamed:
        stream_chunks(args, x, saved, out, whole)
    else:
        whole_chunks(args, x, saved, out, whole)
    if whole < n:  # padded, the rest takes the same path
        memset(a, 0, sizeof(a))
        memset(s, 0, sizeof(s))
        memcpy(a, x + whole, (n - whole) * sizeof(floating))
        if args.saved != NULL:
            memcpy(s, saved + whole, (n - whole) * sizeof(floating))
        whole_chunks(args, a, s, a, CHUNK)
        memcpy(out + whole, a, (n - whole) * sizeof(floating))


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
    args.block = even_block(args.n, BLOCK, CHUNK)
    args.p = p
    args.q = q
    args.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    args.streamed = args.out != args.x and cnp.PyArray_NBYTES(x) >= STREAM_BYTES
    with nogil:
        parallel_for(
            block_task, &args, (args.n + args.block - 1) // args.block,
            args.n * (8.0 if args.double_precision else 4.0) * (2 if args.saved == NULL else 3),
        )
    return result


def activation_forward(int kind, object x, object out=None, double p=0, double q=0):
    """The activation of x; None if the array gate has to see x or out first."""
    if not regular(x):
        return None
    return run(<Kind>kind, <cnp.ndarray>x, None, out, p, q)


def activation_backward(int kind, object dy, object saved, double p=0, double q=0):
    """The input's gradient; None if the array gate has to see dy or `saved`, which may be a user's `out`, first."""
    if not (regular(saved) and same_form(<cnp.ndarray>saved, dy)):
        return None
    return run(<Kind>kind, <cnp.ndarray>dy, saved, None, p, q)


# ---- in a plan -----------------------------------------------------------------------------------------------------

cdef void apply_to(const Finish* f, void* values, Py_ssize_t n) noexcept nogil:
    cdef Elementwise args
    args.kind, args.p, args.q, args.double_precision = <Kind>f.kind, f.p, f.q, f.double_precision
    args.x, args.saved, args.out, args.n, args.block, args.streamed = values, NULL, values, n, n, False
    block_task(&args, 0)


cdef class ActivationFinisher(Finisher):
    """An activation that other steps apply to their results."""

    def __cinit__(self, int kind, double p, double q, bint double_precision):
        self.finish.apply = apply_to
        self.finish.kind, self.finish.p, self.finish.q, self.finish.double_precision = kind, p, q, double_precision


cdef struct Sum:
    Py_ssize_t size         # elements of one sample
    Finish finish
    bint double_precision


cdef struct SumRun:
    const Sum* sum
    const void* x           # IN   (n)
    const void* residual    # IN   (n) or NULL
    void* y                 # OUT  (n)
    Py_ssize_t n


cdef inline void add_block(SumRun* r, Py_ssize_t block, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>r.x
    cdef const floating* residual = <const floating*>r.residual
    cdef floating* y = <floating*>r.y
    cdef Py_ssize_t first = block * BLOCK
    cdef Py_ssize_t end = min(r.n, first + BLOCK)
    cdef Py_ssize_t i
    if residual == NULL:
        memcpy(y + first, x + first, (end - first) * sizeof(floating))
    else:
        for i in range(first, end):
            y[i] = x[i] + residual[i]
    if r.sum.finish.apply != NULL:
        r.sum.finish.apply(&r.sum.finish, y + first, end - first)


cdef void add_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef SumRun* r = <SumRun*>arguments
    if r.sum.double_precision:
        add_block(r, block, <double>0)
    else:
        add_block(r, block, <float>0)


cdef void run_sum(const void* settings, Operands* o) noexcept nogil:
    cdef SumRun r
    r.sum = <const Sum*>settings
    r.x, r.residual, r.y, r.n = o.x, o.residual, o.y, o.samples * r.sum.size
    o.each(add_task, &r, (r.n + BLOCK - 1) // BLOCK, r.n * (24.0 if r.sum.double_precision else 12.0))


cdef class ElementwiseStep(Step):
    """activation(x + residual), either of which may be absent; `size` elements of each sample."""
    cdef Sum sum

    def __cinit__(self, Py_ssize_t size, object finisher, bint double_precision):
        self.sum.size, self.sum.finish, self.sum.double_precision = size, finish_of(finisher), double_precision
        self.run, self.settings = run_sum, &self.sum
