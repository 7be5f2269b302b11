"""What the kernels need of the machine: the thread team and the CPU's level. Built once, for the baseline CPU.

Design
  (A) OpenMP appears in this file only; a build without it runs the same loop serially.
  (B) Each thread has a share of neighbouring blocks and claims them one by one; when its own are gone, it claims
      those of the others. So a core meets the same part of an array in every pass and call, in long streams (blocks
      dealt out in turn cost up to half as much again), and on a busy machine a delayed thread takes fewer blocks and
      nobody waits for it.
  (C) A parallel region is entered only when there is enough work to pay for waking the workers.
  (D) The serial case never enters OpenMP: a forked child, whose libgomp workers do not exist, is safe, and a small
      call pays nothing.
"""

from cython.parallel cimport parallel, threadid

cdef extern from *:
    """
    #ifdef _OPENMP
      #define FASTNN_OPENMP 1
    #else
      #define FASTNN_OPENMP 0
    #endif
    #if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
      /* The levels as gcc and clang define them, by the features that our code generation uses. */
      static int fastnn_cpu_level(void) {
        __builtin_cpu_init();
        if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("popcnt")) return 1;
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")
            || !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2")) return 2;
        if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")
            || !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq")
            || !__builtin_cpu_supports("avx512vl")) return 3;
        return 4;
      }
    #else
      static int fastnn_cpu_level(void) { return 0; }
    #endif
    """
    const bint FASTNN_OPENMP
    int fastnn_cpu_level() noexcept nogil

cdef extern from *:
    """
    #if defined(_MSC_VER)
      #include <intrin.h>
      #define FASTNN_CLAIM_ONE(number) _InterlockedExchangeAdd64((volatile __int64 *)(number), 1)
    #else
      #define FASTNN_CLAIM_ONE(number) __atomic_fetch_add(number, 1, __ATOMIC_RELAXED)
    #endif
    """
    Py_ssize_t claim_one "FASTNN_CLAIM_ONE" (Py_ssize_t* number) noexcept nogil

cdef enum:
    # shares at the most; of more threads than that several begin with the same one
    SHARES = 64


cdef struct Share:
    # blocks first … last − 1, in a cache line of its own
    Py_ssize_t first
    Py_ssize_t last
    Py_ssize_t claimed
    Py_ssize_t unused[5]


# Below this many bytes of memory traffic per thread a second thread costs more than it brings (measured, bench/).
cdef double BYTES_PER_THREAD = 128 * 1024.0

cdef int thread_limit = 1
cdef bint sealed = not FASTNN_OPENMP


def set_thread_limit(int limit):
    """The most threads a kernel may use. The policy that chooses the number is fastnn._threads."""
    global thread_limit
    if not sealed:
        thread_limit = limit


def seal_threads():
    """One thread from now on, whatever is asked for: for forked children."""
    global thread_limit, sealed
    thread_limit = 1
    sealed = True


def get_thread_limit():
    return thread_limit


def has_openmp():
    return bool(FASTNN_OPENMP)


def cpu_level():
    """1 to 4 on x86-64 (the psABI levels), 0 elsewhere."""
    return fastnn_cpu_level()


cdef int team_size(Py_ssize_t blocks, double work) noexcept nogil:
    cdef int threads = thread_limit
    if blocks < threads:
        threads = <int>blocks
    if work < threads * BYTES_PER_THREAD:
        threads = <int>(work / BYTES_PER_THREAD)
    return threads if threads > 1 else 1


cdef void run_shares(
    task function, void* arguments, Share* shares, int count, int own, bint backward,
) noexcept nogil:
    # the share of this thread, then what is left of the others
    cdef Share* share
    cdef Py_ssize_t k
    cdef int i
    for i in range(count):
        share = shares + (own + i) % count
        k = claim_one(&share.claimed)
        while k < share.last - share.first:
            function(arguments, share.last - 1 - k if backward else share.first + k)
            k = claim_one(&share.claimed)


cdef void run(task function, void* arguments, Py_ssize_t blocks, double work, bint backward) noexcept nogil:
    cdef int threads = team_size(blocks, work)
    cdef int count = min(threads, <int>SHARES)
    cdef Share shares[SHARES]
    cdef Py_ssize_t k
    cdef int i
    if threads == 1:
        for k in range(blocks):
            function(arguments, blocks - 1 - k if backward else k)
        return
    for i in range(count):
        shares[i].first = blocks // count * i + min(<Py_ssize_t>i, blocks % count)
        shares[i].last = blocks // count * (i + 1) + min(<Py_ssize_t>i + 1, blocks % count)
        shares[i].claimed = 0
    with parallel(num_threads=threads):
        run_shares(function, arguments, shares, count, threadid() % count, backward)


cdef void parallel_for(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil:
    run(function, arguments, blocks, work, False)


cdef void parallel_back(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil:
    run(function, arguments, blocks, work, True)
