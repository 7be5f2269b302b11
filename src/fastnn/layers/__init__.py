"""Objects that hold parameters and running statistics; thin over `fastnn.functional`."""

from fastnn.layers.activation import ReLU
from fastnn.layers.base import Layer, Parameter
from fastnn.layers.container import Flatten, Identity, Residual, Sequential
from fastnn.layers.conv import Conv2d
from fastnn.layers.linear import Linear
from fastnn.layers.pool import AvgPool2d, MaxPool2d

__all__ = [
    "AvgPool2d",
    "Conv2d",
    "Flatten",
    "Identity",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
]
