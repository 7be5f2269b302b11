"""Windows of images as matrices (im2col) and back (col2im), for convolutions by matrix products.

Design
  (A) Channels first: columns (images, channels, KH·KW, rows·OW), so that the product with the weights lands in the
      result's own layout. Channels last: (images, rows·OW, groups, KH·KW, channels of the group), for the same reason.
  (B) `rows` is a range of output rows: one image's columns may be many times its size, and the caller takes as many
      rows, or images, as stay in cache.
  (C) Ranges are trimmed to the input; what lies in the padding is filled with zeros (im2col) or left out (col2im).
  (D) col2im adds, in the windows' order, into zeroed memory; a task owns whole planes (channels first) or the
      channels of one image (channels last).
"""

cimport numpy as cnp
from cython cimport floating

from fastnn._kernels._runtime cimport parallel_for
from fastnn._kernels.window cimport Axis, axis_of, end_inside, first_inside, position

cnp.import_array()

__all__ = ["fold", "unfold"]

cdef struct Unfold:
    char* x                 # (images, channels, H, W) or (images, H, W, channels): IN of unfold, IN and OUT of fold
    char* columns           # see (A): OUT of unfold, IN of fold
    Axis h
    Axis w
    Py_ssize_t channels
    Py_ssize_t groups
    Py_ssize_t first_row    # of the output
    Py_ssize_t rows
    bint double_precision


# ---- channels first: one plane ---------------------------------------------------------------------------------------

cdef inline void unfold_plane(Unfold* p, Py_ssize_t plane, floating example) noexcept nogil:
    cdef const floating* x = <const floating*>p.x + plane * p.h.size * p.w.size
    cdef floating* d = <floating*>p.columns + plane * p.h.kernel * p.w.kernel * p.rows * p.w.out
    cdef const floating* s
    cdef Py_ssize_t kh, kw, r, ih, j, first, end
    for kh in range(p.h.kernel):
        for kw in range(p.w.kernel):
            first, end = first_inside(&p.w, kw), end_inside(&p.w, kw)
            for r in range(p.rows):
                ih = position(&p.h, p.first_row + r, kh)
                if ih < 0 or ih >= p.h.size:
                    for j in range(p.w.out):
                        d[j] = 0
                else:
                    s = x + ih * p.w.size + position(&p.w, 0, kw)
                    for j in range(first):
                        d[j] = 0
                    if p.w.stride == 1:
                        for j in range(first, end):
                            d[j] = s[j]
                    else:
                        for j in range(first, end):
                            d[j] = s[j * p.w.stride]
                    for j in range(end, p.w.out):
                        d[j] = 0
                d += p.w.out


cdef inline void fold_plane(Unfold* p, Py_ssize_t plane, floating example) noexcept nogil:
    cdef floating* x = <floating*>p.x + plane * p.h.size * p.w.size
    cdef const floating* s = <const floating*>p.columns + plane * p.h.kernel * p.w.kernel * p.rows * p.w.out
    cdef floating* d
    cdef Py_ssize_t kh, kw, r, ih, j, first, end
    for kh in range(p.h.kernel):
        for kw in range(p.w.kernel):
            first, end = first_inside(&p.w, kw), end_inside(&p.w, kw)
            for r in range(p.rows):
                ih = position(&p.h, p.first_row + r, kh)
                if 0 <= ih < p.h.size:
                    d = x + ih * p.w.size + position(&p.w, 0, kw)
                    if p.w.stride == 1:
                        for j in range(first, end):
                            d[j] += s[j]
                    else:
                        for j in range(first, end):
                            d[j * p.w.stride] += s[j]
                s += p.w.out


# ---- channels last: one row of windows, or one image -----------------------------------------------------------------

cdef inline void unfold_row(Unfold* p, Py_ssize_t task, floating example) noexcept nogil:
    cdef Py_ssize_t each = p.channels // p.groups
    cdef Py_ssize_t image = task // p.rows
    cdef Py_ssize_t row = p.first_row + task % p.rows
    cdef const floating* x = <const floating*>p.x + image * p.h.size * p.w.size * p.channels
    cdef floating* d = <floating*>p.columns + task * p.w.out * p.h.kernel * p.w.kernel * p.channels
    cdef const floating* s
    cdef Py_ssize_t ow, g, kh, kw, ih, iw, j
    for ow in range(p.w.out):
        for g in range(p.groups):
            for kh in range(p.h.kernel):
                ih = position(&p.h, row, kh)
                for kw in range(p.w.kernel):
                    iw = position(&p.w, ow, kw)
                    if ih < 0 or ih >= p.h.size or iw < 0 or iw >= p.w.size:
                        for j in range(each):
                            d[j] = 0
                    else:
                        s = x + (ih * p.w.size + iw) * p.channels + g * each
                        for j in range(each):
                            d[j] = s[j]
                    d += each


cdef inline void fold_image(Unfold* p, Py_ssize_t image, floating example) noexcept nogil:
    cdef Py_ssize_t each = p.channels // p.groups
    cdef floating* x = <floating*>p.x + image * p.h.size * p.w.size * p.channels
    cdef const floating* s = (
        <const floating*>p.columns + image * p.rows * p.w.out * p.h.kernel * p.w.kernel * p.channels
    )
    cdef floating* d
    cdef Py_ssize_t r, ow, g, kh, kw, ih, iw, j
    for r in range(p.rows):
        for ow in range(p.w.out):
            for g in range(p.groups):
                for kh in range(p.h.kernel):
                    ih = position(&p.h, p.first_row + r, kh)
                    for kw in range(p.w.kernel):
                        iw = position(&p.w, ow, kw)
                        if 0 <= ih < p.h.size and 0 <= iw < p.w.size:
                            d = x + (ih * p.w.size + iw) * p.channels + g * each
                            for j in range(each):
                                d[j] += s[j]
                        s += each


cdef void unfold_plane_task(void* arguments, Py_ssize_t plane) noexcept nogil:
    cdef Unfold* p = <Unfold*>arguments
    if p.double_precision:
        unfold_plane(p, plane, <double>0)
    else:
        unfold_plane(p, plane, <float>0)


cdef void fold_plane_task(void* arguments, Py_ssize_t plane) noexcept nogil:
    cdef Unfold* p = <Unfold*>arguments
    if p.double_precision:
        fold_plane(p, plane, <double>0)
    else:
        fold_plane(p, plane, <float>0)


cdef void unfold_row_task(void* arguments, Py_ssize_t task) noexcept nogil:
    cdef Unfold* p = <Unfold*>arguments
    if p.double_precision:
        unfold_row(p, task, <double>0)
    else:
        unfold_row(p, task, <float>0)


cdef void fold_image_task(void* arguments, Py_ssize_t image) noexcept nogil:
    cdef Unfold* p = <Unfold*>arguments
    if p.double_precision:
        fold_image(p, image, <double>0)
    else:
        fold_image(p, image, <float>0)


# ---- entry points ----------------------------------------------------------------------------------------------------

cdef Unfold arguments_of(
    cnp.ndarray x, cnp.ndarray columns, tuple h, tuple w, Py_ssize_t channels, Py_ssize_t groups,
    Py_ssize_t image, Py_ssize_t first_row, Py_ssize_t rows,
) except *:
    cdef Unfold p
    p.h, p.w = axis_of(h), axis_of(w)
    p.x = <char*>cnp.PyArray_DATA(x) + image * p.h.size * p.w.size * channels * cnp.PyArray_ITEMSIZE(x)
    p.columns = <char*>cnp.PyArray_DATA(columns)
    p.channels, p.groups, p.first_row, p.rows = channels, groups, first_row, rows
    p.double_precision = cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE
    return p


def unfold(
    cnp.ndarray x, cnp.ndarray columns, tuple h, tuple w, Py_ssize_t channels, Py_ssize_t groups,
    Py_ssize_t image, Py_ssize_t images, Py_ssize_t first_row, Py_ssize_t rows, bint channels_last,
):
    """Fill `columns` with the windows of images image … image + images − 1 of x, output rows first_row … + rows − 1."""
    cdef Unfold p = arguments_of(x, columns, h, w, channels, groups, image, first_row, rows)
    cdef double work = 2.0 * images * rows * p.w.out * p.h.kernel * p.w.kernel * channels * cnp.PyArray_ITEMSIZE(x)
    with nogil:
        if channels_last:
            parallel_for(unfold_row_task, &p, images * rows, work)
        else:
            parallel_for(unfold_plane_task, &p, images * channels, work)


def fold(
    cnp.ndarray x, cnp.ndarray columns, tuple h, tuple w, Py_ssize_t channels, Py_ssize_t groups,
    Py_ssize_t image, Py_ssize_t images, Py_ssize_t first_row, Py_ssize_t rows, bint channels_last,
):
    """Add `columns` to the places of x that `unfold` with the same arguments took them from."""
    cdef Unfold p = arguments_of(x, columns, h, w, channels, groups, image, first_row, rows)
    cdef double work = 2.0 * images * rows * p.w.out * p.h.kernel * p.w.kernel * channels * cnp.PyArray_ITEMSIZE(x)
    with nogil:
        if channels_last:
            parallel_for(fold_image_task, &p, images, work)
        else:
            parallel_for(fold_plane_task, &p, images * channels, work)
