"""The pooling layers."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from fastnn.functional._checks import channels_last, pair
from fastnn.functional.pool import (
    PoolContext,
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool2d_forward,
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_forward,
)
from fastnn.layers.base import Layer

Array = npt.NDArray[Any]

__all__ = ["AvgPool2d", "MaxPool2d"]


class MaxPool2d(Layer):
    """Largest element of each window; see `fastnn.functional.max_pool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        Default: `kernel_size`.
    padding : int or pair of int, default 0
    dilation : int or pair of int, default 1
    ceil_mode : bool, default False
    channel_axis : int, default 1
        1 for images (N, C, H, W), -1 for (N, H, W, C).

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.MaxPool2d(2)(np.zeros((1, 3, 8, 8), np.float32)).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        *,
        channel_axis: int = 1,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = _window(kernel_size, stride, padding)
        self.dilation = pair(dilation, "dilation", 1)
        self.ceil_mode = bool(ceil_mode)
        channels_last(channel_axis)
        self.channel_axis = channel_axis

    def _arguments(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    def _evaluate(self, x: Array) -> Array:
        return max_pool2d(x, *self._arguments(), channel_axis=self.channel_axis)

    def _forward(self, x: Array) -> tuple[Array, PoolContext]:
        return max_pool2d_forward(x, *self._arguments(), channel_axis=self.channel_axis)

    def _backward(self, dy: Array, context: PoolContext) -> Array:
        return max_pool2d_backward(dy, context)

    def _settings(self) -> str:
        return _shown(self, {"stride": self.kernel_size, "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False})


class AvgPool2d(Layer):
    """Mean of each window; see `fastnn.functional.avg_pool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        Default: `kernel_size`.
    padding : int or pair of int, default 0
    ceil_mode : bool, default False
    count_include_pad : bool, default True
    divisor_override : int, optional
    channel_axis : int, default 1
        1 for images (N, C, H, W), -1 for (N, H, W, C).

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.AvgPool2d(4)(np.zeros((1, 3, 8, 8), np.float32)).shape
    (1, 3, 2, 2)
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        channel_axis: int = 1,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = _window(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = bool(ceil_mode), bool(count_include_pad)
        if divisor_override is not None and divisor_override < 1:
            raise ValueError(f"divisor_override must be at least 1, got {divisor_override}")
        self.divisor_override = divisor_override
        channels_last(channel_axis)
        self.channel_axis = channel_axis

    def _arguments(self) -> tuple[Any, ...]:
        return (
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def _evaluate(self, x: Array) -> Array:
        return avg_pool2d(x, *self._arguments(), channel_axis=self.channel_axis)

    def _forward(self, x: Array) -> tuple[Array, PoolContext]:
        return avg_pool2d_forward(x, *self._arguments(), channel_axis=self.channel_axis)

    def _backward(self, dy: Array, context: PoolContext) -> Array:
        return avg_pool2d_backward(dy, context)

    def _settings(self) -> str:
        usual = {"stride": self.kernel_size, "padding": (0, 0), "ceil_mode": False, "count_include_pad": True}
        return _shown(self, usual | {"divisor_override": None})


def _window(
    kernel_size: int | Sequence[int], stride: int | Sequence[int] | None, padding: int | Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    kernel = pair(kernel_size, "kernel_size", 1)
    return kernel, kernel if stride is None else pair(stride, "stride", 1), pair(padding, "padding", 0)


def _shown(layer: Any, usual: dict[str, Any]) -> str:
    """The kernel size, and what differs from the usual."""
    usual = usual | {"channel_axis": 1}
    unusual = "".join(f", {name}={getattr(layer, name)!r}" for name in usual if getattr(layer, name) != usual[name])
    return f"{layer.kernel_size}{unusual}"
