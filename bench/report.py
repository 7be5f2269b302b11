"""A table and a picture of a run beside the peers.

    python bench/peers.py --json peers.json
    python bench/report.py peers.json --out report        report.md and report.png

For each family: how many times longer the best peer takes (geometric mean, least, greatest) and how many times longer
fastnn takes than copying the bytes that must move; then every case.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

PEERS = {"torch": "PyTorch", "compile": "torch.compile", "jax": "JAX jit"}


class Row(NamedTuple):
    """One case: medians in seconds and the two ratios; NaN where there is no peer."""

    name: str
    family: str
    source: str
    ours: float
    copy: float
    peers: dict[str, float]
    best: float
    to_copy: float
    large: bool


def rows_of(data: dict[str, Any]) -> list[Row]:
    rows = []
    for case in data["cases"]:
        times = {name: median(values) for name, values in case["times"].items()}
        ours, copy = times["fastnn"], min(times["copy"], times["copy, one thread"])
        peers = {name: times[name] for name in PEERS if name in times}
        best = min(peers.values(), default=math.nan) / ours
        rows.append(
            Row(case["name"], case["family"], case["source"], ours, copy, peers, best, ours / copy, case["large"])
        )
    return rows


def geometric_mean(values: list[float]) -> float:
    known = [math.log(v) for v in values if not math.isnan(v)]
    return math.exp(sum(known) / len(known)) if known else math.nan


def shown(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def markdown(data: dict[str, Any]) -> str:
    rows, about = rows_of(data), data["about"]
    memory = "kept by malloc" if about["memory kept"] else "given back by malloc as by default"
    lines = [
        f"{about['threads']} threads, {about['isa']}, float32, fresh outputs, freed memory {memory}. Medians of",
        "interleaved rounds in one process.",
        "",
        "| family | cases | best peer ÷ fastnn: mean | least | greatest | fastnn ÷ copy, over 64 KB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for family in dict.fromkeys(row.family for row in rows):
        here = [row for row in rows if row.family == family]
        best = [row.best for row in here if not math.isnan(row.best)]
        copies = geometric_mean([row.to_copy for row in here if row.large])
        lines.append(
            f"| {family} | {len(here)} | {shown(geometric_mean(best))} | {shown(min(best, default=math.nan))} "
            f"| {shown(max(best, default=math.nan))} | {shown(copies)} |"
        )
    names = [name for name in PEERS if any(name in row.peers for row in rows)]
    lines += [
        "",
        "Microseconds:",
        "",
        "| case | from | fastnn | " + " | ".join(PEERS[n] for n in names) + " | copy | best ÷ fastnn | fastnn ÷ copy |",
        "|---|---|" + "---:|" * (len(names) + 4),
    ]
    for row in rows:
        peers = " | ".join(shown(row.peers.get(name, math.nan) * 1e6, 1) for name in names)
        lines.append(
            f"| {row.name} | {row.source} | {row.ours * 1e6:.1f} | {peers} | {row.copy * 1e6:.1f} "
            f"| {shown(row.best)} | {shown(row.to_copy)} |"
        )
    return "\n".join(lines) + "\n"


def picture(data: dict[str, Any], path: Path) -> None:
    """Each case a dot in its family's row: left against the best peer, right against the copy."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = rows_of(data)
    families = list(dict.fromkeys(row.family for row in rows))
    figure, panes = plt.subplots(1, 2, figsize=(11, 1.2 + 0.42 * len(families)), sharey=True, layout="constrained")
    for pane, title, values in (
        (panes[0], "best peer's time ÷ fastnn's (right of 1: fastnn is faster)", lambda r: r.best),
        (panes[1], "fastnn's time ÷ copy's, arrays over 64 KB", lambda r: r.to_copy if r.large else math.nan),
    ):
        for y, family in enumerate(families):
            dots = [values(r) for r in rows if r.family == family and not math.isnan(values(r))]
            pane.scatter(dots, [y] * len(dots), s=14, alpha=0.5, color="#3b6ea5", linewidths=0)
            if dots:
                pane.scatter([geometric_mean(dots)], [y], marker="|", s=260, color="#b03a2e", linewidths=2)
        pane.axvline(1, color="#888888", linewidth=1)
        pane.set_xscale("log")
        pane.xaxis.set_major_formatter("{x:g}")
        pane.set_title(title, fontsize=10)
        pane.grid(axis="x", alpha=0.3)
    panes[0].set_yticks(range(len(families)), families)
    panes[0].set_ylim(len(families) - 0.5, -0.5)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what peers.py --json wrote")
    parser.add_argument("--out", type=Path, default=Path("report"), help="without suffix (report)")
    chosen = parser.parse_args()
    data = json.loads(chosen.results.read_text())
    chosen.out.with_suffix(".md").write_text(markdown(data))
    picture(data, chosen.out.with_suffix(".png"))
    print(f"wrote {chosen.out.with_suffix('.md')} and {chosen.out.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
