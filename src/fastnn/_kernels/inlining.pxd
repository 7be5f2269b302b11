# Return types that tell the compiler where a function's code goes. GCC 12 left to itself merges calls with different
# constants into one variable loop, and inside large functions it keeps running sums in memory instead of registers.
#
#   inlined  always into the caller, whose constants it then sees
#   apart    never: compiled by itself

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
      #define FASTNN_ALWAYS __attribute__((always_inline)) void
      #define FASTNN_APART __attribute__((noinline)) void
    #else
      #define FASTNN_ALWAYS void
      #define FASTNN_APART void
    #endif
    """
    ctypedef void inlined "FASTNN_ALWAYS"
    ctypedef void apart "FASTNN_APART"
