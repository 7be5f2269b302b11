"""Stochastic gradient descent over a table of parameters: update, clipping, projections.

Design
  (A) One step is one kernel call and one pass over memory, whatever the number of tensors: each element is scaled,
      decayed, averaged and applied in registers.
  (B) There is one update, `update`. Terms that are switched off are left out, not multiplied by zero (which would
      turn an infinity into NaN): its flags are literals at nine call sites, of which the compiler makes nine loops.
  (C) Coefficients are double and rounded once to the data's precision. The first step with a momentum buffer is the
      ordinary one with a buffer of zeros and an undampened gradient, which leaves the gradient itself in it.
  (D) Norms are sums over pieces of the table in double precision, merged in the order of pieces. Clipping and
      skipping read the gradients once before the update; the ball's and the rows' norms are formed of each piece just
      written, while it is in cache.
  (E) A projection that changes nothing writes nothing.
"""

cimport numpy as cnp
from cython cimport floating
from libc.math cimport INFINITY, NAN, isfinite, sqrt
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels._tensors cimport Piece, Pieces, Tensor, TensorTable, stream_work
from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.squares cimport norm2, other_unit, square_sum

cnp.import_array()

__all__ = [
    "clip_gradients", "gradient_norm", "parameter_norm", "project_ball", "project_rows", "sgd_step", "zero_gradients",
]

cdef struct Group:
    double scale     # of the raw gradient: the clipping factor, negative to maximise
    double lr
    double decay     # coupled weight decay
    double shrink    # decoupled weight decay: lr · weight decay
    double momentum
    double keep      # 1 − dampening, in the first step 1
    bint buffered    # whether there is a momentum buffer
    bint nesterov

cdef struct StepArguments:
    Pieces table
    Group* groups
    double row_norm  # the most that a row's norm may be, infinity without this constraint
    bint squares     # whether to sum the squares of the new parameters

cdef enum Operation:
    SQUARES     # partial sums of (value · x)²
    SCALE       # x ← value · x
    BOUND_ROWS  # rows of norm at most `value`
    ZERO

# One of the lesser passes over all parameters or all gradients.
cdef struct Pass:
    Pieces table
    Operation operation
    bint of_grad
    double value


# ---- mathematics on pointers ---------------------------------------------------------------------------------------

cdef inline void update(floating* p, const floating* g, floating* b, Py_ssize_t n, const Group* group,
                        bint decay, bint shrink, bint buffered, bint nesterov) noexcept nogil:
    # p INOUT (n,) parameters; g IN (n,) gradients; b INOUT (n,) momentum buffer; the flags are literals (B)
    cdef floating sign_and_clip = <floating>group.scale, minus_lr = <floating>-group.lr
    cdef floating weight_decay = <floating>group.decay, minus_shrink = <floating>-group.shrink
    cdef floating momentum = <floating>group.momentum, keep = <floating>group.keep
    cdef floating u, v, x
    cdef Py_ssize_t i
    for i in range(n):
        x = p[i]
        u = sign_and_clip * g[i]
        if decay:
            u = multiply_add(weight_decay, x, u)
        if buffered:
            v = multiply_add(momentum, b[i], keep * u)
            b[i] = v
            u = multiply_add(momentum, v, u) if nesterov else v
        x = multiply_add(minus_lr, u, x)
        if shrink:
            x = multiply_add(minus_shrink, x, x)
        p[i] = x


cdef inline void update_decayed(floating* p, const floating* g, floating* b, Py_ssize_t n, const Group* group,
                                bint decayed, bint buffered, bint nesterov) noexcept nogil:
    if decayed and group.decay != 0:
        update(p, g, b, n, group, True, False, buffered, nesterov)
    elif decayed and group.shrink != 0:
        update(p, g, b, n, group, False, True, buffered, nesterov)
    else:
        update(p, g, b, n, group, False, False, buffered, nesterov)


cdef inline void scale(floating* x, Py_ssize_t n, double factor) noexcept nogil:
    cdef floating rounded = <floating>factor
    cdef Py_ssize_t i
    for i in range(n):
        x[i] *= rounded


cdef inline void bound_rows(floating* x, Py_ssize_t n, Py_ssize_t row, double bound) noexcept nogil:
    # rows with ‖row‖₂ > bound are scaled to it
    cdef Py_ssize_t i
    cdef double norm
    for i in range(n // row):
        norm = norm2(x + i * row, row)
        if norm > bound:
            scale(x + i * row, row, bound / norm)


# ---- one piece of the table ----------------------------------------------------------------------------------------

cdef inline void step_piece(floating* p, floating* g, floating* b, Py_ssize_t n, const Tensor* tensor,
                            const StepArguments* step, double* squares) noexcept nogil:
    cdef const Group* group = &step.groups[tensor.group]
    if not group.buffered:
        update_decayed(p, g, b, n, group, tensor.decay, False, False)
    elif not group.nesterov:
        update_decayed(p, g, b, n, group, tensor.decay, True, False)
    else:
        update_decayed(p, g, b, n, group, tensor.decay, True, True)
    if tensor.row > 0 and step.row_norm < INFINITY:
        bound_rows(p, n, tensor.row, step.row_norm)
    if step.squares:
        squares[0] = square_sum(p, n, 1)


cdef void step_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef const StepArguments* step = <const StepArguments*>arguments
    cdef const Tensor* tensor
    cdef const Piece* piece
    cdef Py_ssize_t k
    for k in range(step.table.first[block], step.table.first[block + 1]):
        piece = &step.table.pieces[k]
        tensor = &step.table.tensors[piece.tensor]
        if tensor.wide:
            step_piece(<double*>tensor.data + piece.start, <double*>tensor.grad + piece.start,
                       <double*>tensor.state[0] + piece.start, piece.stop - piece.start, tensor, step,
                       &step.table.partial[2 * k])
        else:
            step_piece(<float*>tensor.data + piece.start, <float*>tensor.grad + piece.start,
                       <float*>tensor.state[0] + piece.start, piece.stop - piece.start, tensor, step,
                       &step.table.partial[2 * k])


cdef inline void pass_piece(floating* x, Py_ssize_t n, Py_ssize_t row, const Pass* this,
                            double* partial) noexcept nogil:
    if this.operation == SQUARES:
        partial[0] = square_sum(x, n, this.value)
    elif this.operation == SCALE:
        scale(x, n, this.value)
    elif this.operation == BOUND_ROWS and row > 0:
        bound_rows(x, n, row, this.value)
    elif this.operation == ZERO:
        memset(x, 0, n * sizeof(floating))


cdef void pass_task(void* arguments, Py_ssize_t block) noexcept nogil:
    cdef const Pass* this = <const Pass*>arguments
    cdef const Tensor* tensor
    cdef const Piece* piece
    cdef Py_ssize_t k
    cdef void* x
    for k in range(this.table.first[block], this.table.first[block + 1]):
        piece = &this.table.pieces[k]
        tensor = &this.table.tensors[piece.tensor]
        x = tensor.grad if this.of_grad else tensor.data
        if tensor.wide:
            pass_piece(<double*>x + piece.start, piece.stop - piece.start, tensor.row, this,
                       &this.table.partial[2 * k])
        else:
            pass_piece(<float*>x + piece.start, piece.stop - piece.start, tensor.row, this,
                       &this.table.partial[2 * k])


cdef void run(TensorTable table, Operation operation, bint of_grad, double value) noexcept nogil:
    cdef Pass this = Pass(table.table, operation, of_grad, value)
    parallel_for(pass_task, &this, table.blocks, stream_work(table.nbytes))


cdef double norm_of(TensorTable table, bint of_grad, double total) noexcept nogil:
    # The norm of all gradients or parameters together. `total` is their sum of squares if it is known, else NaN.
    cdef double unit = 1
    if total != total:
        run(table, SQUARES, of_grad, 1)
        total = table.total(0)
    if table.wide:
        unit = other_unit(total)
        if unit != 1:
            run(table, SQUARES, of_grad, unit)
            total = table.total(0)
    return sqrt(total) / unit


cdef bint lacks_buffers(TensorTable table, const Group* groups) noexcept:
    # whether the owner has bound none where a step needs them
    cdef Py_ssize_t i
    for i in range(table.tensors):
        if groups[table.table.tensors[i].group].buffered and table.table.tensors[i].state[0] == NULL:
            return True
    return False


cdef inline double clip_factor(double norm, double limit) noexcept nogil:
    # min(1, limit/(norm + 1e-6)) as PyTorch forms it; NaN stays NaN
    cdef double factor = limit / (norm + 1e-6)
    return 1 if factor >= 1 else factor


# ---- entry points --------------------------------------------------------------------------------------------------

def sgd_step(TensorTable table, list groups, double clip_norm, bint skip_nonfinite, double radius, double row_norm):
    """One step of all parameters. False if it was skipped for a gradient that is not finite.

    `groups` holds for each group (lr, momentum, keep, weight_decay, buffered, nesterov, maximize, decoupled).
    Infinity for `clip_norm`, `radius` (of the ball) and `row_norm` means none.
    """
    cdef StepArguments step
    cdef Group* group
    cdef Py_ssize_t i
    cdef double lr, momentum, keep, weight_decay, norm, factor = 1
    cdef bint buffered, nesterov, maximize, decoupled, skipped = False
    if len(groups) < table.groups:
        raise ValueError(f"groups must have at least {table.groups} entries, got {len(groups)}")
    step.row_norm, step.squares = row_norm, radius < INFINITY
    step.groups = <Group*>calloc(table.groups + 1, sizeof(Group))
    if step.groups == NULL:
        raise MemoryError
    try:
        for i in range(table.groups):
            group = &step.groups[i]
            lr, momentum, keep, weight_decay, buffered, nesterov, maximize, decoupled = groups[i]
            group.lr, group.momentum, group.keep = lr, momentum, keep
            group.buffered, group.nesterov = buffered, nesterov
            group.scale = -1 if maximize else 1
            group.decay = 0 if decoupled else weight_decay
            group.shrink = lr * weight_decay if decoupled else 0
        table = table.ready(True, False)
        step.table = table.table
        if lacks_buffers(table, step.groups):
            table.done()
            raise RuntimeError("momentum's buffers must not be taken away during a step, as by load_state_dict")
        with nogil:
            if skip_nonfinite or clip_norm < INFINITY:
                norm = norm_of(table, True, NAN)
                skipped = skip_nonfinite and not isfinite(norm)
                factor = clip_factor(norm, clip_norm) if clip_norm < INFINITY else 1
                for i in range(table.groups):
                    step.groups[i].scale *= factor
            if not skipped:
                parallel_for(step_task, &step, table.blocks, stream_work(5 * table.nbytes))
                if step.squares:
                    norm = norm_of(table, False, table.total(0))
                    if norm > radius:
                        run(table, SCALE, False, radius / norm)
        table.done()
    finally:
        free(step.groups)
    return not skipped


def clip_gradients(TensorTable table, double limit):
    """Scale all gradients together to a norm of at most `limit`; the norm they had."""
    cdef double norm, factor
    table = table.ready(False, True)
    with nogil:
        norm = norm_of(table, True, NAN)
        factor = clip_factor(norm, limit)
        if factor != 1:
            run(table, SCALE, True, factor)
    table.done()
    return norm


def gradient_norm(TensorTable table):
    """The norm of all gradients together."""
    cdef double norm
    table = table.ready(False, False)
    with nogil:
        norm = norm_of(table, True, NAN)
    table.done()
    return norm


def parameter_norm(TensorTable table):
    """The norm of all parameters together."""
    cdef double norm
    table = table.ready(False, False)
    with nogil:
        norm = norm_of(table, False, NAN)
    table.done()
    return norm


def project_ball(TensorTable table, double radius):
    """Scale all parameters together to a norm of at most `radius`."""
    cdef double norm
    table = table.ready(True, False)
    with nogil:
        norm = norm_of(table, False, NAN)
        if norm > radius:
            run(table, SCALE, False, radius / norm)
    table.done()


def project_rows(TensorTable table, double bound):
    """Scale every row to a norm of at most `bound`; the table is one by rows."""
    table = table.ready(True, False)
    with nogil:
        run(table, BOUND_ROWS, False, bound)
    table.done()


def zero_gradients(TensorTable table):
    """Fill all gradients with zeros."""
    table = table.ready(False, True)
    with nogil:
        run(table, ZERO, True, 0)
    table.done()
