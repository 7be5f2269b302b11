"""Run by test_faults.py in processes of its own: every operation, with one allocation after the other failing.

``python faults.py python`` lets the interpreter's allocators fail (`_testcapi.set_nomemory`), ``malloc`` in place of
``python`` the C library's, for which failing_malloc.c has to be preloaded. Prints how many failures were provoked.
"""

import ctypes
import os
import sys
import traceback

import numpy as np

import fastnn
import fastnn.functional as F
from operations import FUNCTIONS, upstream

fastnn.set_num_threads(1)


def injector(kind):
    """(let allocation n fail, stop that and tell whether it did)"""
    if kind == "python":
        import _testcapi

        return lambda n: _testcapi.set_nomemory(n + 1, n + 2), _testcapi.remove_mem_hooks
    library = ctypes.CDLL(None)
    library.fail_at.argtypes = [ctypes.c_long]
    return library.fail_at, lambda: library.fail_at(-1)


def of_memory(error):
    """A MemoryError, or what NumPy makes of a failed allocation in a few of its own functions."""
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, MemoryError) or (os.sep + "numpy" + os.sep in where and "without" in str(error))


def calls(operation):
    """The operation and its companions, large enough for kernels to want memory of their own."""
    arguments = operation.arguments(np.float32)
    y, context = operation.forward(arguments)
    dy = upstream(y)
    return arguments, {
        "plain": lambda: operation.plain(arguments),
        "forward": lambda: operation.forward(arguments),
        "backward": lambda: operation.backward(dy, context),
    }


def channels():
    """(arguments, calls): norms of so many channels that the statistics of all need memory of their own."""
    x = np.random.default_rng(0).standard_normal((4, 1500, 6)).astype(np.float32)
    arguments = {"x": x, "mean": np.zeros(1500, np.float32), "var": np.ones(1500, np.float32)}
    mean, var = arguments["mean"], arguments["var"]
    return arguments, {
        "training": lambda: F.batch_norm(x, mean, var, training=True),
        "training, channels last": lambda: F.batch_norm(x.reshape(24, 1500), mean, var, training=True),
        "evaluation": lambda: F.batch_norm(x, mean, var),
        "evaluation, channels last": lambda: F.batch_norm(x.reshape(24, 1500), mean, var),
        "instances": lambda: F.instance_norm(x, mean, var),
    }


def provoke(call, arguments, inject):
    """Let one allocation after the other fail in a call; how many failures reached it. Arguments stay as they were."""
    start, stop = inject
    call()
    failures = in_a_row = n = 0
    while in_a_row < 3 and n < 400:  # an allocation may be absorbed: a cache that stays empty
        before = {k: v.tobytes() for k, v in arguments.items() if isinstance(v, np.ndarray)}
        start(n)
        try:
            call()
        except (MemoryError, SystemError) as error:
            stop()
            if not of_memory(error):
                raise
            failures += 1
            in_a_row = 0
            changed = [k for k in before if arguments[k].tobytes() != before[k]]
            assert changed == [], (n, changed)
        else:
            stop()
            in_a_row += 1
        n += 1
    return failures


def main(kind):
    inject = injector(kind)
    failures = 0
    arguments, table = channels()
    for call in table.values():
        failures += provoke(call, arguments, inject)
    for operation in FUNCTIONS.values():
        expected = operation.run(operation.arguments(np.float32))
        arguments, table = calls(operation)
        for call in table.values():
            failures += provoke(call, arguments, inject)
        again = operation.run(operation.arguments(np.float32))
        for ours, theirs in zip(again, expected):
            np.testing.assert_array_equal(ours, theirs)
    print(failures)


if __name__ == "__main__":
    main(sys.argv[1])
