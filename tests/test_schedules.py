"""Schedules: formulas in exact or long arithmetic, ends, joins, JSON that nobody vouches for, and refusals."""

import copy
import dataclasses
import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import fastnn
from fastnn import schedules
from fastnn.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    InverseTime,
    Join,
    Linear,
    OneCycle,
    Piecewise,
    Polynomial,
    ReduceOnPlateau,
    Schedule,
    Warmup,
    from_json,
)

EXAMPLES = [
    Constant(0.1),
    Exponential(0.1, 0.9, every=10, staircase=True, floor=0.01),
    Cosine(0.1, 90, floor=0.01),
    CosineRestarts(0.1, 10, mult=1.5, decay=0.8, floor=0.01),
    Linear(0.0, 0.1, 50),
    Polynomial(0.1, 0.02, 80, power=0.5),
    Piecewise([0.1, 0.2, 0.05], [20, 60]),
    InverseTime(0.1, 0.5, every=3, staircase=True),
    InverseSqrt(0.1, 25),
    Warmup(Cosine(0.1, 60), 20, start=0.01),
    Join([Warmup(Constant(0.1), 10), Join([Constant(0.2), Linear(0.2, 0, 30)], [10])], [40]),
    OneCycle(0.1, 90, anneal="linear", three_phase=True),
    Cyclic(0.01, 0.1, 10, 20, mode="exp_range", gamma=0.99),
]
ids = [f"{i}-{type(example).__name__}" for i, example in enumerate(EXAMPLES)]
each = pytest.mark.parametrize("schedule", EXAMPLES, ids=ids)


def test_every_schedule_is_among_the_examples():
    public = {getattr(schedules, name) for name in schedules.__all__ if name[0].isupper()}
    assert {type(example) for example in EXAMPLES} == public - {Schedule, ReduceOnPlateau}


# -- values ----------------------------------------------------------------------------------------------------------

FORMULAS = [
    (Constant(0.3), lambda t: 0.3),
    (Exponential(0.3, 0.97, 7), lambda t: 0.3 * math.exp(t / 7 * math.log(0.97))),
    (Exponential(0.3, 0.97, 7, staircase=True), lambda t: 0.3 * math.exp(t // 7 * math.log(0.97))),
    (Exponential(0.3, 0.97, floor=0.1), lambda t: max(0.1, 0.3 * math.exp(t * math.log(0.97)))),
    (Cosine(0.3, 700, 0.1), lambda t: 0.1 + 0.2 * (1 + math.cos(math.pi * min(t, 700) / 700)) / 2),
    (Linear(0.1, 0.3, 700), lambda t: 0.1 + 0.2 * min(t, 700) / 700),
    (Polynomial(0.3, 0.1, 700, 3), lambda t: 0.1 + 0.2 * (1 - min(t, 700) / 700) ** 3),
    (InverseTime(0.3, 0.5, 7), lambda t: 0.3 / (1 + 0.5 * t / 7)),
    (InverseTime(0.3, 0.5, 7, staircase=True), lambda t: 0.3 / (1 + 0.5 * (t // 7))),
    (InverseSqrt(0.3, 40), lambda t: 0.3 * t / 40 if t < 40 else 0.3 * math.sqrt(40 / t)),
    (Piecewise([3, 2, 1], [10, 20]), lambda t: 3 - (t >= 10) - (t >= 20)),
    (Warmup(Linear(0.3, 0, 100), 50, 0.1), lambda t: 0.1 + 0.2 * t / 50 if t < 50 else max(0, 0.3 - 0.003 * (t - 50))),
    (CosineRestarts(0.3, 50, 1, 0.5), lambda t: 0.3 * 0.5 ** (t // 50) * (1 + math.cos(math.pi * (t % 50) / 50)) / 2),
    (Cyclic(0.1, 0.3, 20, 30), lambda t: 0.1 + 0.2 * min((t % 50) / 20, (50 - t % 50) / 30)),
    (Cyclic(0.1, 0.3, 20, mode="triangular2"), lambda t: 0.1 + 0.2 * (1 - abs(t % 40 / 20 - 1)) / 2 ** (t // 40)),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=[repr(s) for s, _ in FORMULAS])
def test_formula(schedule, formula):
    """A handful of roundings on either side, each at most a unit of the largest term."""
    expected = [formula(t) for t in range(1000)]
    np.testing.assert_allclose(schedule(np.arange(1000)), expected, rtol=1e-14, atol=1e-15 * max(expected))


@pytest.mark.parametrize("steps", [10, 1000, 10**6])
def test_cosine_keeps_its_digits_to_the_end(steps):
    """½(1 + cos x) cancels near x = π: at 10⁶ steps nothing but noise is left of it. Here 4 units are the bound."""
    mpmath = pytest.importorskip("mpmath")
    t = steps - np.arange(1, 10)
    with mpmath.workdps(40):
        exact = [float((1 + mpmath.cos(mpmath.pi * int(i) / steps)) / 2) for i in t]
    np.testing.assert_allclose(Cosine(1.0, steps)(t), exact, rtol=4 * np.finfo(float).eps)


@pytest.mark.parametrize("first", [0.1, 1 / 3, 1e-30, 0.7])
@pytest.mark.parametrize("last", [0.0, 0.1, 1e-30, 1 / 7])
def test_ends_are_exact(first, last):
    """No rounding at the ends, and none anywhere where both are the same."""
    high, low = max(first, last), min(first, last)
    for schedule, start, end in [
        (Linear(first, last, 7), first, last),
        (Polynomial(first, last, 7, 2.5), first, last),
        (Cosine(high, 7, low), high, low),
        (CosineRestarts(high, 7, mult=1000, decay=0.5, floor=low), high, max(high / 2, low)),
    ]:
        assert schedule(0) == start
        assert schedule(7) == end
        values = schedule(np.linspace(0, 16, 1000))
        assert values.min() >= low
        assert values.max() <= high
    assert Cyclic(low, high, 3)([0, 3, 6, 9]).tolist() == [low, high, low, high]


def test_continuity():
    """Where phases meet, the two sides differ by no more than a step of 1e-9 can make."""
    joints = [
        (Cosine(0.1, 90, 0.01), [90]),
        (Linear(0.2, 0.1, 50), [50]),
        (Polynomial(0.1, 0.02, 80), [80]),
        (InverseSqrt(0.1, 25), [25]),
        (Exponential(0.1, 0.9, floor=0.01), [math.log(0.1) / math.log(0.9)]),
        (Warmup(Cosine(0.1, 60), 20, start=0.01), [20, 80]),
        (Warmup(InverseSqrt(0.1, 30), 20, start=0.05), [20, 50]),
        (Join([Linear(0, 0.1, 30), Cosine(0.1, 60, 0.03), Constant(0.03)], [30, 90]), [30, 90]),
        (OneCycle(0.1, 100), [29, 99]),
        (OneCycle(0.1, 100, three_phase=True), [29, 58, 99]),
        (Cyclic(0.01, 0.1, 10, 20), [10, 30, 40]),
        (Cyclic(0.01, 0.1, 10, mode="triangular2"), [10, 20, 30, 40]),
    ]
    for schedule, places in joints:
        for place in places:
            assert abs(schedule(place + 1e-9) - schedule(place - 1e-9)) < 1e-9, (schedule, place)


@pytest.mark.parametrize(("steps", "mult"), [(10, "1.1"), (10, "1.5"), (7, "3"), (8, "1.25"), (1, "2"), (3, "1.01")])
def test_restarts_begin_on_time(steps, mult):
    """Cycles in exact arithmetic: k starts at steps·(1 + mult + … + mult^(k−1)), whatever float makes of it."""
    t = np.arange(20_000)
    expected, start, length = [], Fraction(0), Fraction(steps)
    for step in t.tolist():
        while step >= start + length:
            start, length = start + length, length * Fraction(mult)
        expected.append(0.5 * (1 + math.cos(math.pi * (step - start) / length)))
    np.testing.assert_allclose(CosineRestarts(1.0, steps, mult=float(mult))(t), expected, rtol=0, atol=1e-10)


def test_restarts_below_the_floor_stay_on_it():
    schedule = CosineRestarts(1.0, 10, decay=0.1, floor=0.05)
    assert schedule([0, 10, 20, 25]).tolist() == [1.0, 0.1, 0.05, 0.05]


@pytest.mark.parametrize(("steps", "mult"), [(10, 1e300), (10, 1e154), (0.1, 1), (1e-300, 1), (1e300, 3), (7, 2)])
def test_restarts_far_out_are_finite(steps, mult):
    """Where the end of a cycle is past the largest number, or cycles are shorter than numbers are apart."""
    values = CosineRestarts(1.0, steps, mult=mult, decay=0.5, floor=0.01)(10.0 ** np.arange(309))
    assert ((values >= 0.01) & (values <= 1.0)).all()


@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle_with_phases_of_no_length(anneal):
    assert OneCycle(1.0, 10, 0.1, anneal)(0) == 1.0  # the way up ends at step 0
    assert OneCycle(1.0, 10, 1.0, anneal)([0, 9, 10]).tolist() == [0.04, 1.0, 1.0]  # there is no way down
    assert OneCycle(1.0, 1, 0.3, anneal)([0, 5]).tolist() == [4e-6, 4e-6]
    assert OneCycle(1.0, 10, 0.5, anneal, three_phase=True)([4, 8, 9]) == pytest.approx([1.0, 0.04, 4e-6])


# -- what comes in and out -------------------------------------------------------------------------------------------


@each
def test_scalars_and_arrays(schedule):
    values = schedule(np.arange(120))
    assert values.dtype == np.float64
    assert values.shape == (120,)
    assert type(schedule(3)) is float
    assert [schedule(step) for step in range(120)] == values.tolist()
    assert schedule(np.int32(3)) == schedule(3.0) == schedule(np.array(3)) == values[3]
    assert (schedule(np.arange(120).reshape(2, 60)[:, ::2]) == values.reshape(2, 60)[:, ::2]).all()
    assert schedule([]).shape == (0,)
    assert np.isfinite(schedule(10**9))


@each
def test_steps_refused(schedule):
    for bad in (-1, -0.5, math.nan, [3, -1]):
        with pytest.raises(ValueError, match="step must be at least 0, got"):
            schedule(bad)
    for bad in (10**400, [1, 10**400]):
        with pytest.raises(ValueError, match="step must be a number that float64 holds"):
            schedule(bad)
    for wrong in ("soon", object(), ["a"], [[1], [2, 3]]):
        with pytest.raises(TypeError, match="step must be a number or an array of numbers, got"):
            schedule(wrong)


@each
def test_is_a_value(schedule):
    """A run resumes from its step alone: whatever way the schedule travels, it arrives as itself."""
    t = np.arange(120)
    for copied in (
        copy.deepcopy(schedule),
        pickle.loads(pickle.dumps(schedule)),
        eval(repr(schedule), vars(schedules)),
        from_json(schedule.to_json()),
    ):
        assert copied == schedule
        assert hash(copied) == hash(schedule)
        assert (copied(t[50:]) == schedule(t)[50:]).all()
    assert schedule != Constant(12345)
    name = dataclasses.fields(schedule)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(schedule, name, 1)


def test_numpy_numbers_become_python_numbers():
    schedule = Piecewise(np.array([0.5, 0.25], np.float32), np.array([10]))
    assert repr(schedule) == "Piecewise(values=(0.5, 0.25), boundaries=(10,))"
    assert json.loads(schedule.to_json()) == {"schedule": "Piecewise", "values": [0.5, 0.25], "boundaries": [10]}
    assert Cosine(np.float64(1), np.int64(5)) == Cosine(1.0, 5)


def test_drives_lr_momentum_and_weight_decay():
    """SGD on a constant gradient, written out; the plateau drives as well."""
    lr, momentum, decay = Cosine(0.1, 20), Linear(0.5, 0.9, 10), Exponential(0.1, 0.5)
    theta = fastnn.Parameter(np.array([2.0]))
    optimizer = fastnn.SGD([theta], lr=lr, momentum=momentum, weight_decay=decay)
    x, velocity = 2.0, 0.0
    for step in range(20):
        theta.grad[...] = 1.0
        assert optimizer.step() == lr(step)
        gradient = 1.0 + decay(step) * x
        velocity = momentum(step) * velocity + gradient
        x -= lr(step) * velocity
        assert theta.data[0] == pytest.approx(x, rel=1e-14)

    plateau = ReduceOnPlateau(0.1, factor=0.5, patience=0)
    optimizer = fastnn.SGD([theta], lr=plateau)
    assert optimizer.step() == 0.1
    for _ in range(2):
        plateau.update(1.0)
    assert optimizer.step() == 0.05


# -- JSON ------------------------------------------------------------------------------------------------------------

HOSTILE = [
    ("", "Expecting value"),
    ("3", "object with the key"),
    ("[]", "object with the key"),
    ("{}", "object with the key"),
    ('{"schedule": 3}', "object with the key"),
    ('{"schedule": ["Cosine"]}', "object with the key"),
    ('{"schedule": "ReduceOnPlateau", "lr": 1}', "schedule must be one of Constant"),
    ('{"schedule": "__import__", "lr": 1}', "schedule must be one of Constant"),
    ('{"schedule": "Schedule"}', "schedule must be one of Constant"),
    ('{"schedule": "Constant"}', "Constant needs lr"),
    ('{"schedule": "Cosine", "lr": 1}', "Cosine needs steps"),
    ('{"schedule": "Constant", "lr": 1, "_at": 2}', "Constant takes lr, got"),
    ('{"schedule": "Constant", "lr": 1, "lr": 2}', "repeat a key"),
    ('{"schedule": "Constant", "lr": "1"}', "lr must be a real number, got str"),
    ('{"schedule": "Constant", "lr": true}', "lr must be a real number, got bool"),
    ('{"schedule": "Constant", "lr": null}', "lr must be a real number, got NoneType"),
    ('{"schedule": "Constant", "lr": [1]}', "lr must be a real number, got list"),
    ('{"schedule": "Constant", "lr": {"a": 1}}', "object with the key"),
    ('{"schedule": "Constant", "lr": {"schedule": "Constant", "lr": 1}}', "lr must be a real number, got Constant"),
    ('{"schedule": "Constant", "lr": NaN}', "finite, got NaN"),
    ('{"schedule": "Constant", "lr": -Infinity}', "finite, got -Infinity"),
    ('{"schedule": "Constant", "lr": 1e999}', "lr must be finite"),
    ('{"schedule": "Constant", "lr": 1%s}' % ("0" * 400), "lr must be finite"),
    ('{"schedule": "Constant", "lr": 1%s}' % ("0" * 5000), "limit|finite"),
    ('{"schedule": "Exponential", "lr": 1, "rate": 0.5, "staircase": 1}', "staircase must be True or False"),
    ('{"schedule": "OneCycle", "max_lr": 1, "steps": 9, "anneal": ["cos"]}', "anneal must be one of"),
    ('{"schedule": "Warmup", "then": 0.1, "steps": 3}', "then must be a schedule, got float"),
    ('{"schedule": "Join", "schedules": "ab", "boundaries": [1]}', "schedules must be a sequence, got str"),
    ('{"schedule": "Join", "schedules": [], "boundaries": []}', "schedules must hold at least one, got none"),
    ('{"schedule": "Join", "schedules": [1], "boundaries": []}', "each of schedules must be a schedule, got int"),
    ('{"schedule": "Piecewise", "values": [1, 2], "boundaries": "3"}', "boundaries must be a sequence"),
    ("[" * 100_000, "nest schedules so deeply|Expecting value"),
    ('{"schedule": "Warmup", "steps": 1, "then": ' * 5000 + "1" + "}" * 5000, "nest schedules so deeply"),
]


@pytest.mark.parametrize(("text", "message"), HOSTILE, ids=[text[:70] for text, _ in HOSTILE])
def test_hostile_json(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text)


def test_json_must_be_text():
    with pytest.raises(TypeError, match="text must be a str, got dict"):
        from_json({"schedule": "Constant", "lr": 1})


def test_json_defaults():
    assert from_json('{"lr": 1, "schedule": "Cosine", "steps": 10}') == Cosine(1, 10)


def test_nested_warmups_cost_one_call_each():
    schedule = Constant(0.1)
    for _ in range(60):
        schedule = Warmup(schedule, 1)
    assert from_json(schedule.to_json())([0, 59, 60]).tolist() == [0.0, 0.0, 0.1]


# -- refusals --------------------------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
SENSELESS = [
    (lambda: Constant(-0.1), "lr must be finite and at least 0, got -0.1"),
    (lambda: Constant(NAN), "lr must be finite"),
    (lambda: Exponential(1, 0), "rate must be finite and more than 0, got 0"),
    (lambda: Exponential(1, 0.5, every=0), "every must be"),
    (lambda: Exponential(0.1, 0.5, floor=0.2), "floor must not be more than lr, 0.1, got 0.2"),
    (lambda: Exponential(0.1, 0.5, floor=-1), "floor must be"),
    (lambda: Cosine(INF, 10), "lr must be finite"),
    (lambda: Cosine(1, 0), "steps must be finite and more than 0, got 0"),
    (lambda: Cosine(1, -5), "steps must be"),
    (lambda: Cosine(1, 5, 2), "floor must not be more"),
    (lambda: CosineRestarts(1, 10, mult=0.5), "mult must be finite and at least 1, got 0.5"),
    (lambda: CosineRestarts(1, 10, decay=0), "decay must be finite and more than 0 and at most 1, got 0"),
    (lambda: CosineRestarts(1, 10, decay=1.1), "decay must be"),
    (lambda: CosineRestarts(1, 10, floor=1.1), "floor must not be more"),
    (lambda: Linear(-1, 1, 10), "start must be"),
    (lambda: Linear(1, -1, 10), "end must be"),
    (lambda: Linear(1, 1, 0), "steps must be"),
    (lambda: Polynomial(1, 0, 10, power=0), "power must be"),
    (lambda: Piecewise([], []), "values must hold at least one, got none"),
    (lambda: Piecewise([1, -1], [5]), "values must be"),
    (lambda: Piecewise([1, 2], [5, 6]), "boundaries must be 1, one fewer than the phases they separate, got 2"),
    (lambda: Piecewise([1, 2, 3], [6, 6]), r"boundaries must increase, got \[6, 6\]"),
    (lambda: Piecewise([1, 2], [0]), "boundaries must be finite and more than 0, got 0"),
    (lambda: InverseTime(1, -1), "rate must be"),
    (lambda: InverseTime(1, 1, every=-1), "every must be"),
    (lambda: InverseSqrt(1, 0), "warmup must be"),
    (lambda: Warmup(Constant(1), -1), "steps must be"),
    (lambda: Warmup(Constant(1), 1, start=-1), "start must be"),
    (lambda: Join([], []), "schedules must hold at least one"),
    (lambda: Join([Constant(1)], [5]), "boundaries must be 0, one fewer"),
    (lambda: Join([Constant(1)] * 3, [5, 4]), "boundaries must increase"),
    (lambda: OneCycle(1, 0), "steps must be finite and at least 1, got 0"),
    (lambda: OneCycle(1, 10, pct_start=1.5), "pct_start must be finite and between 0 and 1, got 1.5"),
    (lambda: OneCycle(1, 10, pct_start=0.6, three_phase=True), "pct_start must be at most 0.5 with three_phase"),
    (lambda: OneCycle(1, 10, anneal="exp"), "anneal must be one of 'cos', 'linear', got 'exp'"),
    (lambda: OneCycle(1, 10, div_factor=0), "div_factor must be"),
    (lambda: OneCycle(1, 10, final_div_factor=-1), "final_div_factor must be"),
    (lambda: Cyclic(0.2, 0.1), "base_lr must not be more than max_lr, 0.1, got 0.2"),
    (lambda: Cyclic(0.1, 0.2, up=0), "up must be"),
    (lambda: Cyclic(0.1, 0.2, down=0), "down must be"),
    (lambda: Cyclic(0.1, 0.2, mode="square"), "mode must be one of"),
    (lambda: Cyclic(0.1, 0.2, gamma=0), "gamma must be"),
    (lambda: ReduceOnPlateau(-1), "lr must be"),
    (lambda: ReduceOnPlateau(1, "least"), "mode must be one of 'min', 'max', got 'least'"),
    (lambda: ReduceOnPlateau(1, factor=1.0), "factor must be less than 1, got 1.0"),
    (lambda: ReduceOnPlateau(1, factor=0), "factor must be"),
    (lambda: ReduceOnPlateau(1, patience=-1), "patience must be at least 0, got -1"),
    (lambda: ReduceOnPlateau(1, threshold=-1), "threshold must be"),
    (lambda: ReduceOnPlateau(1, threshold=1), "threshold must be less than 1 with threshold_mode 'rel', got 1"),
    (lambda: ReduceOnPlateau(1, threshold_mode="none"), "threshold_mode must be one of"),
    (lambda: ReduceOnPlateau(1, cooldown=-1), "cooldown must be"),
    (lambda: ReduceOnPlateau(1, min_lr=2), "min_lr must not be more than lr, 1, got 2"),
    (lambda: ReduceOnPlateau(1, eps=-1), "eps must be"),
]


@pytest.mark.parametrize(("make", "message"), SENSELESS, ids=range(len(SENSELESS)))
def test_senseless_parameters(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant("0.1"), "lr must be a real number, got str"),
        (lambda: Constant(True), "lr must be a real number, got bool"),
        (lambda: Exponential(1, 0.5, staircase=1), "staircase must be True or False, got int"),
        (lambda: Warmup(0.1, 10), "then must be a schedule, got float"),
        (lambda: Join([Constant(1), 0.1], [5]), "each of schedules must be a schedule, got float"),
        (lambda: Piecewise(0.1, []), "values must be a sequence, got float"),
        (lambda: Piecewise([0.1, 0.2], 5), "boundaries must be a sequence of numbers, got int"),
        (lambda: ReduceOnPlateau(1, patience=1.5), "patience must be an integer, got float"),
    ],
)
def test_wrong_types(make, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        make()


# -- plateau ---------------------------------------------------------------------------------------------------------


def test_plateau_drives_like_a_schedule():
    plateau = ReduceOnPlateau(0.1, factor=0.5, patience=0)
    assert plateau(0) == plateau.lr == 0.1
    assert plateau.update(1.0) == 0.1
    assert plateau.update(1.0) == plateau(1000) == plateau.lr == 0.05
    with pytest.raises(AttributeError):
        plateau.lr = 1.0
    for wrong in ("1", None, [1.0]):
        with pytest.raises(TypeError, match="metric must be a number, got"):
            plateau.update(wrong)
    with pytest.raises(ValueError, match="metric must be a number that float64 holds, got a larger integer"):
        plateau.update(10**400)
    assert plateau.state_dict()["num_bad_epochs"] == 0


def test_plateau_resumes_from_its_state():
    metrics = np.random.default_rng(1).normal(size=200)
    parameters = {"patience": 2, "cooldown": 3, "factor": 0.9}
    whole = ReduceOnPlateau(0.1, **parameters)
    expected = [whole.update(metric) for metric in metrics]
    for split in (0, 1, 57, 100):
        first, second = ReduceOnPlateau(0.1, **parameters), ReduceOnPlateau(0.1, **parameters)
        before = [first.update(metric) for metric in metrics[:split]]
        second.load_state_dict({key: np.array(value) for key, value in first.state_dict().items()})
        assert before + [second.update(metric) for metric in metrics[split:]] == expected
        assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr must be"),
        ({"lr": "1"}, TypeError, "lr must be"),
        ({"best": "1"}, TypeError, "best must be a real number, got str"),
        ({"num_bad_epochs": -1}, ValueError, "num_bad_epochs must be"),
        ({"num_bad_epochs": 0.5}, TypeError, "num_bad_epochs must be"),
        ({"cooldown_counter": -1}, ValueError, "cooldown_counter must be"),
        ({"other": 1}, ValueError, "keys lr, best, num_bad_epochs, cooldown_counter, got"),
    ],
)
def test_plateau_refuses_a_state_whole(change, error, message):
    plateau = ReduceOnPlateau(0.1)
    before = plateau.state_dict()
    with pytest.raises(error, match=message):
        plateau.load_state_dict({"lr": 0.01, "best": 1.0, "num_bad_epochs": 1, "cooldown_counter": 1} | change)
    with pytest.raises(ValueError, match="keys"):
        plateau.load_state_dict({"lr": 0.01})
    assert plateau.state_dict() == before


def test_plot():
    pytest.importorskip("matplotlib").use("agg")
    import matplotlib.pyplot as plt

    ax = schedules.plot(Cosine(0.1, 50), 60)
    again = schedules.plot(Linear(0.1, 0, 50), 40, ax=ax)
    assert again is ax
    x, y = ax.lines[0].get_data()
    assert (x == np.arange(60)).all()
    assert (y == Cosine(0.1, 50)(x)).all()
    assert len(ax.lines[1].get_xdata()) == 40
    plt.close(ax.figure)
