"""One line of the table of cases, and what follows from it: its bytes and its name."""

import math
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]

# Families whose time goes into arithmetic or calls: how they compare with a copy says nothing.
COMPUTE_BOUND = {
    "product", "training step", "inference", "initialiser", "random numbers", "call overhead", "schedule", "import",
}  # fmt: skip
# Operations on lists of parameters: the shape holds their sizes.
ON_PARAMETERS = ("SGD.", "GradientAccumulator.", "optim.", "save", "load")


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Parameters
    ----------
    operation : str
        The public name that is timed.
    shape : tuple of int
        Of the input, in memory order: channels last for the layout NHWC. Of operations on a list of parameters, the
        sizes of these.
    source : str
        The network that has this shape.
    arrays : float
        How many arrays of this shape must move between memory and the processor, read and written together.
    family : str
        What it is reported with.
    options : dict
        What else the operation takes; `channel_axis` tells the layout.
    """

    operation: str
    shape: Shape
    source: str
    arrays: float
    family: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        elements = (sum if self.operation.startswith(ON_PARAMETERS) else math.prod)(self.shape)
        return int(elements * (8 if self.dtype == "float64" else 4) * self.arrays)

    @property
    def large(self) -> bool:
        """Whether the copy limit applies: memory traffic in arrays over 64 KB."""
        return self.family not in COMPUTE_BOUND and self.bytes / max(1.0, self.arrays) > 65536

    @property
    def name(self) -> str:
        shown = [f"{key}={value}" for key, value in self.options.items()]
        size = "x".join(map(str, self.shape)) if len(self.shape) < 6 else f"{len(self.shape)} arrays"
        return "-".join([self.operation, size, *shown] + ([self.dtype] if self.dtype != "float32" else []))
