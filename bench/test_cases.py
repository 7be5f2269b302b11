"""Every case of the table on this machine, each verified before it is timed."""

import os

import pytest

from cases import CASES, GROWTH, SCALING

pytestmark = pytest.mark.benchmark(max_time=0.2, min_rounds=5, warmup=True, warmup_iterations=3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case, measure):
    measure(case)


@pytest.mark.parametrize("case", GROWTH, ids=lambda case: case.name)
def test_growth(case, measure):
    measure(case)


@pytest.mark.parametrize("threads", sorted({1, 2, os.cpu_count() or 1} - {0}))
@pytest.mark.parametrize("case", SCALING, ids=lambda case: case.name)
def test_threads(case, threads, measure):
    measure(case, threads)
