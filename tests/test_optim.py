"""SGD against its formula in long double, and against PyTorch and Optax."""

import copy
import math
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastnn
from fastnn import _kernels, optim, schedules
from fastnn.optim import L2Ball, MaxRowNorm

Real = np.longdouble
DTYPES = (np.float32, np.float64)
PIECE = 16384  # elements of one piece of the kernels' table
CONFIGURATIONS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "maximize": True},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    {"weight_decay": 0.1, "decoupled": True},
    {"momentum": 0.9, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    {"momentum": 0.9, "weight_decay": 0.1, "decoupled": True, "nesterov": True},
]


def reference_step(p, g, b, lr=0.001, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False,
                   decoupled=False, factor=1.0):  # fmt: skip
    """New (parameter, buffer) of one tensor in long double, and the size of the largest term; b None at first."""
    p, g = p.astype(Real), g.astype(Real) * factor
    g = -g if maximize else g
    size = np.abs(p) + lr * np.abs(g)
    if weight_decay and not decoupled:
        g = g + Real(weight_decay) * p
    if momentum:
        size += lr * (np.abs(g) + (0 if b is None else np.abs(b)))
        b = g if b is None else Real(momentum) * b.astype(Real) + (1 - Real(dampening)) * g
        g = g + Real(momentum) * b if nesterov else b
    p = p - Real(lr) * g
    if decoupled:
        p = p - Real(lr) * Real(weight_decay) * p
    return p, b, size


def make(shapes, dtype=np.float32, seed=0):
    """Parameters of these shapes with random data and gradients."""
    rng = np.random.default_rng(seed)
    parameters = [fastnn.Parameter(rng.standard_normal(shape).astype(dtype)) for shape in shapes]
    renew(parameters, rng)
    return parameters, rng


def renew(parameters, rng):
    for p in parameters:
        p.grad[...] = rng.standard_normal(p.data.shape)


def snapshot(parameters):
    return [p.data.copy() for p in parameters]


def hand_over(p):
    """A gradient and its parameter's dtype's unit roundoff."""
    return np.finfo(p.data.dtype).eps / 2


# ---- the update --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", CONFIGURATIONS, ids=str)
def test_each_step_is_the_formula(dtype, options):
    sizes = [0, 1, 7, 8, 15, 16, 17, 31, 63, 64, 65, 1000, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 3]
    parameters, rng = make([(n,) for n in sizes] + [(3, 5, 7), ()], dtype)
    optimizer = fastnn.SGD(parameters, lr=0.3, **options)
    buffers = [None] * len(parameters)
    for _ in range(3):
        before = snapshot(parameters)
        assert optimizer.step() == 0.3
        for k, (p, old) in enumerate(zip(parameters, before)):
            expected, buffer, size = reference_step(old, p.grad, buffers[k], lr=0.3, **options)
            # at most eight roundings, each of a number not greater than twice the largest term
            assert np.all(np.abs(p.data - expected) <= 16 * hand_over(p) * size)
            if buffer is not None:
                buffers[k] = optimizer.state_dict()[f"momentum.{k}"]
                assert np.all(np.abs(buffers[k] - buffer) <= 8 * hand_over(p) * np.abs(size) / 0.3)
        renew(parameters, rng)
    assert optimizer.steps == 3


def test_first_step_with_dampening_uses_the_gradient_itself():
    p = fastnn.Parameter(np.zeros(3))
    p.grad[...] = 1.0, -2.0, 3.0
    fastnn.SGD([p], lr=1.0, momentum=0.9, dampening=0.5).step()
    assert np.array_equal(p.data, [-1.0, 2.0, -3.0])


def test_order_of_a_step():
    """Clip the raw gradient, negate, decay, average, update, constrain."""
    p = fastnn.Parameter(np.array([3.0, 4.0]))
    p.grad[...] = 30.0, 40.0
    fastnn.SGD([p], lr=0.5, weight_decay=0.1, maximize=True, clip_norm=10.0, constraint=L2Ball(1.0)).step()
    clipped = np.array([30.0, 40.0]) * (10.0 / (50.0 + 1e-6))
    updated = np.array([3.0, 4.0]) - 0.5 * (-clipped + 0.1 * np.array([3.0, 4.0]))
    assert np.allclose(p.data, updated / np.linalg.norm(updated), rtol=1e-15, atol=0)
    assert np.array_equal(p.grad, [30.0, 40.0])


def test_decoupled_decay_comes_after_the_update():
    p = fastnn.Parameter(np.array([2.0]))
    p.grad[...] = 1.0
    fastnn.SGD([p], lr=0.5, weight_decay=0.5, decoupled=True).step()
    assert p.data[0] == (2.0 - 0.5) * (1 - 0.25)


def test_parameters_without_decay_are_exempt():
    for decoupled in (False, True):
        weight, bias = fastnn.Parameter(np.ones(70)), fastnn.Parameter(np.ones(70), decay=False)
        fastnn.SGD([weight, bias], lr=0.5, weight_decay=0.5, decoupled=decoupled).step()
        assert np.all(weight.data == 0.75)
        assert np.all(bias.data == 1.0)


def test_terms_switched_off_are_left_out():
    """An infinite parameter without decay stays infinite; times zero it would be NaN."""
    p = fastnn.Parameter(np.array([np.inf, 1.0]))
    p.grad[...] = 1.0
    fastnn.SGD([p], lr=0.5).step()
    assert np.array_equal(p.data, [np.inf, 0.5])


def test_mixed_precisions():
    single, double = fastnn.Parameter(np.ones(5, np.float32)), fastnn.Parameter(np.ones(5))
    single.grad[...] = double.grad[...] = 0.1
    fastnn.SGD([single, double], lr=0.1).step()
    assert np.all(single.data == np.float32(1) - np.float32(0.1) * np.float32(0.1))
    assert np.allclose(double.data, 0.99, rtol=1e-16)


# ---- the same bits -----------------------------------------------------------------------------------------------


def run_everything():
    """The bytes after steps that use every kernel."""
    # enough memory for every pass to get a team of threads
    parameters, rng = make([(2 * PIECE + 5,), (300, 130), (7,), (65, 3, 3, 3), (20, 30_000)])
    doubles, _ = make([(PIECE + 3,), (40, 33)], np.float64, 1)
    parameters += doubles
    accumulator = fastnn.GradientAccumulator(parameters, statistics=True)
    optimizers = [
        fastnn.SGD(parameters, 0.1, 0.9, weight_decay=0.01, clip_norm=50.0, constraint=constraint, nesterov=nesterov)
        for constraint in (L2Ball(100.0), MaxRowNorm(1.5), None)
        for nesterov in (False, True)
    ]
    numbers = []
    for optimizer in optimizers:
        for weight in (3, 5):
            renew(parameters, rng)
            accumulator.add(weight)
        accumulator.finish()
        numbers += [optimizer.step(), accumulator.trace_cov, accumulator.grad_sq_norm]
    return b"".join(p.data.tobytes() for p in parameters) + np.array(numbers).tobytes()


def test_bits_do_not_depend_on_threads():
    before = fastnn.get_num_threads()
    results = set()
    try:
        for threads in (1, 2, 3, 8):
            fastnn.set_num_threads(threads)
            results.add(run_everything())
    finally:
        fastnn.set_num_threads(before)
    assert len(results) == 1


def test_bits_do_not_depend_on_the_build():
    """Every build with fused multiply-add gives the bytes of the one in use."""
    builds = [level for level in _kernels.available() if level in ("x86_64_v3", "x86_64_v4")]
    if len(builds) < 2:
        pytest.skip("only one build with fused multiply-add runs here")
    code = "import sys, test_optim; sys.stdout.buffer.write(test_optim.run_everything())"
    results = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "FASTNN_ISA": level,
                "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
            },
            capture_output=True,
            check=True,
        ).stdout
        for level in builds
    }
    assert len(results) == 1


# ---- hyper-parameters ----------------------------------------------------------------------------------------------


def test_groups_have_their_own_options():
    a, b = fastnn.Parameter(np.ones(3)), fastnn.Parameter(np.ones(3))
    a.grad[...] = b.grad[...] = 1.0
    optimizer = fastnn.SGD([{"params": [a], "lr": 0.25}, {"params": b, "maximize": True}], lr=0.5)
    assert optimizer.step() == 0.25
    assert np.all(a.data == 0.75)
    assert np.all(b.data == 1.5)
    optimizer.param_groups[1]["lr"] = 0.0
    optimizer.step()
    assert np.all(b.data == 1.5)


def test_a_group_may_be_empty():
    p = fastnn.Parameter(np.ones(3))
    p.grad[...] = 1.0
    fastnn.SGD([{"params": []}, {"params": [p]}, {"params": []}], lr=0.5, momentum=0.9).step()
    assert np.all(p.data == 0.5)


def test_hyper_parameters_follow_schedules():
    p = fastnn.Parameter(np.array([8.0]))
    seen = []

    def lr(step):
        seen.append(step)
        return np.float32(0.5**step)

    optimizer = fastnn.SGD([p], lr=lr, momentum=lambda step: 0.5 * step, weight_decay=lambda step: step / 4)
    expected, buffer = 8.0, 0.0
    for step in range(3):
        p.grad[...] = 1.0
        assert optimizer.step() == 0.5**step
        gradient = 1.0 + step / 4 * expected
        buffer = gradient if step == 0 else 0.5 * step * buffer + gradient
        expected -= 0.5**step * buffer
        assert p.data[0] == expected
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(("bad", "error"), [(math.nan, ValueError), ("x", TypeError), (None, TypeError)])
@pytest.mark.parametrize("name", ["lr", "momentum", "dampening", "weight_decay"])
def test_a_bad_value_set_in_a_group_changes_nothing(name, bad, error):
    p = fastnn.Parameter(np.ones(3))
    optimizer = fastnn.SGD([p], 0.1, 0.9)
    p.grad[:] = 1
    optimizer.step()
    optimizer.param_groups[0][name] = bad
    before, state = p.data.copy(), optimizer.state_dict()
    with pytest.raises(error, match=f"{name} must be"):
        optimizer.step()
    np.testing.assert_array_equal(p.data, before)
    np.testing.assert_array_equal(optimizer.state_dict()["momentum.0"], state["momentum.0"])
    assert optimizer.steps == 1


def test_a_schedule_may_have_state():
    plateau = schedules.ReduceOnPlateau(0.5, patience=0)
    optimizer = fastnn.SGD([fastnn.Parameter(np.ones(1))], lr=plateau)
    assert optimizer.step() == 0.5
    for _ in range(2):
        plateau.update(1.0)
    assert optimizer.step() == 0.05


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay"])
def test_a_bad_value_of_a_schedule_changes_nothing(name, bad):
    parameters, _ = make([(5,), (6,)])
    optimizer = fastnn.SGD(parameters, **{name: lambda step: bad})
    before = snapshot(parameters)
    with pytest.raises(ValueError, match=f"{name} must be finite and at least 0, got"):
        optimizer.step()
    assert all(np.array_equal(p.data, old) for p, old in zip(parameters, before))
    assert optimizer.steps == 0


P = fastnn.Parameter(np.ones((1, 1)))
Q = fastnn.Parameter(np.ones((1, 1)))


@pytest.mark.parametrize(
    ("params", "options", "error", "message"),
    [
        (P, {}, TypeError, "params must be a list of Parameters or of dicts, got Parameter"),
        ({P}, {}, TypeError, "got set"),
        ([1.0], {}, TypeError, "params must hold Parameters, got float as number 0"),
        ([], {}, ValueError, "at least one Parameter"),
        ([{"params": [P]}, Q], {}, TypeError, "only dicts or only Parameters, got Parameter"),
        ([{"params": [P]}, {"params": [P]}], {}, ValueError, "some parameters appear in more than one parameter group"),
        ([{"params": [P], "rate": 1.0}], {}, ValueError, "options of .* got .*rate"),
        ([{"lr": 1.0}], {}, ValueError, "must have 'params'"),
        ([("weight", P), Q], {}, ValueError, "names or none: the first without is number 1"),
        ([{"params": [P]}, {"params": [("weight", Q)]}], {}, ValueError, "names"),
        ([{"params": [("w", P)]}, {"params": [("w", Q)]}], {}, ValueError, "different names"),
        ([P], {"lr": -0.1}, ValueError, "lr must be finite and at least 0, got -0.1"),
        ([P], {"lr": np.array([0.1, 0.2])}, ValueError, r"lr must be one number, got an array of shape \(2,\)"),
        ([P], {"lr": "fast"}, TypeError, "lr must be a number, got str"),
        ([P], {"lr": 10**400}, ValueError, "lr must be a number that float64 holds, got a larger integer"),
        ([P], {"momentum": -0.5}, ValueError, "momentum must be finite and at least 0, got -0.5"),
        ([P], {"weight_decay": math.nan}, ValueError, "weight_decay"),
        ([P], {"dampening": math.inf}, ValueError, "dampening must be finite, got inf"),
        ([P], {"clip_norm": -1.0}, ValueError, "clip_norm"),
        ([P], {"nesterov": True}, ValueError, "nesterov needs momentum above 0 and dampening 0"),
        ([P], {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "nesterov needs"),
        ([P], {"constraint": 1.0}, TypeError, "constraint must be an L2Ball, a MaxRowNorm or None, got float"),
    ],
)
def test_errors_of_construction(params, options, error, message):
    with pytest.raises(error, match=message):
        fastnn.SGD(params, **options)


def test_a_duplicate_in_a_group_warns_and_is_stepped_once():
    p = fastnn.Parameter(np.ones(2))
    p.grad[...] = 1.0
    with pytest.warns(UserWarning, match="a parameter group with duplicate parameters"):
        optimizer = fastnn.SGD([p, p], lr=0.5)
    optimizer.step()
    assert np.all(p.data == 0.5)


# ---- arrays --------------------------------------------------------------------------------------------------------


def awkward(array, kind):
    """An array of equal values that kernels cannot use directly."""
    if kind == "fortran":
        return np.asfortranarray(array)
    if kind == "strided":
        return np.repeat(array, 2, axis=1)[:, ::2]
    if kind == "swapped":
        return array.astype(array.dtype.newbyteorder())
    if kind == "misaligned":
        raw = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        raw[...] = array
        return raw
    return array


@pytest.mark.parametrize("kind", ["fortran", "strided", "misaligned"])
def test_awkward_parameters_are_stepped_in_place(kind):
    plain, odd = make([(6, 5)])[0][0], make([(6, 5)])[0][0]
    odd.data = data = awkward(odd.data, kind)
    for p in (plain, odd):
        optimizer = fastnn.SGD([p], 0.1, 0.9, constraint=MaxRowNorm(1.0))
        optimizer.step()
        optimizer.step()
    assert odd.data is data
    assert np.array_equal(plain.data, odd.data)


@pytest.mark.parametrize("kind", ["fortran", "strided", "swapped", "misaligned", "readonly"])
def test_awkward_gradients(kind):
    plain, odd = make([(6, 5)])[0][0], make([(6, 5)])[0][0]
    odd.grad = awkward(odd.grad, kind)
    odd.grad.flags.writeable = kind != "readonly"
    for p in (plain, odd):
        fastnn.SGD([p], 0.1, clip_norm=1.0).step()
    assert np.array_equal(plain.data, odd.data)


def test_arrays_may_be_replaced_between_steps():
    p = fastnn.Parameter(np.zeros(3))
    optimizer = fastnn.SGD([p], lr=1.0, momentum=0.5)
    for step in range(3):
        p.data, p.grad = np.full(3, 10.0 * step), np.ones(3)
        optimizer.step()
        assert np.all(p.data == 10.0 * step - [1.0, 1.5, 1.75][step])


@pytest.mark.parametrize(
    ("role", "array", "error", "message"),
    [
        ("grad", np.ones((3, 2)), ValueError, r"grad of parameter 1 must have shape \(2, 3\), got \(3, 2\)"),
        ("grad", np.ones((2, 3), np.float32), TypeError, "grad of parameter 1 must be an array of float64, got .*32"),
        ("grad", None, TypeError, "grad of parameter 1 must be an array of float64, got NoneType"),
        ("data", np.ones(5), ValueError, "data of parameter 1 must have 6 elements, as at first"),
        ("data", np.broadcast_to(1.0, (2, 3)), ValueError, "data of parameter 1 must be writeable"),
    ],
)
def test_arrays_that_do_not_fit_change_nothing(role, array, error, message):
    parameters, _ = make([(4,), (2, 3)], np.float64)
    optimizer = fastnn.SGD(parameters, lr=1.0)
    setattr(parameters[1], role, array)
    before = parameters[0].data.copy()
    with pytest.raises(error, match=message):
        optimizer.step()
    assert np.array_equal(parameters[0].data, before)


def test_zero_grad():
    parameters, _ = make([(PIECE + 1,), (3, 4), ()])
    parameters[1].grad = np.asfortranarray(parameters[1].grad)
    fastnn.SGD(parameters).zero_grad()
    assert not any(p.grad.any() for p in parameters)


# ---- clipping and skipping -----------------------------------------------------------------------------------------


MAGNITUDES = [(dtype, scale) for dtype in DTYPES for scale in (1.0, 1e30, 1e-30)]
MAGNITUDES += [(np.float64, scale) for scale in (1e200, 1e180, 1e-160, 1e-200)]  # whose squares are no float64


@pytest.mark.parametrize(("dtype", "scale"), MAGNITUDES)
def test_gradient_norm_at_any_magnitude(dtype, scale):
    parameters, _ = make([(5,), (PIECE + 7,), (31, 17)], dtype)
    for p in parameters:
        p.grad *= dtype(scale)
    exact = np.sqrt(sum((p.grad.astype(Real) ** 2).sum() for p in parameters))
    grads = [p.grad.copy() for p in parameters]
    limit = float(exact) / 2
    norm = optim.clip_grad_norm(parameters, limit)
    assert abs(norm - exact) <= 1e-14 * exact
    factor = min(1.0, limit / (norm + 1e-6))
    for p, g in zip(parameters, grads):
        assert np.allclose(p.grad, g.astype(Real) * factor, rtol=3 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


def test_clipping_leaves_small_gradients_alone():
    parameters, _ = make([(9,), (4, 4)])
    before = [p.grad.copy() for p in parameters]
    optim.clip_grad_norm(parameters, 1e3)
    assert all(np.array_equal(p.grad, old) for p, old in zip(parameters, before))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_nonfinite_step_is_skipped_and_counted(dtype, bad):
    parameters, _ = make([(5,), (2 * PIECE,)], dtype)
    good = [p.grad.copy() for p in parameters]
    twin, _ = make([(5,), (2 * PIECE,)], dtype)
    optimizer = fastnn.SGD(parameters, 0.1, 0.9, dampening=0.5, skip_nonfinite=True)
    plain = fastnn.SGD(twin, 0.1, 0.9, dampening=0.5)
    before = snapshot(parameters)
    parameters[1].grad[PIECE + 3] = bad
    assert optimizer.step() == 0.1
    assert all(np.array_equal(p.data, old) for p, old in zip(parameters, before))
    assert (optimizer.steps, optimizer.skipped) == (0, 1)
    assert "momentum.0" not in optimizer.state_dict()
    for p, g in zip(parameters, good):
        p.grad[...] = g
    for _ in range(2):
        optimizer.step()
        plain.step()
    assert all(np.array_equal(p.data, q.data) for p, q in zip(parameters, twin))
    assert (optimizer.steps, optimizer.skipped) == (2, 1)


def test_a_nonfinite_gradient_is_not_hidden_without_skipping():
    p = fastnn.Parameter(np.ones(3))
    p.grad[...] = math.nan, 1.0, 1.0
    fastnn.SGD([p], lr=0.5).step()
    assert np.array_equal(p.data, [math.nan, 0.5, 0.5], equal_nan=True)


# ---- constraints and penalty ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "scale"), MAGNITUDES)
def test_ball(dtype, scale):
    parameters, _ = make([(5,), (PIECE + 7,), (31, 17)], dtype)
    for p in parameters:
        p.data *= dtype(scale)
    before = snapshot(parameters)
    norm = float(np.sqrt(sum((b.astype(Real) ** 2).sum() for b in before)))
    radius = 0.5 * norm if 1e-100 < norm < 1e100 else 2.0  # h is its square and has to be a float too
    if norm < 1e100:
        L2Ball(max(2.0 * norm, radius) ** 2).project(parameters)
        assert all(np.array_equal(p.data, b) for p, b in zip(parameters, before))
    fastnn.SGD(parameters, lr=0.0, constraint=L2Ball(radius**2)).step()
    for p, b in zip(parameters, before):
        expected = b.astype(Real) * min(1.0, radius / norm)
        assert np.allclose(p.data, expected, rtol=2 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("project", [True, False])
def test_max_row_norm(dtype, project):
    shapes = [(4,), (100, 3), (1, 2 * PIECE), (3, PIECE + 1), (16, 3, 5, 5), (40, 1000), (0, 4), (4, 0)]
    parameters, _ = make(shapes, dtype)
    parameters[1].data *= dtype(1e-3)
    before = snapshot(parameters)
    if project:
        MaxRowNorm(5.0).project(parameters)
    else:
        fastnn.SGD(parameters, lr=0.0, constraint=MaxRowNorm(5.0)).step()
    for p, b in zip(parameters, before):
        if b.ndim == 1 or b.size == 0:
            assert np.array_equal(p.data, b)
            continue
        norms = np.sqrt((b.astype(Real) ** 2).reshape(len(b), -1).sum(axis=1))
        factors = np.minimum(1, 5.0 / norms).reshape(-1, *[1] * (b.ndim - 1))
        assert np.allclose(p.data, b * factors, rtol=2 * np.finfo(dtype).eps, atol=0)
        assert np.array_equal(p.data[norms < 5.0], b[norms < 5.0])


def test_max_row_norm_of_huge_rows():
    p = fastnn.Parameter(np.full((2, 3), 1e300))
    MaxRowNorm(1.0).project([p])
    assert np.allclose(p.data, 1 / math.sqrt(3), rtol=1e-14)


def test_constraints_are_checked():
    with pytest.raises(ValueError, match="h must be finite and at least 0, got -1"):
        L2Ball(-1.0)
    with pytest.raises(ValueError, match="c must be finite and at least 0, got nan"):
        MaxRowNorm(math.nan)


@pytest.mark.parametrize("dtype", DTYPES)
def test_l2_penalty_is_what_weight_decay_descends(dtype):
    parameters, _ = make([(PIECE + 3,), (5, 6), (7,)], dtype)
    parameters[2].decay = False
    exact = sum((p.data.astype(Real) ** 2).sum() for p in parameters[:2]) * 0.3 / 2
    assert abs(optim.l2_penalty(parameters, 0.3) - exact) <= 1e-14 * exact
    assert optim.l2_penalty(parameters[2:], 0.3) == 0.0


def test_gradient_noise():
    parameters, _ = make([(40_000,), (300, 100)])
    before = [p.grad.copy() for p in parameters]
    optim.add_gradient_noise(parameters, 0.5, rng=3)
    noise = np.concatenate([(p.grad - b).ravel() for p, b in zip(parameters, before)]) / 0.5
    assert abs(noise.mean()) <= 5 / math.sqrt(noise.size)
    assert abs(noise.var() - 1) <= 5 * math.sqrt(2 / noise.size)
    optim.add_gradient_noise(parameters, 0.0)


# ---- state ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_resumed_run_ends_in_equal_bytes(dtype, tmp_path):
    options = {"lr": schedules.Exponential(0.1, 0.9), "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}
    shapes = [(5,), (33, 7), (PIECE + 1,)]
    whole, rng = make(shapes, dtype)
    part, twin_rng = make(shapes, dtype)
    through, halves = fastnn.SGD(whole, **options), fastnn.SGD(part, **options)
    for step in range(6):
        if step == 3:
            state = {key: np.asarray(value) for key, value in halves.state_dict().items()}
            fastnn.save(tmp_path / "state.safetensors", state)
            halves = fastnn.SGD(part, **options)
            halves.load_state_dict(fastnn.load(tmp_path / "state.safetensors"))
            assert halves.steps == 3
        assert through.step() == halves.step()
        renew(whole, rng)
        renew(part, twin_rng)
    assert all(np.array_equal(p.data, q.data) for p, q in zip(whole, part))


def test_state_keys_are_names_and_only_of_groups_with_momentum():
    p, q = fastnn.Parameter(np.ones(2)), fastnn.Parameter(np.ones(3))
    optimizer = fastnn.SGD([{"params": [("0.weight", p)], "momentum": 0.9}, {"params": [("0.bias", q)]}], lr=0.1)
    assert optimizer.state_dict() == {"steps": 0, "skipped": 0}
    optimizer.step()
    assert sorted(optimizer.state_dict()) == ["momentum.0.weight", "skipped", "steps"]


def test_states_that_do_not_fit_change_nothing():
    parameters, _ = make([(3,), (4,)])
    optimizer = fastnn.SGD(parameters, 0.1, 0.9)
    optimizer.step()
    good = optimizer.state_dict()
    cases = [
        ({k: v for k, v in good.items() if k != "momentum.1"}, r"missing keys \['momentum.1'\]"),
        ({k: v for k, v in good.items() if k != "steps"}, r"missing keys \['steps'\]"),
        ({**good, "momentum.2": np.ones(1)}, r"unexpected keys \['momentum.2'\]"),
        ({**good, "momentum.1": np.ones(3, np.float32)}, r"momentum.1 must have shape \(4,\) .* got \(3,\)"),
        ({**good, "momentum.1": np.ones(4)}, "momentum.1 must have .* dtype float32, got .* float64"),
        ({**good, "momentum.1": [1.0, 2.0]}, "momentum.1 must have shape"),
        ({**good, "steps": -1}, "steps must be finite and at least 0"),
        ({**good, "steps": 1.5}, "steps must be an integer, got 1.5"),
    ]
    for state, message in cases:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(state)
        assert all(np.array_equal(value, good[key]) for key, value in optimizer.state_dict().items())


def test_a_state_is_a_mapping():
    with pytest.raises(TypeError, match="d must be a mapping as state_dict returns it, got list"):
        fastnn.SGD(make([(3,)])[0], 0.1).load_state_dict([])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_goes_on_by_itself(copied):
    """A snapshot of model and optimiser together takes the same steps, and neither disturbs the other."""
    parameters, rng = make([(3, 5), (7,)])
    optimizer = fastnn.SGD(parameters, 0.1, 0.9, weight_decay=0.01, constraint=MaxRowNorm(1.0))
    renew(parameters, rng)
    optimizer.step()
    twins, twin = copied((parameters, optimizer))
    steps = [[rng.standard_normal(p.data.shape) for p in parameters] for _ in range(2)]
    for these, one in ((parameters, optimizer), (twins, twin)):
        for gradients in steps:
            for p, gradient in zip(these, gradients):
                p.grad[...] = gradient
            one.step()
    for p, q in zip(parameters, twins):
        assert p.data is not q.data
        np.testing.assert_array_equal(p.data, q.data)
    assert twin.steps == optimizer.steps == 3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_state_loaded_during_a_step(momentum):
    """By a schedule, or another thread: a step finds its momentum buffers gone."""
    p = fastnn.Parameter(np.ones(2000))
    optimizer = fastnn.SGD([p], lambda step: optimizer.load_state_dict(initial) or 0.1, momentum)
    initial = optimizer.state_dict()
    if momentum:
        with pytest.raises(RuntimeError, match="buffers must not be taken away during a step"):
            optimizer.step()
        assert (p.data == 1).all()
        optimizer.param_groups[0]["lr"] = 0.1
    p.grad[:] = 1
    optimizer.step()
    assert (p.data == 1 - 0.1).all()
    assert optimizer.steps == 1


@pytest.mark.parametrize("array", [np.ones(4000, np.float32), np.ones(2000)])
def test_a_copy_needs_parameters_that_fit_their_state(array):
    p = fastnn.Parameter(np.ones(2000, np.float32))
    optimizer = fastnn.SGD([p], 0.1, 0.9)
    optimizer.step()
    p.data, p.grad = array, array
    with pytest.raises(ValueError, match="parameters must have the sizes and dtypes that they had at first"):
        copy.deepcopy(optimizer)


def test_states_are_copies():
    parameters, _ = make([(3,)])
    optimizer = fastnn.SGD(parameters, 0.1, 0.9)
    optimizer.step()
    state = optimizer.state_dict()
    kept = state["momentum.0"].copy()
    optimizer.load_state_dict(state)
    optimizer.step()
    assert np.array_equal(state["momentum.0"], kept)


# ---- peers ---------------------------------------------------------------------------------------------------------


def torch_database():
    """PyTorch's own optimiser database (its test helpers need the package expecttest)."""
    pytest.importorskip("torch")
    pytest.importorskip("expecttest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        helpers = pytest.importorskip("torch.testing._internal.common_optimizers")
    return next(info for info in helpers.optim_db if info.optim_cls.__name__ == "SGD")


@pytest.mark.peers
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(9))
def test_torch_configurations(dtype, number):
    info = torch_database()
    import torch

    inputs = info.optim_inputs_func(device="cpu")
    assert len(inputs) == 9
    options = dict(inputs[number].kwargs)
    parameters, rng = make([(7,), (64, 33), (300,), (2, 3, 5)], dtype)
    tensors = [torch.tensor(p.data).requires_grad_() for p in parameters]
    ours, theirs = fastnn.SGD(parameters, **options), torch.optim.SGD(tensors, foreach=False, **options)
    largest = max(np.abs(p.data).max() for p in parameters)
    for _ in range(20):
        for p, t in zip(parameters, tensors):
            t.grad = torch.tensor(p.grad)
        ours.step()
        theirs.step()
        renew(parameters, rng)
    for p, t in zip(parameters, tensors):
        largest = max(largest, np.abs(p.data).max())
        # eight roundings a step on either side, of numbers not above twice the largest
        assert np.abs(p.data - t.detach().numpy()).max() <= 20 * 16 * np.finfo(dtype).eps * largest


@pytest.mark.peers
def test_torch_error_configurations():
    """The kinds of errors agree; messages name the same culprit in our words."""
    info = torch_database()
    import torch

    def translated(params):
        if isinstance(params, torch.Tensor):
            return replaced.setdefault(id(params), fastnn.Parameter(params.detach().numpy()))
        if isinstance(params, dict):
            return {key: translated(value) for key, value in params.items()}
        if isinstance(params, (list, tuple)):
            return type(params)(translated(value) for value in params)
        return params

    cases = info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
    assert len(cases) == 7
    for case in cases:
        replaced = {}
        given = case.optimizer_error_input
        params = [fastnn.Parameter(np.ones(2))] if given.params is None else translated(given.params)
        if issubclass(case.error_type, Warning):
            with pytest.warns(case.error_type, match=case.error_regex):
                fastnn.SGD(params, **given.kwargs)
        else:
            with pytest.raises(case.error_type):
                fastnn.SGD(params, **given.kwargs)


@pytest.mark.peers
@pytest.mark.parametrize("limit", [0.5, 1e4])
def test_torch_clipping(limit):
    torch = pytest.importorskip("torch")
    parameters, _ = make([(7,), (64, 33), (300,)])
    tensors = [torch.tensor(p.data).requires_grad_() for p in parameters]
    for p, t in zip(parameters, tensors):
        t.grad = torch.tensor(p.grad)
    norm = torch.nn.utils.clip_grad_norm_(tensors, limit)
    # torch forms norm and factor in float32
    assert optim.clip_grad_norm(parameters, limit) == pytest.approx(float(norm), rel=1e-6)
    for p, t in zip(parameters, tensors):
        assert np.allclose(p.grad, t.grad.numpy(), rtol=1e-6, atol=0)


@pytest.mark.peers
@pytest.mark.parametrize("h", [0.25, 9.0, 1e6])
def test_optax_projection(h):
    pytest.importorskip("jax")
    projections = pytest.importorskip("optax.projections")
    parameters, _ = make([(7,), (64, 33), (300,)])
    expected = projections.projection_l2_ball([p.data for p in parameters], math.sqrt(h))
    L2Ball(h).project(parameters)
    for p, e in zip(parameters, expected):
        assert np.allclose(p.data, np.asarray(e), rtol=2e-6, atol=0)  # its norm is a float32 sum


@pytest.mark.peers
def test_torch_renorm():
    torch = pytest.importorskip("torch")
    parameters, _ = make([(64, 33), (16, 3, 5, 5)])
    for p in parameters:
        expected = torch.renorm(torch.tensor(p.data), p=2, dim=0, maxnorm=5.0)
        MaxRowNorm(5.0).project([p])
        assert np.allclose(p.data, expected.numpy(), rtol=1e-6, atol=0)
