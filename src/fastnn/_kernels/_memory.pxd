# Where results live. `empty` makes every array that a kernel returns.

cimport numpy as cnp

# A new C-ordered array; from LEAST_ALIGNED bytes on, its data start at a cache line.
cdef cnp.ndarray empty(int ndim, cnp.npy_intp* shape, int type_number)
