"""``python -m fastnn train``."""

import json
import math
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import _threads, checkpoint, schedules
from fastnn import functional as F
from fastnn.cli import data, modelfile, report
from fastnn.cli.augment import moved
from fastnn.cli.errors import Refusal
from fastnn.cli.models import Architecture
from fastnn.cli.options import DEFAULTS, QUICK_EPOCHS
from fastnn.layers import Layer
from fastnn.optim import SGD, L2Ball
from fastnn.random import Generator
from fastnn.train import DivergenceError, Event, History, fit, steps_per_epoch

Array = npt.NDArray[Any]

__all__ = ["train"]

MODEL, CHECKPOINT, HISTORY, FIGURE = "model.safetensors", "checkpoint.safetensors", "history.csv", "loss.png"
HELD_OUT_PARTS = 4  # one sample in four is held out where the data have no test part


class Task(NamedTuple):
    """Everything that a run needs, made from its options and data."""

    model: Layer
    architecture: Architecture
    preparation: modelfile.Preparation
    optimizer: SGD
    generator: Generator
    training: tuple[Array, Array]
    test: tuple[Array, Array]
    steps: int  # per epoch


def train(given: Namespace) -> int:
    """Train a network as the options say; results go into a folder. Returns the exit code."""
    asked = {name: value for name, value in vars(given).items() if name in DEFAULTS}
    if getattr(given, "quick", False):
        asked = {"epochs": QUICK_EPOCHS} | asked
    source = asked.get("data", DEFAULTS["data"])
    folder = Path(getattr(given, "out", None) or Path("runs", Path(source).stem or "data"))
    resume = getattr(given, "resume", False)
    if resume:
        run, digest = _stored_run(folder, asked)
    else:
        run, digest = DEFAULTS | asked, None
        if "constraint" in asked:
            run["weight_decay"] = 0.0
        _check_folder(folder, getattr(given, "force", False))
    if hasattr(given, "threads"):
        _threads.set_num_threads(given.threads)

    dataset = data.load(run["data"])
    if digest is not None and dataset.digest != digest:
        raise Refusal(f"--data {run['data']}: these are not the data of the run in {folder}")
    task = _task(run, dataset)
    _open_folder(folder, fresh=not resume)
    _announce(run, dataset, task)
    return _run(run, task, folder, dataset, resume)


def _stored_run(folder: Path, asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Options and data digest of the stopped run; what the user gave again must be the same."""
    path = folder / CHECKPOINT
    if not path.is_file():
        raise Refusal(f"--resume: there is no {CHECKPOINT} in {folder}")
    try:
        stored = json.loads(checkpoint.load_metadata(path)["fastnn.run"])
        run, digest = stored["options"], stored["digest"]
        if run.keys() != DEFAULTS.keys() or not isinstance(digest, str):
            raise KeyError
    except checkpoint.CheckpointError as error:
        raise Refusal(str(error)) from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise Refusal(f"--resume: {path} was not written by fastnn train") from None
    for name, value in asked.items():
        if value != run[name] and name != "data":  # the data may have moved; their digest decides
            option = "--" + name.replace("_", "-")
            raise Refusal(f"--resume: the run in {folder} has {option} {run[name]}, not {value}; leave the option out")
    return run | {key: asked[key] for key in ("data",) if key in asked}, digest


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"--out {folder}: this is not a folder")
    present = [name for name in (MODEL, CHECKPOINT, HISTORY, FIGURE) if (folder / name).exists()]
    if present and not force:
        raise Refusal(
            f"{folder} already holds a run ({', '.join(present)}): continue it with --resume, or --force a new one"
        )


def _open_folder(folder: Path, fresh: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:  # an old checkpoint beside a new run's files would be resumed by mistake
            for name in (CHECKPOINT, MODEL, HISTORY, FIGURE):
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise Refusal(f"--out {folder}: {error.strerror}") from None


def _task(run: dict[str, Any], dataset: data.Dataset) -> Task:
    (x, y), split_seed = dataset.whole, None
    x_test, y_test = dataset.test if dataset.test is not None else (None, None)
    if y is None or (x_test is not None and y_test is None):
        raise Refusal(f"--data {run['data']}: training needs the labels {'y' if y is None else 'y_test'}")
    if x_test is None or y_test is None:
        if len(y) < 2:
            raise Refusal(f"--data {run['data']}: one sample is too few to train on and to hold out")
        split_seed = run["seed"]
        kept, held = data.split(y, HELD_OUT_PARTS, split_seed)
        x, y, x_test, y_test = x[kept], y[kept], x[held], y[held]
    preparation = modelfile.prepare(dataset.digest, x, y, split_seed)
    architecture = Architecture.choose(run["model"], x.shape[1:], len(preparation.labels), run["norm"], run["dropout"])
    generator = Generator(run["seed"])
    model = architecture.build(generator, run["init"])
    training = preparation.inputs(x), preparation.targets(y, run["data"])
    test = preparation.inputs(x_test), preparation.targets(y_test, run["data"])
    steps = steps_per_epoch(len(x), run["batch_size"], run["accumulate"])
    optimizer = SGD(
        model.parameters(),
        lr=_schedule(run, steps),
        momentum=run["momentum"],
        weight_decay=run["weight_decay"],
        constraint=None if run["constraint"] is None else L2Ball(run["constraint"]),
    )
    return Task(model, architecture, preparation, optimizer, generator, training, test, steps)


def _schedule(run: dict[str, Any], steps: int) -> Callable[[int], float]:
    """The warm-up, then the chosen course over the steps that remain."""
    lr, warmup = run["lr"], round(run["warmup"] * steps)
    rest = max(1, run["epochs"] * steps - warmup)
    course = {
        "constant": schedules.Constant(lr),
        "exponential": schedules.Exponential(lr, 0.01, every=rest),
        "cosine": schedules.Cosine(lr, rest),
    }[run["schedule"]]
    return schedules.Warmup(course, warmup, start=lr / 10) if warmup else course


def _announce(run: dict[str, Any], dataset: data.Dataset, task: Task) -> None:
    shape = "×".join(map(str, task.architecture.shape))
    parameters = sum(parameter.data.size for parameter in task.model.parameters())
    print(
        f"{dataset.name}: {len(task.training[0])} training and {len(task.test[0])} held-out samples of {shape}, "
        f"{task.architecture.classes} classes\n"
        f"{_describe(task)}: {parameters} parameters; seed {run['seed']}, {_threads.get_num_threads()} threads",
        flush=True,
    )


def _describe(task: Task) -> str:
    kind = {"conv": "convolutional net", "mlp": "multilayer perceptron"}[task.architecture.kind]
    norm = {"none": "no norm", "rms": "RMS norm"}.get(task.architecture.norm, f"{task.architecture.norm} norm")
    return f"{kind}, {norm}, dropout {task.architecture.dropout:g}"


class _Stop:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current step; a second one acts at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_Stop":
        self._old = {}
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _run(run: dict[str, Any], task: Task, folder: Path, dataset: data.Dataset, resume: bool) -> int:
    moves = {"pixels": run["shift"], "degrees": run["rotate"], "zoom": run["zoom"]}
    augment = partial(moved, **moves) if len(task.architecture.shape) == 3 and any(moves.values()) else None
    metadata = {"fastnn.run": json.dumps({"options": run, "digest": dataset.digest}, sort_keys=True)}
    done = 0

    def callback(event: Event) -> bool:
        nonlocal done
        done += not event.epoch_done
        return stop.asked

    start = time.perf_counter()
    problem: DivergenceError | None = None
    # Overflow on the way to divergence is reported once, by fit.
    with _Stop() as stop, np.errstate(over="ignore", invalid="ignore"):
        try:
            history = fit(
                task.model,
                F.cross_entropy,
                task.optimizer,
                task.training,
                run["epochs"],
                batch_size=run["batch_size"],
                accumulation=run["accumulate"],
                validation=task.test,
                evaluate_training=True,
                augment=augment,
                generator=task.generator,
                callback=callback,
                checkpoint=folder / CHECKPOINT,
                metadata=metadata,
                resume=resume,
            )
        except DivergenceError as error:
            problem, history = error, error.history
        except checkpoint.CheckpointError as error:
            raise Refusal(str(error)) from None
        except OSError as error:
            raise Refusal(f"{folder}: {error.strerror}") from None
        seconds = time.perf_counter() - start

    title = f"Training on {dataset.name}"
    if len(history.validation_accuracy):
        title += f": {history.validation_accuracy[-1]:.2%} of the held-out samples right"
    try:
        report.write_csv(folder / HISTORY, history, task.steps)
        drawn = report.write_figure(folder / FIGURE, history, task.steps, title, _describe(task))
        if problem is None:
            options = {name: value for name, value in run.items() if name != "data"}
            modelfile.write(folder / MODEL, task.model, task.architecture, task.preparation, options)
    except OSError as error:
        raise Refusal(f"{folder}: {error.strerror}") from None
    if not drawn:
        print(f"fastnn: no {FIGURE} without matplotlib: pip install 'fastnn[demo]'", file=sys.stderr)
    if problem is not None:
        print(f"fastnn: {problem}", file=sys.stderr)
        return 1
    _summary(task, history, folder, done, seconds, drawn)
    total = run["epochs"] * task.steps
    if len(history.loss) < total or len(history.epoch_step) < run["epochs"]:
        print(
            f"fastnn: stopped after step {len(history.loss)} of {total}, saved in {folder}; "
            f"continue with: python -m fastnn train --out {folder} --resume",
            file=sys.stderr,
        )
        return 130
    return 0


def _summary(task: Task, history: History, folder: Path, done: int, seconds: float, drawn: bool) -> None:
    accuracy = history.validation_accuracy[-1] if len(history.validation_accuracy) else math.nan
    if not math.isnan(accuracy):
        count = len(task.test[0])
        print(f"test accuracy  {accuracy:.2%} ({round(accuracy * count)} of {count})")
    samples = done / task.steps * len(task.training[0])
    print(f"training       {done} steps in {seconds:.1f} s, {samples / seconds:.0f} samples/s with all evaluations")
    for name in (MODEL, HISTORY, *([FIGURE] if drawn else [])):
        print(f"{'written':<15}{folder / name}")
