"""Objects that hold parameters and running statistics; thin over `fastnn.functional`."""

from fastnn.layers.activation import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from fastnn.layers.base import Layer, Parameter
from fastnn.layers.container import Flatten, Identity, Residual, Sequential
from fastnn.layers.conv import Conv2d
from fastnn.layers.dropout import (
    AlphaDropout,
    Dropout,
    DropPath,
    GaussianDropout,
    GaussianNoise,
)
from fastnn.layers.linear import Linear
from fastnn.layers.norm import GroupNorm, LayerNorm, RMSNorm
from fastnn.layers.pool import AvgPool2d, MaxPool2d
from fastnn.layers.running_norm import BatchNorm, InstanceNorm, recalibrate
from fastnn.layers.summary import summary

__all__ = [
    "ELU",
    "GELU",
    "AlphaDropout",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "DropPath",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GroupNorm",
    "Identity",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "recalibrate",
    "summary",
]
