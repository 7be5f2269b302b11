"""Random arrays beside NumPy's and PyTorch's: how many times longer they take for as many numbers.

    python bench/fills.py              with one thread, and with all
    python bench/fills.py --rounds 15

NumPy's generator is PCG64, its normals come from a ziggurat, and it uses one thread; PyTorch's is MT19937, and where it
is not installed its columns stay empty. All allocate their result.
"""

import argparse
import importlib.util

import environment

threads = environment.prepare()

import numpy as np  # noqa: E402

import fastnn  # noqa: E402
from timing import interleaved, lower_quartile  # noqa: E402

SIZES = (1000, 2**12, 2**16, 2**20, 2**24)
DRAWS = ("uniform", "normal")


def contenders(size: int, dtype: type) -> dict:
    """Draws of `size` numbers, by library and distribution."""
    ours, numpys = fastnn.Generator(1), np.random.default_rng(1)
    draws = {
        ("fastnn", "uniform"): lambda: ours.uniform(size, dtype=dtype),
        ("fastnn", "normal"): lambda: ours.normal(size, dtype=dtype),
        ("NumPy", "uniform"): lambda: numpys.random(size, dtype),
        ("NumPy", "normal"): lambda: numpys.standard_normal(size, dtype),
    }
    if importlib.util.find_spec("torch"):
        import torch

        kind = getattr(torch, np.dtype(dtype).name)
        torchs = torch.Generator().manual_seed(1)
        draws |= {
            ("PyTorch", "uniform"): lambda: torch.rand(size, dtype=kind, generator=torchs),
            ("PyTorch", "normal"): lambda: torch.randn(size, dtype=kind, generator=torchs),
        }
    return draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("threads dtype       size" + "".join(f"{draw + ' µs':>12}{'NumPy ÷':>9}{'PyTorch ÷':>11}" for draw in DRAWS))
    for number in sorted({1, threads}):
        fastnn.set_num_threads(number)
        if importlib.util.find_spec("torch"):
            import torch

            torch.set_num_threads(number)
        for dtype in (np.float32, np.float64):
            for size in SIZES:
                times = interleaved(contenders(size, dtype), rounds)
                time = {name: lower_quartile(values) for name, values in times.items()}
                row = f"{number:7} {np.dtype(dtype).name} {size:9}"
                for draw in DRAWS:
                    row += f"{time['fastnn', draw] * 1e6:12.2f}"
                    for peer, width in (("NumPy", 9), ("PyTorch", 11)):
                        ratio = time[peer, draw] / time["fastnn", draw] if (peer, draw) in time else float("nan")
                        row += f"{ratio:{width}.1f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
