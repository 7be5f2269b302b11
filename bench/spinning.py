"""How much the idle threads of one library slow down the next one, and whether the benchmarks' slots keep that out.

    python bench/spinning.py

A worker that waits for its next parallel region spins for a while, on a processor that somebody else is timed on. For
each victim: the time of its first call right after a call of another library, and its time in a slot as timing.py
makes them (a pause, a warm-up, then the clock), both as a multiple of the same after a call of its own. Once with the
libraries' defaults and once with the environment that the benchmarks set.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

import environment
from timing import Run, slot

ROUNDS = 40


def libraries() -> dict[str, Run]:
    """One call of each, about as long, that runs on every processor."""
    import numpy as np

    import fastnn.functional as F

    x = np.random.default_rng(0).standard_normal((1024, 768), np.float32)
    square = x[:384, :384].copy()
    made: dict[str, Run] = {"fastnn": lambda: F.layer_norm(x, 768), "NumPy's BLAS": lambda: square @ square}
    if importlib.util.find_spec("torch"):
        import torch

        tensor = torch.from_numpy(x)
        made["PyTorch"] = lambda: torch.nn.functional.layer_norm(tensor, (768,))
    if importlib.util.find_spec("jax"):
        import jax
        import jax.numpy as jnp

        array = jnp.asarray(x)
        norm = jax.jit(lambda x: (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5))
        made["JAX"] = lambda: norm(array).block_until_ready()
    return made


def once(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def times(victim: Run, before: Run) -> tuple[float, float]:
    """(first call, call in a slot) of the victim after calls of the other one; seconds, medians."""
    first, slots = [], []
    for _ in range(ROUNDS):
        for _ in range(3):
            before()
        first.append(once(victim))
        for _ in range(3):
            before()
        slots.append(slot(victim, 5))
    return median(first), median(slots)


def table() -> None:
    runs = libraries()
    for run in runs.values():
        for _ in range(20):
            run()
    print(f"{'victim':14}{'after':14}{'first call':>12}{'in a slot':>12}")
    for victim, run in runs.items():
        own_first, own_slot = times(run, run)
        for before in runs:
            if before != victim:
                first, timed = times(run, runs[before])
                print(f"{victim:14}{before:14}{first / own_first:11.2f}×{timed / own_slot:11.2f}×", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only one table, with the environment as it is")
    if parser.parse_args().table:
        return table()
    plain = {name: value for name, value in os.environ.items() if name not in environment.QUIET}
    quiet = ", ".join(f"{name}={value}" for name, value in environment.QUIET.items())
    for title, added in (("the libraries' defaults", {}), (quiet, environment.QUIET)):
        print(f"\n{title}:", flush=True)
        subprocess.run([sys.executable, __file__, "--table"], env=plain | added, check=True)


if __name__ == "__main__":
    main()
