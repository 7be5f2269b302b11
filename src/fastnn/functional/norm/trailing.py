"""Layer and RMS norm: statistics over the last axes."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from fastnn import _arrays, _kernels
from fastnn._arrays import Array
from fastnn.functional.norm.call import Call, NormContext, context_of, run_backward, run_forward
from fastnn.functional.norm.views import trailing_view

__all__ = [
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
]


def _trailing_call(
    input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float, mask: Any, centered: bool
) -> Call:
    x = _arrays.floating(input, "input")
    shape = _arrays.integers(normalized_shape, "normalized_shape")
    if not shape or x.shape[x.ndim - len(shape) :] != shape or len(shape) > x.ndim:
        raise ValueError(
            f"normalized_shape must be the end of the input's shape {x.shape} and not empty, got {normalized_shape}"
        )
    return Call(
        x,
        trailing_view(x.shape, len(shape)),
        _arrays.vector(weight, "weight", x.dtype, shape),
        _arrays.vector(bias, "bias", x.dtype, shape),
        shape,
        _arrays.number(eps, "eps"),
        _arrays.mask(mask, x.shape),
        centered,
    )


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
    if mask is None and out is None:
        y = _kernels.rows_layer_norm(input, normalized_shape, weight, bias, eps, True)
        if y is not None:
            return y
    return run_forward(_trailing_call(input, normalized_shape, weight, bias, eps, mask, True), out=out, keep=False)[0]


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
    >>> ctx.groups.shape
    (1, 4)
    """
    call = _trailing_call(input, normalized_shape, weight, bias, eps, mask, True)
    y, groups, _ = run_forward(call, out=out, keep=True)
    return y, context_of(call, groups)


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
    return run_backward(dy, ctx)


def _rms_eps(input: Any, eps: float | None) -> float:
    if eps is not None:
        return _arrays.number(eps, "eps")
    return float(np.finfo(_arrays.floating(input, "input").dtype).eps)


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
    eps = _rms_eps(input, eps)
    if out is None:
        y = _kernels.rows_layer_norm(input, normalized_shape, weight, None, eps, False)
        if y is not None:
            return y
    return run_forward(_trailing_call(input, normalized_shape, weight, None, eps, None, False), out=out, keep=False)[0]


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
    call = _trailing_call(input, normalized_shape, weight, None, _rms_eps(input, eps), None, False)
    y, groups, _ = run_forward(call, out=out, keep=True)
    return y, context_of(call, groups)


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
    return run_backward(dy, ctx)[:2]
