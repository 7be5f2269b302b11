"""The benchmark suite's table is complete, and its comparison of two runs finds what it should."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

from cases import CASES  # noqa: E402
from compare import compare, regressions  # noqa: E402
from passes import merged, uncertainty  # noqa: E402
from report import figures, insert, load, markdown, picture, rows_of  # noqa: E402

# Public names without a case: what only holds, sets or names something, and text; frozen networks have a program of
# their own, bench/inference.py. All else needs one.
WITHOUT_A_CASE = {
    "fastnn": "Generator GradientAccumulator Parameter SGD __version__ checkpoint convert freeze functional "
    "get_num_threads gradients inference init layers load_frozen manual_seed optim random schedules set_num_threads "
    "show_config summary train",
    "fastnn.Generator": "load_state_dict spawn state_dict",
    "fastnn.GradientAccumulator": "noise_scale noise_scale_average variance",
    "fastnn.SGD": "load_state_dict state_dict zero_grad",
    "fastnn.functional": "",
    "fastnn.gradients": "GradientAccumulator",
    "fastnn.init": "Audit calculate_gain fans",
    "fastnn.optim": "SGD L2Ball MaxRowNorm",
    "fastnn.random": "Generator Source as_generator default_generator manual_seed",
    "fastnn.schedules": "Schedule from_json plot",
    "fastnn.train": "DivergenceError Evaluation Event History steps_per_epoch",
}


def public_names(place):
    holder = functools.reduce(getattr, place.split(".")[1:], fastnn)
    names = getattr(holder, "__all__", None) or [name for name in vars(holder) if name[0] != "_"]
    return {name for name in names if not is_layer(getattr(holder, name))}


def is_layer(value):
    """Layers are thin over functions that have their cases; what their call adds is the family "call overhead"."""
    return isinstance(value, type) and issubclass(value, fastnn.Layer)


@pytest.mark.parametrize("place", WITHOUT_A_CASE)
def test_every_public_operation_has_a_case(place):
    without = set(WITHOUT_A_CASE[place].split())
    assert without - public_names(place) == set()
    names = {name for name in public_names(place) - without if not name.endswith("_forward")}
    prefix = "" if place in ("fastnn", "fastnn.functional", "fastnn.gradients") else place.removeprefix("fastnn.") + "."
    assert {prefix + name for name in names} - {case.operation for case in CASES} == set()


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


def test_the_lower_quartile_of_the_passes_counts_and_its_neighbours_tell_the_noise():
    def record(name, median):
        stats = {"median": median, "iqr": 0.0, "rounds": 5, "data": [median] * 5}
        return {"name": name, "stats": stats, "extra_info": {"operation": name, "copy": 10 * median}}

    passes = [record(name, median) for median in (5.0, 2.0, 1.0, 3.0, 4.0) for name in ("a", "b")] + [record("c", 2.0)]
    kept = merged([*passes, record("c", 1.0)])
    seen = [(r["name"], r["stats"]["median"], r["extra_info"]["copy"]) for r in kept]
    assert seen == [("a", 2.0, 20.0), ("b", 2.0, 20.0), ("c", 1.0, 10.0)]
    assert kept[0]["extra_info"]["medians"] == [5.0, 2.0, 1.0, 3.0, 4.0]
    assert "data" not in kept[0]["stats"]
    assert uncertainty([9.0, 1.0, 1.1, 1.21, 9.0]) == pytest.approx(0.1)
    assert uncertainty([1.2, 1.0]) == pytest.approx(0.2)


def test_passes_that_differ_are_no_regression():
    old, quiet = run_of(1), run_of(2, slow="c", factor=1.5)
    noisy = run_of(2, slow="c", factor=1.5)
    for run, other in ((quiet, 1.01), (noisy, 1.9)):
        for r in run.values():
            r["extra_info"]["medians"] = [r["stats"]["median"] * other, r["stats"]["median"]]
    assert [c.operation for c in regressions(compare(old, quiet))] == ["c"]
    assert regressions(compare(old, noisy)) == []


class TestReport:
    def case(self, name, family, large, **times):
        times = {"fastnn": 2e-6, "copy": 1e-6, "copy, one thread": 4e-6, **times}
        lists = {key: [9.0, value, 9.0, value, 9.0] for key, value in times.items()}  # most rounds were disturbed
        return {"name": name, "family": family, "source": "a net", "bytes": 2**20, "large": large, "times": lists}

    def data(self):
        cases = [
            self.case("layer_norm-1", "norm", True, torch=8e-6, jax=4e-6),
            self.case("layer_norm-2", "norm", True, torch=16e-6),
            self.case("alone", "network", False),
        ]
        about = {"threads": 2, "isa": "x86_64_v3", "memory kept": False, "processor": "P", "date": "2026-11-26"}
        return {"about": about | {"versions": {"torch": "2.13.0"}, "megabytes": {"fastnn": 3.0}}, "cases": cases}

    def test_table(self):
        text = markdown(self.data())
        assert "| norm | 2 | 2 | 4.00 | 2.00 | 8.00 | 2.00 |" in text
        assert "| network | 1 | 0 | – | – | – | – |" in text
        assert "| layer_norm-1 | a net | 2.0 | 8.0 | 4.0 | 1.0 | 2.00 | 2.00 |" in text
        assert "torch 2.13.0" in text

    def test_a_run_in_parts(self, tmp_path):
        first, second = self.data(), self.data()
        again = self.case("layer_norm-2", "norm", True, torch=10e-6, jax=9e-6)
        second["cases"] = [again, self.case("more", "norm", True)]
        paths = [tmp_path / "first.json", tmp_path / "second.json"]
        for path, part in zip(paths, (first, second)):
            path.write_text(json.dumps(part))
        rows = {row.name: row for row in rows_of(load(paths))}
        assert list(rows) == ["layer_norm-1", "layer_norm-2", "alone", "more"]
        assert rows["layer_norm-2"].peers == {"torch": 16e-6, "jax": 9e-6}
        assert [len(case["times"]["torch"]) for case in load(paths)["cases"][:2]] == [5, 10]
        paths[0].write_text(json.dumps(first | {"about": first["about"] | {"threads": 1}}))
        with pytest.raises(SystemExit, match="threads"):
            load(paths)

    def test_the_readme_shows_the_results_that_are_kept(self):
        """Its figures are never edited by hand: `python bench/report.py … --readme` writes both."""
        readme = (BENCH.parent / "README.md").read_text()
        data = load([BENCH / "results" / "peers.json"])
        assert insert(readme, figures(data)) == readme
        assert (BENCH / "results" / "peers.md").read_text() == markdown(data)

    def test_picture(self, tmp_path):
        pytest.importorskip("matplotlib")
        picture(self.data(), tmp_path / "report.png")
        assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
