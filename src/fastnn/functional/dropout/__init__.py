"""Dropout and its relatives: what is random is a function of (seed, stream, position), and backward makes it again.

Each kind has a file of its own; `arguments` and `masks` hold what they share.
"""

from fastnn.functional.dropout.alpha import alpha_dropout, alpha_dropout_backward, alpha_dropout_forward
from fastnn.functional.dropout.contexts import DropoutContext, NoiseContext
from fastnn.functional.dropout.gaussian import (
    gaussian_dropout,
    gaussian_dropout_backward,
    gaussian_dropout_forward,
    gaussian_noise,
    gaussian_noise_backward,
    gaussian_noise_forward,
)
from fastnn.functional.dropout.path import drop_path, drop_path_backward, drop_path_forward
from fastnn.functional.dropout.plain import dropout, dropout_backward, dropout_forward, dropout_mask

__all__ = [
    "DropoutContext",
    "NoiseContext",
    "alpha_dropout",
    "alpha_dropout_backward",
    "alpha_dropout_forward",
    "drop_path",
    "drop_path_backward",
    "drop_path_forward",
    "dropout",
    "dropout_backward",
    "dropout_forward",
    "dropout_mask",
    "gaussian_dropout",
    "gaussian_dropout_backward",
    "gaussian_dropout_forward",
    "gaussian_noise",
    "gaussian_noise_backward",
    "gaussian_noise_forward",
]
