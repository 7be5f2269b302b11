"""Random arrays beside NumPy's: how many times longer `numpy.random.Generator` takes for as many numbers.

    python bench/fills.py              with one thread, which is what NumPy uses, and with all

NumPy's generator is PCG64, its normals come from a ziggurat; both sides allocate their result.
"""

import environment

threads = environment.prepare()

import numpy as np  # noqa: E402

import fastnn  # noqa: E402
from timing import interleaved, medians  # noqa: E402

SIZES = (1000, 2**16, 2**20)


def main():
    ours, numpys = fastnn.Generator(1), np.random.default_rng(1)
    print("threads dtype      size  uniform µs  NumPy ÷ fastnn  normal µs  NumPy ÷ fastnn")
    for number in sorted({1, threads}):
        fastnn.set_num_threads(number)
        for dtype in (np.float32, np.float64):
            for size in SIZES:
                contenders = {
                    "uniform": lambda: ours.uniform(size, dtype=dtype),  # noqa: B023
                    "NumPy's uniform": lambda: numpys.random(size, dtype),  # noqa: B023
                    "normal": lambda: ours.normal(size, dtype=dtype),  # noqa: B023
                    "NumPy's normal": lambda: numpys.standard_normal(size, dtype),  # noqa: B023
                }
                m = medians(interleaved(contenders, 5))
                row = f"{number:7} {np.dtype(dtype).name} {size:9}"
                for draw in ("uniform", "normal"):
                    numpy_name = f"NumPy's {draw}"
                    row += f"{m[draw] * 1e6:11.2f} {m[numpy_name] / m[draw]:15.1f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
