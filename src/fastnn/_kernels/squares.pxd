# Sums over fixed lanes in double precision, for the kernels that walk parameters.

from cython cimport floating
from libc.math cimport sqrt

from fastnn._kernels.fused cimport fma

cdef enum:
    LANES = 32  # running sums of double; their merge has one order

# A sum of squares inside these bounds has lost nothing to overflow or underflow (of up to 2^60 elements); outside
# them it is formed again from elements multiplied by UNIT_DOWN or UNIT_UP. Only float64 data can get there.
cdef extern from *:
    """
    #define FASTNN_SQUARES_LEAST 0x1p-800
    #define FASTNN_UNIT_UP 0x1p+600
    #define FASTNN_UNIT_DOWN 0x1p-600
    """
    const double SQUARES_LEAST "FASTNN_SQUARES_LEAST"
    const double UNIT_UP "FASTNN_UNIT_UP"
    const double UNIT_DOWN "FASTNN_UNIT_DOWN"


cdef inline double other_unit(double total) noexcept nogil:
    # the unit in which a sum of squares has to be formed again; 1 where it is good as it is
    if total < SQUARES_LEAST:
        return UNIT_UP
    return 1 if total < 1 / SQUARES_LEAST else UNIT_DOWN


cdef inline double merged(double* lane) noexcept nogil:
    cdef Py_ssize_t j, width = LANES // 2
    while width > 0:
        for j in range(width):
            lane[j] += lane[j + width]
        width //= 2
    return lane[0]


cdef inline double square_sum(const floating* x, Py_ssize_t n, double unit) noexcept nogil:
    # Σ (unit·x)²; squares of float32 values are exact in double
    cdef double lane[LANES]
    cdef double d
    cdef Py_ssize_t i, j, whole = n - n % LANES
    for j in range(LANES):
        lane[j] = 0
    for i in range(n // LANES):
        for j in range(LANES):
            d = unit * <double>x[i * LANES + j]
            lane[j] = fma(d, d, lane[j])
    for j in range(n - whole):
        d = unit * <double>x[whole + j]
        lane[j] = fma(d, d, lane[j])
    return merged(lane)


cdef inline double plain_sum(const double* x, Py_ssize_t n) noexcept nogil:
    cdef double lane[LANES]
    cdef Py_ssize_t i, j, whole = n - n % LANES
    for j in range(LANES):
        lane[j] = 0
    for i in range(n // LANES):
        for j in range(LANES):
            lane[j] += x[i * LANES + j]
    for j in range(n - whole):
        lane[j] += x[whole + j]
    return merged(lane)


cdef inline double norm2(const floating* x, Py_ssize_t n) noexcept nogil:
    # ‖x‖₂, whatever the magnitude of its elements
    cdef double total = square_sum(x, n, 1)
    cdef double unit = other_unit(total) if floating is double else 1
    if unit != 1:
        total = square_sum(x, n, unit)
    return sqrt(total) / unit
