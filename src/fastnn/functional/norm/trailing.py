"""Layer and RMS norm: statistics over the last axes."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.norm.gate import NormContext, backward, delivered, operands

__all__ = [
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
]


def _gated(
    input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: Any, mask: Any, out: Array | None, centered: bool,
    context: type[NormContext] | None,
) -> Any:  # fmt: skip
    """The call with plain arguments."""
    plain = operands(input, weight, bias, mask, out, keep=context is not None)
    shape = _arrays.integers(normalized_shape, "normalized_shape")
    added = eps if eps is None and not centered else _arrays.number(eps, "eps")
    answer = _kernels.trailing_norm(
        plain.input, shape, plain.weight, plain.bias, added, plain.mask, plain.out, centered, context, None
    )
    return delivered(answer, out)


def layer_norm(
    input: Any,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    mask: Any = None,
    out: Array | None = None,
) -> Array:
    """Layer norm: for each sample, mean and variance over the last axes.

    y = (x − mean) / √(var + eps) · weight + bias, the variance biased (divided by n).

    Parameters
    ----------
    input : array, float32 or float64
        Any shape that ends with `normalized_shape`.
    normalized_shape : int or sequence of int
        The axes that share one mean and variance, by their lengths.
    weight, bias : array of shape `normalized_shape`, optional
        In the input's dtype; None means 1 and 0.
    eps : float, default 1e-5
        Added to the variance inside the root. Keras uses 1e-3, Flax 1e-6.
    mask : bool array, optional
        Broadcastable to `input`; True counts in the statistics. Every element is normalised. A sample of which
        nothing counts gives `bias`. PyTorch and Keras have no masks here; Flax does.
    out : ndarray, optional
        Takes the result and is returned; may be `input` itself.

    Returns
    -------
    ndarray
        Shape and dtype of `input`. A sample of equal elements gives exactly `bias`; NaN and inf spoil their own
        sample only.

    Raises
    ------
    TypeError
        If a dtype is not float32 or float64, or dtypes differ.
    ValueError
        If shapes do not fit.

    References
    ----------
    Ba, Kiros and Hinton, *Layer Normalization*, 2016 (arXiv:1607.06450).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.layer_norm(np.array([[1.0, 2.0, 3.0], [7.0, 7.0, 7.0]]), 3).round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [ 0.    ,  0.    ,  0.    ]])
    """
    y: Array = _kernels.trailing_norm(input, normalized_shape, weight, bias, eps, mask, out, True, None, _gated)
    return y


def layer_norm_forward(
    input: Any,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    mask: Any = None,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`layer_norm` and the context for `layer_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.layer_norm_forward(np.array([[1.0, 2.0, 4.0]]), 3)
    >>> len(ctx.groups)     # a sample is a group
    1
    """
    answer: tuple[Array, NormContext] = _kernels.trailing_norm(
        input, normalized_shape, weight, bias, eps, mask, out, True, NormContext, _gated
    )
    return answer


def layer_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None, Array | None]:
    """Gradients (dinput, dweight, dbias) of `layer_norm`; None for a parameter that the call did not have.

    dinput = rstd · (g − Σg/n − x̂·Σ(g·x̂)/n) with g = dy · weight; dweight = Σ dy·x̂ and dbias = Σ dy over the samples.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x, w, b = np.array([[1.0, 2.0, 4.0]]), np.ones(3), np.zeros(3)
    >>> y, ctx = F.layer_norm_forward(x, 3, w, b)
    >>> dx, dw, db = F.layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), ctx)
    >>> db
    array([1., 0., 0.])
    """
    return _kernels.norm_backward(dy, ctx, NormContext, backward)


def rms_norm(
    input: Any,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: Any = None,
    eps: float | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """RMS norm: y = x / √(mean(x²) + eps) · weight over the last axes.

    Parameters
    ----------
    input, normalized_shape, weight, out
        As in `layer_norm`.
    eps : float, optional
        None is the machine epsilon of the dtype, as in PyTorch; Flax uses 1e-6.

    References
    ----------
    Zhang and Sennrich, *Root Mean Square Layer Normalization*, 2019 (arXiv:1910.07467).

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> F.rms_norm(np.array([[3.0, 4.0]]), 2).round(4)
    array([[0.8485, 1.1314]])
    """
    y: Array = _kernels.trailing_norm(input, normalized_shape, weight, None, eps, None, out, False, None, _gated)
    return y


def rms_norm_forward(
    input: Any,
    normalized_shape: SupportsIndex | Sequence[SupportsIndex],
    weight: Any = None,
    eps: float | None = None,
    *,
    out: Array | None = None,
) -> tuple[Array, NormContext]:
    """`rms_norm` and the context for `rms_norm_backward`; `out` must not overlap the input.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.rms_norm_forward(np.array([[3.0, 4.0]]), 2)
    """
    answer: tuple[Array, NormContext] = _kernels.trailing_norm(
        input, normalized_shape, weight, None, eps, None, out, False, NormContext, _gated
    )
    return answer


def rms_norm_backward(dy: Any, ctx: NormContext) -> tuple[Array, Array | None]:
    """Gradients (dinput, dweight) of `rms_norm`; dweight is None where the call had no weight.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.rms_norm_forward(np.array([[3.0, 4.0]]), 2, np.ones(2))
    >>> dx, dw = F.rms_norm_backward(np.ones((1, 2)), ctx)
    >>> dw.round(4)
    array([0.8485, 1.1314])
    """
    return _kernels.norm_backward(dy, ctx, NormContext, backward)[:2]
