"""What a benchmark process needs before it imports anything that starts threads."""

import os
import sys

# Idle OpenMP and OpenBLAS workers spin after a parallel region, about 10 ms and 100 ms by default, and take the
# processors from whoever is timed next. These end it within microseconds. (`peers.py spin` measures what is left.)
QUIET = {"GOMP_SPINCOUNT": "1000", "OPENBLAS_THREAD_TIMEOUT": "4"}

# malloc gives blocks over 32 MB back at once, and every fresh output then costs page faults; with these it keeps them.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**40), "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def prepare(threads: int = 0, keep_memory: bool = False) -> int:
    """Restart this process with the environment above and confined to `threads` processors; returns their number.

    0 leaves the processors as they are. Confinement makes every library choose the same number of threads.
    """
    wanted = QUIET | (KEEP if keep_memory else {})
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if threads and threads < len(processors):
        os.sched_setaffinity(0, processors[:threads])
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return threads or len(processors) or os.cpu_count() or 1
