"""Several passes over all cases, minutes apart: what disturbs the machine for seconds spoils a case in one of them.

A pass also allocates all arrays anew, for where they lie in memory decides over some per cent. The least of a case's
medians counts; the others tell how reliable it is.
"""

from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]


def best(records: Iterable[Record], median: Any) -> list[Record]:
    """For each name the record with the least `median(record)`, in the order in which the names come."""
    chosen: dict[str, Record] = {}
    for record in records:
        name = record["name"]
        if name not in chosen or median(record) < median(chosen[name]):
            chosen[name] = record
    return list(chosen.values())


def merged(records: list[Record]) -> list[Record]:
    """One record of pytest-benchmark's JSON for each case, with the medians of all passes and the least copy."""
    kept = best(records, lambda record: record["stats"]["median"])
    for record in kept:
        passes = [r for r in records if r["name"] == record["name"]]
        extra = record["extra_info"] = dict(record["extra_info"])
        extra["medians"] = [r["stats"]["median"] for r in passes]
        if "copy" in extra:
            extra["copy"] = min(r["extra_info"]["copy"] for r in passes)
        record["stats"].pop("data", None)  # every round of every pass: many megabytes
    return kept
