"""The oracle against exact rational arithmetic, and its gradients against differences of its own values."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest

import reference as ref

RNG = np.random.default_rng(20)

HARD = {
    "large mean": 1e6 + RNG.standard_normal(37),
    "huge mean": 1e15 + RNG.standard_normal(24),
    "one outlier": np.r_[np.ones(20), 1e30],
    "cancelling": np.r_[1e300, -1e300, RNG.standard_normal(9)],
    "subnormal": RNG.integers(-9, 9, 25) * 5e-324,
    "zeros and ones": (np.arange(41) % 3 == 0).astype(float),
    "nearly constant": np.r_[np.full(30, 0.1), np.nextafter(0.1, 1)],
}


def exact(x: np.ndarray, eps: float) -> list[mpmath.mpf]:
    """x̂ of one group: mean and variance as fractions, the root with 60 digits."""
    values = [Fraction(v) for v in x.tolist()]
    mean = sum(values) / len(values)
    var = sum((v - mean) ** 2 for v in values) / len(values) + Fraction(eps)
    with mpmath.workdps(60):
        root = mpmath.sqrt(mpmath.mpf(var.numerator) / var.denominator)
        return [mpmath.mpf((v - mean).numerator) / (v - mean).denominator / root for v in values]


def as_mpf(value: np.longdouble) -> mpmath.mpf:
    high = float(value)
    return mpmath.mpf(high) + mpmath.mpf(float(value - np.longdouble(high)))


@pytest.mark.parametrize("eps", [0.0, 1e-5])
@pytest.mark.parametrize("name", HARD)
def test_forward_is_good_to_a_hundredth_of_a_float64_unit(name, eps):
    if not ref.RESOLVES_FLOAT64:
        pytest.skip("long double is double here")
    x = HARD[name]
    xhat = ref.forward(x, ref.standardize_view(x.shape, 0), eps=eps).xhat
    with mpmath.workdps(60):
        for ours, true in zip(xhat, exact(x, eps)):
            assert abs(as_mpf(ours) - true) <= 2.0**-60 * max(1, abs(true))


def test_a_constant_group_is_exactly_its_mean():
    for n in (1, 2, 3, 7, 1000):
        x = np.full(n, 0.1)
        f = ref.forward(x, ref.standardize_view(x.shape, 0), eps=0.0)
        assert (f.xhat == 0).all()
        assert f.mean == x[0]


VIEWS = {
    "layer": ref.layer_view((3, 4, 5), (4, 5)),
    "batch": ref.batch_view((4, 3, 5)),
    "batch, channels last": ref.batch_view((4, 5, 3), -1),
    "instance": ref.instance_view((3, 2, 6)),
    "group": ref.group_view((3, 6, 4), 2),
    "group, channels last": ref.group_view((3, 4, 6), 2, -1),
}
SHAPES = {"batch": (4, 3, 5), "batch, channels last": (4, 5, 3), "instance": (3, 2, 6), "group": (3, 6, 4)}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", VIEWS)
def test_backward_is_the_derivative_of_forward(name, centred, masked):
    view = VIEWS[name]
    shape = SHAPES.get(name, (3, 4, 5) if name == "layer" else (3, 4, 6))
    x, dy = RNG.standard_normal((2, *shape)).astype(ref.Real)
    weight, bias = RNG.standard_normal((2, int(np.prod(view.affine)))).astype(ref.Real)
    mask = RNG.random(shape) < 0.7 if masked else None

    def loss(x, weight, bias):
        return (ref.forward(x, view, weight, bias, 1e-2, mask, centred=centred).y * dy).sum()

    b = ref.backward(dy, ref.forward(x, view, weight, bias, 1e-2, mask, centred=centred), weight)
    step = ref.Real(2.0**-20)  # the error of a central difference is step², that of its rounding 2⁻⁶⁴/step
    for at, gradient in enumerate((b.dinput, b.dweight, b.dbias)):
        operands = [x, weight, bias]
        for index in RNG.permutation(operands[at].size)[:8]:
            ends = []
            for sign in (1, -1):
                moved = operands[at].copy()
                moved.flat[index] += sign * step
                ends.append(loss(*operands[:at], moved, *operands[at + 1 :]))
            assert abs((ends[0] - ends[1]) / (2 * step) - gradient.flat[index]) < 1e-9


def test_backward_with_constant_statistics_is_a_scaling():
    x, dy = RNG.standard_normal((2, 4, 3))
    view = ref.batch_view(x.shape)
    constants = np.array([0.5, -1.0, 2.0]), np.array([1.0, 4.0, 0.25])
    weight = np.array([1.0, 2.0, 3.0])
    b = ref.backward(dy, ref.forward(x, view, weight, None, 0.0, constants=constants), weight)
    np.testing.assert_allclose(b.dinput.astype(float), dy * [1.0, 1.0, 6.0], rtol=1e-15)
    np.testing.assert_allclose(b.dbias.astype(float).ravel(), dy.sum(0), rtol=1e-12)


def test_masked_positions_do_not_enter_the_statistics():
    x = RNG.standard_normal((2, 8))
    mask = np.arange(8) < 5
    view = ref.standardize_view(x.shape, 1)
    short = ref.forward(x[:, :5].copy(), ref.standardize_view((2, 5), 1))
    full = ref.forward(x, view, mask=mask)
    np.testing.assert_array_equal(full.xhat[:, :5], short.xhat)
    assert (full.count == 5).all()
    nothing = ref.forward(x, view, mask=np.zeros(8, bool))
    assert (nothing.y == 0).all()
    assert (ref.backward(x, nothing).dinput == 0).all()


class TestCounters:
    one = np.ones(3, ref.Real)

    def test_a_neighbour_is_two_units_away(self):
        # u is half the spacing of the numbers just above 1
        for dtype in (np.float32, np.float64):
            y = np.nextafter(np.ones(3, dtype), dtype(2))
            assert ref.units(y, self.one, 1.0) == pytest.approx(2)

    def test_not_a_number_must_agree(self):
        nan = np.array([np.nan, 1, 1], np.float32)
        assert ref.units(nan, self.one, 1.0) == np.inf
        assert ref.units(np.ones(3, np.float32), nan.astype(ref.Real), 1.0) == np.inf
        assert ref.units(nan, nan.astype(ref.Real), 1.0) == 0

    def test_what_overflows_must_be_infinite(self):
        huge = np.full(3, 1e39, ref.Real)
        assert ref.units(np.full(3, np.inf, np.float32), huge, huge) == 0
        assert ref.units(np.full(3, -np.inf, np.float32), huge, huge) > 1e6
        assert ref.units(np.full(3, np.inf, np.float32), self.one, 1.0) > 1e40
        assert ref.units(np.full(3, np.finfo(np.float32).max, np.float32), huge, huge) > 1e6

    def test_subnormals_are_measured_by_their_spacing(self):
        tiny = np.full(3, 1e-45, np.float32)
        assert ref.units(tiny, np.full(3, 1.2e-45, ref.Real), 1.2e-45) < 1

    def test_nothing_has_no_error(self):
        assert ref.units(np.empty(0, np.float32), np.empty(0, ref.Real), 1.0) == 0
