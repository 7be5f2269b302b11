"""Dropout of single elements or of all along some axes, inverted and classic."""

import math
from collections.abc import Sequence

import numpy as np

from fastnn import _kernels
from fastnn._arrays import Array
from fastnn.functional.dropout.arguments import Mode, check_rule, gradient, native
from fastnn.functional.dropout.contexts import DropoutContext
from fastnn.functional.dropout.evaluation import in_evaluation, scaled
from fastnn.functional.dropout.masks import apply, dropped, small_mask
from fastnn.random import Generator, default_generator

__all__ = ["dropout", "dropout_backward", "dropout_forward", "dropout_mask"]

GROUP = 128  # elements that the kernel decides from one chunk of random words


def dropout(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    mode: Mode = "inverted",
    generator: Generator | None = None,
    broadcast_axes: int | Sequence[int] = (),
    out: Array | None = None,
) -> Array:
    """Dropout: each element is zero with probability p.

    Inverted (the default, as everywhere): training gives ``m·x/(1−p)`` with m ~ Bernoulli(1−p), evaluation ``x``.
    Classic (the original paper): training gives ``m·x``, evaluation ``(1−p)·x``. In both, E[training] = evaluation.

    Dropped elements are exactly zero, whatever they were (PyTorch multiplies by zero, so that inf and NaN give NaN).
    The probability of a drop is p to 2⁻⁶⁴. The mask is a function of the generator's seed, the number of its draw
    and the element's position, whatever the dtype, the number of threads or the machine.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    p : float, default 0.5
        Probability of a drop, in [0, 1].
    training : bool, default True
        Whether to drop. Inverted dropout in evaluation returns `input` itself and costs nothing.
    mode : {"inverted", "classic"}
        Where the expectation is put right: in training or in evaluation.
    generator : Generator, optional
        Takes its next stream; by default the one that `manual_seed` seeds.
    broadcast_axes : int or sequence of int, default ()
        Axes along which elements share their fate. Channel dropout, PyTorch's ``dropout2d`` and Keras's
        ``SpatialDropout2D``, is ``(2, 3)`` for N×C×H×W and ``(1, 2)`` for N×H×W×C.
    out : ndarray, optional
        Where the result goes; may be `input` itself.

    Returns
    -------
    ndarray
        Of the input's shape and dtype.

    Raises
    ------
    ValueError
        If p is outside [0, 1] or NaN, `mode` is unknown, or an axis is not one of the input's.
    TypeError
        If `input` is not float32 or float64, or `generator` is not a `Generator`.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout", JMLR 15 (2014); for whole channels Tompson,
    Goroshin, Jain, LeCun and Bregler, "Efficient object localization using convolutional networks", CVPR 2015.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> x = np.arange(8, dtype=np.float32)
    >>> F.dropout(x, 0.5, generator=fastnn.Generator(2))
    array([...], dtype=float32)
    >>> F.dropout(x, 0.25, training=False, mode="classic")
    array([0.  , 0.75, 1.5 , 2.25, 3.  , 3.75, 4.5 , 5.25], dtype=float32)
    >>> F.dropout(x, training=False) is x
    True
    """
    if training and type(broadcast_axes) is tuple and not broadcast_axes:
        drawn = _kernels.draw_dropout(input, p, mode, default_generator() if generator is None else generator, out)
        if drawn is not None:
            return drawn[0]
    p, scale = check_rule(p, training, mode)
    if not training:
        return scaled(input, scale, out)
    return dropped(input, p, scale, generator, broadcast_axes, out)[0]


def dropout_forward(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    mode: Mode = "inverted",
    generator: Generator | None = None,
    broadcast_axes: int | Sequence[int] = (),
    out: Array | None = None,
) -> tuple[Array, DropoutContext]:
    """`dropout`, and the context for `dropout_backward`: a few numbers, no mask.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> x = np.ones(6, np.float32)
    >>> y, ctx = F.dropout_forward(x, 0.5, generator=fastnn.Generator(2))
    >>> bool((F.dropout_backward(x, ctx) == y).all())
    True
    """
    if training and type(broadcast_axes) is tuple and not broadcast_axes:
        drawn = _kernels.draw_dropout(input, p, mode, default_generator() if generator is None else generator, out)
        if drawn is not None:
            y, seed, stream, scale = drawn
            return y, DropoutContext(seed, stream, p, scale, (), y.shape, y.dtype)
    p, scale = check_rule(p, training, mode)
    if not training:
        return in_evaluation(input, scale, out)
    y, seed, stream, axes = dropped(input, p, scale, generator, broadcast_axes, out)
    return y, DropoutContext(seed, stream, p, scale, axes, y.shape, native(y))


def dropout_backward(dy: Array, ctx: DropoutContext) -> Array:
    """Gradient of `dropout`: ``dy`` times the mask and the scale of forward; the mask is made again.

    Parameters
    ----------
    dy : ndarray
        Gradient with respect to the result, of its shape and dtype.
    ctx : DropoutContext
        From `dropout_forward`.

    Raises
    ------
    TypeError, ValueError
        If `dy` has another dtype or shape than the result.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> _, ctx = F.dropout_forward(np.ones(3), 0.5, training=False, mode="classic")
    >>> F.dropout_backward(np.ones(3), ctx)
    array([0.5, 0.5, 0.5])
    """
    dx = _kernels.redraw_dropout(dy, *ctx)
    if dx is not None:
        return dx
    dy = gradient(dy, ctx)
    if ctx.p == 0 and ctx.scale == 1:
        return dy
    return apply(dy, ctx.p, ctx.scale, ctx.seed, ctx.stream, ctx.broadcast_axes, None)


def dropout_mask(ctx: DropoutContext, start: int = 0, stop: int | None = None) -> Array:
    """The mask of a call to `dropout_forward`, `drop_path_forward` or `alpha_dropout_forward`: True where kept.

    Parameters
    ----------
    ctx : DropoutContext
        The call's context.
    start, stop : int, default all
        Which elements, counted in C order. Only what is asked for is made.

    Returns
    -------
    ndarray of bool
        Of the input's shape, or with `start` or `stop` given 1-d, the elements from `start` up to `stop`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.dropout_forward(np.ones((20, 30)), 0.3)
    >>> mask = F.dropout_mask(ctx)
    >>> bool((mask == (y != 0)).all())
    True
    >>> bool((F.dropout_mask(ctx, 100, 200) == mask.ravel()[100:200]).all())
    True
    """
    if not isinstance(ctx, DropoutContext):
        raise TypeError(f"ctx must be the context of a dropout with a mask, got {type(ctx).__name__}")
    size = math.prod(ctx.shape)
    first, last, _ = slice(start, stop).indices(size)
    last = max(first, last)
    if ctx.broadcast_axes:
        small = small_mask(ctx.shape, ctx.broadcast_axes, np.dtype(np.float32), ctx.p, ctx.seed, ctx.stream)
        mask = np.broadcast_to(small != 0, ctx.shape).flat[first:last]
    else:
        group = first // GROUP
        ones = np.ones(last - group * GROUP, np.float32)
        kept = _kernels.dropout(ones, ctx.p, 1.0, ctx.seed, ctx.stream, ones, first=group)
        mask = kept[first - group * GROUP :] != 0
    return mask.reshape(ctx.shape) if start == 0 and stop is None else mask
