"""Frozen networks beside PyTorch eager, torch.compile and ONNX Runtime: latency, throughput, start, memory, threads.

    pip install onnx onnxruntime           (beside what the other comparisons need)
    python bench/inference.py              everything; --peers torch,onnx leaves torch.compile out
    python bench/inference.py latency      one part: latency, throughput, start, memory, threads

All run in one process on the same processors, in turns, and their answers are compared first. "/x" is how many times
longer x takes than fastnn.
"""

import argparse
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).parent)]

import environment  # noqa: E402

Answer = Callable[[], Any]
PARTS = ("latency", "throughput", "start", "memory", "threads")


# ---- the networks --------------------------------------------------------------------------------------------------


def layer_norm_mlp() -> tuple[Any, tuple[int, ...]]:
    import fastnn

    widths = (32, 64, 64)
    hidden = [
        layer
        for a, b in itertools.pairwise(widths)
        for layer in (fastnn.Linear(a, b, rng=a), fastnn.LayerNorm(b), fastnn.ReLU())
    ]
    return fastnn.Sequential(*hidden, fastnn.Linear(64, 10, rng=1)), (32,)


def batch_norm_mlp(inputs: int, width: int) -> tuple[Any, tuple[int, ...]]:
    import fastnn

    hidden = [
        layer
        for a in (inputs, width)
        for layer in (fastnn.Linear(a, width, rng=a), fastnn.BatchNorm(width), fastnn.ReLU())
    ]
    return fastnn.Sequential(*hidden, fastnn.Linear(width, 10, rng=1)), (inputs,)


def conv_net() -> tuple[Any, tuple[int, ...]]:
    """The network of ``make demo``."""
    import fastnn

    layers: list[Any] = []
    for a, b, pool in ((1, 32, False), (32, 32, True), (32, 64, True)):
        layers += [fastnn.Conv2d(a, b, 3, padding=1, bias=False, rng=b), fastnn.BatchNorm(b), fastnn.ReLU()]
        layers += [fastnn.MaxPool2d(2)] if pool else []
    return fastnn.Sequential(*layers, fastnn.Flatten(), fastnn.Dropout(), fastnn.Linear(256, 10, rng=1)), (1, 8, 8)


def settled(model: Any, shape: tuple[int, ...]) -> Any:
    """The model with running statistics of some data."""
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(3):
        model(rng.normal(0.3, 1, (64, *shape)).astype(np.float32))
    return model.eval()


# ---- the same network elsewhere ------------------------------------------------------------------------------------


def to_torch(model: Any) -> Any:
    import torch
    from torch import nn

    import fastnn

    def layer(one: Any, images: bool) -> Any:
        if isinstance(one, fastnn.Linear):
            return nn.Linear(one.in_features, one.out_features)
        if isinstance(one, fastnn.Conv2d):
            return nn.Conv2d(one.in_channels, one.out_channels, one.kernel_size, padding=one.padding, bias=False)
        if isinstance(one, fastnn.BatchNorm):
            return (nn.BatchNorm2d if images else nn.BatchNorm1d)(one.num_features)
        if isinstance(one, fastnn.LayerNorm):
            return nn.LayerNorm(one.normalized_shape)
        return {"ReLU": nn.ReLU(), "MaxPool2d": nn.MaxPool2d(2), "Flatten": nn.Flatten(), "Dropout": nn.Dropout()}[
            type(one).__name__
        ]

    images = any(isinstance(one, fastnn.Conv2d) for one in model)
    theirs = nn.Sequential(*[layer(one, images) for one in model])
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    return theirs.eval()


def to_onnx(model: Any, shape: tuple[int, ...]) -> bytes:
    """Made with ONNX's own helpers: batch norms as nodes, which the runtime's optimiser folds by itself."""
    from onnx import TensorProto, helper, numpy_helper

    import fastnn

    nodes, arrays = [], []
    name = "x"

    def given(**values: Any) -> list[str]:
        arrays.extend(numpy_helper.from_array(value, f"{len(nodes)}.{key}") for key, value in values.items())
        return [f"{len(nodes)}.{key}" for key in values]

    for one in model:
        operands: list[str] = []
        options: dict[str, Any] = {}
        if isinstance(one, fastnn.Linear):
            kind, operands, options = "Gemm", given(w=one.weight.data, b=one.bias.data), {"transB": 1}
        elif isinstance(one, fastnn.Conv2d):
            kind, operands, options = "Conv", given(w=one.weight.data), {"pads": [1] * 4, "kernel_shape": [3, 3]}
        elif isinstance(one, fastnn.BatchNorm):
            values = {"w": one.weight.data, "b": one.bias.data, "m": one.running_mean, "v": one.running_var}
            kind, operands, options = "BatchNormalization", given(**values), {"epsilon": one.eps}
        elif isinstance(one, fastnn.LayerNorm):
            kind, operands = "LayerNormalization", given(w=one.weight.data, b=one.bias.data)
            options = {"epsilon": one.eps}
        elif isinstance(one, fastnn.MaxPool2d):
            kind, options = "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
        elif isinstance(one, fastnn.Dropout):
            continue
        else:
            kind = {"ReLU": "Relu", "Flatten": "Flatten"}[type(one).__name__]
        nodes.append(helper.make_node(kind, [name, *operands], [f"y{len(nodes)}"], **options))
        name = f"y{len(nodes) - 1}"
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 10])], arrays,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return bytes(made.SerializeToString())


def contenders(model: Any, shape: tuple[int, ...], samples: int, peers: list[str], threads: int) -> dict[str, Answer]:
    """The network in each library; the answers agree."""
    import numpy as np

    import fastnn

    x = np.random.default_rng(1).standard_normal((samples, *shape), np.float32)
    frozen = fastnn.freeze(model)
    runs: dict[str, Answer] = {"fastnn": lambda: frozen(x), "layers": lambda: model(x)}
    if {"torch", "compile"} & set(peers):
        import torch

        theirs, tensor = to_torch(model), torch.from_numpy(x)

        def eager() -> Any:
            with torch.inference_mode():
                return theirs(tensor)

        if "torch" in peers:
            runs["torch"] = eager
        if "compile" in peers:
            compiled = torch.compile(theirs)

            def quick() -> Any:
                with torch.inference_mode():
                    return compiled(tensor)

            runs["compile"] = quick
    if "onnx" in peers:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(to_onnx(model, shape), settings, providers=["CPUExecutionProvider"])
        runs["onnx"] = lambda: session.run(None, {"x": x})[0]
    expected = model(x)
    for name, run in runs.items():
        np.testing.assert_allclose(np.asarray(run()), expected, rtol=1e-3, atol=1e-4, err_msg=name)
    return runs


def table(cases: dict[str, dict[str, Answer]], rounds: int) -> None:
    from timing import interleaved, lower_quartile

    names = list(dict.fromkeys(name for runs in cases.values() for name in runs))
    print(
        f"{'microseconds':34}" + "".join(f"{name:>10}" for name in names) + "".join(f"{'/' + n:>10}" for n in names[1:])
    )
    for case, runs in cases.items():
        times = {name: lower_quartile(values) for name, values in interleaved(runs, rounds).items()}
        row = "".join(f"{times[name] * 1e6:10.2f}" for name in names)
        print(f"{case:34}{row}" + "".join(f"{times[n] / times['fastnn']:10.2f}" for n in names[1:]), flush=True)


# ---- the parts -----------------------------------------------------------------------------------------------------


def latency(peers: list[str], threads: int, rounds: int) -> None:
    """One sample."""
    nets = {"MLP 32-64-64-10, layer norm": layer_norm_mlp(), "conv net, 8×8": conv_net()}
    table({f"{n}, 1 sample": contenders(settled(*net), net[1], 1, peers, threads) for n, net in nets.items()}, rounds)


def throughput(peers: list[str], threads: int, rounds: int) -> None:
    """A batch of 256."""
    nets = {
        "MLP 64-128-128-10, batch norm": batch_norm_mlp(64, 128),
        "MLP 784-512-512-10, batch norm": batch_norm_mlp(784, 512),
        "conv net, 8×8": conv_net(),
    }
    table({f"{n}, 256": contenders(settled(*net), net[1], 256, peers, threads) for n, net in nets.items()}, rounds)


# A cold interpreter: import, load, predict. What it prints is the time of day and its resident memory in kB.
REPORT = "import time; print(time.time(), open('/proc/self/statm').read().split()[1])"
SCRIPTS = {
    "numpy": "import numpy as np; x = np.zeros((1, 32), np.float32)\n",
    "fastnn": (
        "import numpy as np, fastnn\nfrozen = fastnn.load_frozen({path!r})\ny = frozen(np.zeros((1, 32), np.float32))\n"
    ),
    "torch": (
        "import torch\nnet = torch.load({path!r} + '.pt', weights_only=False).eval()\n"
        "with torch.inference_mode(): y = net(torch.zeros(1, 32))\n"
    ),
    "onnx": (
        "import numpy as np, onnxruntime\nnet = onnxruntime.InferenceSession({path!r} + '.onnx')\n"
        "y = net.run(None, {{'x': np.zeros((1, 32), np.float32)}})\n"
    ),
}


def cold(peers: list[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds from the start of the process to the first answer, and megabytes then, of each library and round.

    All libraries are run from byte code, as pip leaves them; a source tree may have none, and then compiling it would
    be timed. It goes to a folder of its own, which the first round fills for everyone.
    """
    import fastnn

    with tempfile.TemporaryDirectory() as folder:
        model, shape = layer_norm_mlp()
        path = str(Path(folder, "net"))
        fastnn.freeze(model.eval()).save(path)
        if "torch" in peers:
            import torch

            torch.save(to_torch(model), path + ".pt")
        if "onnx" in peers:
            Path(path + ".onnx").write_bytes(to_onnx(model, shape))
        names = ["numpy", "fastnn", *(name for name in ("torch", "onnx") if name in peers)]
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        byte_code = os.environ | {"PYTHONPYCACHEPREFIX": str(Path(folder, "bytecode"))}
        byte_code.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(rounds):
            for name in names:
                command = [sys.executable, "-c", SCRIPTS[name].format(path=path) + REPORT]
                start = time.time()
                done = subprocess.run(command, env=byte_code, check=True, capture_output=True, text=True)
                at, pages = done.stdout.split()[-2:]
                results[name].append((float(at) - start, int(pages) * 4096 / 1e6))
    return {name: values[1:] for name, values in results.items()}  # the first round fills the file cache too


def start(peers: list[str], threads: int, rounds: int) -> None:
    """From the start of the process to the first answer of the layer-norm MLP."""
    times = {name: median(s for s, _ in values) for name, values in cold(peers, rounds + 1).items()}
    print("start to first answer, ms: " + ", ".join(f"{name} {t * 1e3:.0f}" for name, t in times.items()))
    ratios = {name: times[name] / times["fastnn"] for name in times if name != "fastnn"}
    print(
        f"  fastnn / numpy {1 / ratios.pop('numpy'):.2f}"
        + "".join(f", {n} / fastnn {r:.1f}" for n, r in ratios.items())
    )


def memory(peers: list[str], threads: int, rounds: int) -> None:
    """Resident memory after the first answer."""
    sizes = {name: median(mb for _, mb in values) for name, values in cold(peers, 4).items()}
    print("resident memory, MB: " + ", ".join(f"{name} {mb:.1f}" for name, mb in sizes.items()))
    print(f"  fastnn − numpy {sizes['fastnn'] - sizes['numpy']:.1f}")


def threads_together(peers: list[str], threads: int, rounds: int) -> None:
    """Eight Python threads that share one network, against one; kernels on one thread each, then on all processors."""
    import numpy as np

    import fastnn

    def per_second(frozen: Any, x: Any, callers: int, seconds: float = 0.4) -> float:
        expected, counts, wrong = frozen(x), [0] * callers, []
        end = time.perf_counter() + seconds

        def ask(k: int) -> None:
            while time.perf_counter() < end:
                if not np.array_equal(frozen(x), expected):
                    wrong.append(k)
                counts[k] += len(x)

        start = time.perf_counter()
        running = [threading.Thread(target=ask, args=(k,)) for k in range(callers)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        if wrong:
            raise AssertionError("a thread got a wrong answer")
        return sum(counts) / (time.perf_counter() - start)

    for name, (model, shape) in {"MLP 784-512-512-10": batch_norm_mlp(784, 512), "conv net": conv_net()}.items():
        frozen = fastnn.freeze(settled(model, shape))
        for samples in (16, 256):
            x = np.random.default_rng(0).standard_normal((samples, *shape), np.float32)
            rates: dict[str, list[float]] = {}
            for _ in range(rounds):
                for inner in (1, threads):
                    fastnn.set_num_threads(inner)
                    for callers in (1, 8):
                        label = f"{callers} × {inner} threads"
                        rates.setdefault(label, []).append(per_second(frozen, x, callers))
            middle = {label: median(values) for label, values in rates.items()}
            first = middle["1 × 1 threads"]
            shown = ", ".join(f"{label} {rate:,.0f} ({rate / first:.2f})" for label, rate in middle.items())
            print(f"{name}, batches of {samples}, samples per second, callers × kernels' threads: {shown}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--peers", default="torch,compile,onnx", help="which of torch,compile,onnx; '' for none")
    parser.add_argument("--threads", type=int, default=0, help="confine all to so many processors (default: all)")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    threads = environment.prepare(chosen.threads)
    import fastnn

    needed = {"torch": "torch", "compile": "torch", "onnx": "onnxruntime"}
    peers = [name for name in chosen.peers.split(",") if name and importlib.util.find_spec(needed[name])]
    fastnn.set_num_threads(threads)
    if {"torch", "compile"} & set(peers):
        import torch

        torch.set_num_threads(threads)
    print(f"{threads} threads, {fastnn._kernels.ISA}; peers: {', '.join(peers) or 'none'}")
    run = {"latency": latency, "throughput": throughput, "start": start, "memory": memory, "threads": threads_together}
    for part in chosen.parts or PARTS:
        run[part](peers, threads, chosen.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
