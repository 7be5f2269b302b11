"""Instance norm: statistics for each channel of each sample, over all positions."""

from typing import Any

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.norm.gate import NormContext, backward, delivered, operands, running_of

__all__ = ["instance_norm", "instance_norm_backward", "instance_norm_forward"]


def _gated(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, use_input_stats: bool, momentum: Any,
    eps: Any, channel_axis: Any, mask: Any, out: Array | None, context: type[NormContext] | None,
) -> Any:  # fmt: skip
    """The call with plain arguments."""
    plain = operands(input, weight, bias, mask, out, keep=context is not None)
    running = running_of(running_mean, running_var, plain.input.dtype, out, updated=bool(use_input_stats))
    answer = _kernels.instance_norm(
        plain.input, running.mean_buffer, running.var_buffer, plain.weight, plain.bias, bool(use_input_stats),
        _arrays.number(momentum, "momentum"), _arrays.number(eps, "eps"),
        _arrays.integer(channel_axis, "channel_axis"), plain.mask, plain.out, context, None,
    )  # fmt: skip
    if use_input_stats:
        running.store()
    return delivered(answer, out)


def instance_norm(
    input: Any,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """Instance norm: for each sample and channel, mean and variance over all positions.

    y = (x − mean) / √(var + eps) · weight + bias. Running statistics, if given, move towards the mean over the batch
    of the instances' means and unbiased variances, as in PyTorch; with ``use_input_stats=False`` they normalise.

    Parameters
    ----------
    input : array, float32 or float64
        (N, C, …) or, with ``channel_axis=-1``, (N, …, C), with more than one position.
    running_mean, running_var, weight, bias, momentum, eps, channel_axis, mask, out
        As in `batch_norm`; `eps` may be any number here.
    use_input_stats : bool, default True
        Whether to normalise with the input's own statistics.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky, *Instance Normalization*, 2016 (arXiv:1607.08022).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.instance_norm(np.array([[[1.0, 3.0], [20.0, 60.0]]])).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    y: Array = _kernels.instance_norm(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        use_input_stats,
        momentum,
        eps,
        channel_axis,
        mask,
        out,
        None,
        _gated,
    )
    return y


def instance_norm_forward(
    input: Any,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`instance_norm` and the context for `instance_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.instance_norm_forward(np.array([[[1.0, 3.0]]]))
    """
    answer: tuple[Array, NormContext] = _kernels.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis, mask, out,
        NormContext, _gated,
    )  # fmt: skip
    return answer


def instance_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `instance_norm`; None for a parameter that the call did not have.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([[[1.0, 3.0, 8.0]]])
    >>> y, ctx = F.instance_norm_forward(x)
    >>> F.instance_norm_backward(np.ones_like(x), ctx)[0].round(12) + 0.0
    array([[[0., 0., 0.]]])
    """
    return _kernels.norm_backward(dy, ctx, NormContext, backward)
