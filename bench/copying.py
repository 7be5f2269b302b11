"""The copy limit: the time of copying as many bytes as a case must move, with the same threads."""

import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


@functools.cache
def compiled(name: str, switches: tuple[str, ...] = ("-O2",)) -> ctypes.CDLL:
    """NAME.c of this folder, which has a thread team like fastnn's."""
    source = Path(__file__).with_name(f"{name}.c")
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder, f"{name}.so"))
        always = ["-fPIC", "-shared", "-pthread", "-D_GNU_SOURCE", f"-I{source.parents[1] / 'src/fastnn/_kernels'}"]
        command = [*os.environ.get("CC", "cc").split(), *switches, *always, str(source), "-o", target]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(target)
        library.begin()
    return library


def copier(moved: int, threads: int) -> Callable[[], None]:
    """A function that moves `moved` bytes: half of them read, half written, into memory that is already there."""
    source, target = (np.ones(max(1, moved // 2), np.uint8) for _ in range(2))
    copy = compiled("copy").copy
    copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    copy.restype = None
    arguments = (target.ctypes.data, source.ctypes.data, source.nbytes, threads)

    def run(keep=(source, target)) -> None:
        copy(*arguments)

    return run
