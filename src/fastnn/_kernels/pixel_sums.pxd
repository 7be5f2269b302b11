# Sums over pixels, pixels side by side: weight gradients of few result channels.
#
# A tile is 4 channels of dy by 3 shifted planes; each of the 12 sums has LANES running sums, which are merged in a
# fixed order in float64. One or two channels, as in depthwise convolutions, are taken one by one, with nine planes
# each: the same sums.

from cython cimport floating

from fastnn._kernels.fused cimport multiply_add
from fastnn._kernels.inlining cimport inlined
from fastnn._kernels.tiles cimport WIDTH

cdef enum:
    LANES = 16


cdef inline double lane_sum(const floating* s) noexcept nogil:
    cdef double t[8]
    cdef Py_ssize_t j
    for j in range(8):
        t[j] = <double>s[j] + <double>s[j + 8]
    return ((t[0] + t[4]) + (t[1] + t[5])) + ((t[2] + t[6]) + (t[3] + t[7]))


cdef inline void gradient_tile(
    const floating* d0, const floating* d1, const floating* d2, const floating* d3,     # IN (n) rows of dy
    const floating* x0, const floating* x1, const floating* x2,                         # IN (n) shifted planes
    Py_ssize_t n,
    double* sums,               # OUT (4, 3)
) noexcept nogil:
    # n elements, rounded up to LANES; WIDTH lanes in registers at a time
    cdef floating s[12][LANES]
    cdef floating a0[WIDTH]
    cdef floating a1[WIDTH]
    cdef floating a2[WIDTH]
    cdef floating b0[WIDTH]
    cdef floating b1[WIDTH]
    cdef floating b2[WIDTH]
    cdef floating c0[WIDTH]
    cdef floating c1[WIDTH]
    cdef floating c2[WIDTH]
    cdef floating e0[WIDTH]
    cdef floating e1[WIDTH]
    cdef floating e2[WIDTH]
    cdef Py_ssize_t part, lane, q, j
    cdef floating u, v, w, y
    for part in range(LANES // WIDTH):
        lane = part * WIDTH
        for j in range(WIDTH):
            a0[j] = a1[j] = a2[j] = b0[j] = b1[j] = b2[j] = 0
            c0[j] = c1[j] = c2[j] = e0[j] = e1[j] = e2[j] = 0
        q = lane
        while q < n:
            for j in range(WIDTH):
                u = x0[q + j]
                v = x1[q + j]
                w = x2[q + j]
                y = d0[q + j]
                a0[j] = multiply_add(y, u, a0[j])
                a1[j] = multiply_add(y, v, a1[j])
                a2[j] = multiply_add(y, w, a2[j])
                y = d1[q + j]
                b0[j] = multiply_add(y, u, b0[j])
                b1[j] = multiply_add(y, v, b1[j])
                b2[j] = multiply_add(y, w, b2[j])
                y = d2[q + j]
                c0[j] = multiply_add(y, u, c0[j])
                c1[j] = multiply_add(y, v, c1[j])
                c2[j] = multiply_add(y, w, c2[j])
                y = d3[q + j]
                e0[j] = multiply_add(y, u, e0[j])
                e1[j] = multiply_add(y, v, e1[j])
                e2[j] = multiply_add(y, w, e2[j])
            q += LANES
        for j in range(WIDTH):
            s[0][lane + j] = a0[j]
            s[1][lane + j] = a1[j]
            s[2][lane + j] = a2[j]
            s[3][lane + j] = b0[j]
            s[4][lane + j] = b1[j]
            s[5][lane + j] = b2[j]
            s[6][lane + j] = c0[j]
            s[7][lane + j] = c1[j]
            s[8][lane + j] = c2[j]
            s[9][lane + j] = e0[j]
            s[10][lane + j] = e1[j]
            s[11][lane + j] = e2[j]
    for j in range(12):
        sums[j] = lane_sum(s[j])


cdef inline inlined row_sums(
    const floating* d, const floating* x, const Py_ssize_t* shifts, Py_ssize_t n, double* sums,
) noexcept nogil:
    # as `gradient_tile`, of one row of dy and nine shifted planes: sums OUT (9)
    cdef floating lanes[9][LANES]
    cdef floating s0[WIDTH]
    cdef floating s1[WIDTH]
    cdef floating s2[WIDTH]
    cdef floating s3[WIDTH]
    cdef floating s4[WIDTH]
    cdef floating s5[WIDTH]
    cdef floating s6[WIDTH]
    cdef floating s7[WIDTH]
    cdef floating s8[WIDTH]
    cdef const floating* x0 = x + shifts[0]
    cdef const floating* x1 = x + shifts[1]
    cdef const floating* x2 = x + shifts[2]
    cdef const floating* x3 = x + shifts[3]
    cdef const floating* x4 = x + shifts[4]
    cdef const floating* x5 = x + shifts[5]
    cdef const floating* x6 = x + shifts[6]
    cdef const floating* x7 = x + shifts[7]
    cdef const floating* x8 = x + shifts[8]
    cdef Py_ssize_t part, lane, q, j
    cdef floating y
    for part in range(LANES // WIDTH):
        lane = part * WIDTH
        for j in range(WIDTH):
            s0[j] = s1[j] = s2[j] = s3[j] = s4[j] = s5[j] = s6[j] = s7[j] = s8[j] = 0
        q = lane
        while q < n:
            for j in range(WIDTH):
                y = d[q + j]
                s0[j] = multiply_add(y, x0[q + j], s0[j])
                s1[j] = multiply_add(y, x1[q + j], s1[j])
                s2[j] = multiply_add(y, x2[q + j], s2[j])
                s3[j] = multiply_add(y, x3[q + j], s3[j])
                s4[j] = multiply_add(y, x4[q + j], s4[j])
                s5[j] = multiply_add(y, x5[q + j], s5[j])
                s6[j] = multiply_add(y, x6[q + j], s6[j])
                s7[j] = multiply_add(y, x7[q + j], s7[j])
                s8[j] = multiply_add(y, x8[q + j], s8[j])
            q += LANES
        for j in range(WIDTH):
            lanes[0][lane + j] = s0[j]
            lanes[1][lane + j] = s1[j]
            lanes[2][lane + j] = s2[j]
            lanes[3][lane + j] = s3[j]
            lanes[4][lane + j] = s4[j]
            lanes[5][lane + j] = s5[j]
            lanes[6][lane + j] = s6[j]
            lanes[7][lane + j] = s7[j]
            lanes[8][lane + j] = s8[j]
    for j in range(9):
        sums[j] = lane_sum(lanes[j])
