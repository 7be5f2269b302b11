"""What changed between two runs: `python bench/compare.py old.json new.json`; exits 1 on a regression beyond the noise.

Both files come from `make bench` (pytest-benchmark's --benchmark-json). Cases are gathered by operation. The change
of an operation is the geometric mean over its cases of new/old times, divided by the change of the copy limit,
which tells how the machine differed between the runs. Its noise is estimated twice, and the larger counts: from how
far apart the passes over each case were (with one pass, from the quartiles of its rounds), and from how far the
cases of all operations scatter around their middle. An operation regresses if it is slower by more than `--least`
(5 %) and by more than three times its noise.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from passes import uncertainty


class Change(NamedTuple):
    """Of one operation, as logarithms of new/old."""

    operation: str
    cases: int
    change: float
    noise: float


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Name → pytest-benchmark's record of that case."""
    return {record["name"]: record for record in json.loads(path.read_text())["benchmarks"]}


def _own_noise(record: dict[str, Any]) -> float:
    """How uncertain one case's time is, relative: from the neighbouring passes, or as the median of rounds."""
    stats, passes = record["stats"], record["extra_info"].get("medians", [])
    if len(passes) > 1:
        return uncertainty(passes)
    return 1.2533 * (stats["iqr"] / 1.349) / stats["median"] / math.sqrt(max(1, stats["rounds"]))


def drift(old: dict[str, Any], new: dict[str, Any]) -> float:
    """How much slower the machine copied, as a logarithm."""
    copies = [
        math.log(new[name]["extra_info"]["copy"] / record["extra_info"]["copy"])
        for name, record in old.items()
        if name in new and "copy" in record["extra_info"] and "copy" in new[name]["extra_info"]
    ]
    return median(copies) if copies else 0.0


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """One change for each operation that both runs hold, the worst first."""
    machine = drift(old, new)
    ratios = {
        name: math.log(new[name]["stats"]["median"] / record["stats"]["median"]) - machine
        for name, record in old.items()
        if name in new
    }
    if not ratios:
        raise SystemExit("the two files have no case in common")
    middle = median(ratios.values())
    scatter = 1.4826 * median(abs(r - middle) for r in ratios.values())
    gathered: dict[str, list[str]] = defaultdict(list)
    for name in ratios:
        gathered[old[name]["extra_info"].get("operation", name)].append(name)
    changes = []
    for operation, names in gathered.items():
        own = math.sqrt(sum(_own_noise(old[n]) ** 2 + _own_noise(new[n]) ** 2 for n in names)) / len(names)
        noise = max(own, scatter / math.sqrt(len(names)))
        changes.append(Change(operation, len(names), sum(ratios[n] for n in names) / len(names), noise))
    return sorted(changes, key=lambda change: -change.change)


def families(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[float]]:
    """Logarithms of new/old for the cases of each family, and of all; the machine's change is left in."""
    gathered: dict[str, list[float]] = defaultdict(list)
    for name, record in old.items():
        if name in new:
            change = math.log(new[name]["stats"]["median"] / record["stats"]["median"])
            gathered[record.get("group") or "–"].append(change)
    return gathered | {"all": [change for changes in gathered.values() for change in changes]}


def regressions(changes: list[Change], least: float = 0.05) -> list[Change]:
    return [c for c in changes if c.change > math.log1p(least) and c.change > 3 * c.noise]


def percent(logarithm: float) -> str:
    return f"{100 * math.expm1(logarithm):+.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--least", type=float, default=0.05, help="the smallest slowdown that counts (0.05)")
    chosen = parser.parse_args()
    old, new = load(chosen.old), load(chosen.new)
    changes = compare(old, new)
    slower = regressions(changes, chosen.least)
    print(f"the machine's copying changed by {percent(drift(old, new))}, which is taken off\n")
    print(f"{'operation':42}{'cases':>6}{'time':>10}{'noise':>9}")
    for change in changes:
        mark = "  SLOWER" if change in slower else ""
        print(f"{change.operation:42}{change.cases:6}{percent(change.change):>10}{100 * change.noise:>7.1f} %{mark}")
    print(f"\n{'geometric mean of the family':42}{'cases':>6}{'time':>10}")
    for family, logarithms in families(old, new).items():
        print(f"{family:42}{len(logarithms):6}{percent(mean(logarithms)):>10}")
    for name in sorted(old.keys() ^ new.keys()):
        print(f"only in the {'old' if name in old else 'new'} file: {name}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
