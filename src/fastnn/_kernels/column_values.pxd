# The normalised values of column norms, row by row: y = fma(x·scale − shift, factor, offset), whose parameters are rows
# of numbers for each lane.

from cython cimport floating

from fastnn._kernels.column_parameters cimport FACTOR, OFFSET, SCALE, SHIFT
from fastnn._kernels.columns cimport EVEN, EVEN_MOST, SLIM, Layout, put
from fastnn._kernels.fused cimport multiply_add_once as multiply_add
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.norm cimport claim_lines, deviation
from fastnn._kernels.streaming cimport stream_end

cdef enum:
    # elements that are read before any of them is written
    CHUNK = 64


cdef inline inlined apply_chunk(
    const floating* x, floating* y, const floating* parameters, Py_ssize_t stride, Py_ssize_t n, bint streamed,
    bint cold,
) noexcept nogil:
    # up to CHUNK elements, read before any is written: x may be y, and the compiler needs no test of overlap. `n` and
    # `cold` are constants where this is inlined: without `cold` every scale is 1
    cdef floating out[CHUNK]
    cdef Py_ssize_t j
    for j in range(n):
        out[j] = multiply_add(
            deviation(x[j], parameters[SHIFT * stride + j], parameters[SCALE * stride + j], cold),
            parameters[FACTOR * stride + j], parameters[OFFSET * stride + j])
    put(out, y, n, streamed)


cdef inline inlined apply_row(
    const floating* x, floating* y, const floating* parameters, Py_ssize_t stride, Py_ssize_t n, bint streamed,
    bint cold,
) noexcept nogil:
    cdef Py_ssize_t j = 0
    while n - j >= CHUNK:
        apply_chunk(x + j, y + j, parameters + j, stride, CHUNK, streamed, cold)
        j += CHUNK
    while n - j >= SLIM:
        apply_chunk(x + j, y + j, parameters + j, stride, SLIM, streamed, cold)
        j += SLIM
    if j < n and n >= SLIM and x != y and not streamed:      # the last elements, some of them a second time
        j = n - SLIM
        apply_chunk(x + j, y + j, parameters + j, stride, SLIM, streamed, cold)
        return
    while j < n:
        apply_chunk(x + j, y + j, parameters + j, stride, 1, False, cold)
        j += 1


cdef inline inlined apply_even_rows(
    const floating* x, floating* y, const floating* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t n,
    bint distant,
) noexcept nogil:
    # n lanes of some rows; `n` is a constant where this is inlined
    cdef floating shift[EVEN_MOST]
    cdef floating factor[EVEN_MOST]
    cdef floating offset[EVEN_MOST]
    cdef floating out[EVEN_MOST]
    cdef Py_ssize_t r, j
    for j in range(n):
        shift[j] = parameters[SHIFT * layout.stride + j]
        factor[j] = parameters[FACTOR * layout.stride + j]
        offset[j] = parameters[OFFSET * layout.stride + j]
    for r in range(rows):
        if distant and r + 1 < rows:
            claim_lines(y + layout.lanes, n)
        for j in range(n):
            out[j] = multiply_add(deviation(x[j], shift[j], <floating>1, False), factor[j], offset[j])
        put(out, y, n, False)
        x += layout.lanes
        y += layout.lanes


cdef inline bint even_rows_done(
    const float* x, float* y, const float* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t n, bint distant,
) noexcept nogil:
    # whether there is a loop for so many lanes
    if n == EVEN:
        apply_even_rows(x, y, parameters, layout, rows, EVEN, distant)
    elif n == 2 * EVEN:
        apply_even_rows(x, y, parameters, layout, rows, 2 * EVEN, distant)
    elif n == EVEN_MOST:
        apply_even_rows(x, y, parameters, layout, rows, EVEN_MOST, distant)
    else:
        return False
    return True


cdef inline void apply_rows(
    const floating* x, floating* y, const floating* parameters, Layout* layout, Py_ssize_t rows, Py_ssize_t n,
    bint cold, bint distant, bint streamed,
) noexcept nogil:
    # n lanes of some rows
    cdef Py_ssize_t lanes = layout.lanes
    cdef Py_ssize_t r, at
    if floating is float and not cold and not streamed and even_rows_done(
        x, y, parameters, layout, rows, n, distant,
    ):
        return
    for r in range(rows):
        at = r * lanes
        if distant and r + 1 < rows:
            claim_lines(y + at + lanes, n)
        if cold:
            apply_row(x + at, y + at, parameters, layout.stride, n, False, True)
        elif streamed:
            apply_row(x + at, y + at, parameters, layout.stride, n, True, False)
        else:
            apply_row(x + at, y + at, parameters, layout.stride, n, False, False)
    if streamed:
        stream_end()
