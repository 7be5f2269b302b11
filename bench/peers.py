"""fastnn beside PyTorch eager, torch.compile, JAX jit and the copy limit, interleaved in one process.

    python bench/peers.py norm                        every case whose name contains "norm"
    python bench/peers.py layer_norm --peers torch    quicker: nothing to compile
    python bench/peers.py norm --json out.json

Times are the lower quartiles of short interleaved rounds, for all alike. "/best" is how many times longer the best
peer takes than fastnn, "/copy" how many times longer fastnn takes than copying the bytes that must move; both end in
geometric means.
"""

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

import environment  # noqa: E402

LIBRARY = {"torch": "torch", "compile": "torch", "jax": "jax"}


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="parts of case names; a case that contains any of them runs")
    parser.add_argument("--skip", default="", help="leave out cases whose name contains this")
    parser.add_argument("--peers", default="torch,compile,jax", help="which of torch,compile,jax; '' for none")
    parser.add_argument("--threads", type=int, default=0, help="confine all to so many processors (default: all)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--keep-memory", action="store_true", help="let malloc keep freed memory (no page faults)")
    parser.add_argument("--no-check", action="store_true", help="skip the check against the oracle")
    parser.add_argument("--json", type=Path, help="write all times to this file")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    threads = environment.prepare(chosen.threads, chosen.keep_memory)
    # Only now what starts threads: numpy's BLAS, the libraries.
    import fastnn
    import function_peers
    import network_peers
    import norm_peers
    from case import COMPUTE_BOUND
    from cases import CASES
    from copying import copier
    from subjects import is_norm, subject
    from timing import interleaved, lower_quartile

    names = [p for p in chosen.peers.split(",") if p and importlib.util.find_spec(LIBRARY[p])]
    fastnn.set_num_threads(threads)
    if {"torch", "compile"} & set(names):
        import torch

        torch.set_num_threads(threads)
    cases = [c for c in CASES if not chosen.cases or any(part in c.name for part in chosen.cases)]
    cases = [c for c in cases if not (chosen.skip and chosen.skip in c.name)]
    kept = "kept" if chosen.keep_memory else "given back (malloc's default)"
    print(f"{threads} threads, {fastnn._kernels.ISA}, freed memory {kept}; microseconds")
    head = f"{'case':58}{'MB':>8}{'fastnn':>10}" + "".join(f"{n:>10}" for n in names)
    print(head + f"{'copy':>10}{'/best':>8}{'/copy':>8}", flush=True)
    about = {"threads": threads, "isa": fastnn._kernels.ISA, "memory kept": chosen.keep_memory}
    about |= environment.machine([LIBRARY[name] for name in names])
    rows: list[dict[str, Any]] = []
    for case in cases:
        run, verify = subject(case)
        if not chosen.no_check:
            verify()
        contenders = {"fastnn": run}
        if case.bytes:
            contenders |= {"copy": copier(case.bytes, threads), "copy, one thread": copier(case.bytes, 1)}
        peers = norm_peers if is_norm(case) else network_peers if "net" in case.options else function_peers
        for name in names:
            peer = peers.PEERS[name](case)
            if peer is not None:
                contenders[name] = peer
                peers.agree(name, case, peer(), run())
        times = interleaved(contenders, 3 if case.operation == "import" else chosen.rounds)  # seconds for each import
        time = {name: lower_quartile(values) for name, values in times.items()}
        copy = min((time[name] for name in ("copy", "copy, one thread") if name in time), default=math.nan)
        best = min((time[n] for n in names if n in time), default=math.nan) / time["fastnn"]
        row = f"{case.name:58}{case.bytes / 1e6:8.2f}{time['fastnn'] * 1e6:10.1f}"
        row += "".join(f"{time[n] * 1e6:10.1f}" if n in time else f"{'–':>10}" for n in names)
        limited = f"{time['fastnn'] / copy:8.2f}" if case.family not in COMPUTE_BOUND else f"{'–':>8}"
        print(row + f"{copy * 1e6:10.1f}{best:8.2f}{limited}", flush=True)
        rows.append({"case": case, "best": best, "copy": time["fastnn"] / copy, "times": times})
        if chosen.json:  # after each case: a long run that is stopped leaves what it has
            write(chosen.json, about, rows)
    for family in dict.fromkeys(row["case"].family for row in rows):
        print(summary(family, [row for row in rows if row["case"].family == family]))
    return 0


def write(path: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    cases = [
        {"name": r["case"].name, "family": r["case"].family, "source": r["case"].source, "bytes": r["case"].bytes}
        | {"large": r["case"].large, "times": r["times"]}
        for r in rows
    ]
    path.write_text(json.dumps({"about": about, "cases": cases}, indent=1, ensure_ascii=False))


def summary(family: str, rows: list[dict[str, Any]]) -> str:
    """Geometric means of one family, and where a peer is faster."""
    large = [row["copy"] for row in rows if row["case"].large]
    against = [row for row in rows if not math.isnan(row["best"])]
    line = f"{family}: {len(rows)} cases"
    if large:
        line += f"; over 64 KB {geometric_mean(large):.2f} times the copy"
    if against:
        lost = [f"{row['case'].name} ({row['best']:.2f})" for row in against if row["best"] < 1]
        line += f"; best peer / fastnn {geometric_mean(row['best'] for row in against):.2f}"
        line += f"; slower than a peer: {', '.join(lost) or 'none'}"
    return line


if __name__ == "__main__":
    sys.exit(main())
