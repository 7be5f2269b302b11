"""``python -m fastnn predict``."""

import csv
import io
from argparse import Namespace
from pathlib import Path

import numpy as np

from fastnn import _files, _threads
from fastnn import functional as F
from fastnn.cli import data, modelfile
from fastnn.cli.errors import Refusal
from fastnn.cli.training import HELD_OUT_PARTS
from fastnn.train import predict as outputs

__all__ = ["predict"]

HEADER = ("sample", "prediction", "probability")


def predict(given: Namespace) -> int:
    """Apply a model file to data; prints the accuracy if there are labels and writes the predictions."""
    if given.threads is not None:
        _threads.set_num_threads(given.threads)
    model, architecture, preparation = modelfile.read(given.model)
    out = Path(given.out) if given.out is not None else Path(given.model).with_name("predictions.csv")
    _check_out(out, given.force)
    dataset = data.load(given.data)
    indices, samples = _chosen(dataset, preparation)
    if samples.x.shape[1:] != architecture.shape:
        raise Refusal(
            f"--data {given.data}: its samples have shape {samples.x.shape[1:]}, the model takes {architecture.shape}"
        )
    scores = outputs(model, preparation.inputs(samples.x))
    probabilities = F.softmax(scores, 1)
    predicted = scores.argmax(axis=1)
    targets = None if samples.y is None else preparation.targets(samples.y, given.data)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER if samples.y is None else (*HEADER, "label"))
    for k, (index, choice) in enumerate(zip(indices.tolist(), predicted.tolist())):
        row = [index, preparation.labels[choice], f"{probabilities[k, choice]:.6f}"]
        writer.writerow(row if samples.y is None else [*row, samples.y[k]])
    try:
        _files.replace(out, lambda file: file.write(text.getvalue().encode()))
    except OSError as error:
        raise Refusal(f"--out {out}: {error.strerror}") from None
    if targets is not None:
        right = int(np.count_nonzero(predicted == targets))
        print(f"accuracy     {right / len(targets):.2%} ({right} of {len(targets)})")
    print(f"predictions  {out}")
    return 0


def _chosen(dataset: data.Dataset, preparation: modelfile.Preparation) -> tuple[np.ndarray, data.Samples]:
    """The test part if there is one; of the data trained on, what was held out; else everything."""
    if dataset.test is not None:
        return np.arange(len(dataset.test.x)), dataset.test
    x, y = dataset.whole
    if dataset.digest == preparation.digest and preparation.split_seed is not None and y is not None:
        held = data.split(y, HELD_OUT_PARTS, preparation.split_seed)[1]
        return held, data.Samples(x[held], y[held])
    return np.arange(len(x)), dataset.whole


def _check_out(out: Path, force: bool) -> None:
    """An earlier predictions file may be replaced, anything else only by force."""
    if out.is_dir() or not out.parent.is_dir():
        raise Refusal(f"--out {out}: {'this is a folder' if out.is_dir() else 'its folder does not exist'}")
    if out.exists() and not force:
        with out.open("rb") as file:
            begin = file.read(200)
        if not begin.startswith(",".join(HEADER).encode()):
            raise Refusal(f"--out {out}: the file exists and holds no predictions; --force replaces it")
