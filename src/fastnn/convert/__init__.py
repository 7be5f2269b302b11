"""Weights from elsewhere: other libraries' names and layouts as PyTorch's, which are ours, and onto a model of ours.

A PyTorch state dict needs no conversion. `keras` and `flax` turn those libraries' weights into one; `match` finds for
each array of a model the one that belongs there, by name or by place and shape, and reports what does not fit.
"""

from fastnn.convert.from_flax import flax, flax_options
from fastnn.convert.from_keras import keras, keras_options
from fastnn.convert.matching import Match, match

__all__ = ["Match", "flax", "flax_options", "keras", "keras_options", "match"]
