# The normalised values of one run, forward: x̂ = fma(x − shift, rstd, −lo·rstd), times weight, plus bias.

from cython cimport floating

from fastnn._kernels.fused cimport multiply_add_once as multiply_add
from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.norm cimport Group, deviation, normalized, offset_of
from fastnn._kernels.row_floats cimport apply_affine
from fastnn._kernels.vectors cimport VECTOR
from fastnn._kernels.wide cimport may_join

cdef enum:
    CHUNK = 64
    SHORT_CHUNK = 16


cdef struct Line:
    # y = fma(x·scale − shift, factor, offset), where rstd·weight may be one factor
    double shift
    double scale
    double factor
    double offset
    bint folded


# ---- neighbours share a weight ---------------------------------------------------------------------------------------

cdef inline Line line_of(const Group* group, double weight, double bias, floating example) noexcept nogil:
    cdef Line line
    line.shift = group.shift
    line.scale = group.scale
    line.factor = multiply_add(group.rstd, weight, group.rstd_low * weight)
    line.offset = bias - group.lo * group.rstd * weight
    line.folded = may_join(line.factor, weight, group.rstd, example)
    return line


cdef inline inlined shared_chunk(
    const floating* x, floating* y, Py_ssize_t n, floating shift, floating scale, floating factor, floating offset,
    bint cold,
) noexcept nogil:
    # up to CHUNK elements, read before any is written: x may be y, and the compiler needs no test of overlap.
    # `n` and `cold` are constants where this is inlined, here and below.
    cdef floating out[CHUNK]
    cdef Py_ssize_t j
    for j in range(n):
        out[j] = multiply_add(deviation(x[j], shift, scale, cold), factor, offset)
    for j in range(n):
        y[j] = out[j]


cdef inline inlined shared_run(
    const floating* x,          # IN   (n)
    floating* y,                # OUT  (n); may be x
    Py_ssize_t n, const Line* line, bint cold,
) noexcept nogil:
    cdef floating shift = <floating>line.shift
    cdef floating scale = <floating>line.scale
    cdef floating factor = <floating>line.factor
    cdef floating offset = <floating>line.offset
    cdef Py_ssize_t i = 0
    while n - i >= CHUNK:
        shared_chunk(x + i, y + i, CHUNK, shift, scale, factor, offset, cold)
        i += CHUNK
    while n - i >= SHORT_CHUNK:
        shared_chunk(x + i, y + i, SHORT_CHUNK, shift, scale, factor, offset, cold)
        i += SHORT_CHUNK
    if i < n and n >= SHORT_CHUNK and x != y:       # the last elements, some of them a second time
        shared_chunk(x + n - SHORT_CHUNK, y + n - SHORT_CHUNK, SHORT_CHUNK, shift, scale, factor, offset, cold)
        return
    while i < n:
        shared_chunk(x + i, y + i, 1, shift, scale, factor, offset, cold)
        i += 1


cdef inline apart apply_line(const floating* x, floating* y, Py_ssize_t n, const Line* line) noexcept nogil:
    if line.scale != 1:
        shared_run(x, y, n, line, True)
    elif floating is float and n >= VECTOR:
        apply_affine(x, y, n, line.shift, line.factor, line.offset, NULL, NULL)
    else:
        shared_run(x, y, n, line, False)


# ---- each element has its own weight ---------------------------------------------------------------------------------

cdef inline inlined own_chunk(
    const floating* x, floating* y, Py_ssize_t n, const floating* weight, const floating* bias, bint weighted,
    bint biased, floating shift, floating scale, floating rstd, floating offset, bint cold,
) noexcept nogil:
    # `weighted` and `biased` are constants too
    cdef floating out[CHUNK]
    cdef floating value
    cdef Py_ssize_t j
    for j in range(n):
        value = normalized(x[j], shift, rstd, offset, scale, cold)
        if weighted and biased:
            value = multiply_add(value, weight[j], bias[j])
        elif weighted:
            value = value * weight[j]
        elif biased:
            value = value + bias[j]
        out[j] = value
    for j in range(n):
        y[j] = out[j]


cdef inline inlined apply_own(
    const floating* x,          # IN   (n)
    floating* y,                # OUT  (n); may be x
    Py_ssize_t n,
    const floating* weight,     # IN   (n), if `weighted`
    const floating* bias,       # IN   (n), if `biased`
    bint weighted, bint biased, const Group* group, bint cold,
) noexcept nogil:
    # a run in which each element has its own weight: y = x̂·weight + bias
    cdef floating shift = <floating>group.shift
    cdef floating rstd = <floating>group.rstd
    cdef floating offset = offset_of(group, shift)
    cdef floating scale = <floating>group.scale
    cdef Py_ssize_t i = 0
    while n - i >= CHUNK:
        own_chunk(x + i, y + i, CHUNK, weight + i, bias + i, weighted, biased, shift, scale, rstd, offset, cold)
        i += CHUNK
    while n - i >= SHORT_CHUNK:
        own_chunk(x + i, y + i, SHORT_CHUNK, weight + i, bias + i, weighted, biased, shift, scale, rstd, offset, cold)
        i += SHORT_CHUNK
    if i < n and n >= SHORT_CHUNK and x != y:       # the last elements, some of them a second time
        i = n - SHORT_CHUNK
        own_chunk(x + i, y + i, SHORT_CHUNK, weight + i, bias + i, weighted, biased, shift, scale, rstd, offset, cold)
        return
    while i < n:
        own_chunk(x + i, y + i, 1, weight + i, bias + i, weighted, biased, shift, scale, rstd, offset, cold)
        i += 1


cdef inline apart apply_own_run(
    const floating* x, floating* y, Py_ssize_t n, const floating* weight, const floating* bias, const Group* group,
) noexcept nogil:
    if floating is float and n >= VECTOR and group.scale == 1:
        apply_affine(x, y, n, group.shift, group.rstd, offset_of(group, x[0]), weight, bias)
    elif group.scale != 1:
        apply_own(x, y, n, weight, bias, weight != NULL, bias != NULL, group, True)
    elif weight != NULL and bias != NULL:
        apply_own(x, y, n, weight, bias, True, True, group, False)
    elif weight != NULL:
        apply_own(x, y, n, weight, bias, True, False, group, False)
    else:
        apply_own(x, y, n, weight, bias, False, True, group, False)
