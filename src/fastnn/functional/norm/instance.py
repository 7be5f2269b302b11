"""Instance norm: statistics for each channel of each sample, over all positions."""

from typing import Any

from fastnn._arrays import Array
from fastnn.functional.norm.call import NormContext, run_backward
from fastnn.functional.norm.channels import channel_call, channel_input, finite_momentum, running_of, with_running
from fastnn.functional.norm.views import batch_view, instance_view

__all__ = ["instance_norm", "instance_norm_backward", "instance_norm_forward"]


def _instance_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, use_input_stats: bool, momentum: float,
    eps: float, channel_axis: int, mask: Any, out: Array | None, keep: bool,
) -> tuple[Array, NormContext | None]:  # fmt: skip
    x, axis = channel_input(input, channel_axis, 3)
    view = instance_view(x.shape, axis) if use_input_stats else batch_view(x.shape, axis)
    call = channel_call(x, view, axis, weight, bias, eps, mask)
    running = running_of(running_mean, running_var, x.dtype, x.shape[axis], updated=use_input_stats)
    momentum = finite_momentum(momentum)
    if use_input_stats:
        if view.group_size == 1 and view.groups:
            raise ValueError(f"Expected more than 1 spatial element when training, got input shape {x.shape}")
    elif running is None:
        raise ValueError("running_mean and running_var must be given unless use_input_stats=True")
    if x.size == 0:
        running = None if use_input_stats else running
    return with_running(call, running, use_input_stats, momentum, out, keep)


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
    return _instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis, mask, out, False
    )[0]


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
    y, ctx = _instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis, mask, out, True
    )
    assert ctx is not None
    return y, ctx


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
    return run_backward(dy, ctx)
