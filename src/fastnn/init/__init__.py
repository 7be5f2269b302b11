"""Initialisers: new arrays whose variance keeps activations and gradients steady from layer to layer, and an audit.

PyTorch's names without the underscore; each returns a new array. Xavier, Kaiming and LeCun are one function,
`variance_scaling`. Where the weight's axes lie is said, not guessed: ``layout="oi"`` (out, in, \\*kernel) or ``"io"``
(\\*kernel, in, out), and ``groups``. The numbers come from `rng`: a `fastnn.Generator`, a `numpy.random.Generator`, an
int (a seed) or None (the default generator); ours gives the same values on every platform.
"""

from fastnn.init.fills import constant, normal, ones, orthogonal, trunc_normal, uniform, zeros
from fastnn.init.gains import calculate_gain, fans
from fastnn.init.scaling import (
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    variance_scaling,
    xavier_normal,
    xavier_uniform,
)
from fastnn.init.variances import Audit, audit

__all__ = [
    "Audit",
    "audit",
    "calculate_gain",
    "constant",
    "fans",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "normal",
    "ones",
    "orthogonal",
    "trunc_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
