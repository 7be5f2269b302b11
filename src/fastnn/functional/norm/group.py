"""Group norm: statistics for each group of neighbouring channels of each sample."""

from typing import Any, SupportsIndex

from fastnn import _arrays
from fastnn._arrays import Array
from fastnn.functional.norm.call import Call, NormContext, context_of, run_backward, run_forward
from fastnn.functional.norm.channels import channel_call, channel_input
from fastnn.functional.norm.views import group_view

__all__ = ["group_norm", "group_norm_backward", "group_norm_forward"]


def _group_call(input: Any, num_groups: Any, weight: Any, bias: Any, eps: float, channel_axis: int, mask: Any) -> Call:
    x, axis = channel_input(input, channel_axis, 2)
    groups = _arrays.integer(num_groups, "num_groups")
    if groups < 1 or x.shape[axis] % groups:
        raise ValueError(f"num_groups must divide the number of channels {x.shape[axis]}, got {groups}")
    view = group_view(x.shape, axis, groups if x.shape[axis] else 1)  # any number divides no channels
    if x.size and x.shape[0] * view.group_size == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input shape {x.shape}")
    return channel_call(x, view, axis, weight, bias, eps, mask)


def group_norm(
    input: Any,
    num_groups: SupportsIndex,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """Group norm: for each sample and group of neighbouring channels, mean and variance over channels and positions.

    y = (x − mean) / √(var + eps) · weight + bias.

    Parameters
    ----------
    input : array, float32 or float64
        (N, C), (N, C, …) or, with ``channel_axis=-1``, (N, …, C).
    num_groups : int
        Must divide C. Groups are contiguous channels, as in PyTorch; MLX strides them by default.
    weight, bias, eps, channel_axis, mask, out
        As in `batch_norm`; weight and bias are per channel, `eps` may be any number.

    References
    ----------
    Wu and He, *Group Normalization*, 2018 (arXiv:1803.08494).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.group_norm(np.array([[1.0, 3.0, 20.0, 60.0]]), 2).round(3)
    array([[-1.,  1., -1.,  1.]])
    """
    call = _group_call(input, num_groups, weight, bias, eps, channel_axis, mask)
    return run_forward(call, out=out, keep=False)[0]


def group_norm_forward(
    input: Any,
    num_groups: SupportsIndex,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`group_norm` and the context for `group_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.group_norm_forward(np.array([[1.0, 3.0, 20.0, 60.0]]), 2)
    """
    call = _group_call(input, num_groups, weight, bias, eps, channel_axis, mask)
    y, groups, _ = run_forward(call, out=out, keep=True)
    return y, context_of(call, groups)


def group_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `group_norm`; None for a parameter that the call did not have.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.group_norm_forward(np.array([[1.0, 3.0, 20.0, 60.0]]), 2, np.ones(4), np.zeros(4))
    >>> F.group_norm_backward(np.ones((1, 4)), ctx)[2]
    array([1., 1., 1., 1.])
    """
    return run_backward(dy, ctx)
