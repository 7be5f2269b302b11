"""Initialisers: distributions by Kolmogorov and Smirnov, fans by counting, orthogonality, gains, refusals."""

import math

import numpy as np
import pytest
from scipy import stats

import fastnn
from fastnn import init

LARGE = (700, 300)
FAN_IN, FAN_OUT = 300, 700
REALS = [np.float32, np.float64]

# Everything that draws from a known distribution: the call, and the distribution.
XAVIER, LEAKY = math.sqrt(2 / (FAN_IN + FAN_OUT)), math.sqrt(2 / (1 + 0.3**2) / FAN_IN)
DISTRIBUTIONS = {
    "uniform": (lambda **o: init.uniform(LARGE, -2, 5, **o), stats.uniform(-2, 7)),
    "normal": (lambda **o: init.normal(LARGE, 3, 0.5, **o), stats.norm(3, 0.5)),
    "trunc_normal": (lambda **o: init.trunc_normal(LARGE, **o), stats.truncnorm(-2, 2)),
    "trunc_normal, skew": (
        lambda **o: init.trunc_normal(LARGE, 1.0, 2.0, a=0.0, b=9.0, **o),
        stats.truncnorm(-0.5, 4, loc=1, scale=2),
    ),
    "trunc_normal, right tail": (
        lambda **o: init.trunc_normal(LARGE, a=9.0, b=10.0, **o),
        stats.truncnorm(9, 10),
    ),
    "trunc_normal, left tail": (
        lambda **o: init.trunc_normal(LARGE, a=-30.0, b=-20.0, **o),
        stats.truncnorm(-30, -20),
    ),
    "xavier_uniform": (
        lambda **o: init.xavier_uniform(LARGE, **o),
        stats.uniform(-XAVIER * 3**0.5, 2 * XAVIER * 3**0.5),
    ),
    "xavier_uniform, gain": (
        lambda **o: init.xavier_uniform(LARGE, 5 / 3, **o),
        stats.uniform(-XAVIER * 5 / 3 * 3**0.5, 2 * XAVIER * 5 / 3 * 3**0.5),
    ),
    "xavier_normal": (lambda **o: init.xavier_normal(LARGE, **o), stats.norm(0, XAVIER)),
    "kaiming_uniform": (
        lambda **o: init.kaiming_uniform(LARGE, **o),
        stats.uniform(-math.sqrt(6 / FAN_IN), 2 * math.sqrt(6 / FAN_IN)),
    ),
    "kaiming_uniform, √5": (  # what Linear and Conv2d start from
        lambda **o: init.kaiming_uniform(LARGE, 5**0.5, **o),
        stats.uniform(-math.sqrt(1 / FAN_IN), 2 * math.sqrt(1 / FAN_IN)),
    ),
    "kaiming_normal": (lambda **o: init.kaiming_normal(LARGE, **o), stats.norm(0, math.sqrt(2 / FAN_IN))),
    "kaiming_normal, leaky": (lambda **o: init.kaiming_normal(LARGE, 0.3, **o), stats.norm(0, LEAKY)),
    "kaiming_normal, fan_out": (
        lambda **o: init.kaiming_normal(LARGE, mode="fan_out", nonlinearity="relu", **o),
        stats.norm(0, math.sqrt(2 / FAN_OUT)),
    ),
    "kaiming_normal, io": (
        lambda **o: init.kaiming_normal(LARGE[::-1], layout="io", **o),
        stats.norm(0, math.sqrt(2 / FAN_IN)),
    ),
    "lecun_normal": (lambda **o: init.lecun_normal(LARGE, **o), stats.norm(0, math.sqrt(1 / FAN_IN))),
    "variance_scaling": (
        lambda **o: init.variance_scaling(LARGE, 0.5, "fan_avg", "uniform", **o),
        stats.uniform(-math.sqrt(1.5 / 500), 2 * math.sqrt(1.5 / 500)),
    ),
}


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("case", DISTRIBUTIONS)
def test_distribution(case, dtype):
    """210 000 numbers: the test sees a distribution function that is off by 0.004, a standard deviation off by 2 %."""
    draw, distribution = DISTRIBUTIONS[case]
    values = draw(rng=1, dtype=dtype)
    assert values.dtype == dtype
    assert values.size == math.prod(LARGE)
    assert stats.kstest(values.ravel().astype(np.float64), distribution.cdf).pvalue > 1e-3
    assert values.min() >= distribution.support()[0] * (1 + 1e-7 * np.sign(-distribution.support()[0]))
    assert values.max() <= distribution.support()[1] * (1 + 1e-7 * np.sign(distribution.support()[1]))


@pytest.mark.parametrize("case", DISTRIBUTIONS)
def test_sources(case):
    """A seed means a new generator; a generator goes on; NumPy's will do; None is the default generator."""
    draw, distribution = DISTRIBUTIONS[case]
    assert (draw(rng=5) == draw(rng=fastnn.Generator(5))).all()
    generator = fastnn.Generator(5)
    assert (draw(rng=generator) != draw(rng=generator)).any()
    ours = fastnn.random.default_generator()
    before = ours.state_dict()
    fastnn.manual_seed(5)
    first = draw()
    ours.load_state_dict(before)
    assert (first == draw(rng=5)).all()
    numpy = draw(rng=np.random.default_rng(0)).ravel().astype(np.float64)
    assert stats.kstest(numpy, distribution.cdf).pvalue > 1e-3


def test_shapes():
    for fill in (init.uniform, init.normal, init.trunc_normal):
        assert fill(3, rng=0).shape == (3,)
        assert fill((), rng=0).shape == ()
        assert fill((2, 0, 3), rng=0).shape == (2, 0, 3)
    for scaled in (init.xavier_uniform, init.kaiming_normal, init.lecun_normal, init.orthogonal):
        assert scaled([4, 3, 2, 2], rng=0).shape == (4, 3, 2, 2)
        assert scaled((0, 3), rng=0).shape == (0, 3)
        assert scaled((3, 0), rng=0).shape == (3, 0)


@pytest.mark.parametrize("dtype", REALS)
def test_constants(dtype):
    assert init.zeros((2, 3), dtype=dtype).tolist() == [[0.0] * 3] * 2
    assert init.ones(2, dtype=dtype).tolist() == [1.0, 1.0]
    assert init.constant((1, 2), 0.25, dtype=dtype).tolist() == [[0.25, 0.25]]
    assert init.constant(1, 2, dtype=dtype).dtype == init.zeros(1, dtype=dtype).dtype == init.ones(1, dtype=dtype).dtype


def test_truncation_is_inside():
    """Also where the quantiles differ in their last digits only, and where a bound is rounded to float32."""
    assert abs(init.trunc_normal(10_000, std=10.0, a=-0.1, b=0.1, rng=0)).max() <= np.float32(0.1)
    assert abs(init.trunc_normal(10_000, std=1e9, a=-0.1, b=0.1, rng=0, dtype=np.float64)).max() <= 0.1


# -- fans ------------------------------------------------------------------------------------------------------------


def counted_fans(out, inputs, kernel, groups):
    """Connections of a 1-d convolution, counted one by one far from the edges."""
    into, onto = np.zeros(out, int), np.zeros(inputs, int)
    for o in range(out):
        for i in range(inputs):
            if o // (out // groups) == i // (inputs // groups):
                into[o] += kernel
                onto[i] += kernel
    assert len(set(into)) == len(set(onto)) == 1
    return into[0], onto[0]


@pytest.mark.parametrize(("out", "inputs", "groups"), [(6, 4, 1), (6, 4, 2), (8, 8, 8), (16, 8, 8), (3, 9, 3)])
@pytest.mark.parametrize("kernel", [1, 5])
def test_fans_count_connections(out, inputs, groups, kernel):
    expected = counted_fans(out, inputs, kernel, groups)
    shape = (out, inputs // groups, kernel)
    assert init.fans(shape, groups=groups) == expected
    assert init.fans((kernel, inputs // groups, out), "io", groups) == expected


def test_fans_of_images():
    assert init.fans((64, 32)) == (32, 64)
    assert init.fans((32, 64), "io") == (32, 64)
    assert init.fans((64, 32, 3, 5)) == init.fans((3, 5, 32, 64), layout="io") == (480, 960)


@pytest.mark.parametrize(("inputs", "out", "groups"), [(64, 32, 1), (64, 32, 4), (8, 8, 8)])
def test_fans_of_transposed_convolutions(inputs, out, groups):
    """Their weight is (in, out/groups, *kernel): what a unit adds up is fan_out, and where it goes fan_in."""
    assert init.fans((inputs, out // groups, 3), groups=groups)[::-1] == counted_fans(out, inputs, 3, groups)


@pytest.mark.peers
def test_fans_and_gains_of_torch():
    torch = pytest.importorskip("torch")
    for shape in [(3, 7), (8, 4, 3), (64, 32, 3, 3), (2, 3, 4, 5, 6)]:
        assert init.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    names = ["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
    for name in [*names, "sigmoid", "tanh", "relu", "leaky_relu", "selu"]:
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)
    for slope in (0, 0.2, 5**0.5, -1):
        assert init.calculate_gain("leaky_relu", slope) == torch.nn.init.calculate_gain("leaky_relu", slope)


def test_gains_keep_the_second_moment():
    """E[(gain·φ(z))²] = 1 for z ~ N(0, 1): exact for the rectifiers, by quadrature."""
    z, weight = np.polynomial.hermite_e.hermegauss(100)
    for slope in (0.0, 0.01, 0.3, 1.0):
        rectified = np.where(z > 0, z, slope * z)
        moment = (weight * rectified**2).sum() / weight.sum()
        assert init.calculate_gain("leaky_relu", slope) ** 2 * moment == pytest.approx(1, rel=1e-12)
    assert init.calculate_gain("relu") == init.calculate_gain("leaky_relu", 0)
    assert init.calculate_gain("leaky_relu") == init.calculate_gain("leaky_relu", 0.01)


# -- orthogonal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("layout", ["oi", "io"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 7), (7, 1), (64, 64), (300, 70), (70, 300), (32, 16, 3, 3), (3, 3, 8, 512)]
)
def test_orthogonal(shape, layout, dtype):
    weight = init.orthogonal(shape, 2.0, rng=0, dtype=dtype, layout=layout)
    assert weight.shape == shape
    assert weight.dtype == dtype
    assert weight.flags.c_contiguous
    matrix = weight.astype(np.float64) / 2
    matrix = matrix.reshape(shape[0], -1) if layout == "oi" else matrix.reshape(-1, shape[-1]).T
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), rtol=0, atol=1e-6)


def test_orthogonal_is_uniform():
    """Haar: the first entry of a 3×3 matrix is a coordinate of a random point on the sphere, uniform on (−1, 1);
    without making R's diagonal positive, LAPACK's signs would favour one side. Determinants are ±1 alike."""
    generator = fastnn.Generator(2)
    matrices = np.array([init.orthogonal((3, 3), rng=generator, dtype=np.float64) for _ in range(3000)])
    for i in range(3):
        for j in range(3):
            assert stats.kstest(matrices[:, i, j], stats.uniform(-1, 2).cdf).pvalue > 1e-3
    positive = int((np.linalg.det(matrices) > 0).sum())
    assert stats.binomtest(positive, 3000).pvalue > 1e-3


# -- refusals --------------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
SENSELESS = [
    (lambda: init.fans((5,)), "shape must have two axes or more"),
    (lambda: init.fans(5), "shape must have two axes or more"),
    (lambda: init.fans((5, -1)), "shape must have two axes or more, none negative"),
    (lambda: init.fans((5, 4), "hwio"), "layout must be one of 'oi', 'io', got 'hwio'"),
    (lambda: init.fans((6, 4, 3), groups=4), "groups must be at least 1 and divide the 6 outputs, got 4"),
    (lambda: init.fans((6, 4, 3), groups=0), "groups must be at least 1"),
    (lambda: init.calculate_gain("softplus"), "nonlinearity must be one of 'linear', 'sigmoid',"),
    (lambda: init.calculate_gain("leaky_relu", NAN), "param must be finite, got nan"),
    (lambda: init.uniform(3, 1, 0), "a must not be more than b, 0, got 1"),
    (lambda: init.uniform(3, 0, INF), "b must be finite"),
    (lambda: init.normal(3, NAN), "mean must be finite"),
    (lambda: init.normal(3, 0, -1, rng=np.random.default_rng(0)), "std must be at least 0, got -1"),
    (lambda: init.trunc_normal(3, std=0), "std must be more than 0, got 0"),
    (lambda: init.trunc_normal(3, a=1, b=1), "a must be less than b, 1, got 1"),
    (lambda: init.trunc_normal(3, a=50, b=60), r"\[a, b\] must hold some of the distribution"),
    (lambda: init.orthogonal((3,)), "shape must have two axes or more"),
    (lambda: init.orthogonal((3, 3), NAN), "gain must be finite"),
    (lambda: init.orthogonal((3, 3), layout="ii"), "layout must be"),
    (lambda: init.xavier_uniform((3,)), "shape must have"),
    (lambda: init.zeros(-1), "shape must be an integer or a sequence of integers of at least 0, .* got -1"),
    (lambda: init.ones((2, -1)), "shape must be an integer or a sequence of integers of at least 0"),
    (lambda: init.xavier_normal((3, 3), INF), "gain must be finite"),
    (lambda: init.kaiming_uniform((3, 3), mode="fan_avg"), "mode must be one of 'fan_in', 'fan_out', got 'fan_avg'"),
    (lambda: init.kaiming_normal((3, 3), nonlinearity="gelu"), "nonlinearity must be"),
    (lambda: init.variance_scaling((3, 3), -1.0), "scale must be at least 0"),
    (lambda: init.variance_scaling((3, 3), mode="fan"), "mode must be one of"),
    (lambda: init.variance_scaling((0, 10**400)), "shape must have at most"),
    (lambda: init.lecun_normal((2, *[2**62] * 20)), "shape must have at most"),
    (lambda: init.orthogonal((2, 2**70)), "shape must have at most"),
    (lambda: init.orthogonal((2**40, 2**40)), "shape must have at most"),
    (lambda: init.orthogonal((2, -1)), "shape must have two axes or more, none negative"),
    (lambda: init.variance_scaling((3, 3), distribution="cauchy"), "distribution must be one of"),
]


@pytest.mark.parametrize(("make", "message"), SENSELESS, ids=range(len(SENSELESS)))
def test_senseless_parameters(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_wrong_types():
    for shape in ("ab", (2, 3.0), 2.5):
        with pytest.raises(TypeError, match="shape must be an integer or a sequence of integers"):
            init.fans(shape)
        with pytest.raises(TypeError, match="shape must be an integer or a sequence of integers"):
            init.zeros(shape)
    with pytest.raises(TypeError, match="groups must be an integer, got float"):
        init.fans((2, 3), groups=1.0)


@pytest.mark.parametrize(
    "fill", [init.uniform, init.normal, init.trunc_normal, init.zeros, init.ones, init.xavier_normal, init.orthogonal]
)
@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.complex64])
def test_dtype_refused(fill, dtype):
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got"):
        fill((3, 3), dtype=dtype)
