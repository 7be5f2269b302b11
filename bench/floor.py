"""How near a norm can come to copying its bytes: bare loops of its arithmetic (floor.c) beside the copy and fastnn.

    python bench/floor.py
    python bench/floor.py --threads 1 --rounds 15

For rows of floats, forward and backward, times the copy of the bytes that must move: without weights, and layer norm's
backward with them. "double": the sums in double precision (in layer norm's those of the weights' gradients), as fastnn
takes them; "float": in the data's own, which is not exact enough where errors of equal elements add up, as in the
gradient of a weight over 10^5 rows; "fused": the results along with the next rows' sums. A norm has odd lengths and
groups to close beside that. What fastnn does in less is no floor, but how far its loops are from a compiler's.
"""

import argparse
import ctypes
import sys
from pathlib import Path
from statistics import geometric_mean

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import environment

threads = environment.prepare()

import numpy as np  # noqa: E402

import fastnn  # noqa: E402
import fastnn.functional as F  # noqa: E402
from copying import compiled, copier  # noqa: E402
from norms import aligned  # noqa: E402
from timing import Run, interleaved, lower_quartile  # noqa: E402

SHAPES = ((64, 768), (256, 768), (512, 768), (4096, 768), (8192, 128), (64, 4096), (1024, 4096), (2048, 800))
SWITCHES = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-ffp-contract=fast")
FORMS = {"double": (1, 0), "double fused": (1, 1), "float": (0, 0), "float fused": (0, 1)}
OWN_ROWS = 64  # of a task, in layer norm's backward: as many as fastnn sums in one go


def bare(
    x: np.ndarray, dy: np.ndarray | None, y: np.ndarray, form: tuple[int, int], members: int, own: bool = False
) -> Run:
    """A bare loop over rows: results of x, or of dy and x, into y; with `own` layer norm's backward."""
    norm = compiled("floor", SWITCHES).norm
    norm.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_ssize_t] * 3 + [ctypes.c_int] * 3
    norm.restype = None
    rows = min(OWN_ROWS, -(-x.shape[0] // members // 4) * 4) if own else 0
    weight = np.ones(x.shape[1], np.float32) if own else None
    columns = aligned(np.zeros((-(-x.shape[0] // rows), 2, x.shape[1]))) if own else None
    arrays = x, dy, y, weight, columns
    pointers = [None if array is None else array.ctypes.data for array in arrays]

    def run(keep=arrays) -> None:
        norm(*pointers, *x.shape, rows, *form, members)

    return run


def contenders(shape: tuple[int, int], direction: str, members: int) -> dict[str, Run]:
    """The copy, fastnn and the bare loops."""
    rng = np.random.default_rng(1)
    x, dy, y = (aligned(rng.standard_normal(shape, np.float32)) for _ in range(3))
    copy = copier((2 if direction == "forward" else 3) * x.nbytes, members)
    if direction == "layer norm's":
        weight = np.ones(shape[1], np.float32)
        context = F.layer_norm_forward(x, shape[1], weight, weight)[1]
        run = bare(x, dy, y, (1, 0), members, own=True)
        return {"copy": copy, "fastnn": lambda: F.layer_norm_backward(dy, context), "double": run}
    if direction == "backward":
        context = F.layer_norm_forward(x, shape[1])[1]
        runs = {"copy": copy, "fastnn": lambda: F.layer_norm_backward(dy, context)}
        return runs | {name: bare(x, dy, y, form, members) for name, form in FORMS.items()}
    runs = {"copy": copy, "fastnn": lambda: F.layer_norm(x, shape[1])}
    return runs | {name: bare(x, None, y, form, members) for name, form in FORMS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    fastnn.set_num_threads(arguments.threads)
    for direction in ("forward", "backward", "layer norm's"):
        columns = ["fastnn", *FORMS] if direction != "layer norm's" else ["fastnn", "double"]
        print(f"{direction:14}{'copy µs':>9}" + "".join(f"{name:>14}" for name in columns))
        table = []
        for shape in SHAPES:
            if direction == "layer norm's" and shape[1] % 64:
                continue
            times = interleaved(contenders(shape, direction, arguments.threads), arguments.rounds)
            seconds = {name: lower_quartile(values) for name, values in times.items()}
            table.append([seconds[name] / seconds["copy"] for name in columns])
            line = "".join(f"{ratio:14.2f}" for ratio in table[-1])
            print(f"{f'{shape[0]} x {shape[1]}':14}{seconds['copy'] * 1e6:9.1f}{line}", flush=True)
        means = "".join(f"{geometric_mean(column):14.2f}" for column in zip(*table, strict=True))
        print(f"{'geometric mean':23}{means}\n")


if __name__ == "__main__":
    main()
