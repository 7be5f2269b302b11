"""Group norm: statistics for each group of neighbouring channels of each sample."""

from typing import Any, SupportsIndex

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.norm.gate import NormContext, backward, delivered, operands

__all__ = ["group_norm", "group_norm_backward", "group_norm_forward"]


def _gated(
    input: Any, num_groups: Any, weight: Any, bias: Any, eps: Any, channel_axis: Any, mask: Any, out: Array | None,
    context: type[NormContext] | None,
) -> Any:  # fmt: skip
    """The call with plain arguments."""
    plain = operands(input, weight, bias, mask, out, keep=context is not None)
    answer = _kernels.group_norm(
        plain.input, _arrays.integer(num_groups, "num_groups"), plain.weight, plain.bias, _arrays.number(eps, "eps"),
        _arrays.integer(channel_axis, "channel_axis"), plain.mask, plain.out, context, None,
    )  # fmt: skip
    return delivered(answer, out)


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
    y: Array = _kernels.group_norm(input, num_groups, weight, bias, eps, channel_axis, mask, out, None, _gated)
    return y


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
    answer: tuple[Array, NormContext] = _kernels.group_norm(
        input, num_groups, weight, bias, eps, channel_axis, mask, out, NormContext, _gated
    )
    return answer


def group_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `group_norm`; None for a parameter that the call did not have.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.group_norm_forward(np.array([[1.0, 3.0, 20.0, 60.0]]), 2, np.ones(4), np.zeros(4))
    >>> F.group_norm_backward(np.ones((1, 4)), ctx)[2]
    array([1., 1., 1., 1.])
    """
    return _kernels.norm_backward(dy, ctx, NormContext, backward)
