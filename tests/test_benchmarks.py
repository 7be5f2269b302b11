"""The benchmark suite's table is complete, and its comparison of two runs finds what it should."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

from cases import CASES  # noqa: E402
from compare import compare, regressions  # noqa: E402
from report import markdown, picture  # noqa: E402


def test_every_public_operation_has_a_case():
    covered = {case.operation for case in CASES}
    plain = {name for name in F.__all__ if not name.endswith(("_forward", "_backward"))} - {"dropout_mask"}
    gradients = {name for name in F.__all__ if name.endswith("_backward")}
    initialisers = {
        f"init.{name}"
        for name in fastnn.init.__all__
        if name not in ("Audit", "audit", "calculate_gain", "fans", "zeros", "ones", "constant", "variance_scaling")
    }
    assert (plain | gradients | initialisers) - covered == set()
    assert {"SGD.step", "GradientAccumulator.add", "Generator.uniform", "Generator.normal"} <= covered


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


def run_of(seed, slow=(), factor=1.0, machine=1.0):
    """A made-up result file of 8 operations with 6 cases each, measured with 2 % noise."""
    random = np.random.default_rng(seed)
    records = {}
    for operation in "abcdefgh":
        for k in range(6):
            time = 1e-4 * (k + 1) * machine * (factor if operation in slow else 1.0) * np.exp(0.02 * random.normal())
            records[f"{operation}-{k}"] = {
                "name": f"{operation}-{k}",
                "stats": {"median": time, "iqr": 0.03 * time, "rounds": 30},
                "extra_info": {"operation": operation, "copy": 1e-5 * machine * np.exp(0.01 * random.normal())},
            }
    return records


class TestCompare:
    def test_two_equal_runs_show_no_regression(self):
        for seed in range(20):
            assert regressions(compare(run_of(seed), run_of(seed + 100))) == []

    def test_a_slower_machine_is_no_regression(self):
        assert regressions(compare(run_of(1), run_of(2, machine=1.5))) == []

    def test_a_slowdown_of_one_operation_is_found(self):
        for seed in range(20):
            found = regressions(compare(run_of(seed), run_of(seed + 100, slow="c", factor=1.2, machine=0.8)))
            assert [change.operation for change in found] == ["c"]

    def test_a_speedup_is_no_regression(self):
        assert regressions(compare(run_of(1), run_of(2, slow="c", factor=0.5))) == []

    @pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.2, 1)])
    def test_the_exit_status(self, tmp_path, factor, status):
        for name, run in (("old", run_of(1)), ("new", run_of(2, slow="f", factor=factor))):
            (tmp_path / f"{name}.json").write_text(json.dumps({"benchmarks": list(run.values())}))
        done = subprocess.run(
            [sys.executable, BENCH / "compare.py", tmp_path / "old.json", tmp_path / "new.json"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        assert ("SLOWER" in done.stdout) == bool(status)


class TestReport:
    def case(self, name, family, large, **times):
        times = {"fastnn": 2e-6, "copy": 1e-6, "copy, one thread": 4e-6, **times}
        lists = {key: [value, value, 9.0] for key, value in times.items()}  # the median leaves a disturbed round out
        return {"name": name, "family": family, "source": "a net", "bytes": 2**20, "large": large, "times": lists}

    def data(self):
        cases = [
            self.case("layer_norm-1", "norm", True, torch=8e-6, jax=4e-6),
            self.case("layer_norm-2", "norm", True, torch=16e-6),
            self.case("alone", "network", False),
        ]
        return {"about": {"threads": 2, "isa": "x86_64_v3", "memory kept": False}, "cases": cases}

    def test_table(self):
        text = markdown(self.data())
        assert "| norm | 2 | 4.00 | 2.00 | 8.00 | 2.00 |" in text
        assert "| network | 1 | – | – | – | – |" in text
        assert "| layer_norm-1 | a net | 2.0 | 8.0 | 4.0 | 1.0 | 2.00 | 2.00 |" in text

    def test_picture(self, tmp_path):
        pytest.importorskip("matplotlib")
        picture(self.data(), tmp_path / "report.png")
        assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
