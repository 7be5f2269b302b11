"""Norms: from the arguments of a call to the kernel that runs it.

Design
  (A) A call whose arguments are plain – arrays as kernels take them, numbers of Python's own types – is done here in
      one step, in which Python objects are looked at and nothing is made but the results. Any other goes to `gate`,
      a function of the caller (fastnn.functional.norm.gate) that makes the arguments plain or refuses them, and calls
      again. So conversions are there alone; the rules for shapes and values are here alone, since both ways lead
      through them.
  (B) A norm is a view of its array (norm_views.pxd) and the kernel that this asks for, taken from its module when it
      is first wanted.
  (C) What can fail comes first: results and contexts are made before the kernel runs. Running statistics are updated
      last.
  (D) What nobody keeps, the groups of evaluation and the populations of training, lies in scratch for the call.
"""

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.object cimport PyObject, PyTypeObject
from libc.float cimport DBL_EPSILON, FLT_EPSILON
from libc.math cimport isfinite
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import fastnn._kernels as build
import numpy as np

from fastnn._kernels.gate cimport disjoint, like, regular, same_form
from fastnn._kernels.norm cimport Group, Population, View
from fastnn._kernels.norm_call cimport Call, kernel, offered
from fastnn._kernels.norm_running cimport Running, fill_groups, update_running
from fastnn._kernels.norm_views cimport axes_view, batch_view, group_view, trailing_view
from fastnn._kernels.wide cimport repair_parameters

cnp.import_array()

__all__ = [
    "batch_norm", "batch_population", "group_norm", "groups_from_running", "instance_norm", "norm_backward",
    "standardize", "trailing_norm",
]


cdef enum:
    MOST_AXES = 64      # that NumPy's arrays have
    NEAR = 512          # numbers of scratch that are had without malloc
    BRIEF = 16384       # bytes from which on other threads get the GIL, which costs as much as 2 KB of work


# ---- plain arguments -------------------------------------------------------------------------------------------------

cdef inline bint plain(cnp.ndarray x, object parameter) noexcept:
    # whether kernels take this parameter of x as it is; its shape is another matter
    return parameter is None or (regular(parameter) and cnp.PyArray_TYPE(<cnp.ndarray>parameter) == cnp.PyArray_TYPE(x))


cdef inline bint plain_mask(cnp.ndarray x, object mask) noexcept:
    return mask is None or (
        cnp.PyArray_CheckExact(mask) and cnp.PyArray_TYPE(<cnp.ndarray>mask) == cnp.NPY_BOOL
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>mask) and cnp.PyArray_SAMESHAPE(x, <cnp.ndarray>mask)
    )


cdef inline bint plain_out(
    cnp.ndarray x, object weight, object bias, object mask, object out, bint keep,
) noexcept:
    # Whether a kernel may write its result straight into `out`: over x itself, unless that is kept, but never over a
    # shifted part of it, nor over another operand.
    return out is None or (
        same_form(x, out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)
        and (disjoint(out, x) or (cnp.PyArray_DATA(<cnp.ndarray>out) == cnp.PyArray_DATA(x) and not keep))
        and disjoint(out, weight) and disjoint(out, bias) and disjoint(out, mask)
    )


cdef inline bint plain_arrays(object x, object weight, object bias, object mask, object out, bint keep) noexcept:
    return (
        regular(x) and plain(<cnp.ndarray>x, weight) and plain(<cnp.ndarray>x, bias)
        and plain_mask(<cnp.ndarray>x, mask) and plain_out(<cnp.ndarray>x, weight, bias, mask, out, keep)
    )


cdef inline bint plain_running(cnp.ndarray x, object mean, object variance, object out, bint updated) noexcept:
    # training writes into them; that one is missing is against a rule
    return plain(x, mean) and plain(x, variance) and (not updated or mean is None or variance is None or (
        cnp.PyArray_ISWRITEABLE(<cnp.ndarray>mean) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>variance)
        and disjoint(mean, variance) and disjoint(out, mean) and disjoint(out, variance)
    ))


cdef inline bint plain_integers(object numbers) noexcept:
    # a tuple of Python's own
    if type(numbers) is not tuple:
        return False
    for one in <tuple>numbers:
        if type(one) is not int:
            return False
    return True


# ---- rules -----------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t integer(object number) noexcept:
    # beyond C's integers the nearest of them, which no rule allows
    cdef int beyond = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &beyond)
    return value if beyond == 0 else (2 * (beyond > 0) - 1) * (<Py_ssize_t>1 << 62)


cdef int check_shape(str name, object array, const cnp.npy_intp* shape, int ndim) except -1:
    cdef int i
    cdef bint same = True
    if array is None:
        return 0
    same = cnp.PyArray_NDIM(<cnp.ndarray>array) == ndim
    for i in range(ndim):
        same = same and cnp.PyArray_DIM(<cnp.ndarray>array, i) == shape[i]
    if not same:
        raise ValueError(f"{name} must have shape {tuple([shape[i] for i in range(ndim)])}, got {array.shape}")
    return 0


cdef int trailing_axes(cnp.ndarray x, object normalized_shape) except -1:
    # how many axes at the end of x have these lengths
    cdef tuple lengths = normalized_shape if type(normalized_shape) is tuple else (normalized_shape,)
    cdef Py_ssize_t axes = len(lengths)
    cdef Py_ssize_t i
    cdef bint same = 0 < axes <= cnp.PyArray_NDIM(x)
    if same:
        for i in range(axes):
            same = same and integer(lengths[i]) == cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - axes + i)
    if not same:
        raise ValueError(
            f"normalized_shape must be the end of the input's shape {(<object>x).shape} and not empty, "
            f"got {normalized_shape}")
    return axes


cdef int channels_of(cnp.ndarray x, object channel_axis, int least) except -1:
    # the channel axis, counted from the front; axis 0 is the batch
    cdef int ndim = cnp.PyArray_NDIM(x)
    cdef Py_ssize_t axis = integer(channel_axis)
    if ndim < least:
        raise ValueError(f"input must have at least {least} axes, got shape {(<object>x).shape}")
    if not -ndim <= axis < ndim or axis == 0 or axis == -ndim:
        raise ValueError(
            f"channel_axis must be an axis of the input other than the batch axis 0, got {channel_axis}")
    return axis if axis > 0 else axis + ndim


# ---- the call --------------------------------------------------------------------------------------------------------

cdef enum:
    ROWS_FORWARD
    COLUMNS_FORWARD
    ROWS_BACKWARD
    ROWS_BACKWARD_OWN
    COLUMNS_BACKWARD
    KERNELS

cdef kernel taken[KERNELS]
cdef tuple NAMES = ("rows_forward", "columns_forward", "rows_backward", "rows_backward_own", "columns_backward")


cdef inline kernel kernel_of(int which) except NULL:
    if taken[which] == NULL:
        taken[which] = offered(getattr(build, NAMES[which]))
    return taken[which]


cdef inline void* data_of(object array) noexcept:
    return cnp.PyArray_DATA(<cnp.ndarray>array) if array is not None else NULL


cdef inline void start(Call* c, cnp.ndarray x, double eps) noexcept:
    memset(c, 0, sizeof(Call))
    c.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    c.centered = True
    c.eps = eps


cdef object forward(
    Call* c, cnp.ndarray x, object weight, object bias, object mask, object out, const Running* running, object context,
):
    # y, or (y, ctx) where `context` is the class of ctx; `running` statistics normalise or are updated, unless NULL
    cdef Py_ssize_t groups = c.view.outer * c.view.groups
    cdef kernel run = kernel_of(ROWS_FORWARD if c.rows else COLUMNS_FORWARD)
    cdef bint updated = running != NULL and not c.given
    cdef double near[NEAR]
    cdef void* scratch = near
    cdef size_t size = 0
    cdef int failed = 0
    if out is None:
        out = like(x)
    result, kept = out, None
    if context is not None:
        kept = new_groups(groups, cnp.PyArray_SIZE(x) == 0)
        result = out, new_context(context, c, x, kept, weight, bias, mask)
    if cnp.PyArray_SIZE(x) == 0:
        return result
    c.x, c.y = cnp.PyArray_DATA(x), data_of(out)
    c.weight, c.bias, c.mask = data_of(weight), data_of(bias), <const unsigned char*>data_of(mask)
    c.groups = <Group*>data_of(kept)
    if updated:
        size = groups * sizeof(Population)
    elif c.given and kept is None:
        size = groups * sizeof(Group)
    if size > sizeof(near):
        scratch = malloc(size)
        if scratch == NULL:
            raise MemoryError("no memory for the statistics of a norm")
    if updated:
        c.population = <Population*>scratch
    elif size:
        c.groups = <Group*>scratch
    if cnp.PyArray_NBYTES(x) < BRIEF:
        failed = run_forward(c, run, running)
    else:
        with nogil:
            failed = run_forward(c, run, running)
    if scratch != near:
        free(scratch)
    if failed:
        raise MemoryError("no memory for the partial sums of a norm")
    return result


cdef int run_forward(Call* c, kernel run, const Running* running) noexcept nogil:
    cdef Py_ssize_t groups = c.view.outer * c.view.groups
    cdef int failed
    c.running = NULL
    if c.given:
        fill_groups(running, c.eps, c.groups)
    elif running != NULL and c.rows and groups == running.channels:
        c.running = running
    failed = run(c)
    if running != NULL and not c.given and c.running == NULL and not failed:
        update_running(running, c.population, groups // running.channels, 0, running.channels)
    return failed


cdef inline object new_groups(Py_ssize_t count, bint zeros):
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = count, sizeof(Group) // sizeof(double)
    return cnp.PyArray_ZEROS(2, shape, cnp.NPY_DOUBLE, 0) if zeros else cnp.PyArray_EMPTY(2, shape, cnp.NPY_DOUBLE, 0)


# ---- contexts: the fields of fastnn.functional.norm.gate.NormContext -------------------------------------------------

cdef enum:
    INPUT
    GROUPS
    VIEW
    WEIGHT
    BIAS
    MASK
    CENTERED
    CONSTANT
    ORDER


cdef inline object new_context(
    object cls, const Call* c, object x, object groups, object weight, object bias, object mask,
):
    # as tuple.__new__ does it, without a look-up and a call of Python's
    cdef tuple view = (c.view.outer, c.view.reduced, c.view.groups, c.view.inner, c.rows, c.entries, c.period)
    cdef tuple arguments = ((x, groups, view, weight, bias, mask, c.centered, c.given, None),)
    return (<PyTypeObject*>tuple).tp_new(cls, <PyObject*>arguments, NULL)


def norm_backward(object dy, object ctx, object context, object gate):
    """(dinput, dweight, dbias) of any norm, with None for the parameters that the call did not have.

    ctx is an instance of `context`; `gate` does what is not plain.
    """
    cdef Call c
    cdef tuple fields, view
    cdef cnp.ndarray x
    cdef kernel run
    cdef int which, failed
    if type(ctx) is not context:
        raise TypeError(f"ctx must be a {context.__name__}, got {type(ctx).__name__}")
    fields = <tuple>ctx
    x = fields[INPUT]
    if dy is None or not plain(x, dy):
        return gate(dy, ctx)
    if not cnp.PyArray_SAMESHAPE(x, <cnp.ndarray>dy):
        raise ValueError(f"dy must have the input's shape {(<object>x).shape}, got {dy.shape}")
    start(&c, x, 0)
    view = <tuple>fields[VIEW]
    c.view = View(view[0], view[1], view[2], view[3])
    c.rows, c.entries, c.period = view[4], view[5], view[6]
    c.centered, c.given = fields[CENTERED], fields[CONSTANT]
    weight, bias, mask = fields[WEIGHT], fields[BIAS], fields[MASK]
    parameter = bias if weight is None else weight
    if (
        c.view.outer * c.view.reduced * c.view.groups * c.view.inner != cnp.PyArray_SIZE(x)
        or (parameter is not None and cnp.PyArray_SIZE(<cnp.ndarray>parameter) != c.entries * c.period)
        or (mask is not None and cnp.PyArray_SIZE(<cnp.ndarray>mask) != cnp.PyArray_SIZE(x))
    ):
        raise ValueError("input, weight, bias and mask must not be resized between a norm's call and its backward")
    which = backward_kernel(&c, parameter is not None)
    run = kernel_of(which)
    dx = like(x)
    dweight = dbias = None
    if parameter is not None:
        dweight, dbias = like(<cnp.ndarray>parameter), like(<cnp.ndarray>parameter)
    result = dx, None if weight is None else dweight, None if bias is None else dbias
    if cnp.PyArray_SIZE(x) == 0:
        if parameter is not None:
            dweight[...] = dbias[...] = 0
        return result
    if which == ROWS_BACKWARD_OWN and weight is None:
        weight = np.ones_like(parameter)
    c.dy, c.x, c.y = data_of(dy), cnp.PyArray_DATA(x), data_of(dx)
    c.groups = <Group*>data_of(fields[GROUPS])
    c.weight, c.mask = data_of(weight), <const unsigned char*>data_of(mask)
    c.dweight, c.dbias = data_of(dweight), data_of(dbias)
    if cnp.PyArray_NBYTES(x) < BRIEF:
        failed = run_backward(&c, run)
    else:
        with nogil:
            failed = run_backward(&c, run)
    if failed:
        raise MemoryError("no memory for the partial sums of a norm's gradient")
    return result


cdef int run_backward(const Call* c, kernel run) noexcept nogil:
    cdef int failed = run(c)
    if c.dweight != NULL and not failed:
        failed = repair_parameters(c)
    return failed


cdef inline int backward_kernel(Call* c, bint affine) noexcept:
    if not c.rows:
        return COLUMNS_BACKWARD
    if not affine:      # then nothing divides a group
        c.entries = c.period = 1
    elif c.entries == c.view.inner and c.view.reduced == 1:
        return ROWS_BACKWARD_OWN
    return ROWS_BACKWARD


# ---- entry points: y, or (y, ctx) where `context` is the class of ctx; `gate` does what is not plain -----------------

def trailing_norm(
    object x, object normalized_shape, object weight, object bias, object eps, object mask, object out, bint centered,
    object context, object gate,
):
    """Layer norm, or RMS norm, which is not centered; for the latter eps = None is the dtype's machine epsilon."""
    cdef Call c
    cdef double added
    cdef int axes, kept
    if not (
        plain_arrays(x, weight, bias, mask, out, context is not None)
        and (type(normalized_shape) is int or plain_integers(normalized_shape))
        and (type(eps) is float or (eps is None and not centered))
    ):
        return gate(x, normalized_shape, weight, bias, eps, mask, out, centered, context)
    if eps is not None:
        added = eps
    else:
        added = DBL_EPSILON if cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_DOUBLE else FLT_EPSILON
    axes = trailing_axes(x, normalized_shape)
    kept = cnp.PyArray_NDIM(<cnp.ndarray>x) - axes
    check_shape("weight", weight, cnp.PyArray_DIMS(<cnp.ndarray>x) + kept, axes)
    check_shape("bias", bias, cnp.PyArray_DIMS(<cnp.ndarray>x) + kept, axes)
    start(&c, x, added)
    c.centered = centered
    trailing_view(&c, cnp.PyArray_DIMS(<cnp.ndarray>x), cnp.PyArray_NDIM(<cnp.ndarray>x), axes)
    return forward(&c, x, weight, bias, mask, out, NULL, context)


cdef int start_channels(
    Call* c, cnp.ndarray x, object weight, object bias, object eps, object channel_axis, int least,
) except -1:
    # the channel axis
    cdef int axis = channels_of(x, channel_axis, least)
    check_shape("weight", weight, cnp.PyArray_DIMS(x) + axis, 1)
    check_shape("bias", bias, cnp.PyArray_DIMS(x) + axis, 1)
    start(c, x, eps)
    return axis


cdef object channel_norm(
    bint instances, object x, object running_mean, object running_var, object weight, object bias, object training,
    object momentum, object eps, object channel_axis, object mask, object out, object context, object gate,
):
    # batch norm, or instance norm
    cdef Call c
    cdef Running running
    cdef cnp.npy_intp* shape
    cdef int axis, ndim
    if not (
        plain_arrays(x, weight, bias, mask, out, context is not None) and type(training) is bool
        and plain_running(x, running_mean, running_var, out, training) and type(momentum) is float
        and type(eps) is float and type(channel_axis) is int
    ):
        return gate(
            x, running_mean, running_var, weight, bias, training, momentum, eps, channel_axis, mask, out, context)
    axis = start_channels(&c, x, weight, bias, eps, channel_axis, 3 if instances else 2)
    shape, ndim = cnp.PyArray_DIMS(<cnp.ndarray>x), cnp.PyArray_NDIM(<cnp.ndarray>x)
    check_shape("running_mean", running_mean, shape + axis, 1)
    check_shape("running_var", running_var, shape + axis, 1)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must be given together or both be None")
    if not isfinite(<double>momentum):
        raise ValueError(f"momentum must be a finite number, got {momentum}")
    if instances and training:
        group_view(&c, shape, ndim, axis, shape[axis])
    else:
        batch_view(&c, shape, ndim, axis)
    if training:
        check_training(&c, instances, x, eps)
    elif running_mean is None:
        raise ValueError(
            f"running_mean and running_var must be given unless {'use_input_stats' if instances else 'training'}=True")
    c.given = not training
    if running_mean is None:
        return forward(&c, x, weight, bias, mask, out, NULL, context)
    running.mean, running.variance = data_of(running_mean), data_of(running_var)
    running.channels, running.double_precision, running.momentum = shape[axis], c.double_precision, momentum
    return forward(&c, x, weight, bias, mask if training else None, out, &running, context)


cdef int check_training(Call* c, bint instances, object x, object eps) except -1:
    cdef bint single = c.view.reduced * c.view.inner == 1 and c.view.outer * c.view.groups > 0
    if instances and single:
        raise ValueError(f"Expected more than 1 spatial element when training, got input shape {x.shape}")
    if not instances and not c.eps > 0:
        raise ValueError(f"eps must be positive in training, got {eps}")
    if single:
        raise ValueError(f"Expected more than 1 value per channel when training, got input shape {x.shape}")
    return 0


def batch_norm(
    object x, object running_mean, object running_var, object weight, object bias, object training, object momentum,
    object eps, object channel_axis, object mask, object out, object context, object gate,
):
    """Batch norm; in training, running statistics that are not None are updated in place."""
    return channel_norm(
        False, x, running_mean, running_var, weight, bias, training, momentum, eps, channel_axis, mask, out, context,
        gate)


def instance_norm(
    object x, object running_mean, object running_var, object weight, object bias, object use_input_stats,
    object momentum, object eps, object channel_axis, object mask, object out, object context, object gate,
):
    """Instance norm; likewise."""
    return channel_norm(
        True, x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis, mask, out,
        context, gate)


def group_norm(
    object x, object num_groups, object weight, object bias, object eps, object channel_axis, object mask, object out,
    object context, object gate,
):
    """Group norm."""
    cdef Call c
    cdef Py_ssize_t groups, channels
    cdef int axis
    if not (
        plain_arrays(x, weight, bias, mask, out, context is not None) and type(num_groups) is int
        and type(eps) is float and type(channel_axis) is int
    ):
        return gate(x, num_groups, weight, bias, eps, channel_axis, mask, out, context)
    axis = start_channels(&c, x, weight, bias, eps, channel_axis, 2)
    channels = cnp.PyArray_DIM(<cnp.ndarray>x, axis)
    groups = integer(num_groups)
    if groups < 1 or channels % groups:
        raise ValueError(f"num_groups must divide the number of channels {channels}, got {num_groups}")
    # any number divides no channels
    group_view(
        &c, cnp.PyArray_DIMS(<cnp.ndarray>x), cnp.PyArray_NDIM(<cnp.ndarray>x), axis, groups if channels else 1)
    if cnp.PyArray_DIM(<cnp.ndarray>x, 0) * c.view.reduced * c.view.inner == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input shape {x.shape}")
    return forward(&c, x, weight, bias, mask, out, NULL, context)


def standardize(object x, object axis, object eps, object mask, object out, object context, object gate):
    """Standardisation over any axes; where no view of the array as it lies will do, this too goes to `gate`.

    None if there is no gate.
    """
    cdef Call c
    cdef bint reduced[MOST_AXES]
    cdef Py_ssize_t number
    cdef int ndim
    cdef tuple axes = axis if type(axis) is tuple else (axis,)
    if not (
        plain_arrays(x, None, None, mask, out, context is not None) and type(eps) is float and plain_integers(axes)
    ):
        return gate(x, axis, eps, mask, out, context)
    ndim = cnp.PyArray_NDIM(<cnp.ndarray>x)
    memset(reduced, 0, sizeof(reduced))
    for one in axes:
        number = integer(one)
        if not -ndim <= number < ndim:
            raise ValueError(f"axis must be axes of the input, which has {ndim}, got {axis}")
        number += ndim if number < 0 else 0
        if reduced[number]:
            raise ValueError(f"axis must name each axis once, got {axis}")
        reduced[number] = True
    start(&c, x, eps)
    if not axes_view(&c, cnp.PyArray_DIMS(<cnp.ndarray>x), ndim, reduced):
        return gate(x, axis, eps, mask, out, context) if gate is not None else None
    return forward(&c, x, None, None, mask, out, NULL, context)


# ---- what recalibration and frozen networks ask for ------------------------------------------------------------------

def batch_population(object x, object weight, object bias, object eps, object channel_axis, object gate):
    """(y, population) of batch norm in training, population float64 (channels, 3): mean, biased variance, count.

    A single value per channel is no error here: it gives `bias`.
    """
    cdef Call c
    cdef cnp.npy_intp shape[2]
    cdef int axis
    if not plain_arrays(x, weight, bias, None, None, False):
        return gate(x, weight, bias, eps, channel_axis)
    axis = start_channels(&c, x, weight, bias, eps, channel_axis, 2)
    batch_view(&c, cnp.PyArray_DIMS(<cnp.ndarray>x), cnp.PyArray_NDIM(<cnp.ndarray>x), axis)
    shape[0], shape[1] = c.view.groups, sizeof(Population) // sizeof(double)
    population = cnp.PyArray_ZEROS(2, shape, cnp.NPY_DOUBLE, 0)
    c.population = <Population*>cnp.PyArray_DATA(<cnp.ndarray>population)
    return forward(&c, x, weight, bias, None, None, NULL, None), population


def groups_from_running(cnp.ndarray mean, cnp.ndarray variance, double eps):
    """Groups, float64 (channels, fields), that normalise with the given statistics; regular arrays of one form."""
    cdef Running running
    running.mean, running.variance = cnp.PyArray_DATA(mean), cnp.PyArray_DATA(variance)
    running.channels = cnp.PyArray_SIZE(mean)
    running.double_precision = cnp.PyArray_TYPE(mean) == cnp.NPY_DOUBLE
    groups = new_groups(running.channels, False)
    fill_groups(&running, eps, <Group*>cnp.PyArray_DATA(<cnp.ndarray>groups))
    return groups
