"""Stochastic gradient descent, its constraints, clipping and the penalty it descends."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn import _kernels
from fastnn._parameters import Array, Parameters, collect, is_parameter, labels, number, table, table_of
from fastnn.random import Generator, as_generator

__all__ = ["SGD", "L2Ball", "MaxRowNorm", "add_gradient_noise", "clip_grad_norm", "l2_penalty"]


# ---- constraints ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class L2Ball:
    """The constraint ‖θ‖₂² ≤ h over all parameters together, biases included.

    After each step θ ← θ · min(1, √h / ‖θ‖₂), the Euclidean projection. Note that `h` bounds the *squared* norm;
    ``optax.projections.projection_l2_ball`` takes its root.

    Parameters
    ----------
    h : float
        At least 0.

    Raises
    ------
    ValueError
        If `h` is negative or not finite.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> p = fastnn.Parameter(np.array([3.0, 4.0]))
    >>> fastnn.optim.L2Ball(h=1.0).project([p])
    >>> p.data
    array([0.6, 0.8])
    """

    h: float

    def __post_init__(self) -> None:
        number(self.h, "h")

    def project(self, params: Parameters) -> None:
        """Project `params`, all together, in place."""
        _kernels.project_ball(table_of(params), math.sqrt(self.h))


@dataclass(frozen=True)
class MaxRowNorm:
    """The constraint ‖w_i‖₂ ≤ c on every row w_i: all weights that lead into one output unit.

    A row is everything at one index of the first axis, as the layers store weights: (out, in) or (out, in, …). After
    each step a longer row is scaled to length c. Parameters with one dimension are left alone. (Keras' ``max_norm``
    has the units on the last axis; ``torch.renorm(w, 2, 0, c)`` is the same up to its 1e-7.)

    Parameters
    ----------
    c : float
        At least 0.

    Raises
    ------
    ValueError
        If `c` is negative or not finite.

    References
    ----------
    Srebro, Shraibman, "Rank, trace-norm and max-norm", COLT 2005; Srivastava et al., JMLR 15 (2014), section 5.1.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> p = fastnn.Parameter(np.array([[3.0, 4.0], [0.3, 0.4]]))
    >>> fastnn.optim.MaxRowNorm(c=1.0).project([p])
    >>> p.data
    array([[0.6, 0.8],
           [0.3, 0.4]])
    """

    c: float

    def __post_init__(self) -> None:
        number(self.c, "c")

    def project(self, params: Parameters) -> None:
        """Project every row of `params` in place."""
        _kernels.project_rows(table_of(params, by_rows=True), self.c)


# ---- functions -----------------------------------------------------------------------------------------------------


def clip_grad_norm(params: Parameters, max_norm: float) -> float:
    """Scale all gradients together, in place, by min(1, max_norm / (‖g‖₂ + 1e-6)); returns ‖g‖₂ before.

    As ``torch.nn.utils.clip_grad_norm_``, with the norm in double precision. A gradient that is not finite makes the
    norm so, and NaN spreads to every gradient; see ``SGD(skip_nonfinite=True)``.

    Parameters
    ----------
    params : iterable of Parameter
    max_norm : float
        At least 0.

    Raises
    ------
    ValueError
        If `max_norm` is negative or not finite.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> p = fastnn.Parameter(np.zeros(2))
    >>> p.grad[:] = 3.0, 4.0
    >>> fastnn.optim.clip_grad_norm([p], 1.0)
    5.0
    >>> p.grad.round(5)
    array([0.6, 0.8])
    """
    return _kernels.clip_gradients(table_of(params), number(max_norm, "max_norm"))


def l2_penalty(params: Parameters, weight_decay: float) -> float:
    """(λ/2)·‖θ‖₂² over the parameters that decay: what ``SGD(weight_decay=λ)`` adds to the objective it descends.

    The gradient is λθ. Keras' ``L2(l)`` is l·‖θ‖², so λ = 2l. Parameters with ``decay=False`` do not count, as SGD
    does not decay them.

    Parameters
    ----------
    params : iterable of Parameter
    weight_decay : float
        λ, at least 0.

    Raises
    ------
    ValueError
        If `weight_decay` is negative or not finite.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> weight, bias = fastnn.Parameter(np.array([3.0, 4.0])), fastnn.Parameter(np.ones(1), decay=False)
    >>> fastnn.optim.l2_penalty([weight, bias], 0.1)
    1.25
    """
    parameters, _ = collect(params)
    norm = _kernels.parameter_norm(table_of([p for p in parameters if p.decay]))
    return 0.5 * number(weight_decay, "weight_decay") * norm * norm


def add_gradient_noise(
    params: Parameters, std: float, *, rng: "Generator | np.random.Generator | int | None" = None
) -> None:
    """Add noise N(0, std²) to every element of every gradient, in place, before a step.

    Neelakantan et al. let its variance fall as η/(1 + t)^0.55: ``std = (eta / (1 + optimizer.steps) ** 0.55) ** 0.5``.
    Noise as large as that of smaller batches comes from `GradientAccumulator.sample`.

    Parameters
    ----------
    params : iterable of Parameter
    std : float
        At least 0.
    rng : fastnn.Generator, numpy.random.Generator, int or None
        None is the default generator.

    Raises
    ------
    ValueError
        If `std` is negative or not finite.

    References
    ----------
    Neelakantan et al., "Adding gradient noise improves learning for very deep networks", arXiv:1511.06807.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> p = fastnn.Parameter(np.zeros(3))
    >>> fastnn.optim.add_gradient_noise([p], 0.1, rng=0)
    >>> bool(np.all(p.grad != 0))
    True
    """
    deviation, source = number(std, "std"), as_generator(rng)
    parameters, _ = collect(params)
    for parameter in parameters:
        parameter.grad += source.normal(parameter.grad.shape, std=deviation, dtype=parameter.grad.dtype)


# ---- SGD -----------------------------------------------------------------------------------------------------------

# A number, or a schedule: any callable of the step.
Hyper = float | Callable[[int], Any]


def _hyper(value: Any, name: str) -> Hyper:
    """A hyper-parameter as it is kept: a float of at least 0, or the schedule itself."""
    return value if callable(value) else number(value, name)


def _at(value: Hyper, step: int, name: str) -> float:
    """Its value at a step."""
    if type(value) is not float:
        value = number(value(step) if callable(value) else value, name)
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value} at step {step}")
    return value


# What a parameter group may set for itself; the defaults are SGD's arguments.
_OPTIONS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "decoupled")


class SGD:
    r"""Stochastic gradient descent with momentum, weight decay, clipping and constraints.

    With gradient g, parameter θ and momentum buffer b, a step is, in this order:

    1. clip: g ← g · min(1, clip_norm / (‖g‖₂ + 1e-6)), the norm over all parameters together;
    2. maximize: g ← −g;
    3. coupled weight decay: g ← g + λθ;
    4. momentum: b ← μb + (1 − τ)g, in the first step b ← g; then g ← b, with Nesterov g ← g + μb;
    5. update: θ ← θ − lr·g;
    6. decoupled weight decay: θ ← θ − lr·λθ;
    7. constraint.

    All of it is one pass over the parameters' memory (clipping reads the gradients once more beforehand) and gives
    the same bits for any number of threads. Values and order are those of ``torch.optim.SGD``; unlike Keras and
    scikit-learn, the learning rate stays outside the momentum buffer, which matters under a schedule.

    Parameters
    ----------
    params : iterable of Parameter, of (name, Parameter) pairs, or of dicts
        A dict is a group: ``{"params": [...], "lr": 0.01}`` with any of the options `lr`, `momentum`, `dampening`,
        `weight_decay`, `nesterov`, `maximize` and `decoupled`; what it leaves out has the value given here.
    lr : float or schedule, default 1e-3
        A schedule is any callable of the step number, which counts from 0 (see `fastnn.schedules`). The same holds
        for `momentum` and `weight_decay`.
    momentum : float or schedule, default 0.0
        μ. A number 0 means no momentum buffer; with a schedule there always is one.
    dampening : float, default 0.0
        τ.
    weight_decay : float or schedule, default 0.0
        λ, the factor in the penalty (λ/2)‖θ‖² (`l2_penalty`). Parameters with ``decay=False`` are exempt.
    nesterov : bool, default False
    maximize : bool, default False
        Climb instead of descend.
    decoupled : bool, default False
        Decay the parameters themselves instead of adding to the gradient (Loshchilov, Hutter 2019).
    clip_norm : float, optional
        The most that the norm of all gradients together may be. The ``.grad`` arrays are left as they are.
    constraint : L2Ball or MaxRowNorm, optional
        A set that the parameters are projected on after each step.
    skip_nonfinite : bool, default False
        Leave everything as it is when a gradient holds NaN or infinity, and count the step in `skipped`.

    Attributes
    ----------
    steps : int
        Steps taken, which is the step number that schedules see; skipped ones are not among them.
    skipped : int
        Steps skipped for a gradient that was not finite.
    param_groups : list of dict
        The groups with all their options, which may be changed between steps.

    Raises
    ------
    TypeError
        If `params` is not an ordered iterable of parameters or dicts.
    ValueError
        If a hyper-parameter is negative or not finite, if `nesterov` comes without momentum or with dampening, if
        `params` is empty or a parameter is in two groups.

    Notes
    -----
    Parameters of both precisions may be mixed. ``.data`` and ``.grad`` may be replaced between steps by arrays of the
    same shape and dtype. Arrays that are not contiguous are worked on through a copy.

    References
    ----------
    Robbins, Monro, Ann. Math. Statist. 22 (1951); Polyak, USSR Comp. Math. 4 (1964); Sutskever et al., ICML 2013.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> p = fastnn.Parameter(np.ones(2))
    >>> optimizer = fastnn.SGD([p], lr=0.5, momentum=0.9)
    >>> for _ in range(2):
    ...     p.grad[:] = p.data  # the gradient of ‖p‖²/2
    ...     lr = optimizer.step()
    >>> lr, p.data
    (0.5, array([-0.2, -0.2]))
    """

    def __init__(
        self,
        params: Parameters | Iterable[dict[str, Any]],
        lr: Hyper = 1e-3,
        momentum: Hyper = 0.0,
        dampening: float = 0.0,
        weight_decay: Hyper = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        decoupled: bool = False,
        clip_norm: float | None = None,
        constraint: L2Ball | MaxRowNorm | None = None,
        skip_nonfinite: bool = False,
    ) -> None:
        if not isinstance(constraint, (L2Ball, MaxRowNorm, type(None))):
            raise TypeError(f"constraint must be an L2Ball, a MaxRowNorm or None, got {type(constraint).__name__}")
        defaults = dict(zip(_OPTIONS, (lr, momentum, dampening, weight_decay, nesterov, maximize, decoupled)))
        self.param_groups, names = _groups(params, defaults)
        self.clip_norm = None if clip_norm is None else number(clip_norm, "clip_norm")
        self.constraint = constraint
        self.skip_nonfinite = bool(skip_nonfinite)
        self.steps = 0
        self.skipped = 0
        self._names = names
        self._parameters = [p for group in self.param_groups for p in group["params"]]
        self._group_of = [i for i, group in enumerate(self.param_groups) for _ in group["params"]]
        self._momentum: list[Array | None] = [None] * len(names)
        self._started = [False] * len(self.param_groups)
        self._radius = math.sqrt(constraint.h) if isinstance(constraint, L2Ball) else math.inf
        self._row_norm = constraint.c if isinstance(constraint, MaxRowNorm) else math.inf
        self._table = table(self._parameters, names, self._group_of, isinstance(constraint, MaxRowNorm))

    def step(self) -> float:
        """Take one step; returns the learning rate that it used (of the first group, if there are several).

        Raises
        ------
        ValueError
            If a schedule gives a value that is negative or not finite, or a gradient's shape differs from its
            parameter's; nothing is changed then.
        RuntimeError
            If a state without momentum buffers was loaded meanwhile, by a schedule or another thread; likewise.
        """
        options = [self._options(i, group) for i, group in enumerate(self.param_groups)]
        clip_norm = math.inf if self.clip_norm is None else self.clip_norm
        if not _kernels.sgd_step(self._table, options, clip_norm, self.skip_nonfinite, self._radius, self._row_norm):
            self.skipped += 1
        else:
            self.steps += 1
            for i, option in enumerate(options):
                self._started[i] = self._started[i] or option[4]
        return options[0][0]

    def _options(self, i: int, group: dict[str, Any]) -> tuple[float, float, float, float, bool, bool, bool, bool]:
        """What the kernel needs of group `i` at this step: (lr, momentum, keep, weight_decay, buffered, flags…)."""
        lr, momentum, dampening = group["lr"], group["momentum"], group["dampening"]
        buffered = momentum != 0
        if buffered and not self._started[i]:
            self._allocate(i)
            dampening = 0.0
        if type(dampening) is not float or not math.isfinite(dampening):
            dampening = number(dampening, "dampening", -math.inf)
        return (
            _at(lr, self.steps, "lr"),
            _at(momentum, self.steps, "momentum"),
            1.0 - dampening,
            _at(group["weight_decay"], self.steps, "weight_decay"),
            buffered,
            group["nesterov"],
            group["maximize"],
            group["decoupled"],
        )

    def _allocate(self, i: int) -> None:
        """Momentum buffers of zeros for group `i`, unless an earlier step, not done yet or failed, has made them."""
        for k, parameter in enumerate(self._parameters):
            if self._group_of[k] == i and self._momentum[k] is None:
                self._momentum[k] = np.zeros(parameter.data.shape, parameter.data.dtype)
        self._table.bind(0, self._momentum)

    def zero_grad(self) -> None:
        """Fill every gradient with zeros."""
        _kernels.zero_gradients(self._table)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with equal bytes: a flat dict of arrays and numbers.

        Keys: ``steps``, ``skipped``, and for each momentum buffer ``momentum.<name>``, where an unnamed parameter's
        name is its number. Hyper-parameters are not in it, nor is the state of a ``ReduceOnPlateau``.
        """
        state: dict[str, Any] = {"steps": self.steps, "skipped": self.skipped}
        for name, group, buffer in zip(self._names, self._group_of, self._momentum):
            if self._started[group] and buffer is not None:
                state[f"momentum.{name}"] = buffer.copy()
        return state

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` returned, for the same parameters; all of it or, on error, nothing.

        Raises
        ------
        ValueError
            Naming missing and unexpected keys, or the buffer whose shape or dtype does not fit.
        """
        if not isinstance(d, Mapping):
            raise TypeError(f"d must be a mapping as state_dict returns it, got {type(d).__name__}")
        keys = [f"momentum.{name}" for name in self._names]
        started = [False] * len(self.param_groups)
        for key, group in zip(keys, self._group_of):
            started[group] = started[group] or key in d
        needed = {"steps", "skipped"} | {key for key, group in zip(keys, self._group_of) if started[group]}
        missing, unexpected = sorted(needed - d.keys()), sorted(d.keys() - needed)
        if missing or unexpected:
            raise ValueError(f"state dict does not fit: missing keys {missing}, unexpected keys {unexpected}")
        buffers: list[Array | None] = [None] * len(keys)
        for k, (key, parameter) in enumerate(zip(keys, self._parameters)):
            if key in d:
                buffer = buffers[k] = np.array(d[key], order="C")
                if (buffer.shape, buffer.dtype) != (parameter.data.shape, parameter.data.dtype):
                    raise ValueError(
                        f"{key} must have shape {parameter.data.shape} and dtype {parameter.data.dtype}, "
                        f"got {buffer.shape} and {buffer.dtype}"
                    )
        steps, skipped = (_count(d[key], key) for key in ("steps", "skipped"))
        self.steps, self.skipped, self._started, self._momentum = steps, skipped, started, buffers
        self._table.bind(0, buffers)


def _count(value: Any, name: str) -> int:
    count = number(value, name)
    if count != int(count):
        raise ValueError(f"{name} must be an integer, got {count}")
    return int(count)


def _groups(params: Any, defaults: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Complete, checked groups, and the labels of all parameters in order."""
    ordered = isinstance(params, Iterable) and not isinstance(params, (set, frozenset))
    entries = list(params) if ordered else [params]
    if not any(isinstance(entry, dict) for entry in entries):
        entries = [{"params": entries if ordered else params}]
    groups: list[dict[str, Any]] = []
    names: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise TypeError(f"params must hold only dicts or only Parameters, got {type(entry).__name__} among dicts")
        if "params" not in entry or not entry.keys() <= {"params", *_OPTIONS}:
            raise ValueError(f"a parameter group must have 'params' and options of {_OPTIONS}, got {sorted(entry)}")
        single = isinstance(params, Iterable) and is_parameter(entry["params"])
        parameters, own = collect([entry["params"]] if single else entry["params"])
        groups.append(_checked({**defaults, **entry, "params": parameters}))
        names += own
    everything = [id(p) for group in groups for p in group["params"]]
    if not everything:
        raise ValueError("params must hold at least one Parameter, got none")
    if len(set(everything)) < len(everything):
        raise ValueError("some parameters appear in more than one parameter group; params must hold each only once")
    return groups, labels(names)


def _checked(group: dict[str, Any]) -> dict[str, Any]:
    for name in ("lr", "momentum", "weight_decay"):
        group[name] = _hyper(group[name], name)
    group["dampening"] = number(group["dampening"], "dampening", -math.inf)
    for name in ("nesterov", "maximize", "decoupled"):
        group[name] = bool(group[name])
    if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
        raise ValueError(
            f"nesterov needs momentum above 0 and dampening 0, got momentum {group['momentum']} "
            f"and dampening {group['dampening']}"
        )
    return group
