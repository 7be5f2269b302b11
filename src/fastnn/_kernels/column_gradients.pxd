# The input's gradient of column norms, row by row: fma(x·scale − shift, slope, fma(dy, factor, constant)), whose
# parameters are rows of numbers for each lane.

from cython cimport floating

from fastnn._kernels.column_parameters cimport FACTOR, SCALE, SHIFT
from fastnn._kernels.columns cimport EVEN, EVEN_MOST, SLIM, Layout, put
from fastnn._kernels.fused cimport multiply_add_once as multiply_add
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.lanes cimport wide_deviation
from fastnn._kernels.norm cimport deviation, masked_gradient
from fastnn._kernels.streaming cimport stream_end

# Rows of parameters behind the first three; known once the sums are. The last three, what rounding took off, are for
# double data under a mask.
cdef enum:
    CONSTANT = 3    # −rstd · Σg/n − lo · SLOPE
    SLOPE           # −rstd² · Σgx̂/n
    FACTOR_LOW
    CONSTANT_LOW
    SLOPE_LOW
    GRADIENT_PARAMETERS

cdef enum:
    # elements that are read before any of them is written
    CHUNK = 64


cdef inline inlined gradient_chunk(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, const floating* parameters,
    Py_ssize_t stride, Py_ssize_t n, bint constant, bint streamed, bint cold,
) noexcept nogil:
    # up to CHUNK elements, read before any is written: the compiler needs no test of overlap. `n`, `constant` and
    # `cold` are constants where this is inlined: without `cold` every scale is 1
    cdef const floating* scale = parameters + SCALE * stride
    cdef const floating* factor = parameters + FACTOR * stride
    cdef floating out[CHUNK]
    cdef floating value
    cdef Py_ssize_t j
    for j in range(n):
        if constant or (mask != NULL and mask[j] == 0):
            value = dy[j] * factor[j]
        elif floating is double and mask != NULL:
            value = masked_gradient(
                dy[j], factor[j], parameters[FACTOR_LOW * stride + j],
                wide_deviation(x[j], parameters[SHIFT * stride + j], scale[j], cold, x[0]),
                parameters[SLOPE * stride + j], parameters[SLOPE_LOW * stride + j], parameters[CONSTANT * stride + j],
                parameters[CONSTANT_LOW * stride + j], True)
        else:
            value = multiply_add(
                deviation(x[j], parameters[SHIFT * stride + j], scale[j], cold), parameters[SLOPE * stride + j],
                multiply_add(dy[j], factor[j], parameters[CONSTANT * stride + j]))
        out[j] = value * scale[j] if cold and not constant else value
    put(out, dx, n, streamed)


cdef inline inlined gradient_row(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, const floating* parameters,
    Py_ssize_t stride, Py_ssize_t n, bint constant, bint streamed, bint cold,
) noexcept nogil:
    cdef Py_ssize_t j = 0
    while n - j >= CHUNK:
        gradient_chunk(
            dy + j, x + j, dx + j, mask + j if mask != NULL else NULL, parameters + j, stride, CHUNK, constant,
            streamed, cold)
        j += CHUNK
    while j < n:
        if n - j < SLIM and n >= SLIM:      # the last elements, some of them a second time
            j = n - SLIM
        if n - j >= SLIM:
            gradient_chunk(
                dy + j, x + j, dx + j, mask + j if mask != NULL else NULL, parameters + j, stride, SLIM, constant,
                streamed, cold)
            j += SLIM
        else:
            gradient_chunk(
                dy + j, x + j, dx + j, mask + j if mask != NULL else NULL, parameters + j, stride, 1, constant, False,
                cold)
            j += 1


cdef inline inlined gradient_even_rows(
    const floating* dy, const floating* x, floating* dx, const floating* parameters, Layout* layout, Py_ssize_t rows,
    Py_ssize_t n,
) noexcept nogil:
    # n lanes of some rows; `n` is a constant where this is inlined
    cdef floating shift[EVEN_MOST]
    cdef floating factor[EVEN_MOST]
    cdef floating constant[EVEN_MOST]
    cdef floating slope[EVEN_MOST]
    cdef floating out[EVEN_MOST]
    cdef Py_ssize_t _r, j
    for j in range(n):
        shift[j] = parameters[SHIFT * layout.stride + j]
        factor[j] = parameters[FACTOR * layout.stride + j]
        constant[j] = parameters[CONSTANT * layout.stride + j]
        slope[j] = parameters[SLOPE * layout.stride + j]
    for _r in range(rows):
        for j in range(n):
            out[j] = multiply_add(
                deviation(x[j], shift[j], <floating>1, False), slope[j], multiply_add(dy[j], factor[j], constant[j]))
        put(out, dx, n, False)
        dy += layout.lanes
        x += layout.lanes
        dx += layout.lanes


cdef inline bint even_rows_done(
    const float* dy, const float* x, float* dx, const float* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    # whether there is a loop for so many lanes
    if n == EVEN:
        gradient_even_rows(dy, x, dx, parameters, layout, rows, EVEN)
    elif n == 2 * EVEN:
        gradient_even_rows(dy, x, dx, parameters, layout, rows, 2 * EVEN)
    elif n == EVEN_MOST:
        gradient_even_rows(dy, x, dx, parameters, layout, rows, EVEN_MOST)
    else:
        return False
    return True


cdef inline void gradient_rows(
    const floating* dy, const floating* x, floating* dx, const unsigned char* mask, const floating* parameters,
    Layout* layout, Py_ssize_t rows, Py_ssize_t n, bint constant, bint streamed, bint cold,
) noexcept nogil:
    # n lanes of some rows
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t stride = layout.stride
    cdef Py_ssize_t r, at
    if floating is float and mask == NULL and not (constant or cold or streamed) and even_rows_done(
        dy, x, dx, parameters, layout, rows, n,
    ):
        return
    for r in range(rows):
        at = r * lanes
        if constant:
            if cold:
                gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, True, False, True)
            else:
                gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, True, False, False)
        elif mask != NULL:
            gradient_row(dy + at, x + at, dx + at, mask + at, parameters, stride, n, False, False, True)
        elif cold:
            gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, False, False, True)
        elif streamed:
            gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, False, True, False)
        else:
            gradient_row(dy + at, x + at, dx + at, NULL, parameters, stride, n, False, False, False)
    if streamed:
        stream_end()
