from libc.stdint cimport uint64_t

cdef class StreamCounter:
    cdef uint64_t _seed
    cdef uint64_t _stream
    cdef uint64_t next(self) noexcept nogil
