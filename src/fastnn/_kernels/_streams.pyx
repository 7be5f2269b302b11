"""The state of a generator: a seed and the number of its next stream. Built once, for the kernels of all levels."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(_MSC_VER)
      #include <intrin.h>
      #define FASTNN_NEXT(p) ((uint64_t)_InterlockedExchangeAdd64((volatile __int64*)(p), 1))
    #else
      #define FASTNN_NEXT(p) __atomic_fetch_add((p), (uint64_t)1, __ATOMIC_RELAXED)
    #endif
    """
    uint64_t FASTNN_NEXT(uint64_t* p) noexcept nogil


cdef class StreamCounter:
    """A seed and the number of its next stream; `take` hands the streams out, one to each draw.

    One atomic addition per draw: threads may share a generator and never get the same stream.
    """

    def __cinit__(self, *args, **kwargs):
        self._seed = self._stream = 0

    @property
    def seed(self):
        """What tells this generator's streams from all others."""
        return self._seed

    @property
    def stream(self):
        """The number of the stream that the next draw will use."""
        return self._stream

    cdef uint64_t next(self) noexcept nogil:
        return FASTNN_NEXT(&self._stream)

    def take(self):
        """The next stream's number, never given to anybody else."""
        return self.next()

    def _set(self, uint64_t seed, uint64_t stream):
        self._seed = seed
        self._stream = stream
