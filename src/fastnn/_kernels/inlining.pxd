# What the compiler and the processor are told beyond the plain code.
#
# Return types that tell the compiler where a function's code goes. GCC 12 left to itself merges calls with different
# constants into one variable loop, and inside large functions it keeps running sums in memory instead of registers.
#
#   inlined  always into the caller, whose constants it then sees
#   apart    never: compiled by itself
#
# `given` says that a pointer is not NULL: what functions that are compiled by themselves do not see of their callers,
# and else test again in their loops.
#
# `claim` asks for the cache line of an address that is going to be written. A store to a line that is far away would
# hold up those behind it: in arrays beyond the second-level cache that is half of a norm's time.

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
      #define FASTNN_ALWAYS __attribute__((always_inline)) void
      #define FASTNN_APART __attribute__((noinline)) void
      #define FASTNN_GIVEN(pointer) do { if (!(pointer)) __builtin_unreachable(); } while (0)
      #define FASTNN_CLAIM(address) __builtin_prefetch(address, 1)
    #else
      #define FASTNN_ALWAYS void
      #define FASTNN_APART void
      #define FASTNN_GIVEN(pointer) ((void)(pointer))
      #define FASTNN_CLAIM(address) ((void)(address))
    #endif

    static inline void fastnn_fetch(const void* address, long bytes) {
    #if defined(__GNUC__) || defined(__clang__)
      #pragma GCC unroll 1
      for (long at = 0; at < bytes; at += 64) __builtin_prefetch((const char*)address + at);
    #endif
    }
    """
    ctypedef void inlined "FASTNN_ALWAYS"
    ctypedef void apart "FASTNN_APART"
    void given "FASTNN_GIVEN" (const void* pointer) noexcept nogil
    void claim "FASTNN_CLAIM" (const void* address) noexcept nogil
    void fetch "fastnn_fetch" (const void* address, Py_ssize_t bytes) noexcept nogil
