"""From arguments to an exit code: 0 done, 1 training diverged, 2 refused with one sentence, 130 stopped by the user."""

import sys

from fastnn.cli import options
from fastnn.cli.errors import Refusal

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; `arguments` are those after the program's name, by default the process's own."""
    try:
        given = options.parse(arguments)
        # Imported here so that --help and a mistyped option need not wait for the rest.
        if given.command == "train":
            from fastnn.cli.training import train

            return train(given)
        if given.command == "predict":
            from fastnn.cli.prediction import predict

            return predict(given)
        from fastnn.cli.information import info

        return info()
    except Refusal as refusal:
        print(f"fastnn: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fastnn: interrupted", file=sys.stderr)
        return 130
