"""Layer, RMS and group norm: norms without running statistics, around `fastnn.functional`."""

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from fastnn import _arrays
from fastnn._arrays import Array
from fastnn.functional.norm import (
    NormContext,
    group_norm,
    group_norm_backward,
    group_norm_forward,
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
    rms_norm,
    rms_norm_backward,
    rms_norm_forward,
)
from fastnn.layers._affine import AffineNorm, at_least_one, data_of

__all__ = ["GroupNorm", "LayerNorm", "RMSNorm"]


class LayerNorm(AffineNorm):
    """Layer norm over the last axes; see `fastnn.functional.layer_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The lengths of the axes that share one mean and variance.
    eps : float, default 1e-5
    elementwise_affine : bool, default True
        Whether there is a weight (ones at first) and, with `bias`, a bias (zeros at first).
    bias : bool, default True
    dtype : default float32

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> layer = fastnn.LayerNorm(4)
    >>> layer(np.array([[1, 2, 3, 4]], np.float32)).round(3)
    array([[-1.342, -0.447,  0.447,  1.342]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: SupportsIndex | Sequence[SupportsIndex],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = _arrays.number(eps, "eps")
        self._set_parameters(self.normalized_shape, elementwise_affine, elementwise_affine and bias, dtype)

    def _evaluate(self, x: Array) -> Array:
        return layer_norm(x, self.normalized_shape, data_of(self.weight), data_of(self.bias), self.eps)

    def _forward(self, x: Array) -> tuple[Array, NormContext]:
        return layer_norm_forward(x, self.normalized_shape, data_of(self.weight), data_of(self.bias), self.eps)

    def _backward(self, dy: Array, context: NormContext) -> Array:
        dx, dweight, dbias = layer_norm_backward(dy, context)
        self._accumulate(dweight, dbias)
        return dx

    def __repr__(self) -> str:
        return f"LayerNorm({self.normalized_shape}, eps={self.eps})"


def _shape(normalized_shape: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    sizes = _arrays.integers(normalized_shape, "normalized_shape")
    if not sizes:
        raise ValueError("normalized_shape must not be empty")
    return tuple(at_least_one(size, "normalized_shape") for size in sizes)


class RMSNorm(AffineNorm):
    """RMS norm over the last axes; see `fastnn.functional.rms_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The lengths of the axes that share one mean square.
    eps : float, optional
        None is the machine epsilon of the input's dtype.
    elementwise_affine : bool, default True
        Whether there is a weight (ones at first).
    dtype : default float32

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.RMSNorm(2)(np.array([[3, 4]], np.float32)).round(3)
    array([[0.849, 1.131]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: SupportsIndex | Sequence[SupportsIndex],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = None if eps is None else _arrays.number(eps, "eps")
        self._set_parameters(self.normalized_shape, elementwise_affine, False, dtype)

    def _evaluate(self, x: Array) -> Array:
        return rms_norm(x, self.normalized_shape, data_of(self.weight), self.eps)

    def _forward(self, x: Array) -> tuple[Array, NormContext]:
        return rms_norm_forward(x, self.normalized_shape, data_of(self.weight), self.eps)

    def _backward(self, dy: Array, context: NormContext) -> Array:
        dx, dweight = rms_norm_backward(dy, context)
        self._accumulate(dweight, None)
        return dx

    def __repr__(self) -> str:
        return f"RMSNorm({self.normalized_shape}, eps={self.eps})"


class GroupNorm(AffineNorm):
    """Group norm; see `fastnn.functional.group_norm`.

    Parameters
    ----------
    num_groups, num_channels : int
        Groups are neighbouring channels; the first must divide the second.
    eps : float, default 1e-5
    affine : bool, default True
        Whether there are a weight and a bias for each channel.
    channel_axis : int, default 1
    dtype : default float32

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> fastnn.GroupNorm(2, 4)(np.array([[1, 3, 20, 60]], np.float32)).round(3)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        channel_axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.num_groups, self.num_channels = (
            at_least_one(num_groups, "num_groups"),
            at_least_one(num_channels, "num_channels"),
        )
        if self.num_channels % self.num_groups:
            raise ValueError(f"num_groups must divide num_channels {self.num_channels}, got {self.num_groups}")
        self.eps = _arrays.number(eps, "eps")
        self.channel_axis = _arrays.integer(channel_axis, "channel_axis")
        self._set_parameters((self.num_channels,), affine, affine, dtype)

    def _evaluate(self, x: Array) -> Array:
        weight, bias = data_of(self.weight), data_of(self.bias)
        return group_norm(x, self.num_groups, weight, bias, self.eps, channel_axis=self.channel_axis)

    def _forward(self, x: Array) -> tuple[Array, NormContext]:
        weight, bias = data_of(self.weight), data_of(self.bias)
        return group_norm_forward(x, self.num_groups, weight, bias, self.eps, channel_axis=self.channel_axis)

    def _backward(self, dy: Array, context: NormContext) -> Array:
        dx, dweight, dbias = group_norm_backward(dy, context)
        self._accumulate(dweight, dbias)
        return dx

    def __repr__(self) -> str:
        return f"GroupNorm({self.num_groups}, {self.num_channels}, eps={self.eps})"
