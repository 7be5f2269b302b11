"""By hand: forks and threads in numbers. ``python tests/stress.py --forks 1000`` · ``--threads 64 --calls 20000``.

Each forked child computes with kernels that the parent's thread team has just used, while other threads of the parent
compute on; it has ten seconds. Prints how many came back with the right bits.
"""

import argparse
import os
import signal
import sys
import threading
import time
import warnings

import numpy as np

import fastnn
import fastnn.functional as F

X = np.random.default_rng(0).standard_normal((1024, 512)).astype(np.float32)


def compute():
    y = F.layer_norm(X, 512)
    return float(F.gelu(y).sum(dtype=np.float64)) + float(F.batch_norm(y, None, None, training=True)[-1, -1])


def forks(count, in_parallel):
    """How many children came back with the right result; threads of the parent compute meanwhile."""
    expected, right, stop = compute(), 0, threading.Event()
    busy = [threading.Thread(target=lambda: [compute() for _ in iter(stop.is_set, True)]) for _ in range(in_parallel)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                os._exit(0 if compute() == expected else 3)
            right += os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    return right


def threads(count, calls):
    """(right results, most threads at once, threads left over) of calls from `count` Python threads."""
    expected, right, most = compute(), [], [0]

    def work():
        for _ in range(calls // count):
            right.append(compute() == expected)
            most[0] = max(most[0], len(os.listdir("/proc/self/task")))

    before = len(os.listdir("/proc/self/task"))
    team = [threading.Thread(target=work) for _ in range(count)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    time.sleep(0.2)  # workers of ended threads go by themselves
    return sum(right), most[0], len(os.listdir("/proc/self/task")) - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--forks", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--busy", type=int, default=1, help="threads of the parent that compute while it forks")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads: that is what is tried here
    fastnn.set_num_threads(2)
    if options.forks:
        right = forks(options.forks, options.busy)
        print(f"{right} of {options.forks} forked children computed the same and ended")
        return right != options.forks
    right, most, left = threads(options.threads, options.calls)
    total = options.calls // options.threads * options.threads
    print(f"{right} of {total} calls right; at most {most} threads, {left} left over")
    return right != total or left > 0


if __name__ == "__main__":
    sys.exit(main())
