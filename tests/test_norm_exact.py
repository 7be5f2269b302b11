"""The promise of exactness: at most 4 units of the dtype, forward and backward, on data chosen to break it.

Every family of data runs through every memory layout: groups along contiguous memory (layer and RMS norm), across it
(batch norm, channels last), in runs (batch norm, channels first; group norm, channels last). `reference` says how
errors are counted.
"""

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

import fastnn.functional as F
import reference as ref
from fastnn import _kernels
from norm_operations import OPERATIONS

BOUND = 4.0
DTYPES = [np.float32, np.float64]

pytestmark = pytest.mark.filterwarnings("error")


def generator(*parts):
    """A generator that the names of the case seed."""
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


# ---- data: (rng, rows, n, dtype) → (rows, n), one group a row --------------------------------------------------------


def normal(ratio, sd):
    return lambda rng, rows, n, dtype: sd * (ratio + rng.standard_normal((rows, n)))


def of_two(low, high, share=0.5):
    """Both values in every group: without eps a constant one has no gradient."""

    def make(rng, rows, n, dtype):
        x = np.where(rng.random((rows, n)) < share, high, low)
        x[:, 0], x[:, 1] = low, high
        return x

    return make


def two_signs(c):
    return lambda rng, rows, n, dtype: c * rng.choice([-1.0, 1.0], (rows, n))


def outlier(size, noise):
    def make(rng, rows, n, dtype):
        x = noise * rng.standard_normal((rows, n))
        x[np.arange(rows), rng.integers(0, n, rows)] = size
        return x

    return make


def neighbours(rng, rows, n, dtype):
    return of_two(dtype(0.1), np.nextafter(dtype(0.1), dtype(1)), 0.3)(rng, rows, n, dtype)


def subnormals(rng, rows, n, dtype):
    x = rng.integers(-9, 10, (rows, n)) * np.finfo(dtype).smallest_subnormal
    x[:, 0] = 20 * np.finfo(dtype).smallest_subnormal
    return x


def near_largest(rng, rows, n, dtype):
    return float(np.finfo(dtype).max) * (1 - 1e-3 * rng.random((rows, n)))


def largest_of_both_signs(rng, rows, n, dtype):
    return float(np.finfo(dtype).max) * rng.choice([-0.88, 0.88], (rows, n))


# name → (data, eps). The small ones need eps = 0, or eps would be all there is to see.
FAMILIES = {
    **{f"mean/std {ratio:g}": (normal(ratio, 1.0), 1e-5) for ratio in (0, 1, 30, 300, 1e3, 1e5, 1e6)},
    **{f"mean/std {ratio:g}, variance 1e-30": (normal(ratio, 1e-15), 0.0) for ratio in (0, 1e3, 1e6)},
    **{f"mean/std {ratio:g}, variance 1e30": (normal(ratio, 1e15), 1e-5) for ratio in (0, 1e3, 1e6)},
    "variance 1e-30 below eps": (normal(3, 1e-15), 1e-5),
    "zeros and ones": (of_two(0.0, 1.0), 1e-5),
    "few ones": (of_two(0.0, 1.0, 0.02), 1e-5),
    "few large ones": (of_two(0.0, 1e6, 0.02), 1e-5),
    "zeros and ones without eps": (of_two(0.0, 1.0), 0.0),
    "±0.1": (two_signs(0.1), 1e-5),
    "±1e30": (two_signs(1e30), 1e-5),
    "±0.88 of the largest number": (largest_of_both_signs, 1e-5),
    "near the largest number": (near_largest, 1e-5),
    "one outlier": (outlier(1e4, 1.0), 1e-5),
    "one outlier among zeros": (outlier(1.0, 0.0), 1e-5),
    "one outlier of 1e30": (outlier(1e30, 1.0), 1e-5),
    "two neighbouring numbers": (neighbours, 0.0),
    "subnormals": (subnormals, 0.0),
    "ramp": (lambda rng, rows, n, dtype: np.arange(rows * n, dtype=float).reshape(rows, n), 1e-5),
    "step": (lambda rng, rows, n, dtype: np.broadcast_to(np.arange(n) >= n // 2, (rows, n)).astype(float), 1e-5),
    "heavy tails": (lambda rng, rows, n, dtype: rng.standard_cauchy((rows, n)), 1e-5),
    "sixty decades": (lambda rng, rows, n, dtype: 10.0 ** rng.uniform(-30, 30, (rows, n)), 1e-5),
    "a different scale in each group": (
        lambda rng, rows, n, dtype: rng.standard_normal((rows, n)) * 10.0 ** rng.uniform(-15, 15, (rows, 1)),
        0.0,
    ),
}
LARGE_FAMILIES = ["mean/std 1e+06", "±0.1"]

GRADIENTS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "one sign": lambda rng, shape: 0.1 + 1e-3 * rng.random(shape),
    "constant": lambda rng, shape: np.full(shape, 0.1),
    "zeros and ones": lambda rng, shape: (rng.random(shape) < 0.5).astype(float),
}


# ---- layouts: one group a row → the operation's input and view -------------------------------------------------------


def rows_layout(x):
    """Layer norm: groups along contiguous memory."""
    return x, ref.layer_view(x.shape, x.shape[1]), "layer_norm", (x.shape[1],)


def rms_layout(x):
    """RMS norm: the same without the mean."""
    return x, ref.layer_view(x.shape, x.shape[1]), "rms_norm", (x.shape[1],)


def columns_layout(x):
    """Batch norm, channels last: groups across memory."""
    channels_last = np.ascontiguousarray(x.T)
    return channels_last, ref.batch_view(channels_last.shape), "batch_norm", (x.shape[0],)


def planes_layout(x):
    """Batch norm, channels first: each group in runs, one for each sample."""
    channels, n = x.shape
    samples = next(s for s in (4, 3, 2, 1) if n % s == 0)
    image = np.ascontiguousarray(x.reshape(channels, samples, -1).swapaxes(0, 1))
    return image, ref.batch_view(image.shape), "batch_norm", (channels,)


def grouped_columns_layout(x):
    """Group norm of one sample, channels last: short runs at a stride."""
    groups, n = x.shape
    each = next(s for s in (4, 3, 2, 1) if n % s == 0)
    image = np.ascontiguousarray(x.reshape(groups, -1, each).swapaxes(0, 1)).reshape(1, n // each, groups * each)
    return image, ref.group_view(image.shape, groups, -1), "group_norm", (groups * each,)


LAYOUTS = {
    "rows": rows_layout,
    "rms": rms_layout,
    "columns": columns_layout,
    "planes": planes_layout,
    "grouped columns": grouped_columns_layout,
}


def call(op, x, view, weight, bias, eps):
    """(y, context) of the operation on an input that a layout made."""
    if op == "layer_norm":
        return F.layer_norm_forward(x, x.shape[1], weight, bias, eps)
    if op == "rms_norm":
        return F.rms_norm_forward(x, x.shape[1], weight, eps)
    if op == "batch_norm":
        return F.batch_norm_forward(x, None, None, weight, bias, True, 0.1, eps)
    return F.group_norm_forward(x, view.shape[-2], weight, bias, eps, channel_axis=-1)


def excess(layout, x, eps, rng, gradient="normal", spread=1.0):
    """What of the operation's results on `x` (one group a row) exceeds the bound: name → units."""
    image, view, op, channels = LAYOUTS[layout](x)
    dtype = x.dtype
    centred = op != "rms_norm"
    if op == "batch_norm":
        eps = eps or 1e-300  # it takes no 0
    weight = (spread * rng.standard_normal(channels)).astype(dtype) + dtype.type(1)
    bias = rng.standard_normal(channels).astype(dtype) if centred else None
    dy = GRADIENTS[gradient](rng, image.shape).astype(dtype)
    y, context = call(op, image, view, weight, bias, eps)
    f = ref.forward(image, view, weight, bias, eps, centred=centred)
    errors = {"y": ref.forward_units(y, f, weight)}
    grads = getattr(F, f"{op}_backward")(dy, context)
    b = ref.backward(dy, f, weight)
    errors["dinput"] = ref.dinput_units(grads[0], b)
    errors["dweight"] = ref.dweight_units(grads[1], b)
    if centred:
        errors["dbias"] = ref.dbias_units(grads[2], b)
    return {f"{name} of {x.shape}": round(units, 2) for name, units in errors.items() if not units <= BOUND}


def data(family, rng, rows, n, dtype):
    return FAMILIES[family][0](rng, rows, n, dtype).astype(dtype)


def needs_resolution(dtype):
    if dtype == np.float64 and not ref.RESOLVES_FLOAT64:
        pytest.skip("long double is double here: no oracle for float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_within_four_units(family, layout, dtype):
    needs_resolution(dtype)
    rng = generator(family, layout)
    bad = {}
    for rows, n in ((4, 2), (3, 3), (5, 17), (3, 64), (65, 65), (9, 130), (2, 1025), (2, 5000)):
        x = data(family, rng, rows, n, dtype)
        bad |= excess(layout, x, FAMILIES[family][1], rng)
    assert not bad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns", "planes"])
@pytest.mark.parametrize("family", LARGE_FAMILIES)
def test_groups_of_a_million(family, layout, dtype):
    needs_resolution(dtype)
    rng = generator(family, layout)
    n = 2**20 if layout == "rows" else 2**18
    assert not excess(layout, data(family, rng, 1, n, dtype), FAMILIES[family][1], rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_long_sums_of_equal_terms(layout, dtype):
    """Terms that a running sum would all round in the same direction."""
    needs_resolution(dtype)
    rng = generator(layout)
    x = data("mean/std 1", rng, 1, 2**16 + 40, dtype)
    assert not excess(layout, x, 1e-5, rng, "constant", spread=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(("layout", "rows", "n"), [("rows", 100_000, 3), ("rms", 20_011, 8), ("columns", 3, 100_003)])
def test_sums_over_a_hundred_thousand_rows(layout, rows, n, gradient, dtype):
    needs_resolution(dtype)
    rng = generator(layout, gradient)
    assert not excess(layout, data("zeros and ones", rng, rows, n, dtype), 1e-5, rng, gradient)
    assert not excess(layout, data("±0.1", rng, rows, n, dtype), 1e-5, rng, gradient)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["in turn", "one after the other"])
@pytest.mark.parametrize("layout", ["rows", "rms"])
def test_few_kinds_of_rows(layout, order, dtype):
    """As encodings of categories have: in a sum down them, terms cancel that are as often rounded in the same way."""
    needs_resolution(dtype)
    rng = generator(layout, order)
    bad = {}
    for kinds in ([0, 0, 1], [0.1, 0.2, 0.7], [0, 1, 2, 3], [0] * 16 + [1]):
        all_kinds = np.array([np.roll(kinds, k) for k in range(len(kinds))], dtype)
        many = 100_000 // len(kinds)
        x = np.tile(all_kinds, (many, 1)) if order == "in turn" else np.repeat(all_kinds, many, 0)
        if layout == "rms":  # without signs nothing would cancel
            x[::2] *= -1
        bad |= excess(layout, x, 1e-5, rng, "constant", spread=0.0)
    assert not bad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_upstream_gradient(layout, dtype):
    needs_resolution(dtype)
    rng = generator(layout)
    bad = {}
    for gradient in GRADIENTS:
        for rows, n in ((8, 33), (3, 1536), (300, 7)):
            bad |= excess(layout, data("mean/std 1", rng, rows, n, dtype), 1e-5, rng, gradient)
    assert not bad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["columns", "grouped columns"])
def test_all_families_side_by_side(layout, dtype):
    """As many groups as are cut into several panels, of which some are summed again or in units of their own."""
    needs_resolution(dtype)
    rng = generator(layout)
    families = [family for family, (_, eps) in FAMILIES.items() if eps == 1e-5]
    x = np.concatenate([data(family, rng, 130, 200, dtype) for family in families])
    errors = excess(layout, x, 1e-5, rng)
    assert not errors
    some = rng.permutation(len(x))[:700]
    some[: len(some) // 2].sort()
    assert not excess(layout, x[some], 1e-5, rng)


# ---- masks, and the ends of the range --------------------------------------------------------------------------------

operations = pytest.mark.parametrize("name", OPERATIONS)
masked_operations = pytest.mark.parametrize("name", [k for k, op in OPERATIONS.items() if op.masks])


def some_mask(rng, shape, share):
    """A random one that leaves no group empty."""
    mask = rng.random(shape) < share
    mask[(slice(None), *(0,) * (len(shape) - 1))] = True
    return mask


def gradient_errors(op, x, dy, weight, bias, mask=None):
    """Units of dinput, dweight and dbias, as far as they are over the bound; none if a group has one value."""
    f = op.oracle(x, weight, bias, mask=mask)
    if not (f.count >= 2).all():
        return {}
    _, context = op.forward(x, weight, bias, **({} if mask is None else {"mask": mask}))
    b = ref.backward(dy, f, weight)
    grads = op.backward(dy, context)
    counters = ref.dinput_units, ref.dweight_units, ref.dbias_units
    errors = {count.__name__: count(grad, b) for count, grad in zip(counters, grads) if grad is not None}
    return {name: round(units, 2) for name, units in errors.items() if not units <= BOUND}


@pytest.mark.parametrize("dtype", DTYPES)
@masked_operations
def test_gradients_under_a_mask(name, dtype):
    """Every position's gradient reaches the means of the few that count, which may outgrow it."""
    needs_resolution(dtype)
    op = OPERATIONS[name]
    for seed in range(24):
        rng = np.random.default_rng(seed)
        x, dy, weight, bias = op.data(seed, dtype)
        for share in (0.2, 0.6, 0.9):
            bad = gradient_errors(op, x, dy - 3 * (seed % 2), weight, bias, some_mask(rng, op.shape, share))
            assert not bad, (seed, share)


@pytest.mark.parametrize("dtype", DTYPES)
@masked_operations
def test_the_largest_numbers_outside_the_mask(name, dtype):
    """However far from the mean, also of equal values, they spoil no gradient if their own is zero."""
    needs_resolution(dtype)
    op = OPERATIONS[name]
    largest = np.finfo(dtype).max
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, dy, weight, bias = op.data(seed, dtype)
        mask = some_mask(rng, op.shape, 0.7)
        scale = (1, largest / 16, largest / dtype(1e5), 1e15)[seed % 4]
        inside = (-scale * np.abs(x)).astype(dtype) if seed % 3 else np.full(x.shape, -8 * scale, dtype)
        far = np.where(mask, inside, rng.choice([-largest, largest], x.shape)).astype(dtype)
        assert not gradient_errors(op, far, np.where(mask, dy, 0).astype(dtype), weight, bias, mask), seed


@operations
def test_values_near_the_smallest_number(name):
    """Beside eps they make x̂ nearly zero; their products with the gradient are what dweight sums."""
    needs_resolution(np.float64)
    op = OPERATIONS[name]
    for seed, (unit, size) in enumerate((u, s) for u in (1e-310, 1e-308, 1e-298) for s in (1e-10, 1, 1e10)):
        x, dy, weight, bias = op.data(seed, np.float64)
        errors = gradient_errors(op, (x - 3 * (seed % 2)) * unit, (dy - 3) * size, weight, bias)
        assert not errors, (unit, size)


# ---- numbers of any size, anywhere -----------------------------------------------------------------------------------


def any_size(rng, shape, dtype):
    """Numbers of one size or of all sizes, of which some may be zeros, outliers or equal."""
    info = np.finfo(dtype)
    least, most = np.log10(info.smallest_subnormal), np.log10(info.max)
    kind = rng.integers(0, 8)
    sizes = rng.uniform(least, most, shape if kind == 0 else (1,) * len(shape))
    numbers = rng.standard_normal(shape) if kind % 2 else rng.choice([-1.0, 1.0], shape)
    if kind == 2:  # a row of equal ones
        numbers[:1] = 1
    elif kind == 3:  # the first ones may be outliers
        numbers[..., :1] *= 10 ** rng.uniform(0, 9)
    elif kind == 4:
        numbers *= rng.random(shape) < 0.2
    elif kind >= 5:
        sizes = sizes / 20  # about 1
    with np.errstate(over="ignore"):
        return np.clip(numbers * 10.0**sizes, -float(info.max), float(info.max)).astype(dtype)


def errors_of(f, y, weight, dy, grads):
    """What exceeds the bound; of gradients nothing where a group without variance has no eps."""
    errors = {"y": ref.forward_units(y, f, weight)}
    if np.isfinite(f.rstd).all():
        b = ref.backward(dy, f, weight)
        counters = ref.dinput_units, ref.dweight_units, ref.dbias_units
        errors |= {c.__name__: c(grad, b) for c, grad in zip(counters, grads) if grad is not None}
    return {name: round(units, 2) for name, units in errors.items() if not units <= BOUND}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
@operations
def test_numbers_of_any_size(name, dtype):
    """Values, gradients and parameters near the ends of the range, also together with ordinary ones."""
    needs_resolution(dtype)
    op = OPERATIONS[name]
    for seed in (*range(120), 454, 1454):  # the last two: group norm's factors are out of range
        rng = generator(name, seed)
        x, dy = any_size(rng, op.shape, dtype), any_size(rng, op.shape, dtype)
        weight = bias = None
        if op.parameters is not None and seed % 4:
            weight = any_size(rng, op.parameters, dtype)
            bias = any_size(rng, op.parameters, dtype) if op.centred else None
        more = {"eps": 10.0 ** rng.choice([-300, -45, -12, -5, 30, 200])} if op.centred else {}
        if op.masks and seed % 3 == 0:
            more["mask"] = some_mask(rng, op.shape, rng.choice([0.1, 0.8]))
        y, context = op.forward(x, weight, bias, **more)
        f = op.oracle(x, weight, bias, **more)
        assert not errors_of(f, y, weight, dy, op.backward(dy, context)), seed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 5, 37), (3, 7, 1), (40, 130)])
def test_given_statistics_of_any_size(shape, dtype):
    needs_resolution(dtype)
    for seed in range(120):
        rng = generator(shape, seed)
        x, dy = any_size(rng, shape, dtype), any_size(rng, shape, dtype)
        mean, variance, weight, bias = (any_size(rng, shape[1:2], dtype) for _ in range(4))
        eps = 10.0 ** rng.choice([-300, -12, -5, 30])
        y, context = F.batch_norm_forward(x, mean, abs(variance), weight, bias, False, 0.1, eps)
        f = ref.forward(x, ref.batch_view(shape), weight, bias, eps, constants=(mean, abs(variance)))
        assert not errors_of(f, y, weight, dy, F.batch_norm_backward(dy, context)), seed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
@masked_operations
def test_nothing_leaks_into_gradients(name, dtype):
    """What the mask leaves out and has no gradient gets none, and gives none, not even as NaN."""
    needs_resolution(dtype)
    op = OPERATIONS[name]
    for seed, poison in enumerate([np.nan, np.inf, -np.inf, float(np.finfo(dtype).max)]):
        rng = np.random.default_rng(seed)
        x, dy, weight, bias = op.data(seed, dtype)
        mask = some_mask(rng, op.shape, 0.7)
        dy = np.where(mask, dy, 0).astype(dtype)
        f = op.oracle(np.where(mask, x, 0).astype(dtype), weight, bias, mask=mask)
        if not (f.count >= 2).all():
            continue
        y, context = op.forward(np.where(mask, x, dtype(poison)), weight, bias, mask=mask)
        y = np.where(mask, y, f.y.astype(dtype))  # anything, at the places of the poison
        grads = op.backward(dy, context)
        assert not errors_of(f, y, weight, dy, grads), poison
        assert not grads[0][~mask].any(), poison


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["columns", "planes"])
def test_means_between_neighbouring_numbers(layout, dtype):
    """Where a constant gradient leaves of dweight nothing but what the mean is off, as often as there are elements."""
    needs_resolution(dtype)
    rng = generator(layout)
    x = data("two neighbouring numbers", rng, 3, 100_000, dtype)
    assert not excess(layout, x, 0.0, rng, "constant", spread=0.0)


@pytest.mark.skipif("x86_64_v2" not in _kernels.available(), reason="needs the build for processors without it")
def test_without_fused_multiply_add():
    """A part of these tests for the build that has no such instruction."""
    some = (
        "test_gradients_under_a_mask or (test_within_four_units and (zeros or neighbouring or ramp))"
        " or (test_numbers_of_any_size and everything)"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", some],
        env={**os.environ, "FASTNN_ISA": "x86_64_v2", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-2000:]


# ---- exact statements ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [k for k in LAYOUTS if k != "rms"])
def test_a_constant_group_is_exactly_bias(layout, dtype):
    rng = generator(layout)
    largest = float(np.finfo(dtype).max)
    constants = [0.0, 0.1, -1 / 3, 1e-30, 1e30, largest, -largest, float(np.finfo(dtype).smallest_subnormal)]
    for n in (2, 3, 64, 97, 1025, 4096):
        x = np.repeat(np.array(constants, dtype)[:, None], n, axis=1)
        image, view, op, channels = LAYOUTS[layout](x)
        weight, bias = rng.standard_normal((2, *channels)).astype(dtype)
        for eps in (1e-5, 1e-30):
            y, _ = call(op, image, view, weight, bias, eps)
            expected = np.broadcast_to(bias.reshape(view.affine), view.shape).reshape(y.shape)
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_row_without_eps_is_exactly_bias(dtype):
    x = np.repeat(np.array([0, 0.1, 1e30, -7], dtype)[:, None], 130, axis=1)
    bias = generator().standard_normal(130).astype(dtype)
    np.testing.assert_array_equal(F.layer_norm(x, 130, None, bias, 0.0), np.broadcast_to(bias, x.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_not_a_number_spoils_its_own_group_only(poison, layout, dtype):
    rng = generator(layout)
    for rows, n in ((5, 70), (67, 12)):
        clean = rng.standard_normal((rows, n)).astype(dtype)
        spoiled = clean.copy()
        spoiled[2, 5] = poison
        results = []
        for x in (clean, spoiled):
            image, view, op, _ = LAYOUTS[layout](x)
            dy = generator("dy").standard_normal(image.shape).astype(dtype)
            y, context = call(op, image, view, None, None, 1e-5)
            dx = getattr(F, f"{op}_backward")(dy, context)[0]
            results.append((y, dx))
        group = LAYOUTS[layout](np.repeat(np.arange(rows) == 2, n).reshape(rows, n).astype(dtype))[0] == 1
        for good, bad in zip(*results):
            np.testing.assert_array_equal(good[~group], bad[~group])
        y, dx = results[1]
        assert np.isnan(y[group]).any()
        if layout != "rms" or np.isnan(poison):
            assert np.isnan(y[group]).all()
        assert not np.isfinite(dx[group]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scaling_by_a_power_of_two_commutes(layout, dtype):
    rng = generator(layout)
    powers = (1, -3, 20, -20, 50, -50, 80, -80) + ((500, -500) if dtype == np.float64 else ())
    for rows, n in ((3, 65), (4, 1030)):
        x = (3 + rng.standard_normal((rows, n))).astype(dtype)
        outputs = []
        for power in (0, *powers):
            eps = 1e-5 * 4.0**power
            if eps == 0 or not np.isfinite(eps):
                continue
            image, view, op, _ = LAYOUTS[layout](np.ldexp(x, power))
            dy = generator("dy").standard_normal(image.shape).astype(dtype)
            y, context = call(op, image, view, None, None, eps)
            dx = getattr(F, f"{op}_backward")(dy, context)[0]
            outputs.append((power, y, np.ldexp(dx, power)))
        for power, y, dx in outputs[1:]:
            np.testing.assert_array_equal(y, outputs[0][1], err_msg=f"y at 2**{power}")
            np.testing.assert_array_equal(dx, outputs[0][2], err_msg=f"dinput at 2**{power}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_a_row_does_not_depend_on_its_neighbours(op, dtype):
    rng = generator(op)
    for n in (1, 3, 64, 100, 1030):
        x, dy = rng.standard_normal((2, 19, n)).astype(dtype)
        y, context = getattr(F, f"{op}_forward")(x, n)
        dx = getattr(F, f"{op}_backward")(dy, context)[0]
        for k in (0, 7, 8, 18):
            alone, context = getattr(F, f"{op}_forward")(x[k : k + 1], n)
            np.testing.assert_array_equal(alone[0], y[k])
            np.testing.assert_array_equal(getattr(F, f"{op}_backward")(dy[k : k + 1], context)[0][0], dx[k])
