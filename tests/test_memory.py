"""Memory of results: large blocks are used again, and nobody ever shares one."""

import sys
import threading

import numpy as np
import pytest

import fastnn.functional as F

SIZE = 9 * 2**20  # float32: 36 MB, above what malloc keeps by itself


def copied(value):
    return F.dropout(np.broadcast_to(np.float32(value), SIZE).copy(), 0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only there are blocks kept")
def test_large_results_fault_once():
    """Without reuse each result costs at least one page fault for every 2 MB."""
    import resource

    x = np.ones(SIZE, np.float32)
    for size in (SIZE, SIZE - 1000):
        F.dropout(x[:size], 0.0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            F.dropout(x[:size], 0.0)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 3 * x.nbytes // 2**21


def test_live_results_are_apart():
    """More than are kept, dropped in another order than made, and of sizes that do and do not fit what was kept."""
    results = [copied(k) for k in range(4)]
    del results[1], results[0]
    results += [F.dropout(np.full(n, n, np.float32), 0.0) for n in (SIZE // 2 * 3, SIZE - 7, SIZE + SIZE // 3)]
    expected = [2, 3, SIZE // 2 * 3, SIZE - 7, SIZE + SIZE // 3]
    for result, value in zip(results, expected, strict=True):
        assert (result == value).all()
    for k, one in enumerate(results):
        assert not any(np.shares_memory(one, other) for other in results[:k])


def test_a_kept_block_that_is_a_little_too_small_is_left():
    """By one page, which a block has at most beyond what was asked for."""
    x = np.ones(SIZE + 1024, np.float32)
    small = F.dropout(x[:SIZE], 0.0)
    place = small.ctypes.data
    del small
    assert F.dropout(x, 0.0).ctypes.data != place


def test_resized_result():
    y = copied(1)
    y.resize(2 * SIZE, refcheck=False)
    assert (y[:SIZE] == 1).all()
    assert (y[SIZE:] == 0).all()
    del y
    assert (copied(2) == 2).all()


def test_threads_get_blocks_of_their_own():
    wrong = []

    def work(number):
        for k in range(8):
            value = 10 * number + k
            if not (copied(value) == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_results_own_their_memory():
    """They can be resized, start at a cache line, and tracemalloc sees them come and go."""
    import tracemalloc

    x = np.ones(2**16, np.float32)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        y = F.dropout(x, 0.0)
        assert tracemalloc.get_traced_memory()[0] - before > x.nbytes
        assert y.flags.owndata
        assert y.base is None
        assert y.ctypes.data % 64 == 0
        y.resize(2 * y.size, refcheck=False)
        assert tracemalloc.get_traced_memory()[0] - before > 2 * x.nbytes
        del y
        assert tracemalloc.get_traced_memory()[0] - before < 1000
    finally:
        tracemalloc.stop()
