"""The command line's options: what may be given, what holds where nothing is given."""

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

from fastnn.cli.errors import Refusal

__all__ = ["DEFAULTS", "parse"]

NORMS = ("batch", "layer", "instance", "group", "rms", "none")
INITIALISERS = ("default", "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "lecun_normal",
                "orthogonal")  # fmt: skip

# What decides the result of a run. They are stored with it, so that a resumed run has the same ones.
DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "model": "auto",
    "norm": "batch",
    "dropout": 0.3,
    "init": "kaiming_normal",
    "schedule": "cosine",
    "warmup": 1.0,
    "lr": 0.1,
    "momentum": 0.9,
    "batch_size": 64,
    "accumulate": 1,
    "weight_decay": 5e-4,
    "constraint": None,
    "shift": 1.0,
    "rotate": 10.0,
    "zoom": 0.1,
    "epochs": 40,
    "seed": 0,
}
QUICK_EPOCHS = 3


class _Parser(argparse.ArgumentParser):
    """argparse prints its usage and exits; here a mistake is a `Refusal` like any other."""

    def error(self, message: str) -> NoReturn:
        raise Refusal(message)


def _number(convert: Callable[[str], Any], allowed: Callable[[Any], bool], what: str) -> Callable[[str], Any]:
    def parse_number(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if value != value or not allowed(value):
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return value

    return parse_number


_count = _number(int, lambda n: 1 <= n < 2**31, "an integer of at least 1")
_seed = _number(int, lambda n: 0 <= n < 2**64, "an integer from 0 to 2**64 - 1")
_positive = _number(float, lambda v: 0 < v < math.inf, "a finite number greater than 0")
_not_negative = _number(float, lambda v: 0 <= v < math.inf, "a finite number of at least 0")
_fraction = _number(float, lambda v: 0 <= v < 1, "a number of at least 0 and less than 1")
_angle = _number(float, lambda v: 0 <= v < 180, "a number of at least 0 and less than 180")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command and the options that were given; what was not given is absent.

    Raises
    ------
    Refusal
        With one sentence, for anything that does not belong there.
    """
    parser = _Parser(prog="python -m fastnn", description="Train and use small neural networks on the CPU.")
    commands = parser.add_subparsers(dest="command", metavar="train | predict | info")
    _add_train(commands)
    _add_predict(commands)
    commands.add_parser("info", help="print versions, the kernel build in use and threads", allow_abbrev=False)
    given = parser.parse_args(arguments)
    if given.command is None:
        raise Refusal("a command is needed: train, predict or info (--help explains them)")
    return given


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network and write model.safetensors, history.csv and loss.png",
        description="Train a network; writes model.safetensors, history.csv and loss.png into a folder.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )

    def add(group: Any, name: str, text: str, **how: Any) -> None:
        default = DEFAULTS.get(name.lstrip("-").replace("-", "_"))
        group.add_argument(name, help=text if default is None else f"{text} (default: {default})", **how)

    model = parser.add_argument_group("data and model")
    add(model, "--data", "digits (scikit-learn's), a .npz file with x, y and maybe x_test, y_test, or a folder "
        "with MNIST's IDX files; without a test part every fourth sample is held out", metavar="SOURCE")  # fmt: skip
    add(model, "--model", "conv for images, mlp for any data; auto chooses", choices=("auto", "conv", "mlp"))
    add(model, "--norm", "kind of normalisation", choices=NORMS)
    add(model, "--dropout", "probability of dropping a unit before the last layer", type=_fraction, metavar="P")
    add(model, "--init", "initialiser of the weights", choices=INITIALISERS)
    add(model, "--shift", "augmentation: move images by up to this many pixels", type=_not_negative, metavar="PIXELS")
    add(model, "--rotate", "augmentation: turn images by up to this angle", type=_angle, metavar="DEGREES")
    add(model, "--zoom", "augmentation: magnify or reduce images by up to this part", type=_fraction, metavar="PART")

    learning = parser.add_argument_group("learning")
    add(learning, "--schedule", "course of the learning rate; exponential falls to a hundredth",
        choices=("constant", "exponential", "cosine"))  # fmt: skip
    add(learning, "--warmup", "epochs of linear rise to --lr before it", type=_not_negative, metavar="EPOCHS")
    add(learning, "--lr", "learning rate", type=_positive)
    add(learning, "--momentum", "of SGD", type=_fraction)
    add(learning, "--batch-size", "samples that go through the model together", type=_count, metavar="N")
    add(learning, "--accumulate", "minibatches per step", type=_count, metavar="K")
    regularisation = learning.add_mutually_exclusive_group()
    add(regularisation, "--weight-decay", "penalty (λ/2)‖θ‖²", type=_not_negative, metavar="λ")
    add(regularisation, "--constraint", "instead of the penalty: keep ‖θ‖² ≤ h", type=_positive, metavar="h")
    add(learning, "--epochs", "passes over the training set", type=_count, metavar="N")
    add(learning, "--seed", "of everything random; the same seed gives the same model", type=_seed, metavar="N")
    add(learning, "--quick", f"{QUICK_EPOCHS} epochs only, to see that everything works", action="store_true")

    run = parser.add_argument_group("the run")
    add(run, "--out", "folder for the results (default: runs/ and the name of the data)", metavar="DIR")
    add(run, "--threads", "processor threads for fastnn's kernels; results do not depend on it", type=_count,
        metavar="N")  # fmt: skip
    again = run.add_mutually_exclusive_group()
    add(again, "--resume", "continue the stopped run in the folder, with its own options", action="store_true")
    add(again, "--force", "replace the run in the folder", action="store_true")


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="apply a trained model to data",
        description="Apply a trained model: print its accuracy where the data have labels, write its predictions.",
        allow_abbrev=False,
    )
    parser.add_argument("model", help="a model.safetensors that train wrote")
    parser.add_argument("--data", default="digits", metavar="SOURCE",
                        help="as in train; of the data that the model was trained on, only the held-out part counts "
                        "(default: digits)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="CSV file (default: predictions.csv next to the model)")
    parser.add_argument("--force", action="store_true", help="replace FILE even if it is no predictions file")
    parser.add_argument("--threads", type=_count, metavar="N", help="processor threads for fastnn's kernels")
