"""Kill a training run at random moments and look at what it leaves: ``python bench/kill_training.py [KILLS] [SEED]``.

Each life of the run starts from the checkpoint that the one before left (or from nothing) and ends with SIGKILL after
a random time. After every kill each file in the folder must be whole: nothing but the four files that a run writes,
every .safetensors readable, the .csv and .png complete. In the end the run is finished, and its model must have the
bytes of a run that nobody killed.
"""

import csv
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fastnn

FILES = {"model.safetensors", "checkpoint.safetensors", "history.csv", "loss.png"}
EPOCHS = ["--epochs", "150"]
OPTIONS = ["--data", "digits", "--model", "mlp", "--batch-size", "256"]


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "fastnn", "train", *OPTIONS, "--out", str(out), *more]


def examine(out: Path) -> None:
    """Raise unless every file is whole."""
    for path in out.iterdir():
        if path.name not in FILES:
            raise AssertionError(f"{path} was left behind")
        if path.suffix == ".safetensors":
            fastnn.load(path)
        elif path.suffix == ".csv":
            with path.open() as file:
                assert len({len(row) for row in csv.reader(file)}) == 1, path
        else:
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path


def main(kills: int, seed: int) -> None:
    """Print a line for each kill."""
    random.seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, out = Path(folder, "whole"), Path(folder, "killed")
        checkpoint = out / "checkpoint.safetensors"
        start = time.monotonic()
        subprocess.run(command(whole, *EPOCHS), check=True, capture_output=True)
        longest = 1.1 * (time.monotonic() - start)  # now and then a kill hits the writing of the results, or nothing
        kill = 0  # a run that finished before its kill does not count
        while kill < kills:
            going_on = checkpoint.exists()
            extra = ["--resume"] if going_on else ["--force", *EPOCHS]
            process = subprocess.Popen(command(out, *extra), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.uniform(0, longest))
            process.kill()
            died = process.wait() != 0
            kill += died
            if out.exists():
                examine(out)
            steps = len(fastnn.load(checkpoint)["history.loss"]) if checkpoint.exists() else 0
            kind, end = "resumed" if going_on else "new", "killed" if died else "finished"
            print(f"kill {kill}: {kind} run, {end}, {steps} steps")
            if not died:  # begin again: a finished run has nothing left to kill
                assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
                checkpoint.unlink()
        extra = ["--resume"] if checkpoint.exists() else ["--force", *EPOCHS]
        subprocess.run(command(out, *extra), check=True, capture_output=True)
        assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    print(f"{kills} kills: every file whole, and the same bytes in the end")


if __name__ == "__main__":
    main(*[int(argument) for argument in sys.argv[1:]][:2] or (40, 0))
