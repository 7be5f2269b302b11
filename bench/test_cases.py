"""Every case of the table on this machine, each verified before it is timed."""

import os

import pytest

from cases import CASES, GROWTH, SCALING

pytestmark = pytest.mark.benchmark(
    min_time=0.0002, max_time=0.04, min_rounds=5, warmup=True, warmup_iterations=3, disable_gc=True
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case, measure):
    measure(case, case.name)


@pytest.mark.parametrize("case", GROWTH, ids=lambda case: case.name)
def test_growth(case, measure):
    measure(case, f"growth: {case.name}")


@pytest.mark.parametrize("threads", sorted({1, 2, os.cpu_count() or 1}))
@pytest.mark.parametrize("case", SCALING, ids=lambda case: case.name)
def test_threads(case, threads, measure):
    measure(case, f"{threads} threads: {case.name}", threads)
