"""The thread policy: how many threads a kernel may use. The kernels only ever see the resulting number."""

import math
import operator
import os

from fastnn import _kernels

__all__ = ["get_num_threads", "set_num_threads"]

StrPath = str | os.PathLike[str]


def _affinity() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_quota(proc: StrPath = "/proc/self/cgroup", root: StrPath = "/sys/fs/cgroup") -> float:
    """Processors' worth of CPU time that the control groups allow, `inf` without a limit.

    A limit on any ancestor binds, so every folder from the process's own group up to the root is asked: `cpu.max`
    in version 2, `cpu.cfs_quota_us` over `cpu.cfs_period_us` in version 1. Inside a container the group's path may
    not exist below the mount; then its root is the container's own group.
    """
    try:
        lines = _text(proc).splitlines()
    except OSError:
        return math.inf
    quota = math.inf
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, read = os.fspath(root), _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read = os.path.join(root, "cpu"), _quota_v1
        else:
            continue
        place = os.path.join(mount, group.strip("/")).rstrip("/")
        while len(place) > len(mount):
            quota = min(quota, read(place))
            place = os.path.dirname(place)
        quota = min(quota, read(mount))
    return quota


def _text(path: StrPath) -> str:
    with open(path) as file:
        return file.read()


def _quota_v2(folder: str) -> float:
    try:
        limit, period = _text(f"{folder}/cpu.max").split()
        return math.inf if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _quota_v1(folder: str) -> float:
    try:
        limit = int(_text(f"{folder}/cpu.cfs_quota_us"))
        return math.inf if limit <= 0 else limit / int(_text(f"{folder}/cpu.cfs_period_us"))
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _from_environment(name: str) -> int | None:
    """The variable as a thread count. OMP_NUM_THREADS may be a list by nesting level: the first counts."""
    text = os.environ.get(name, "").split(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) >= 1 else None


def _default() -> int:
    """FASTNN_NUM_THREADS if set, else the least of affinity, CPU quota (rounded up) and OMP_NUM_THREADS."""
    if chosen := os.environ.get("FASTNN_NUM_THREADS"):
        threads = _from_environment("FASTNN_NUM_THREADS")
        if threads is None:
            raise ImportError(f"FASTNN_NUM_THREADS must be an integer of at least 1, got {chosen!r}")
        return threads
    limits = [_affinity(), _cgroup_quota(), _from_environment("OMP_NUM_THREADS") or math.inf]
    return max(1, math.ceil(min(limits)))


def set_num_threads(n: int) -> None:
    """Let kernels use up to `n` threads from now on, in the whole process.

    Results do not depend on it: every reduction has an order that the shapes alone fix.

    Parameters
    ----------
    n : int
        At least 1; more than there are processors is honoured. A build without threads always uses one.

    Raises
    ------
    ValueError
        If `n` is less than 1.
    TypeError
        If `n` is not an integer.

    Examples
    --------
    >>> import fastnn
    >>> before = fastnn.get_num_threads()
    >>> fastnn.set_num_threads(1)
    >>> fastnn.get_num_threads()
    1
    >>> fastnn.set_num_threads(before)
    """
    if isinstance(n, bool):
        raise TypeError("n must be an integer, got bool")
    try:
        threads = operator.index(n)
    except TypeError:
        raise TypeError(f"n must be an integer, got {type(n).__name__}") from None
    if not 1 <= threads <= 2**16:
        raise ValueError(f"n must be at least 1 (and at most 65536), got {threads}")
    _kernels.set_thread_limit(threads)


def get_num_threads() -> int:
    """The most threads that kernels use; 1 in a build without threads.

    By default the least of: the processors in this process's affinity mask, its control groups' CPU quota and
    OMP_NUM_THREADS; FASTNN_NUM_THREADS overrides them.
    A forked child begins with 1, for it computes beside its parent and siblings; `set_num_threads` gives it more.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.get_num_threads() >= 1
    True
    """
    return _kernels.get_thread_limit()


_kernels.set_thread_limit(_default())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _kernels.set_thread_limit(1))
