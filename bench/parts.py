"""What the steps of a norm's backward cost by themselves, in each cache, on one thread.

    python bench/parts.py
    python bench/parts.py --kilobytes 16 256 4096 262144

Nanoseconds for 16 elements, a cache line of floats. Three arrays together fill so many kilobytes: by default half of a
first, second and third level of 48, 1024 and 32768, and more than the last. Where sums take no longer from a far level
than from the first, arithmetic bounds them, and the transfer hides behind it.
"""

import argparse
import ctypes
import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import environment

environment.prepare(1)

import numpy as np  # noqa: E402

from copying import compiled, copier  # noqa: E402
from norms import aligned  # noqa: E402
from timing import interleaved, lower_quartile  # noqa: E402

SWITCHES = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffp-contract=fast")
STEPS = ("read_one", "read_two", "write_one", "sums_double", "sums_float", "gradient")
LINES = 1 << 18  # of each array, in one go


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kilobytes", type=int, nargs="+", default=[24, 512, 16384, 131072])
    print(f"{'KB':>10}" + "".join(f"{name:>14}" for name in (*STEPS, "copy")))
    repeat = compiled("parts", SWITCHES).repeat
    repeat.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 3, *[ctypes.c_ssize_t] * 2]
    for kilobytes in parser.parse_args().kilobytes:
        n = max(1, kilobytes * 1024 // 12 // 64) * 64
        arrays = [aligned(np.random.default_rng(k).standard_normal(n, np.float32)) for k in range(3)]
        operands = [array.ctypes.data for array in arrays]
        times = max(1, LINES * 16 // n)
        runs = {name: functools.partial(repeat, k, *operands, n, times) for k, name in enumerate(STEPS)}
        seconds = [lower_quartile(values) / times for values in interleaved(runs, 7).values()]
        seconds += [lower_quartile(values) for values in interleaved({"copy": copier(12 * n, 1)}, 7).values()]
        print(f"{kilobytes:10}" + "".join(f"{value * 16e9 / n:14.2f}" for value in seconds), flush=True)


if __name__ == "__main__":
    main()
