# The input's gradient of runs whose elements share a weight: dx = (dy·factor + ((x·scale − shift)·c2 + c1))·scale.

from cython cimport floating

from fastnn._kernels.inlining cimport apart, inlined
from fastnn._kernels.lanes cimport dd, dd_scale, exact_deviation
from fastnn._kernels.norm cimport Group, deviation, input_gradient, masked_gradient
from fastnn._kernels.row_floats cimport gradient_one, multiply_all, stream_gradient
from fastnn._kernels.row_values cimport CHUNK, SHORT_CHUNK
from fastnn._kernels.rows cimport BATCH
from fastnn._kernels.vectors cimport VECTOR


cdef struct Line:
    double shift
    double scale
    double factor
    double c1
    double c2
    # what rounding took off, of double data
    double factor_low
    double c1_low
    double c2_low


cdef inline Line line_of(
    const Group* group, double weight, double sum_g, double sum_gx, double each, bint centered,
) noexcept nogil:
    # of float data; `each` is 1/n
    cdef Line line
    cdef double g = sum_g * each if centered else 0
    cdef double gx = sum_gx * each
    line.shift = group.shift
    line.scale = group.scale
    line.factor = weight * group.rstd
    line.c2 = -gx * group.rstd * group.rstd
    line.c1 = (gx * group.lo * group.rstd - g) * group.rstd
    line.factor_low = line.c1_low = line.c2_low = 0
    return line


cdef inline void set_factor(Line* line, double weight, dd rstd) noexcept nogil:
    cdef dd factor = dd_scale(rstd, weight)
    line.factor, line.factor_low = factor.high, factor.low


# ---- one run after the other -----------------------------------------------------------------------------------------

cdef inline void scale_runs(
    const floating* dy, floating* dx, Py_ssize_t count, Py_ssize_t n, const floating* factors, bint streamed,
) noexcept nogil:
    # neighbouring runs of n elements; `streamed` only of n ≥ VECTOR
    cdef Py_ssize_t r, i
    if floating is float and n >= VECTOR:
        multiply_all(dy, dx, count, n, factors, streamed)
        return
    for r in range(count):
        for i in range(r * n, (r + 1) * n):
            dx[i] = dy[i] * factors[r]


cdef inline inlined gradient_chunk(
    const floating* dy, const floating* x, floating* dx,
    const unsigned char* mask,      # IN   like x, or NULL, a constant where this is inlined
    Py_ssize_t n, const Line* line, bint cold,
) noexcept nogil:
    # up to CHUNK elements, read before any is written, so that the compiler needs no test of overlap. `n` and `cold`
    # are constants where this is inlined: without `cold` scale is 1.
    cdef floating out[CHUNK]
    cdef floating shift = <floating>line.shift
    cdef floating scale = <floating>line.scale
    cdef floating factor = <floating>line.factor
    cdef floating c1 = <floating>line.c1
    cdef floating c2 = <floating>line.c2
    cdef Py_ssize_t j
    for j in range(n):
        if floating is double and mask != NULL:
            out[j] = scale * masked_gradient(
                dy[j], factor, line.factor_low, exact_deviation(x[j], shift, scale, True), c2, line.c2_low, c1,
                line.c1_low, mask[j])
        else:
            out[j] = input_gradient(
                dy[j], factor, deviation(x[j], shift, scale, cold), c2, c1, mask == NULL or mask[j] != 0, scale, cold)
    for j in range(n):
        dx[j] = out[j]


cdef inline inlined gradient_run(
    const floating* dy,             # IN   (n)
    const floating* x,              # IN   (n)
    floating* dx,                   # OUT  (n)
    Py_ssize_t n, const Line* line, bint cold,
) noexcept nogil:
    cdef Py_ssize_t i = 0
    while n - i >= CHUNK:
        gradient_chunk(dy + i, x + i, dx + i, NULL, CHUNK, line, cold)
        i += CHUNK
    while n - i >= SHORT_CHUNK:
        gradient_chunk(dy + i, x + i, dx + i, NULL, SHORT_CHUNK, line, cold)
        i += SHORT_CHUNK
    if i < n and n >= SHORT_CHUNK:      # the last elements, some of them a second time
        i = n - SHORT_CHUNK
        gradient_chunk(dy + i, x + i, dx + i, NULL, SHORT_CHUNK, line, cold)
        return
    while i < n:
        gradient_chunk(dy + i, x + i, dx + i, NULL, 1, line, cold)
        i += 1


cdef inline apart masked_run(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, Py_ssize_t n, const Line* line,
) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i < n:
        gradient_chunk(dy + i, x + i, dx + i, mask + i, min(<Py_ssize_t>CHUNK, n - i), line, True)
        i += CHUNK


cdef inline apart segment_run(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, Py_ssize_t n, const Line* line,
) noexcept nogil:
    if mask != NULL:
        masked_run(dy, x, dx, mask, n, line)
    elif line.scale != 1:
        gradient_run(dy, x, dx, n, line, True)
    elif floating is float and n >= VECTOR:
        gradient_one(dy, x, dx, n, line.shift, line.factor, line.c1, line.c2)
    else:
        gradient_run(dy, x, dx, n, line, False)


# ---- neighbouring runs of float data, unscaled -----------------------------------------------------------------------

cdef struct Lines:
    float shift[BATCH]
    float factor[BATCH]
    float c1[BATCH]
    float c2[BATCH]


cdef inline apart gradient_runs(
    const float* dy, const float* x, float* dx, Py_ssize_t count, Py_ssize_t n, const Lines* lines, bint streamed,
) noexcept nogil:
    # n ≥ VECTOR
    cdef Py_ssize_t r, at
    for r in range(count):
        at = r * n
        if streamed:
            stream_gradient(dy + at, x + at, dx + at, n, lines.shift[r], lines.factor[r], lines.c1[r], lines.c2[r])
        else:
            gradient_one(dy + at, x + at, dx + at, n, lines.shift[r], lines.factor[r], lines.c1[r], lines.c2[r])
