"""Inference: a trained network as an immutable callable, in memory (`freeze`) or from a file (`load_frozen`).

layers ──lower──► nodes ──fold──► fewer nodes ──plan──► steps of the kernels, run in one call.
"""

from fastnn.inference.file import FrozenError, load_frozen
from fastnn.inference.frozen import Frozen

__all__ = ["Frozen", "FrozenError", "load_frozen"]
