"""By hand: forks and threads in numbers. ``python tests/stress.py --forks 1000`` · ``--threads 64 --calls 20000`` ·
``--operations 4``: every operation in so many threads (what ``make sanitize SANITIZE=thread`` runs).

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
from fastnn import _kernels
from operations import OPERATIONS, network

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
        for number in range(count):
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                if number % 2:
                    fastnn.set_num_threads(3)  # a team of the child's own
                os._exit(0 if compute() == expected else 3)
            right += os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    return right


def threads(count, calls):
    """(right results, most further threads at once, those left over) of calls from `count` Python threads."""
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
    time.sleep(0.5)  # OpenMP's threads take a moment to end with their caller
    return sum(right), most[0] - before, len(os.listdir("/proc/self/task")) - before


def operations(count):
    """How many operations gave the same bits in all of `count` threads, and how many there are.

    Each thread has its own arguments; layers in evaluation mode, frozen networks and generators are shared.
    """
    shared, x = network(np.float32).eval(), np.ones((64, 4, 4, 6), np.float32)
    frozen, generator = fastnn.freeze(shared), fastnn.Generator(5)
    calls = {name: lambda op=op: op.run(op.arguments(np.float32)) for name, op in OPERATIONS.items()}
    calls |= {"network": lambda: [shared(x)], "frozen network": lambda: [frozen(x)]}
    large = np.random.default_rng(1).standard_normal((64, 4, 32, 32)).astype(np.float32)
    calls |= {f"large {f.__name__}": lambda f=f: [f(large)] for f in (F.relu, F.gelu, F.softmax, F.log_softmax)}
    calls |= {
        "large batch_norm": lambda: [F.batch_norm(large, None, None, training=True)],
        "large dropout": lambda: [F.dropout(large, generator=fastnn.Generator(1))],
        "large linear": lambda: [F.linear(large.reshape(-1, 256), large.reshape(-1, 256)[:64])],
        "large conv2d": lambda: [F.conv2d(large, large[:4, :, :3, :3], padding=1)],
    }
    right = dict.fromkeys(calls, 0)

    def work():
        for name, call in calls.items():
            start.wait()
            same = [a.tobytes() for a in call()] == expected[name]
            generator.words((4,))
            with lock:
                right[name] += same

    expected = {name: [a.tobytes() for a in call()] for name, call in calls.items()}
    start, lock = threading.Barrier(count), threading.Lock()
    team = [threading.Thread(target=work) for _ in range(count)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert generator.stream == count * len(calls)
    return sum(n == count for n in right.values()), len(calls)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--forks", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--operations", type=int, default=0)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--busy", type=int, default=1, help="threads of the parent that compute while it forks")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads: that is what is tried here
    fastnn.set_num_threads(3)
    if options.forks:
        right = forks(options.forks, options.busy)
        print(f"{right} of {options.forks} forked children computed the same and ended")
        return right != options.forks
    if options.operations:
        right, total = operations(options.operations)
        print(f"{right} of {total} operations gave the same bits in {options.operations} threads")
        return right != total
    right, most, left = threads(options.threads, options.calls)
    total = options.calls // options.threads * options.threads
    print(f"{right} of {total} calls right; at most {most} threads more, {left} left over")
    # our own team is one for all callers; OpenMP's are one for each, and end with it
    teams = {"own": 1, "OpenMP": options.threads, "none": 0}[_kernels.team_kind()]
    helpers = fastnn.get_num_threads() - 1
    return right != total or left > helpers or most > options.threads + teams * helpers


if __name__ == "__main__":
    sys.exit(main())
