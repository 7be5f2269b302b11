"""The convolution layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import _arrays
from fastnn.functional._checks import channels_last, pair
from fastnn.functional.conv import Conv2dContext, conv2d, conv2d_backward, conv2d_forward, parameter_gradients
from fastnn.layers._start import start
from fastnn.layers.base import Layer, Parameter

Array = npt.NDArray[Any]

__all__ = ["Conv2d"]


class Conv2d(Layer):
    """Two-dimensional convolution of image batches; see `fastnn.functional.conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
        Multiples of `groups`.
    kernel_size : int or pair of int
    stride : int or pair of int, default 1
    padding : int, pair of int, "valid" or "same", default 0
    bias : bool, default True
    dilation : int or pair of int, default 1
    groups : int, default 1
    channel_axis : int, default 1
        1 for images (N, C, H, W), -1 for (N, H, W, C).
    rng : Generator, numpy.random.Generator, int or None
        Where the start values come from; None draws from the default generator.
    dtype : default float32
        float32 or float64.

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels / groups, KH, KW)
        The same for both layouts. Starts as ``kaiming_uniform(a=√5)``, as in PyTorch.
    bias : Parameter, shape (out_channels,), or None
        Starts as U(±1/√fan_in); exempt from weight decay.

    Notes
    -----
    PyTorch's constructor has dilation and groups before bias; here they are keywords.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> layer = fastnn.Conv2d(1, 8, 3, padding=1, rng=0)
    >>> layer(np.zeros((2, 1, 8, 8), np.float32)).shape
    (2, 8, 8, 8)
    >>> layer
    Conv2d(1, 8, kernel_size=(3, 3), padding=(1, 1))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        bias: bool = True,
        *,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        channel_axis: int = 1,
        rng: Any = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = (
            _arrays.integer(in_channels, "in_channels"),
            _arrays.integer(out_channels, "out_channels"),
        )
        self.groups = _arrays.integer(groups, "groups")
        if min(self.in_channels, self.out_channels, self.groups) < 1:
            raise ValueError(
                f"in_channels, out_channels and groups must be at least 1, got {in_channels}, {out_channels}, {groups}"
            )
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"groups must divide in_channels {in_channels} and out_channels {out_channels}, got {groups}"
            )
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride, self.dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
        if isinstance(padding, str) and padding not in ("valid", "same"):
            raise ValueError(f"padding must be a number, a pair, 'valid' or 'same', got {padding!r}")
        if padding == "same" and self.stride != (1, 1):
            raise ValueError(f"padding='same' needs stride 1, got {stride}")
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding", 0)
        channels_last(channel_axis)
        self.channel_axis = channel_axis
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        weight, offset = start(shape, bias, rng, dtype)
        self.weight = Parameter(weight)
        self.bias = None if offset is None else Parameter(offset, decay=False)

    def _arguments(self) -> tuple[Any, ...]:
        bias = None if self.bias is None else self.bias.data
        return self.weight.data, bias, self.stride, self.padding, self.dilation, self.groups

    def _evaluate(self, x: Array) -> Array:
        return conv2d(x, *self._arguments(), channel_axis=self.channel_axis)

    def _forward(self, x: Array) -> tuple[Array, Conv2dContext]:
        return conv2d_forward(x, *self._arguments(), channel_axis=self.channel_axis)

    def _backward(self, dy: Array, context: Conv2dContext) -> Array:
        dx, dweight, dbias = conv2d_backward(dy, context)
        self._add(dweight, dbias)
        return dx

    def _backward_parameters(self, dy: Array, context: Conv2dContext) -> None:
        self._add(*parameter_gradients(dy, context))

    def _add(self, dweight: Array, dbias: Array | None) -> None:
        self.weight.grad += dweight
        if self.bias is not None:
            self.bias.grad += dbias

    def _settings(self) -> str:
        usual = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "channel_axis": 1}
        unusual = "".join(f", {name}={getattr(self, name)!r}" for name in usual if getattr(self, name) != usual[name])
        bias = "" if self.bias else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}{unusual}{bias}"
