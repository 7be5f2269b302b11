"""Maximum pooling of images and its gradient, for both image layouts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn.functional.pool.call import PoolContext, run_backward, run_forward
from fastnn.functional.pool.windows import windows_of

Array = npt.NDArray[Any]

__all__ = ["max_pool2d", "max_pool2d_backward", "max_pool2d_forward"]


def max_pool2d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> Array:
    """Largest element of each window; a window with a NaN gives NaN.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W), or (N, H, W, C) with ``channel_axis=-1``
        float32 or float64.
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        Default: `kernel_size`.
    padding : int or pair of int, default 0
        Of −inf, on each side; at most half the window.
    dilation : int or pair of int, default 1
    ceil_mode : bool, default False
        Whether windows that reach beyond the last padding count, as long as they start before it.
    channel_axis : int, default 1
        1 for channels first, -1 (or 3) for channels last.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (N, C, OH, OW) or (N, OH, OW, C)
        ``OH = ⌊(H + 2p − d(k − 1) − 1)/s⌋ + 1`` (⌈ ⌉ in ceil_mode).

    Raises
    ------
    TypeError
        If `input` is not float32 or float64.
    ValueError
        If the numbers do not fit each other or the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 5., 7.], [13., 15.]]]])
    """
    x, windows, shape = windows_of(input, kernel_size, stride, padding, dilation, ceil_mode, channel_axis, True)
    return run_forward(x, windows, shape, out, None)


def max_pool2d_forward(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> tuple[Array, PoolContext]:
    """`max_pool2d`, and the context for `max_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.max_pool2d_forward(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    >>> F.max_pool2d_backward(np.ones_like(y), ctx)
    array([[[[0., 0.], [0., 1.]]]])
    """
    x, windows, shape = windows_of(input, kernel_size, stride, padding, dilation, ceil_mode, channel_axis, True)
    winner = np.empty(shape, np.int32)
    return run_forward(x, windows, shape, out, winner), PoolContext(windows, x.shape, shape, x.dtype, winner)


def max_pool2d_backward(dy: Array, ctx: PoolContext) -> Array:
    """Gradient of `max_pool2d`: each window's `dy` goes to its largest element, the first of equals.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.max_pool2d_forward(np.ones((1, 1, 1, 3)), (1, 2), stride=1)
    >>> F.max_pool2d_backward(np.array([[[[3.0, 5.0]]]]), ctx)
    array([[[[3., 5., 0.]]]])
    """
    return run_backward(dy, ctx)
