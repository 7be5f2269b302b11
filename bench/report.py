"""A table and a picture of a run: beside the peers, or of fastnn alone.

    python bench/peers.py --json peers.json
    python bench/report.py peers.json --out report        report.md and report.png; bench.json of `make bench` works too
    python bench/report.py peers.json --readme            the same into bench/results, and the README's figures from it

For each family: how many times longer the best peer takes (geometric mean, least, greatest) and how many times longer
fastnn takes than copying the bytes that must move; then every case. Several files are joined, so that a long run can be
done in parts, and parts of it again at a quieter time: the rounds of a case that several hold are put together.
"""

import argparse
import json
import math
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from timing import lower_quartile

PEERS = {"torch": "PyTorch", "compile": "torch.compile", "jax": "JAX jit"}
COPIES = ("copy", "copy, one thread")
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
# What the README shows of single cases: one for each operation that people ask for first.
SHOWN = [
    "layer_norm-1x768", "layer_norm-512x768", "layer_norm_backward-512x768", "rms_norm-512x4096",
    "batch_norm-32x64x56x56-training=True", "batch_norm_backward-32x64x56x56-training=True",
    "batch_norm-32x56x56x64-training=True-channel_axis=-1",
    "batch_norm_backward-32x56x56x64-training=True-channel_axis=-1",
    "batch_norm-1x64x56x56-training=False", "instance_norm-32x64x28x28", "group_norm-2x320x64x64-num_groups=32",
    "dropout-1024x1024-p=0.1", "SGD.step-8388608", "gelu-512x3072", "cross_entropy-256x1000",
    "training step-64x1x8x8-net=conv net", "inference-1x1x8x8-net=conv net",
]  # fmt: skip


class Row(NamedTuple):
    """One case: times in seconds and the two ratios; NaN where there is no peer or no copy."""

    name: str
    family: str
    source: str
    ours: float
    copy: float
    peers: dict[str, float]
    best: float
    to_copy: float
    large: bool


# ---- results ---------------------------------------------------------------------------------------------------------


def from_benchmark(data: dict[str, Any]) -> dict[str, Any]:
    """pytest-benchmark's file in the form of peers.py's, without peers."""
    records = data["benchmarks"]
    extra = records[0]["extra_info"]
    about = {
        "threads": extra["threads"],
        "isa": extra["isa"],
        "memory kept": False,
        "processor": data["machine_info"].get("cpu", {}).get("brand_raw", "unknown processor"),
        "date": data["datetime"][:10],
        "versions": {},
        "megabytes": data["machine_info"].get("megabytes", {}),
    }
    cases = []
    for record in records:
        extra, times = record["extra_info"], {"fastnn": [record["stats"]["median"]]}
        if "copy" in extra:
            times["copy"] = [extra["copy"]]
        cases.append({"name": record["name"], "family": record["group"], "times": times} | extra)
    return {"about": about, "cases": cases}


def load(paths: list[Path]) -> dict[str, Any]:
    """Several files as one; they must come from the same machine and settings."""
    parts = [json.loads(path.read_text()) for path in paths]
    parts = [from_benchmark(part) if "benchmarks" in part else part for part in parts]
    about = parts[-1]["about"]
    for part in parts:
        for key in ("threads", "isa", "memory kept", "processor"):
            if part["about"][key] != about[key]:
                raise SystemExit(f"the files differ in {key}: {part['about'][key]} and {about[key]}")
    joined: dict[str, Any] = {}
    for case in (case for part in parts for case in part["cases"]):
        known = joined.setdefault(case["name"], case | {"times": {}})
        for name, values in case["times"].items():
            known["times"][name] = known["times"].get(name, []) + values
    return {"about": about, "cases": list(joined.values())}


def compact(data: dict[str, Any]) -> dict[str, Any]:
    """One time for each contender, with four digits: what is kept beside the sources."""
    cases = [
        case | {"times": {name: [float(f"{lower_quartile(values):.4g}")] for name, values in case["times"].items()}}
        for case in data["cases"]
    ]
    return {"about": data["about"], "cases": cases}


def rows_of(data: dict[str, Any]) -> list[Row]:
    rows = []
    for case in data["cases"]:
        times = {name: lower_quartile(values) for name, values in case["times"].items()}
        ours, copy = times["fastnn"], min((times[name] for name in COPIES if name in times), default=math.nan)
        peers = {name: times[name] for name in PEERS if name in times}
        best = min(peers.values(), default=math.nan) / ours
        rows.append(
            Row(case["name"], case["family"], case["source"], ours, copy, peers, best, ours / copy, case["large"])
        )
    return rows


# ---- text ------------------------------------------------------------------------------------------------------------


def timed_beside(rows: list[Row]) -> str:
    """Which peers, in how many cases: a peer need not have, or need not have been asked, every operation."""
    counts = [f"{PEERS[name]} in {n}" for name in PEERS if (n := sum(name in row.peers for row in rows))]
    return f"{len(rows)} cases; peers: {', '.join(counts) or 'none'}."


def geometric_mean(values: list[float]) -> float:
    known = [math.log(v) for v in values if not math.isnan(v)]
    return math.exp(sum(known) / len(known)) if known else math.nan


def shown(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def origin(data: dict[str, Any]) -> str:
    about = data["about"]
    memory = "kept by malloc" if about["memory kept"] else "given back by malloc as usual; fastnn keeps two blocks"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    sizes = ", ".join(f"{name} {size:.1f} MB" for name, size in about["megabytes"].items())
    text = (
        f"{about['threads']} threads, {about['isa']}, {about['processor']}, {about['date']}{'; ' if versions else ''}"
        f"{versions}. Short rounds in one process, contenders in turns, lower quartiles. Fresh outputs; freed memory "
        f"{memory}. On disk: {sizes}.{' ' * ('note' in about)}{about.get('note', '')}"
    )
    return textwrap.fill(text, 120, break_on_hyphens=False)


def summary(rows: list[Row]) -> list[str]:
    """A line for each family."""
    lines = [
        "| family | cases | with a peer | best peer ÷ fastnn: mean | least | greatest | fastnn ÷ copy, over 64 KB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for family in dict.fromkeys(row.family for row in rows):
        here = [row for row in rows if row.family == family]
        best = [row.best for row in here if not math.isnan(row.best)]
        copies = geometric_mean([row.to_copy for row in here if row.large])
        lines.append(
            f"| {family} | {len(here)} | {len(best)} | {shown(geometric_mean(best))} "
            f"| {shown(min(best, default=math.nan))} | {shown(max(best, default=math.nan))} | {shown(copies)} |"
        )
    return lines


def cases(rows: list[Row]) -> list[str]:
    """A line for each case, microseconds."""
    names = [name for name in PEERS if any(name in row.peers for row in rows)]
    titles = ["case", "from", "fastnn", *(PEERS[n] for n in names), "copy", "best ÷ fastnn", "fastnn ÷ copy"]
    lines = ["| " + " | ".join(titles) + " |", "|---|---|" + "--:|" * (len(titles) - 2)]
    for row in rows:
        times = [row.ours, *(row.peers.get(name, math.nan) for name in names), row.copy]
        numbers = [shown(time * 1e6, 1) for time in times] + [
            shown(row.best),
            shown(row.to_copy if row.large else math.nan),
        ]
        lines.append(f"| {row.name} | {row.source} | " + " | ".join(numbers) + " |")
    return lines


def markdown(data: dict[str, Any]) -> str:
    rows = rows_of(data)
    return (
        "\n".join([origin(data), timed_beside(rows), "", *summary(rows), "", "Microseconds:", "", *cases(rows)]) + "\n"
    )


def figures(data: dict[str, Any]) -> str:
    """The README's block: the families, some cases, and where the rest is."""
    rows = rows_of(data)
    known = {row.name: row for row in rows}
    lost = sum(row.best < 1 for row in rows)
    against = sum(not math.isnan(row.best) for row in rows)
    lines = [
        origin(data),
        timed_beside(rows),
        "",
        *summary(rows),
        "",
        "Above 1 in the middle columns fastnn is faster than the best peer of each case; it is slower in",
        f"{lost} of the {against} cases that have one. Some of them, in microseconds:",
        "",
        *cases([known[name] for name in SHOWN if name in known]),
        "",
        "[Every case](bench/results/peers.md), [as a picture](bench/results/peers.png); "
        "[how to read it and how to measure](bench/README.md).",
        "A command makes all of it, this block included: "
        '`make bench-peers BENCH_OPTIONS="--json peers.json"`, then\n`python bench/report.py peers.json --readme`.',
    ]
    return "\n".join(lines) + "\n"


def insert(text: str, block: str) -> str:
    """A README with `block` between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"no {BEGIN.strip()} … {END.strip()} to write between")
    return before + begin + block + end + after


# ---- picture ---------------------------------------------------------------------------------------------------------


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
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="what peers.py --json or make bench wrote")
    parser.add_argument("--out", type=Path, default=Path("report"), help="without suffix (report)")
    parser.add_argument("--readme", action="store_true", help="write bench/results and the README's figures")
    parser.add_argument("--note", help="a sentence to stand with the figures, such as how quiet the machine was")
    chosen = parser.parse_args()
    data = load(chosen.results)
    if chosen.note:
        data["about"]["note"] = chosen.note
    out = chosen.out
    if chosen.readme:
        RESULTS.mkdir(exist_ok=True)
        out, data = RESULTS / "peers", compact(data)
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in data["cases"])
        about = json.dumps(data["about"], ensure_ascii=False)
        out.with_suffix(".json").write_text(f'{{"about": {about},\n"cases": [\n{lines}\n]}}\n')
        readme = ROOT / "README.md"
        readme.write_text(insert(readme.read_text(), figures(data)))
        print(f"wrote the figures in {readme}")
    out.with_suffix(".md").write_text(markdown(data))
    picture(data, out.with_suffix(".png"))
    print(f"wrote {out.with_suffix('.md')} and {out.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
