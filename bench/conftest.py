"""`pytest bench`: the passes over the cases, and the fixture that verifies and times one of them beside its copy."""

import sys
from pathlib import Path

import pytest
from pytest_benchmark.plugin import pytest_benchmark_group_stats as group_stats

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

from environment import installed  # noqa: E402
from passes import merged, typical  # noqa: E402
from timing import calls_in, slot, slowed  # noqa: E402

# Scripts with command lines, and peers that need their libraries: nothing to collect.
collect_ignore_glob = ["*peers.py", "report.py", "compare.py", "spinning.py", "fills.py", "inference.py"]


def pytest_addoption(parser):
    group = parser.getgroup("fastnn")
    group.addoption("--passes", type=int, default=1, help="how often to go over all cases (1)")
    group.addoption(
        "--slow", metavar="OPERATION=FACTOR", help="wait after each call of an operation: what compare.py must find"
    )


def pytest_generate_tests(metafunc):
    """Passes outermost: a session's parameter, by which pytest orders before all others."""
    if "turn" in metafunc.fixturenames:
        turns = range(1 if metafunc.config.getoption("benchmark_disable") else metafunc.config.getoption("passes"))
        metafunc.parametrize("turn", turns, ids=lambda turn: f"pass {turn + 1}", scope="session")


def pytest_benchmark_group_stats(config, benchmarks, group_by):
    """The terminal's table shows each case once."""
    return group_stats(config, typical(benchmarks, lambda record: record["median"]), group_by)


def pytest_benchmark_update_json(config, benchmarks, output_json):
    output_json["benchmarks"] = merged(output_json["benchmarks"])


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["megabytes"] = installed(["fastnn", "numpy", "scipy"])


@pytest.fixture
def measure(benchmark, request, turn):
    """Time a case after its result has been verified, once; with benchmarks disabled, only verify."""
    import fastnn
    from copying import copier
    from subjects import subject

    planted, _, factor = (request.config.getoption("slow") or "").partition("=")

    def measured(case, name, threads=None):
        before = fastnn.get_num_threads()
        fastnn.set_num_threads(threads or before)
        try:
            run, verify = subject(case)
            if turn == 0:
                verify()
            benchmark.name, benchmark.group = name, case.family
            benchmark.extra_info.update(
                operation=case.operation, family=case.family, source=case.source, bytes=case.bytes, large=case.large
            )
            benchmark.extra_info.update(threads=fastnn.get_num_threads(), isa=fastnn._kernels.ISA)
            if benchmark.enabled and case.bytes:
                copies = [copier(case.bytes, count) for count in {1, fastnn.get_num_threads()}]
                benchmark.extra_info["copy"] = min(slot(copy, calls_in(copy, 0.002)) for copy in copies * 2)
            benchmark(slowed(run, float(factor)) if planted == case.operation else run)
        finally:
            fastnn.set_num_threads(before)

    return measured
