"""Stochastic depth: dropout of whole samples."""

from fastnn import _arrays
from fastnn._arrays import Array
from fastnn.functional.dropout.contexts import DropoutContext
from fastnn.functional.dropout.plain import dropout, dropout_backward, dropout_forward
from fastnn.random import Generator

__all__ = ["drop_path", "drop_path_backward", "drop_path_forward"]


def drop_path(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> Array:
    """Stochastic depth: inverted dropout of whole samples, for the branch of a residual block.

    ``y = m_i·x_i/(1−p)`` with one m_i ~ Bernoulli(1−p) for each i along axis 0; evaluation returns `input` itself.
    It is `dropout` with all axes but the first in `broadcast_axes`.

    Parameters
    ----------
    input : ndarray
        (N, …), float32 or float64.
    p : float, default 0.5
        Probability that a sample is dropped, in [0, 1].
    training : bool, default True
        Whether to drop.
    generator, out
        As in `dropout`.

    Raises
    ------
    ValueError
        If the input has no axis, or p is outside [0, 1].

    References
    ----------
    Huang, Sun, Liu, Sedra and Weinberger, "Deep networks with stochastic depth", ECCV 2016.

    Examples
    --------
    >>> import numpy as np, fastnn, fastnn.functional as F
    >>> y = F.drop_path(np.ones((5, 2)), 0.5, generator=fastnn.Generator(1))
    >>> bool((y[:, 0] == y[:, 1]).all())
    True
    """
    return dropout(input, p, training, generator=generator, broadcast_axes=_all_but_first(input), out=out)


def drop_path_forward(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> tuple[Array, DropoutContext]:
    """`drop_path`, and the context for `drop_path_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.drop_path_forward(np.ones((5, 2)))
    >>> F.dropout_mask(ctx).shape
    (5, 2)
    """
    return dropout_forward(input, p, training, generator=generator, broadcast_axes=_all_but_first(input), out=out)


def drop_path_backward(dy: Array, ctx: DropoutContext) -> Array:
    """Gradient of `drop_path`; see `dropout_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.drop_path_forward(np.ones((5, 2)))
    >>> bool((F.drop_path_backward(np.ones((5, 2)), ctx) == y).all())
    True
    """
    return dropout_backward(dy, ctx)


def _all_but_first(input: Array) -> tuple[int, ...]:
    ndim = _arrays.array(input, "input").ndim
    if ndim == 0:
        raise ValueError("input must have a batch axis, got shape ()")
    return tuple(range(1, ndim))
