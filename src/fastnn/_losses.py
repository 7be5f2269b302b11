"""What a parameter `loss` stands for: the forward and backward companions of a loss function."""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Companions(NamedTuple):
    """``value, ctx = forward(output, target)`` and ``doutput = backward(1.0, ctx)``."""

    forward: Callable[[Any, Any], tuple[Any, Any]]
    backward: Callable[[float, Any], Any]


def companions(loss: Any) -> Companions:
    """Those of a function such as ``F.cross_entropy``, of a partial of one, or a pair (forward, backward) as it is.

    Raises
    ------
    TypeError
        If `loss` has no functions <name>_forward and <name>_backward beside it.
    """
    if isinstance(loss, tuple) and len(loss) == 2:
        return Companions(*loss)
    function = loss.func if isinstance(loss, functools.partial) else loss
    module, name = sys.modules.get(getattr(function, "__module__", "")), getattr(function, "__name__", "")
    forward, backward = getattr(module, f"{name}_forward", None), getattr(module, f"{name}_backward", None)
    if forward is None or backward is None:
        raise TypeError(
            "loss must be a function with companions <name>_forward and <name>_backward in its module, a partial of "
            f"one, or a pair (forward, backward), got {loss!r}"
        )
    if isinstance(loss, functools.partial):
        forward = functools.partial(forward, *loss.args, **loss.keywords)
    return Companions(forward, backward)
