"""Many short rounds: every contender runs in each, so that a disturbance of the machine meets all of them alike."""

import time
from collections.abc import Callable

from passes import rank

Run = Callable[[], object]

# Seconds. A contender's slot begins with a warm-up that outlasts the spinning of the other libraries' idle threads
# (see environment.py) and fills the caches with its own data; then it is timed.
PAUSE = 0.0005
WARM = 0.0015
SLOT = 0.003


def calls_in(run: Run, seconds: float) -> int:
    """How many calls fit."""
    run()
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    return max(1, int(seconds / max(once, 1e-7)))


def slot(run: Run, calls: int) -> float:
    """Seconds for one call, from one warmed-up slot."""
    time.sleep(PAUSE)
    clock = time.perf_counter
    end = clock() + WARM
    while True:
        run()
        if clock() >= end:
            break
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


def interleaved(contenders: dict[str, Run], rounds: int = 9) -> dict[str, list[float]]:
    """Seconds for one call in each round; who begins moves on from round to round."""
    names = list(contenders)
    calls = {name: calls_in(contenders[name], SLOT) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            times[name].append(slot(contenders[name], calls[name]))
    return times


def lower_quartile(values: list[float]) -> float:
    """What counts of several rounds: others only ever slow down, on a shared machine for more than half of the time."""
    return sorted(values)[rank(len(values))]


def slowed(run: Run, factor: float) -> Run:
    """`run`, and then waiting until `factor` times its time has passed: a slowdown that a comparison must find."""

    def slower() -> None:
        start = time.perf_counter()
        run()
        end = start + factor * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass

    return slower
