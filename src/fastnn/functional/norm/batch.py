"""Batch norm: statistics for each channel, over the batch and all positions."""

from typing import Any

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.norm.gate import NormContext, backward, delivered, operands, running_of

__all__ = ["batch_norm", "batch_norm_backward", "batch_norm_forward", "batch_population"]


def _gated(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, training: bool, momentum: Any, eps: Any,
    channel_axis: Any, mask: Any, out: Array | None, context: type[NormContext] | None,
) -> Any:  # fmt: skip
    """The call with plain arguments."""
    plain = operands(input, weight, bias, mask, out, keep=context is not None)
    running = running_of(running_mean, running_var, plain.input.dtype, out, updated=bool(training))
    answer = _kernels.batch_norm(
        plain.input, running.mean_buffer, running.var_buffer, plain.weight, plain.bias, bool(training),
        _arrays.number(momentum, "momentum"), _arrays.number(eps, "eps"),
        _arrays.integer(channel_axis, "channel_axis"), plain.mask, plain.out, context, None,
    )  # fmt: skip
    if training:
        running.store()
    return delivered(answer, out)


def batch_norm(
    input: Any,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """Batch norm: for each channel, mean and variance over the batch and all positions.

    y = (x − mean) / √(var + eps) · weight + bias. In training, mean and (biased) variance are the batch's, and the
    running statistics are updated in place: running = (1 − momentum) · running + momentum · batch, the variance
    unbiased (divided by n − 1), as in PyTorch. Otherwise the running statistics take their place.

    Parameters
    ----------
    input : array, float32 or float64
        (N, C), (N, C, …) or, with ``channel_axis=-1``, (N, …, C).
    running_mean, running_var : ndarray of shape (C,) or None
        In the input's dtype. None, allowed in training, keeps no record.
    weight, bias : array of shape (C,), optional
        None means 1 and 0.
    training : bool, default False
        Whether to normalise with the batch's own statistics.
    momentum : float, default 0.1
        The new batch's share, as in PyTorch; Keras, Flax and ONNX call its complement momentum (0.99, 0.9).
    eps : float, default 1e-5
        Added to the variance inside the root; must be positive in training. Keras uses 1e-3.
    channel_axis : int, default 1
        Any axis but the batch axis 0; may be negative.
    mask : bool array, optional
        Broadcastable to `input`; True counts in the statistics, running ones included. Every element is normalised.
    out : ndarray, optional
        Takes the result and is returned; may be `input` itself.

    Raises
    ------
    TypeError
        If a dtype is not float32 or float64, or dtypes differ.
    ValueError
        If shapes do not fit, or in training a channel has one value only.

    References
    ----------
    Ioffe and Szegedy, *Batch Normalization*, 2015 (arXiv:1502.03167).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> F.batch_norm(x, mean, var, training=True).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean, var
    (array([0.2, 2. ]), array([ 1.1, 20.9]))
    """
    y: Array = _kernels.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps, channel_axis, mask, out, None, _gated
    )
    return y


def batch_norm_forward(
    input: Any,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`batch_norm` and the context for `batch_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.batch_norm_forward(np.array([[1.0], [3.0]]), None, None, training=True)
    """
    answer: tuple[Array, NormContext] = _kernels.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps, channel_axis, mask, out, NormContext,
        _gated,
    )  # fmt: skip
    return answer


def batch_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `batch_norm`; None for a parameter that the call did not have.

    In training the statistics depend on the input (see `layer_norm_backward`); otherwise they are constants and
    dinput = dy · weight / √(running_var + eps).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.array([[1.0], [3.0], [8.0]])
    >>> y, ctx = F.batch_norm_forward(x, None, None, np.ones(1), np.zeros(1), training=True)
    >>> dx, dw, db = F.batch_norm_backward(np.ones_like(x), ctx)
    >>> db
    array([3.])
    """
    return _kernels.norm_backward(dy, ctx, NormContext, backward)


def batch_population(input: Any, weight: Any, bias: Any, eps: float, *, channel_axis: int = 1) -> tuple[Array, Array]:
    """`batch_norm` in training, and mean, biased variance and count of each channel, float64 of shape (channels, 3).

    A single value per channel is no error here: it gives `bias`.
    """
    return _kernels.batch_population(input, weight, bias, eps, channel_axis, _gated_population)


def _gated_population(input: Any, weight: Any, bias: Any, eps: Any, channel_axis: Any) -> Any:
    plain = operands(input, weight, bias, None, None, keep=False)
    return _kernels.batch_population(plain.input, plain.weight, plain.bias, eps, channel_axis, None)
