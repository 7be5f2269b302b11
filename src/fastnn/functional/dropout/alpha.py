"""Alpha dropout, for self-normalising networks."""

from fastnn._arrays import Array
from fastnn.functional.dropout.arguments import check_probability, native
from fastnn.functional.dropout.contexts import DropoutContext
from fastnn.functional.dropout.evaluation import in_evaluation
from fastnn.functional.dropout.masks import dropped
from fastnn.functional.dropout.plain import dropout_backward
from fastnn.random import Generator

__all__ = ["alpha_dropout", "alpha_dropout_backward", "alpha_dropout_forward"]

# SELU's limit for x → −∞, −λα: what alpha dropout puts in place of a dropped value (Klambauer et al. 2017).
SELU_FLOOR = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


def alpha_dropout(
    input: Array,
    p: float = 0.5,
    training: bool = False,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> Array:
    """Alpha dropout, which keeps mean 0 and variance 1: for networks of SELU units.

    ``y = a·(m·x + (1−m)·α') + b`` with m ~ Bernoulli(1−p), α' = −λα = −1.7581 (SELU's limit for x → −∞),
    ``a = ((1−p)(1 + p·α'²))^(−1/2)`` and ``b = −a·p·α'``. Evaluation returns `input` itself; p = 1 gives zeros.

    Parameters
    ----------
    input : ndarray
        float32 or float64, any shape.
    p : float, default 0.5
        Probability of a drop, in [0, 1].
    training : bool, default False
        Whether to drop; False, unlike in the other functions, because it is so in PyTorch.
    generator, out
        As in `dropout`.

    References
    ----------
    Klambauer, Unterthiner, Mayr and Hochreiter, "Self-normalizing neural networks", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> x = np.random.default_rng(0).standard_normal(100_000)
    >>> y = F.alpha_dropout(x, 0.3, training=True)
    >>> bool(abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02)
    True
    """
    return alpha_dropout_forward(input, p, training, generator=generator, out=out)[0]


def alpha_dropout_forward(
    input: Array,
    p: float = 0.5,
    training: bool = False,
    *,
    generator: Generator | None = None,
    out: Array | None = None,
) -> tuple[Array, DropoutContext]:
    """`alpha_dropout`, and the context for `alpha_dropout_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.alpha_dropout_forward(np.zeros(4), 0.0, True)
    >>> F.alpha_dropout_backward(np.ones(4), ctx)
    array([1., 1., 1., 1.])
    """
    p = check_probability(p)
    if not training:
        return in_evaluation(input, 1.0, out)
    a = ((1 - p) * (1 + p * SELU_FLOOR**2)) ** -0.5 if p < 1 else 0.0
    b = -a * p * SELU_FLOOR
    y, seed, stream, _ = dropped(input, p, a, generator, (), out, b, a * SELU_FLOOR + b)
    return y, DropoutContext(seed, stream, p, a, (), y.shape, native(y))


def alpha_dropout_backward(dy: Array, ctx: DropoutContext) -> Array:
    """Gradient of `alpha_dropout`: ``a·m·dy``; see `dropout_backward`.

    Examples
    --------
    >>> import numpy as np, fastnn.functional as F
    >>> y, ctx = F.alpha_dropout_forward(np.ones(4), 1.0, True)
    >>> F.alpha_dropout_backward(np.ones(4), ctx)
    array([0., 0., 0., 0.])
    """
    return dropout_backward(dy, ctx)
