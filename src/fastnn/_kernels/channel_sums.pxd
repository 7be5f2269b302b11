# Sums over pixels, channels side by side: weight gradients of SIDE_BY_SIDE result channels and more.
#
# A tile is TAPS terms by `wide` channels of dy in registers; each weight is one running sum of the pixels of a patch.

from cython cimport floating

from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.tiles cimport COLUMNS, HALVES

cdef enum:
    TAPS = 9        # a 3×3 kernel's; their sums and the operands fit 32 registers, or 16 with half the columns
    WIDEST = 32


cdef struct Patch:
    # pixels of one running sum: how many, and the steps between rows and images behind the last pixel of a row
    Py_ssize_t images
    Py_ssize_t rows
    Py_ssize_t columns
    Py_ssize_t x_row
    Py_ssize_t x_image
    Py_ssize_t y_row
    Py_ssize_t y_image


cdef inline Py_ssize_t wide(bint double_precision) noexcept nogil:
    # channels of a tile: two registers' worth where there are 32 registers, one where there are 16
    cdef Py_ssize_t n = COLUMNS if HALVES == 0 else COLUMNS // 2
    return n // 2 if double_precision else n


cdef inline inlined patch_sums(
    const Patch* p, const floating* x, const Py_ssize_t* shifts, const floating* y, double* sums, Py_ssize_t n,
    Py_ssize_t stride,
) noexcept nogil:
    # sums (TAPS, WIDEST) += Σ over the patch of x[shifts[k] + pixel]·y[pixel · stride + j], j < n, a constant
    cdef floating s0[WIDEST]
    cdef floating s1[WIDEST]
    cdef floating s2[WIDEST]
    cdef floating s3[WIDEST]
    cdef floating s4[WIDEST]
    cdef floating s5[WIDEST]
    cdef floating s6[WIDEST]
    cdef floating s7[WIDEST]
    cdef floating s8[WIDEST]
    cdef const floating* x0 = x + shifts[0]
    cdef const floating* x1 = x + shifts[1]
    cdef const floating* x2 = x + shifts[2]
    cdef const floating* x3 = x + shifts[3]
    cdef const floating* x4 = x + shifts[4]
    cdef const floating* x5 = x + shifts[5]
    cdef const floating* x6 = x + shifts[6]
    cdef const floating* x7 = x + shifts[7]
    cdef const floating* x8 = x + shifts[8]
    cdef Py_ssize_t images, rows, end, j
    cdef Py_ssize_t q = 0
    cdef floating v
    for j in range(n):
        s0[j] = s1[j] = s2[j] = s3[j] = s4[j] = s5[j] = s6[j] = s7[j] = s8[j] = 0
    images = p.images
    while images > 0:
        rows = p.rows
        while rows > 0:
            end = q + p.columns
            while q < end:
                for j in range(n):
                    v = y[j]
                    s0[j] = multiply_add(x0[q], v, s0[j])
                    s1[j] = multiply_add(x1[q], v, s1[j])
                    s2[j] = multiply_add(x2[q], v, s2[j])
                    s3[j] = multiply_add(x3[q], v, s3[j])
                    s4[j] = multiply_add(x4[q], v, s4[j])
                    s5[j] = multiply_add(x5[q], v, s5[j])
                    s6[j] = multiply_add(x6[q], v, s6[j])
                    s7[j] = multiply_add(x7[q], v, s7[j])
                    s8[j] = multiply_add(x8[q], v, s8[j])
                y += stride
                q += 1
            q += p.x_row
            y += p.y_row
            rows -= 1
        q += p.x_image
        y += p.y_image
        images -= 1
    for j in range(n):
        sums[j] += s0[j]
        sums[WIDEST + j] += s1[j]
        sums[2 * WIDEST + j] += s2[j]
        sums[3 * WIDEST + j] += s3[j]
        sums[4 * WIDEST + j] += s4[j]
        sums[5 * WIDEST + j] += s5[j]
        sums[6 * WIDEST + j] += s6[j]
        sums[7 * WIDEST + j] += s7[j]
        sums[8 * WIDEST + j] += s8[j]
