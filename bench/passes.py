"""Several passes over all cases, and which of them counts for a case.

What disturbs the machine for seconds spoils a case in one pass only. A pass also allocates all arrays anew, for where
they lie in memory decides over some per cent. The lower quartile of a case's passes counts: on a shared machine some
are slowed down by others, and now and then one runs while the neighbours leave the memory to it alone.
"""

from collections.abc import Callable, Iterable
from typing import Any

Record = dict[str, Any]


def rank(passes: int) -> int:
    """Which of the sorted passes counts: the first of up to four, the second of five to eight, …"""
    return (passes - 1) // 4


def typical(records: Iterable[Record], median: Callable[[Record], float]) -> list[Record]:
    """For each name the record of the pass that counts, in the order in which the names come."""
    passes: dict[str, list[Record]] = {}
    for record in records:
        passes.setdefault(record["name"], []).append(record)
    return [sorted(found, key=median)[rank(len(found))] for found in passes.values()]


def merged(records: list[Record]) -> list[Record]:
    """One record of pytest-benchmark's JSON for each case, with the medians of all passes, and a copy chosen alike."""
    kept = typical(records, lambda record: record["stats"]["median"])
    for record in kept:
        passes = [r for r in records if r["name"] == record["name"]]
        extra = record["extra_info"] = dict(record["extra_info"])
        extra["medians"] = [r["stats"]["median"] for r in passes]
        if "copy" in extra:
            extra["copy"] = sorted(r["extra_info"]["copy"] for r in passes)[rank(len(passes))]
        record["stats"].pop("data", None)  # every round of every pass: many megabytes
    return kept


def uncertainty(medians: list[float]) -> float:
    """How far the passes beside the one that counts are from it, as a ratio minus 1; of two passes or more."""
    k = rank(len(medians))
    near = sorted(medians)[max(0, k - 1) : k + 2]
    return (near[-1] / near[0]) ** (1 / (len(near) - 1)) - 1
