"""Two threads against one while other programs compute: `python bench/busy.py` (Linux; half a minute).

For a quiet machine, one competitor on one processor, and one on every processor: microseconds for a call with one and
with all threads, in turns, means (a median would hide the waits). A call follows the last at once, or after a pause in
which workers fall asleep.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from statistics import mean

import numpy as np

import fastnn
import fastnn.functional as F

SECONDS = 0.06  # of one round of one contender


def compete(processor: int) -> None:
    os.sched_setaffinity(0, {processor})
    while True:
        pass


def timed(call: Callable[[], object], threads: int) -> float:
    fastnn.set_num_threads(threads)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def once(call: Callable[[], object], threads: int, pause: float) -> tuple[float, float]:
    """Seconds for a call with one and with all threads, means of a round. Calls after pauses take turns one by one."""
    times: dict[int, list[float]] = {1: [], threads: []}
    for turn in [(1, threads)] if pause else [(1,), (threads,)]:
        end = time.perf_counter() + SECONDS * len(turn)
        while time.perf_counter() < end:
            for n in turn:
                if pause:
                    time.sleep(pause)
                times[n].append(timed(call, n))
    return mean(times[1]), mean(times[threads])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    processors = sorted(os.sched_getaffinity(0))
    threads = len(processors)
    calls = {}
    for rows in (64, 128, 512, 4096):
        x, y = np.random.default_rng(0).standard_normal((2, rows, 768)).astype(np.float32)
        calls[f"layer_norm {rows}×768"] = lambda x=x, y=y: F.layer_norm(x, 768, out=y)
    x = np.random.default_rng(0).standard_normal((16, 32, 28, 28)).astype(np.float32)
    w = np.random.default_rng(0).standard_normal((32, 32, 3, 3)).astype(np.float32)
    calls["conv2d 16×32×28×28"] = lambda: F.conv2d(x, w, padding=1)
    print(f"{'':24}{'competitors':>12}{'pause':>8}{'1 thread':>10}{f'{threads} threads':>11}{'ratio':>7}")
    processes = multiprocessing.get_context("spawn")
    for where in ([], processors[-1:], processors[:1], processors):
        competitors = [processes.Process(target=compete, args=(p,), daemon=True) for p in where]
        for process in competitors:
            process.start()
        time.sleep(0.5 if where else 0)
        for name, call in calls.items():
            for pause in (0.0, 0.001):
                one, all_ = zip(*(once(call, threads, pause) for _ in range(rounds)), strict=True)
                label = ",".join(map(str, where)) or "none"
                print(
                    f"{name:24}{label:>12}{pause * 1e3:>5.0f} ms{mean(one) * 1e6:>10.1f}{mean(all_) * 1e6:>11.1f}"
                    f"{mean(all_) / mean(one):>7.2f}",
                    flush=True,
                )
        for process in competitors:
            process.kill()
            process.join()


if __name__ == "__main__":
    main()
