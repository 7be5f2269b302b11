"""Maximum and average over windows of images, forward and backward, channels first or last.

Design
  (A) One body for both layouts: the innermost loop runs over neighbours in memory that share one window element,
      output columns of one plane (channels first) or the channels of one pixel (channels last). A "line" is one row of
      windows of one plane, or of one image.
  (B) Windows are walked element by element (kh, kw) outside that loop, with ranges trimmed to the input instead of
      tests for padding.
  (C) Maximum keeps, for backward, which element of its window won (int32); the first of equals, and NaN wins.
      Backward walks the windows as forward does and adds where the element won: no scatter, and sums whose order the
      shape alone fixes. A task owns whole planes (images), so no two threads add to one place.
  (D) Averages add in float64 and divide once.
"""

cimport numpy as cnp
from cython cimport floating
from libc.stdint cimport int32_t
from libc.string cimport memset

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.window cimport Axis, axis_of, end_inside, first_inside, position

cnp.import_array()

__all__ = ["pool_backward", "pool_forward"]

cdef struct Pool:
    const void* x       # IN   (planes, H, W, run); dy (planes, OH, OW, run) in backward
    void* y             # OUT  (planes, OH, OW, run); dx (planes, H, W, run) in backward
    int32_t* winner     # OUT  like the forward result, IN in backward; NULL for averages and where not wanted
    double* sums        # scratch (planes, OW, run) of averages
    Axis h
    Axis w
    Py_ssize_t planes   # images · channels, or images
    Py_ssize_t run      # 1, or channels
    bint maximum
    bint count_padding
    Py_ssize_t divisor  # 0: the number of elements
    bint double_precision


# ---- along one line: n neighbours `step` apart in the input --------------------------------------------------------

cdef inline void take_larger(
    const floating* x, floating* y, int32_t* winner, Py_ssize_t n, Py_ssize_t step, int32_t k,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating v
    if winner == NULL:
        for j in range(n):
            v = x[j * step]
            y[j] = v if v > y[j] or v != v else y[j]
    else:
        for j in range(n):
            v = x[j * step]
            winner[j] = k if v > y[j] or v != v else winner[j]
            y[j] = v if v > y[j] or v != v else y[j]


cdef inline void take_larger_by_step(
    const floating* x, floating* y, int32_t* winner, Py_ssize_t n, Py_ssize_t step, int32_t k,
) noexcept nogil:
    # constant steps become vector code
    if step == 1:
        take_larger(x, y, winner, n, 1, k)
    elif step == 2:
        take_larger(x, y, winner, n, 2, k)
    else:
        take_larger(x, y, winner, n, step, k)


cdef inline void give_winner(
    const floating* dy, const int32_t* winner, floating* dx, Py_ssize_t n, Py_ssize_t step, int32_t k,
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        dx[j * step] += dy[j] if winner[j] == k else <floating>0


# ---- one plane -----------------------------------------------------------------------------------------------------

cdef inline double count_of(Pool* p, Py_ssize_t oh, Py_ssize_t ow) noexcept nogil:
    """What a sum over window (oh, ow) is divided by. The padding behind the input counts as far as it goes."""
    cdef Py_ssize_t top = position(&p.h, oh, 0)
    cdef Py_ssize_t left = position(&p.w, ow, 0)
    cdef Py_ssize_t bottom = min(top + p.h.kernel, p.h.size + p.h.padding)
    cdef Py_ssize_t right = min(left + p.w.kernel, p.w.size + p.w.padding)
    if p.divisor:
        return <double>p.divisor
    if not p.count_padding:
        top, left = max(top, 0), max(left, 0)
        bottom, right = min(bottom, p.h.size), min(right, p.w.size)
    return <double>((bottom - top) * (right - left))


cdef inline void max_plane(Pool* p, Py_ssize_t plane, floating lowest) noexcept nogil:
    cdef const floating* x = <const floating*>p.x + plane * p.h.size * p.w.size * p.run
    cdef Py_ssize_t line = p.w.out * p.run
    cdef floating* y = <floating*>p.y + plane * p.h.out * line
    cdef int32_t* winner = p.winner + plane * p.h.out * line if p.winner != NULL else NULL
    cdef Py_ssize_t oh, ow, ih, kh, kw, first, end, j
    cdef const floating* row
    for oh in range(p.h.out):
        for j in range(line):
            y[j] = lowest
        if winner != NULL:
            # a window of −inf only: its first element inside the input
            for ow in range(p.w.out):
                kh, kw = first_element(&p.h, oh), first_element(&p.w, ow)
                for j in range(p.run):
                    winner[ow * p.run + j] = <int32_t>(kh * p.w.kernel + kw)
        for kh in range(p.h.kernel):
            ih = position(&p.h, oh, kh)
            if ih < 0 or ih >= p.h.size:
                continue
            row = x + ih * p.w.size * p.run
            for kw in range(p.w.kernel):
                first, end = first_inside(&p.w, kw), end_inside(&p.w, kw)
                if p.run == 1:
                    take_larger_by_step(
                        row + position(&p.w, first, kw), y + first, winner + first if winner != NULL else NULL,
                        end - first, p.w.stride, <int32_t>(kh * p.w.kernel + kw),
                    )
                else:
                    for ow in range(first, end):
                        take_larger(
                            row + position(&p.w, ow, kw) * p.run, y + ow * p.run,
                            winner + ow * p.run if winner != NULL else NULL, p.run, 1,
                            <int32_t>(kh * p.w.kernel + kw),
                        )
        y += line
        if winner != NULL:
            winner += line


cdef inline Py_ssize_t first_element(const Axis* axis, Py_ssize_t o) noexcept nogil:
    """The first element of window o that is not before the input."""
    cdef Py_ssize_t start = position(axis, o, 0)
    return 0 if start >= 0 else (axis.dilation - 1 - start) // axis.dilation


cdef inline void max_plane_backward(Pool* p, Py_ssize_t plane, floating example) noexcept nogil:
    cdef Py_ssize_t line = p.w.out * p.run
    cdef const floating* dy = <const floating*>p.x + plane * p.h.out * line
    cdef const int32_t* winner = p.winner + plane * p.h.out * line
    cdef floating* dx = <floating*>p.y + plane * p.h.size * p.w.size * p.run
    cdef Py_ssize_t oh, ow, ih, kh, kw, first, end
    cdef floating* row
    cdef int32_t k
    memset(dx, 0, p.h.size * p.w.size * p.run * sizeof(floating))
    for oh in range(p.h.out):
        for kh in range(p.h.kernel):
            ih = position(&p.h, oh, kh)
            if ih < 0 or ih >= p.h.size:
                continue
            row = dx + ih * p.w.size * p.run
            for kw in range(p.w.kernel):
                first, end = first_inside(&p.w, kw), end_inside(&p.w, kw)
                k = <int32_t>(kh * p.w.kernel + kw)
                if p.run == 1:
                    give_winner(dy + first, winner + first, row + position(&p.w, first, kw), end - first, p.w.stride, k)
                else:
                    for ow in range(first, end):
                        give_winner(
                            dy + ow * p.run, winner + ow * p.run, row + position(&p.w, ow, kw) * p.run, p.run, 1, k,
                        )
        dy += line
        winner += line


cdef inline void average_plane(Pool* p, Py_ssize_t plane, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>p.x + plane * p.h.size * p.w.size * p.run
    cdef Py_ssize_t line = p.w.out * p.run
    cdef floating* y = <floating*>p.y + plane * p.h.out * line
    cdef double* sums = p.sums + plane * line
    cdef Py_ssize_t oh, ow, ih, kh, kw, first, end, j, step
    cdef const floating* row
    cdef double count
    for oh in range(p.h.out):
        memset(sums, 0, line * sizeof(double))
        for kh in range(p.h.kernel):
            ih = position(&p.h, oh, kh)
            if ih < 0 or ih >= p.h.size:
                continue
            row = x + ih * p.w.size * p.run
            for kw in range(p.w.kernel):
                first, end = first_inside(&p.w, kw), end_inside(&p.w, kw)
                if p.run == 1:
                    step = position(&p.w, 0, kw)
                    for ow in range(first, end):
                        sums[ow] += row[step + ow * p.w.stride]
                else:
                    for ow in range(first, end):
                        step = position(&p.w, ow, kw) * p.run
                        for j in range(p.run):
                            sums[ow * p.run + j] += row[step + j]
        for ow in range(p.w.out):
            count = count_of(p, oh, ow)
            for j in range(p.run):
                y[ow * p.run + j] = <floating>(sums[ow * p.run + j] / count)
        y += line


cdef inline void average_plane_backward(Pool* p, Py_ssize_t plane, floating example) noexcept nogil:
    cdef Py_ssize_t line = p.w.out * p.run
    cdef const floating* dy = <const floating*>p.x + plane * p.h.out * line
    cdef floating* dx = <floating*>p.y + plane * p.h.size * p.w.size * p.run
    cdef double* shares = p.sums + plane * line
    cdef Py_ssize_t oh, ow, ih, kh, kw, first, end, j, step
    cdef floating* row
    cdef double count
    memset(dx, 0, p.h.size * p.w.size * p.run * sizeof(floating))
    for oh in range(p.h.out):
        for ow in range(p.w.out):
            count = count_of(p, oh, ow)
            for j in range(p.run):
                shares[ow * p.run + j] = dy[ow * p.run + j] / count
        for kh in range(p.h.kernel):
            ih = position(&p.h, oh, kh)
            if ih < 0 or ih >= p.h.size:
                continue
            row = dx + ih * p.w.size * p.run
            for kw in range(p.w.kernel):
                first, end = first_inside(&p.w, kw), end_inside(&p.w, kw)
                if p.run == 1:
                    step = position(&p.w, 0, kw)
                    for ow in range(first, end):
                        row[step + ow * p.w.stride] += <floating>shares[ow]
                else:
                    for ow in range(first, end):
                        step = position(&p.w, ow, kw) * p.run
                        for j in range(p.run):
                            row[step + j] += <floating>shares[ow * p.run + j]
        dy += line


cdef void forward_task(void* arguments, Py_ssize_t plane) noexcept nogil:
    cdef Pool* p = <Pool*>arguments
    if p.maximum:
        if p.double_precision:
            max_plane(p, plane, -1.0 / 0.0)
        else:
            max_plane(p, plane, <float>(-1.0 / 0.0))
    elif p.double_precision:
        average_plane(p, plane, <double>0)
    else:
        average_plane(p, plane, <float>0)


cdef void backward_task(void* arguments, Py_ssize_t plane) noexcept nogil:
    cdef Pool* p = <Pool*>arguments
    if p.maximum:
        if p.double_precision:
            max_plane_backward(p, plane, <double>0)
        else:
            max_plane_backward(p, plane, <float>0)
    elif p.double_precision:
        average_plane_backward(p, plane, <double>0)
    else:
        average_plane_backward(p, plane, <float>0)


# ---- entry points --------------------------------------------------------------------------------------------------

def pool_forward(
    cnp.ndarray x, cnp.ndarray y, object winner, Py_ssize_t planes, Py_ssize_t run, tuple h, tuple w,
    bint maximum, bint count_padding=True, Py_ssize_t divisor=0,
):
    """y (planes, OH, OW, run) from x (planes, H, W, run), both C-contiguous; `winner` int32 like y, or None."""
    cdef Pool p
    cdef cnp.npy_intp size
    cdef cnp.ndarray scratch
    p.h, p.w = axis_of(h), axis_of(w)
    p.x, p.y = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y)
    p.winner = NULL if winner is None else <int32_t*>cnp.PyArray_DATA(<cnp.ndarray>winner)
    p.planes, p.run = planes, run
    p.maximum, p.count_padding, p.divisor = maximum, count_padding, divisor
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    size = 0 if maximum else planes * p.w.out * run
    scratch = cnp.PyArray_EMPTY(1, &size, cnp.NPY_DOUBLE, 0)
    p.sums = <double*>cnp.PyArray_DATA(scratch)
    with nogil:
        parallel_for(forward_task, &p, planes, <double>(cnp.PyArray_NBYTES(x) + cnp.PyArray_NBYTES(y)))


def pool_backward(
    cnp.ndarray dy, cnp.ndarray dx, object winner, Py_ssize_t planes, Py_ssize_t run, tuple h, tuple w,
    bint maximum, bint count_padding=True, Py_ssize_t divisor=0,
):
    """dx (planes, H, W, run) from dy (planes, OH, OW, run), both C-contiguous; `winner` as forward wrote it."""
    cdef Pool p
    cdef cnp.npy_intp size
    cdef cnp.ndarray scratch
    p.h, p.w = axis_of(h), axis_of(w)
    p.x, p.y = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(dx)
    p.winner = NULL if winner is None else <int32_t*>cnp.PyArray_DATA(<cnp.ndarray>winner)
    p.planes, p.run = planes, run
    p.maximum, p.count_padding, p.divisor = maximum, count_padding, divisor
    p.double_precision = cnp.PyArray_TYPE(dy) == cnp.NPY_DOUBLE
    size = 0 if maximum else planes * p.w.out * run
    scratch = cnp.PyArray_EMPTY(1, &size, cnp.NPY_DOUBLE, 0)
    p.sums = <double*>cnp.PyArray_DATA(scratch)
    with nogil:
        parallel_for(backward_task, &p, planes, <double>(cnp.PyArray_NBYTES(dy) + cnp.PyArray_NBYTES(dx)))
