"""`pytest bench`: where the modules of the suite and the oracle are found, and the copy limit beside each case."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

# Scripts with command lines, and peers that need their libraries: nothing to collect.
collect_ignore = ["peers.py", "norm_peers.py", "function_peers.py", "report.py", "compare.py"]


@pytest.fixture
def measure(benchmark, request):
    """Time a case after its result has been verified; with benchmarks disabled, only verify."""
    import fastnn
    from copying import copier
    from subjects import subject
    from timing import calls_in, slot

    def measured(case, threads=None):
        before = fastnn.get_num_threads()
        fastnn.set_num_threads(threads or before)
        try:
            run, verify = subject(case)
            verify()
            benchmark.group = case.family
            benchmark.extra_info.update(
                operation=case.operation, source=case.source, bytes=case.bytes, threads=fastnn.get_num_threads()
            )
            if benchmark.enabled and case.bytes:
                counts = {1, fastnn.get_num_threads()}
                copies = [copier(case.bytes, count) for count in counts]
                benchmark.extra_info["copy"] = min(slot(copy, calls_in(copy, 0.002)) for copy in copies * 3)
            benchmark(run)
        finally:
            fastnn.set_num_threads(before)

    return measured
