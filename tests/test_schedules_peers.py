"""Schedules against PyTorch's and Optax's, over long runs, to 1e-12 relative.

Both peers compute ½(1 + cos x) near x = π, where it cancels, and PyTorch multiplies its way from step to step: with a
floor of 0 their own error, some units in the last place of the *first* value, is all that is left of the last ones.
There `atol` is 4 units of that value.
"""

import numpy as np
import pytest

from fastnn import schedules
from fastnn.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Join,
    Linear,
    OneCycle,
    Piecewise,
    Polynomial,
    ReduceOnPlateau,
    Warmup,
)

pytestmark = pytest.mark.peers

LR = 0.3
STEPS = 10_000


def agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=4 * np.finfo(np.float64).eps * np.max(theirs))


# -- PyTorch ---------------------------------------------------------------------------------------------------------


def torch_values(name, steps, *, lr=LR, **parameters):
    """The learning rates that PyTorch's optimiser uses at its first `steps` steps."""
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimiser, **parameters)
    values = []
    for _ in range(steps):
        values.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return np.array(values, np.float64)


TORCH = {
    "constant": ("ConstantLR", {"factor": 0.5, "total_iters": 40}, Piecewise([LR / 2, LR], [40])),
    "exponential": ("ExponentialLR", {"gamma": 0.999}, Exponential(LR, 0.999)),
    "step": ("StepLR", {"step_size": 70, "gamma": 0.95}, Exponential(LR, 0.95, every=70, staircase=True)),
    "multistep": (
        "MultiStepLR",
        {"milestones": [30, 31, 5000], "gamma": 0.1},
        Piecewise([LR, LR * 0.1, LR * 0.01, LR * 0.001], [30, 31, 5000]),
    ),
    "linear": (
        "LinearLR",
        {"start_factor": 0.1, "end_factor": 0.9, "total_iters": 7000},
        Linear(0.1 * LR, 0.9 * LR, 7000),
    ),
    "polynomial": ("PolynomialLR", {"total_iters": 9000, "power": 1.7}, Polynomial(LR, 0, 9000, 1.7)),
    "cosine": ("CosineAnnealingLR", {"T_max": STEPS - 1, "eta_min": 0.01}, Cosine(LR, STEPS - 1, 0.01)),
    "cosine to zero": ("CosineAnnealingLR", {"T_max": 1000}, Cosine(LR, 1000)),
    "restarts": ("CosineAnnealingWarmRestarts", {"T_0": 97, "eta_min": 0.01}, CosineRestarts(LR, 97, floor=0.01)),
    "restarts, doubled": ("CosineAnnealingWarmRestarts", {"T_0": 7, "T_mult": 2}, CosineRestarts(LR, 7, mult=2)),
    "restarts, tripled": ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 3}, CosineRestarts(LR, 5, mult=3)),
    "cyclic": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": LR, "step_size_up": 100, "step_size_down": 300},
        Cyclic(0.01, LR, 100, 300),
    ),
    "cyclic, halved": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": LR, "step_size_up": 700, "mode": "triangular2"},
        Cyclic(0.01, LR, 700, mode="triangular2"),
    ),
    "cyclic, exponential": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": LR, "step_size_up": 128, "mode": "exp_range", "gamma": 0.9997},
        Cyclic(0.01, LR, 128, mode="exp_range", gamma=0.9997),
    ),
}


@pytest.mark.parametrize("case", TORCH)
def test_torch(case):
    name, parameters, ours = TORCH[case]
    steps = 1001 if case == "cosine to zero" else STEPS
    agree(ours(np.arange(steps)), torch_values(name, steps, **parameters))


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("steps", "pct_start"), [(STEPS, 0.3), (STEPS, 0.45), (10, 0.3), (7, 0.25), (3, 0.5)])
def test_torch_one_cycle(anneal, three_phase, steps, pct_start):
    theirs = torch_values(
        "OneCycleLR",
        steps,
        max_lr=LR,
        total_steps=steps + 1,
        pct_start=pct_start,
        anneal_strategy=anneal,
        three_phase=three_phase,
        final_div_factor=30.0,
    )
    ours = OneCycle(LR, steps + 1, pct_start, anneal, final_div_factor=30.0, three_phase=three_phase)
    agree(ours(np.arange(steps)), theirs)


def test_torch_one_cycle_to_its_last_step():
    """PyTorch raises after `total_steps` steps, of which the constructor takes one."""
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=50)
    for _ in range(49):
        optimiser.step()
        scheduler.step()
    assert OneCycle(LR, 50)(49) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # SequentialLR itself passes one
def test_torch_sequential():
    torch = pytest.importorskip("torch")
    rates = torch.optim.lr_scheduler
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    parts = [rates.LinearLR(optimiser, 0.01, 1.0, 500), rates.CosineAnnealingLR(optimiser, 1500, 0.001)]
    scheduler = rates.SequentialLR(optimiser, parts, milestones=[500])
    theirs = []
    for _ in range(2001):
        theirs.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    t = np.arange(2001)
    agree(Join([Linear(0.01 * LR, LR, 500), Cosine(LR, 1500, 0.001)], [500])(t), theirs)
    agree(Warmup(Cosine(LR, 1500, 0.001), 500, start=0.01 * LR)(t), theirs)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"patience": 0, "factor": 0.5},
        {"patience": 3, "cooldown": 5, "factor": 0.7, "min_lr": 0.02},
        {"patience": 1, "threshold": 0.05, "eps": 1e-3},
    ],
)
def test_torch_plateau(mode, threshold_mode, parameters):
    torch = pytest.importorskip("torch")
    metrics = np.random.default_rng(0).normal(size=1000).cumsum() / 10
    metrics[[17, 500]] = np.nan
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode, threshold_mode=threshold_mode, **parameters)
    ours = ReduceOnPlateau(LR, mode, threshold_mode=threshold_mode, **parameters)
    for metric in metrics:
        scheduler.step(metric)
        assert ours.update(metric) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
    assert ours.lr < LR


# -- Optax -----------------------------------------------------------------------------------------------------------


def sgdr(optax, cycles):
    """Warm restarts of the given (peak, length) to 0.01."""
    kwargs = [
        {"init_value": 0.0, "peak_value": peak, "warmup_steps": 0, "decay_steps": length, "end_value": 0.01}
        for peak, length in cycles
    ]
    return optax.schedules.sgdr_schedule(kwargs)


OPTAX = {
    "constant": (lambda optax: optax.constant_schedule(LR), Constant(LR)),
    "exponential": (lambda optax: optax.exponential_decay(LR, 70, 0.9), Exponential(LR, 0.9, 70)),
    "exponential, staircase and floor": (
        lambda optax: optax.exponential_decay(LR, 70, 0.9, staircase=True, end_value=1e-4),
        Exponential(LR, 0.9, 70, staircase=True, floor=1e-4),
    ),
    "exponential, growing": (lambda optax: optax.exponential_decay(LR, 100, 1.01), Exponential(LR, 1.01, 100)),
    "cosine": (lambda optax: optax.cosine_decay_schedule(LR, 9000, alpha=0.1), Cosine(LR, 9000, floor=0.1 * LR)),
    "cosine to zero": (lambda optax: optax.cosine_decay_schedule(LR, 9000), Cosine(LR, 9000)),
    "polynomial": (lambda optax: optax.polynomial_schedule(LR, 0.01, 2.5, 9000), Polynomial(LR, 0.01, 9000, 2.5)),
    "linear": (lambda optax: optax.linear_schedule(0.01, LR, 9000), Linear(0.01, LR, 9000)),
    "piecewise": (
        lambda optax: optax.piecewise_constant_schedule(LR, {100: 0.5, 101: 0.1, 7000: 3.0}),
        Piecewise([LR, 0.5 * LR, 0.05 * LR, 0.15 * LR], [100, 101, 7000]),
    ),
    "join": (
        lambda optax: optax.join_schedules(
            [optax.linear_schedule(0.0, LR, 300), optax.exponential_decay(LR, 50, 0.99), optax.constant_schedule(0.1)],
            [300, 8000],
        ),
        Join([Linear(0, LR, 300), Exponential(LR, 0.99, 50), Constant(0.1)], [300, 8000]),
    ),
    "warm-up and cosine": (
        lambda optax: optax.warmup_cosine_decay_schedule(0.02, LR, 500, 9000, end_value=0.01),
        Warmup(Cosine(LR, 8500, floor=0.01), 500, start=0.02),
    ),
    "warm-up and exponential": (
        lambda optax: optax.warmup_exponential_decay_schedule(0.0, LR, 500, 100, 0.97),
        Warmup(Exponential(LR, 0.97, 100), 500),
    ),
    "restarts": (
        lambda optax: sgdr(optax, [(LR * 0.8**k, 20 * 2**k) for k in range(10)]),
        CosineRestarts(LR, 20, mult=2, decay=0.8, floor=0.01),
    ),
}


@pytest.mark.parametrize("case", OPTAX)
def test_optax(case):
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    make, ours = OPTAX[case]
    t = np.arange(STEPS)
    with jax.enable_x64(True):  # within this block only
        theirs = np.broadcast_to(np.asarray(make(optax)(t.astype(np.float64)), np.float64), t.shape)
    agree(ours(t), theirs)


def test_every_kind_has_a_peer():
    """Inverse time and inverse square root have no twin in either library; their formulas are tested elsewhere."""
    compared = {type(ours) for _, _, ours in TORCH.values()} | {type(ours) for _, ours in OPTAX.values()}
    compared |= {OneCycle, ReduceOnPlateau}
    kinds = {getattr(schedules, name) for name in schedules.__all__ if name[0].isupper()}
    assert kinds - compared == {schedules.Schedule, schedules.InverseTime, schedules.InverseSqrt}
