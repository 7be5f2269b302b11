"""What the kernels need of the machine: the thread team and the CPU's level. Built once, for the baseline CPU.

Design
  (A) Threads start and meet in team.h only, which says how; this file decides how many take part.
  (B) More than one do only where there is enough work: each has to fetch what another core's cache may hold.
  (C) The serial case touches no team: a small call pays nothing.
"""

cdef extern from "team.h":
    const char* TEAM_KIND
    void team_begin() noexcept nogil
    int team_get_limit() noexcept nogil
    void team_set_limit(int members) noexcept nogil
    void team_alone(task function, void* arguments, Py_ssize_t blocks, bint backward) noexcept nogil
    void team_run(
        task function, void* arguments, Py_ssize_t blocks, int members, bint backward, double expected) noexcept nogil

cdef extern from *:
    """
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
    int fastnn_cpu_level() noexcept nogil

# Below this many bytes of memory traffic per thread a second thread costs more than it brings (bench/threads.py): that
# one which is awake begins and is known to have ended takes 0.6 µs, in which a core moves half of them.
cdef double BYTES_PER_THREAD = 48 * 1024.0
# What one thread moves between its cache and its registers, roughly.
cdef double BYTES_PER_NANOSECOND = 32

team_begin()


def set_thread_limit(int limit):
    """The most threads a kernel may use. The policy that chooses the number is fastnn._threads."""
    if team_kind() != "none":
        team_set_limit(limit)


def get_thread_limit():
    return team_get_limit()


def team_kind():
    """Whose threads help: "own", "OpenMP" (a build to compare with) or "none"."""
    return TEAM_KIND.decode()


def cpu_level():
    """1 to 4 on x86-64 (the psABI levels), 0 elsewhere."""
    return fastnn_cpu_level()


cdef int team_size(Py_ssize_t blocks, double work) noexcept nogil:
    cdef int threads = team_get_limit()
    if blocks < threads:
        threads = <int>blocks
    if work < threads * BYTES_PER_THREAD:
        threads = <int>(work / BYTES_PER_THREAD)
    return threads if threads > 1 else 1


cdef void run(task function, void* arguments, Py_ssize_t blocks, double work, bint backward) noexcept nogil:
    cdef int threads = team_size(blocks, work)
    if threads == 1:
        team_alone(function, arguments, blocks, backward)
    else:
        team_run(function, arguments, blocks, threads, backward, work / BYTES_PER_NANOSECOND)


cdef void parallel_for(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil:
    run(function, arguments, blocks, work, False)


cdef void parallel_back(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil:
    run(function, arguments, blocks, work, True)
