"""What a benchmark process needs before it imports anything that starts threads."""

import datetime
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

# Idle OpenMP and OpenBLAS workers spin after a parallel region, about 10 ms and 100 ms by default, and take the
# processors from whoever is timed next. These end it within microseconds. (spinning.py measures what is left.)
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


def machine(libraries: list[str]) -> dict[str, Any]:
    """What a result file tells about where it comes from."""
    return {
        "processor": processor(),
        "date": datetime.date.today().isoformat(),
        "megabytes": installed(["fastnn", "numpy", "scipy", *libraries]),
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", *dict.fromkeys(libraries))},
    }


def processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def installed(names: list[str]) -> dict[str, float]:
    """Megabytes on disk of each distribution that is there, without what Python makes of it (`__pycache__`)."""
    sizes = {}
    for name in dict.fromkeys(names + ["jaxlib"] * ("jax" in names)):
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        try:
            files = [Path(file.locate()) for file in importlib.metadata.files(name) or []]
        except importlib.metadata.PackageNotFoundError:
            files = []
        folder = Path(spec.submodule_search_locations[0])
        if not any(file.is_relative_to(folder) for file in files):  # an editable install lists no modules
            files = [file for file in folder.rglob("*") if file.suffix not in (".pyx", ".pxd")]
        kept = [file for file in files if file.is_file() and "__pycache__" not in file.parts]
        sizes[name] = round(sum(file.stat().st_size for file in kept) / 1e6, 2)
    return sizes
