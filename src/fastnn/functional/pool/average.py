"""Average pooling of images and its gradient, for both image layouts."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from fastnn.functional.pool.call import PoolContext, run_backward, run_forward
from fastnn.functional.pool.windows import windows_of

Array = npt.NDArray[Any]

__all__ = ["avg_pool2d", "avg_pool2d_backward", "avg_pool2d_forward"]


def avg_pool2d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> Array:
    """Mean of each window.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W), or (N, H, W, C) with ``channel_axis=-1``
        float32 or float64.
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        Default: `kernel_size`.
    padding : int or pair of int, default 0
        Of zeros, on each side; at most half the window.
    ceil_mode : bool, default False
        Whether windows that reach beyond the last padding count, as long as they start before it.
    count_include_pad : bool, default True
        Whether the padding's zeros count as elements; what lies beyond the padding (ceil_mode) never does.
    divisor_override : int, optional
        What every sum is divided by, in place of the number of elements; not 0.
    channel_axis : int, default 1
        1 for channels first, -1 (or 3) for channels last.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (N, C, OH, OW) or (N, OH, OW, C)

    Raises
    ------
    TypeError
        If `input` is not float32 or float64.
    ValueError
        If the numbers do not fit each other or the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 2.5, 4.5], [10.5, 12.5]]]])
    """
    x, windows, shape = windows_of(
        input, kernel_size, stride, padding, 1, ceil_mode, channel_axis, False, count_include_pad, divisor_override
    )
    return run_forward(x, windows, shape, out, None)


def avg_pool2d_forward(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    channel_axis: int = 1,
    out: Array | None = None,
) -> tuple[Array, PoolContext]:
    """`avg_pool2d`, and the context for `avg_pool2d_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.avg_pool2d_forward(np.ones((1, 1, 2, 2)), 2)
    >>> F.avg_pool2d_backward(np.ones_like(y), ctx)
    array([[[[0.25, 0.25], [0.25, 0.25]]]])
    """
    x, windows, shape = windows_of(
        input, kernel_size, stride, padding, 1, ceil_mode, channel_axis, False, count_include_pad, divisor_override
    )
    return run_forward(x, windows, shape, out, None), PoolContext(windows, x.shape, shape, x.dtype, None)


def avg_pool2d_backward(dy: Array, ctx: PoolContext) -> Array:
    """Gradient of `avg_pool2d`: each window's `dy` in equal shares.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.avg_pool2d_forward(np.ones((1, 1, 1, 3)), (1, 2), stride=1)
    >>> F.avg_pool2d_backward(np.ones_like(y), ctx)
    array([[[[0.5, 1. , 0.5]]]])
    """
    return run_backward(dy, ctx)
