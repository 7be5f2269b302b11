"""Normalisation: batch, layer, RMS, instance and group norm, and standardisation over any axes.

They are one operation, x̂ = (x − mean) / √(var + eps), over different axes, followed by weight · x̂ + bias; each
function here hands its arguments to an entry point of the kernels, which checks them and chooses the view of the
array. What kernels do not take as it is passes the `gate` first.

Accuracy: float32 results lie within 4 units of 2⁻²⁴ of the true value, float64 results within 4 units of 2⁻⁵³, at any
ratio of mean to standard deviation. The bits do not depend on the number of threads.
"""

from fastnn.functional.norm.axes import standardize, standardize_backward, standardize_forward
from fastnn.functional.norm.batch import batch_norm, batch_norm_backward, batch_norm_forward, batch_population
from fastnn.functional.norm.gate import NormContext
from fastnn.functional.norm.group import group_norm, group_norm_backward, group_norm_forward
from fastnn.functional.norm.instance import instance_norm, instance_norm_backward, instance_norm_forward
from fastnn.functional.norm.trailing import (
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
    rms_norm,
    rms_norm_backward,
    rms_norm_forward,
)

__all__ = [
    "NormContext",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_population",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "instance_norm",
    "instance_norm_backward",
    "instance_norm_forward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
    "standardize",
    "standardize_backward",
    "standardize_forward",
]
