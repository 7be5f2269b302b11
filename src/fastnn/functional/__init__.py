"""Stateless operations: ``F.op``, ``F.op_forward`` (result and context) and ``F.op_backward`` (gradients)."""

from fastnn.functional.activation import relu, relu_backward, relu_forward
from fastnn.functional.conv import conv2d, conv2d_backward, conv2d_forward
from fastnn.functional.linear import linear, linear_backward, linear_forward
from fastnn.functional.loss import cross_entropy, cross_entropy_backward, cross_entropy_forward
from fastnn.functional.pool import (
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool2d_forward,
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_forward,
)

__all__ = [
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "conv2d",
    "conv2d_backward",
    "conv2d_forward",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "linear",
    "linear_backward",
    "linear_forward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "relu",
    "relu_backward",
    "relu_forward",
]
