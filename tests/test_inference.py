"""Frozen networks: the model's answers, to the bit where nothing was folded, from any batch, thread and array."""

import sys
import threading

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn.inference.nodes import Node

UNIT = {np.float32: 2.0**-24, np.float64: 2.0**-53}
Real = np.longdouble
DTYPES = [np.float32, np.float64]


def randomised(model, seed=0):
    """The model with parameters and running statistics that are nothing special, in evaluation mode."""
    rng = np.random.default_rng(seed)
    for _, layer in model.named_layers():
        if isinstance(layer, fastnn.BatchNorm | fastnn.InstanceNorm) and layer.running_mean is not None:
            layer.running_mean[...] = rng.normal(0.5, 1, layer.num_features)
            layer.running_var[...] = rng.uniform(0.3, 2, layer.num_features)
        if isinstance(layer, fastnn.BatchNorm | fastnn.InstanceNorm | fastnn.LayerNorm | fastnn.GroupNorm):
            if layer.weight is not None:
                layer.weight.data[...] = rng.normal(1, 0.4, layer.weight.data.shape)
            if layer.bias is not None:
                layer.bias.data[...] = rng.normal(0, 0.5, layer.bias.data.shape)
    return model.eval()


def data(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def kinds(frozen):
    """What runs: each node's kind, with + for a residual and the activation behind it."""
    return [
        node.kind + ("+" if node.residual is not None else "") + (f" {node.activation.name}" if node.activation else "")
        for node in frozen._nodes
    ]


def conv(*arguments, dtype=np.float32, **options):
    return fastnn.Conv2d(*arguments, rng=3, dtype=dtype, **options)


def linear(*arguments, dtype=np.float32, **options):
    return fastnn.Linear(*arguments, rng=4, dtype=dtype, **options)


# Networks in which nothing is folded, and the shape of one sample.
EXACT = {
    "linear": (lambda d: linear(7, 5, dtype=d), (7,)),
    "no bias, many outputs": (lambda d: linear(33, 130, bias=False, dtype=d), (33,)),
    "linear on sequences": (lambda d: fastnn.Sequential(linear(6, 40, dtype=d), fastnn.Tanh()), (3, 6)),
    "layer norm": (
        lambda d: fastnn.Sequential(
            linear(32, 64, dtype=d), fastnn.LayerNorm(64, dtype=d), fastnn.ReLU(), linear(64, 10, dtype=d)
        ),
        (32,),
    ),
    "rms norm": (lambda d: fastnn.Sequential(fastnn.RMSNorm((3, 5), dtype=d), fastnn.SiLU()), (2, 3, 5)),
    "convolution": (lambda d: fastnn.Sequential(conv(3, 10, 3, padding=1, dtype=d), fastnn.GELU()), (3, 7, 9)),
    "strided, dilated, grouped": (
        lambda d: conv(4, 6, (3, 2), stride=2, padding=(2, 1), dilation=(1, 2), groups=2, bias=False, dtype=d),
        (4, 9, 11),
    ),
    "channels last": (
        lambda d: fastnn.Sequential(
            conv(3, 9, 3, padding="same", channel_axis=-1, dtype=d), fastnn.MaxPool2d(2, channel_axis=-1)
        ),
        (8, 6, 3),
    ),
    "group and instance norm": (
        lambda d: fastnn.Sequential(
            fastnn.GroupNorm(2, 6, dtype=d), fastnn.ReLU(),
            fastnn.InstanceNorm(6, affine=True, dtype=d), fastnn.ELU(0.7)
        ),
        (6, 5, 4),
    ),
    "norms of channels that come last": (
        lambda d: fastnn.Sequential(
            fastnn.GroupNorm(2, 6, channel_axis=-1, dtype=d),
            fastnn.LeakyReLU(0.2),
            fastnn.Residual(fastnn.InstanceNorm(6, channel_axis=-1, dtype=d)),
        ),
        (5, 4, 6),
    ),
    "group norm of vectors": (lambda d: fastnn.GroupNorm(3, 12, dtype=d), (12,)),
    "pools": (
        lambda d: fastnn.Sequential(
            fastnn.MaxPool2d(3, stride=2, padding=1), fastnn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        ),
        (3, 9, 10),
    ),
    "softmax": (lambda d: fastnn.Sequential(fastnn.Softmax(-1), fastnn.Softmax(1)), (4, 7)),
    "residuals": (
        lambda d: fastnn.Sequential(
            fastnn.Residual(fastnn.Sequential(linear(12, 12, dtype=d), fastnn.Tanh(), linear(12, 12, dtype=d))),
            fastnn.ReLU(),
            fastnn.Residual(fastnn.Sequential(fastnn.LayerNorm(12, dtype=d), linear(12, 12, dtype=d), fastnn.ReLU())),
            fastnn.Residual(fastnn.Residual(fastnn.Identity())),
        ),
        (12,),
    ),
    "batch norm before padding": (
        lambda d: fastnn.Sequential(fastnn.BatchNorm(3, dtype=d), conv(3, 4, 3, padding=1, dtype=d)),
        (3, 6, 6),
    ),
    "batch norm before an activation": (
        lambda d: fastnn.Sequential(fastnn.BatchNorm(5, dtype=d), fastnn.Sigmoid(), linear(5, 5, dtype=d)),
        (5,),
    ),
    "batch norms of every form": (
        lambda d: fastnn.Sequential(
            fastnn.BatchNorm(5, dtype=d), fastnn.Sigmoid(), fastnn.BatchNorm(5, affine=False, dtype=d), fastnn.ReLU(),
            fastnn.Residual(fastnn.BatchNorm(70, channel_axis=-1, dtype=d)), fastnn.Tanh(),
            fastnn.BatchNorm(36, channel_axis=2, dtype=d),
        ),
        (5, 36, 70),
    ),
    "softplus": (lambda d: fastnn.Softplus(2.0, 3.0), (5, 3)),
    "nothing at all": (lambda d: fastnn.Sequential(fastnn.Dropout(), fastnn.Flatten()), (2, 3)),
    "classic dropout alone": (lambda d: fastnn.Dropout(0.3, mode="classic"), (5,)),
}  # fmt: skip


class TestAnswers:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", EXACT)
    def test_are_the_models_bits(self, name, dtype):
        make, shape = EXACT[name]
        model = randomised(make(dtype))
        frozen = fastnn.freeze(model)
        for samples in (0, 1, 2, 7, 8, 9, 31, 200):
            x = data(samples, *shape, dtype=dtype)
            y = frozen(x)
            expected = model(x)
            assert y.shape == expected.shape
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, expected, err_msg=f"{samples} samples")

    @pytest.mark.parametrize("threads", [1, 2, 3, 8])
    def test_do_not_depend_on_threads_or_the_rest_of_the_batch(self, threads):
        model = randomised(
            fastnn.Sequential(
                conv(1, 16, 3, padding=1), fastnn.BatchNorm(16), fastnn.ReLU(), fastnn.MaxPool2d(2),
                fastnn.Residual(fastnn.Sequential(conv(16, 16, 3, padding=1), fastnn.BatchNorm(16))), fastnn.ReLU(),
                fastnn.Flatten(), linear(16 * 36, 64), fastnn.LayerNorm(64), fastnn.GELU(), linear(64, 10),
            )
        )  # fmt: skip
        frozen = fastnn.freeze(model)
        x = data(201, 1, 12, 12)
        before = fastnn.get_num_threads()
        try:
            fastnn.set_num_threads(1)
            alone = np.concatenate([frozen(x[k : k + 1]) for k in range(len(x))])
            fastnn.set_num_threads(threads)
            for samples in (201, 100, 17, 3):
                np.testing.assert_array_equal(frozen(x[:samples]), alone[:samples])
        finally:
            fastnn.set_num_threads(before)

    def test_a_large_sample_is_shared_among_threads(self):
        model = fastnn.Sequential(conv(8, 8, 3, padding=1), fastnn.ReLU(), conv(8, 4, 5))
        x = data(1, 8, 90, 70)
        np.testing.assert_array_equal(fastnn.freeze(model)(x), model.eval()(x))

    def test_a_variance_near_the_end_of_the_range(self):
        norm = fastnn.BatchNorm(3, eps=1e-40)
        norm.running_var[...] = [0, 1e-38, 1]
        model = fastnn.Sequential(norm, fastnn.ReLU()).eval()
        x = data(4, 3, 5) * np.float32(1e-25)
        np.testing.assert_array_equal(fastnn.freeze(model)(x), model(x))

    def test_of_many_forms(self):
        model = fastnn.Sequential(conv(2, 3, 3), fastnn.ReLU())
        frozen = fastnn.freeze(model)
        model.eval()
        for size in [*range(3, 30), 3, 12]:
            x = data(2, 2, size, size + 1)
            np.testing.assert_array_equal(frozen(x), model(x))

    def test_nan_and_infinity_stay_in_their_sample(self):
        frozen = fastnn.freeze(fastnn.Sequential(linear(6, 20), fastnn.ReLU(), linear(20, 3)))
        x = data(12, 6)
        clean = frozen(x)
        x[4, 2], x[7, 0] = np.nan, np.inf
        spoilt = frozen(x)
        assert np.isnan(spoilt[4]).all()
        others = [k for k in range(12) if k not in (4, 7)]
        np.testing.assert_array_equal(spoilt[others], clean[others])


# ---- folding: against long-double formulas of our own ----------------------------------------------------------------


def correlate(x, weight, padding, groups):
    """Convolution of images (N, C, H, W) in long double."""
    x, weight = x.astype(Real), weight.astype(Real)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    parts = zip(np.split(windows, groups, axis=1), np.split(weight, groups))
    return np.concatenate([np.einsum("nchwkl,ockl->nohw", one, part) for one, part in parts], axis=1)


def affine_of(norm):
    """s and t of a batch norm with running statistics."""
    wide = [a.astype(Real) for a in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var)]
    s = wide[0] / np.sqrt(wide[3] + norm.eps)
    return s, wide[1] - s * wide[2]


def channels(vector, ndim=4):
    return vector.reshape(-1, *[1] * (ndim - 2))


def units(y, exact, size):
    """The largest error in units in the last place of the largest sum of magnitudes: normwise, as a layer's is."""
    return float(np.abs(y - exact).max() / (UNIT[y.dtype.type] * size.max()))


class TestFolding:
    """Each layer within 4 units of the sums of its terms' magnitudes."""

    DTYPES = DTYPES if np.finfo(Real).nmant > 60 else DTYPES[:1]

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("groups", [1, 2, 6])
    @pytest.mark.parametrize("order", ["behind", "before", "both"])
    def test_convolutions(self, order, groups, dtype):
        behind, before = order != "before", order != "behind"
        padding = 0 if before else 1
        first, last = fastnn.BatchNorm(6, dtype=dtype), fastnn.BatchNorm(12, dtype=dtype)
        layer = conv(6, 12, 3, padding=padding, groups=groups, bias=order != "behind", dtype=dtype)
        model = randomised(fastnn.Sequential(*[first] * before, layer, *[last] * behind))
        frozen = fastnn.freeze(model)
        assert kinds(frozen) == ["conv2d"]
        x = data(5, 6, 8, 7, dtype=dtype)
        s, t = affine_of(first) if before else (np.ones(6), np.zeros(6))
        u, v = affine_of(last) if behind else (np.ones(12), np.zeros(12))
        weight = layer.weight.data
        bias = np.zeros(12) if layer.bias is None else layer.bias.data.astype(Real)
        inner = x * channels(s) + channels(t)
        exact = (correlate(inner, weight, padding, groups) + channels(bias)) * channels(u) + channels(v)
        size = correlate(abs(x * channels(s)) + abs(channels(t)), abs(weight), padding, groups) + channels(abs(bias))
        size = size * channels(abs(u)) + channels(abs(v))
        assert units(frozen(x), exact, size) <= 4

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("axis", [1, -1])
    def test_linear_layers(self, axis, dtype):
        first, last = (fastnn.BatchNorm(n, channel_axis=axis, dtype=dtype) for n in (9, 17))
        layer = linear(9, 17, dtype=dtype)
        frozen = fastnn.freeze(randomised(fastnn.Sequential(first, layer, last)))
        assert kinds(frozen) == ["linear"]
        x = data(40, 9, dtype=dtype)
        (s, t), (u, v) = affine_of(first), affine_of(last)
        weight, bias = (p.data.astype(Real) for p in (layer.weight, layer.bias))
        exact = ((x * s + t) @ weight.T + bias) * u + v
        size = ((abs(x * s) + abs(t)) @ abs(weight).T + abs(bias)) * abs(u) + abs(v)
        assert units(frozen(x), exact, size) <= 4

    @pytest.mark.parametrize("axis", [1, -1])
    def test_through_flatten(self, axis):
        norm, layer = fastnn.BatchNorm(3, channel_axis=axis), linear(3 * 20, 4)
        frozen = fastnn.freeze(randomised(fastnn.Sequential(norm, fastnn.Flatten(), layer)))
        assert kinds(frozen) == ["flatten", "linear"]
        x = data(6, *((3, 4, 5) if axis == 1 else (4, 5, 3)))
        s, t = affine_of(norm)
        wide = x.astype(Real)
        scaled = wide * channels(s) + channels(t) if axis == 1 else wide * s + t
        exact = scaled.reshape(6, 60) @ layer.weight.data.astype(Real).T + layer.bias.data
        np.testing.assert_allclose(frozen(x), exact, rtol=0, atol=1e-5)

    def test_classic_dropout(self):
        layer = linear(8, 3)
        frozen = fastnn.freeze(fastnn.Sequential(fastnn.Dropout(0.25, mode="classic"), layer, fastnn.Dropout(0.9)))
        assert kinds(frozen) == ["linear"]
        x = data(4, 8)
        exact = (0.75 * x.astype(Real)) @ layer.weight.data.astype(Real).T + layer.bias.data
        np.testing.assert_allclose(frozen(x), exact, rtol=0, atol=1e-6)

    def test_a_tracked_instance_norm(self):
        model = randomised(fastnn.Sequential(conv(2, 4, 3), fastnn.InstanceNorm(4, track_running_stats=True)))
        frozen = fastnn.freeze(model)
        assert kinds(frozen) == ["conv2d"]
        x = data(3, 2, 6, 6)
        np.testing.assert_allclose(frozen(x), model(x), rtol=0, atol=4e-6)

    def test_without_an_offset_padding_does_not_matter(self):
        norm = fastnn.BatchNorm(3, affine=False)
        norm.running_var[...] = [0.5, 1, 4]
        model = fastnn.Sequential(norm, conv(3, 4, 3, padding=1)).eval()
        frozen = fastnn.freeze(model)
        assert kinds(frozen) == ["conv2d"]
        x = data(3, 3, 6, 6)
        np.testing.assert_allclose(frozen(x), model(x), rtol=0, atol=4e-6)

    def test_a_result_that_is_read_twice_stays(self):
        block = fastnn.Sequential(linear(5, 5), fastnn.ReLU())
        model = randomised(fastnn.Sequential(linear(5, 5), fastnn.BatchNorm(5), fastnn.Residual(block)))
        frozen = fastnn.freeze(model)
        assert kinds(frozen) == ["linear", "linear relu", "elementwise+"]
        x = data(9, 5)
        np.testing.assert_allclose(frozen(x), model(x), rtol=0, atol=4e-6)

    def test_the_normalised_value_of_a_residual_is_not_folded_over_the_sum(self):
        model = randomised(fastnn.Sequential(fastnn.Residual(linear(5, 5)), fastnn.BatchNorm(5)))
        frozen = fastnn.freeze(model)
        assert kinds(frozen) == ["linear+", "batch_norm"]
        x = data(9, 5)
        np.testing.assert_array_equal(frozen(x), model(x))

    def test_a_batch_norm_over_another_axis_is_refused_where_it_was_folded(self):
        frozen = fastnn.freeze(randomised(fastnn.Sequential(linear(5, 4), fastnn.BatchNorm(4))))
        with pytest.raises(ValueError, match="joined with a batch norm over axis 1"):
            frozen(data(2, 4, 5))
        model = randomised(fastnn.Sequential(linear(5, 4), fastnn.BatchNorm(4, channel_axis=-1)))
        x = data(2, 4, 5)
        np.testing.assert_allclose(fastnn.freeze(model)(x), model(x), rtol=0, atol=4e-6)

    def test_a_variance_that_leaves_the_range_is_not_folded(self):
        norm = fastnn.BatchNorm(4, eps=1e-45)
        norm.running_var[...] = 0
        norm.weight.data[...] = 1e30
        model = fastnn.Sequential(linear(5, 4), norm).eval()
        frozen = fastnn.freeze(model)
        assert kinds(frozen) == ["linear", "batch_norm"]

    def test_residual_network(self):
        def block():
            return fastnn.Residual(
                fastnn.Sequential(
                    conv(8, 8, 3, padding=1, bias=False), fastnn.BatchNorm(8), fastnn.ReLU(),
                    conv(8, 8, 3, padding=1, bias=False), fastnn.BatchNorm(8),
                )
            )  # fmt: skip

        model = randomised(
            fastnn.Sequential(
                conv(3, 8, 3, padding=1), fastnn.BatchNorm(8), fastnn.ReLU(), block(), fastnn.ReLU(), block(),
                fastnn.ReLU(), fastnn.AvgPool2d(8), fastnn.Flatten(), linear(8, 10), fastnn.Softmax(1),
            )
        )  # fmt: skip
        frozen = fastnn.freeze(model)
        assert kinds(frozen) == [
            "conv2d relu", "conv2d relu", "conv2d+ relu", "conv2d relu", "conv2d+ relu", "avg_pool2d", "flatten",
            "linear", "softmax",
        ]  # fmt: skip
        x = data(20, 3, 8, 8)
        np.testing.assert_allclose(frozen(x), model(x), rtol=0, atol=1e-6)


# ---- calling ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    return fastnn.freeze(fastnn.Sequential(linear(4, 6), fastnn.ReLU(), linear(6, 4)))


class TestCalls:
    def test_out(self, small):
        x = data(10, 4)
        out = np.empty((10, 4), np.float32)
        assert small(x, out=out) is out
        np.testing.assert_array_equal(out, small(x))

    @pytest.mark.parametrize("samples", [1, 10, 3000])
    def test_in_place(self, small, samples):
        x = data(samples, 4)
        expected = small(x)
        assert small(x, out=x) is x
        np.testing.assert_array_equal(x, expected)

    def test_out_with_holes_and_in_other_byte_orders(self, small):
        x = data(10, 4)
        for out in (np.zeros((20, 8), np.float32)[::2, ::2], np.zeros((10, 4), ">f4")):
            assert small(x, out=out) is out
            np.testing.assert_array_equal(out, small(x))

    def test_out_that_overlaps_a_part_of_the_input(self, small):
        memory = data(11, 4)
        expected = small(memory[:10].copy())
        np.testing.assert_array_equal(small(memory[:10], out=memory[1:]), expected)

    @pytest.mark.parametrize(
        ("out", "error"),
        [
            (np.empty((10, 5), np.float32), "out must have shape"),
            (np.empty((10, 4)), "out must have the input's dtype"),
            ([0.0], "out must be a numpy array"),
        ],
    )
    def test_a_wrong_out(self, small, out, error):
        with pytest.raises((TypeError, ValueError), match=error):
            small(data(10, 4), out=out)

    def test_arrays_in_any_layout(self, small):
        x = data(10, 4)
        expected = small(x)
        for other in (np.asfortranarray(x), x.astype(">f4"), np.repeat(x, 2, axis=0)[::2], memoryview(x)):
            np.testing.assert_array_equal(small(other), expected)
        readonly = x.copy()
        readonly.flags.writeable = False
        np.testing.assert_array_equal(small(readonly), expected)

    @pytest.mark.peers
    def test_torch_tensors(self, small):
        torch = pytest.importorskip("torch")
        x = data(10, 4)
        y = small(torch.from_numpy(x))
        assert type(y) is np.ndarray
        np.testing.assert_array_equal(y, small(x))

    @pytest.mark.parametrize("x", [np.zeros((3, 4)), np.zeros((3, 4), np.int32), [[0, 0, 0, 0]], "text", None])
    def test_wrong_types(self, small, x):
        with pytest.raises(TypeError, match="x must"):
            small(x)

    @pytest.mark.parametrize("shape", [(), (4,), (3, 5), (3, 4, 6)])
    def test_wrong_shapes(self, small, shape):
        with pytest.raises(ValueError, match="x "):
            small(np.zeros(shape, np.float32))

    def test_an_error_says_where(self):
        frozen = fastnn.freeze(fastnn.Sequential(linear(3, 4), fastnn.Tanh(), fastnn.LayerNorm(5)))
        with pytest.raises(ValueError, match=r"x of shape \(samples, 3\) does not fit layer_norm 1: .*\(4,\)"):
            frozen(data(2, 3))

    def test_without_parameters_both_dtypes_will_do(self):
        frozen = fastnn.freeze(fastnn.ReLU())
        assert frozen.dtype is None
        for dtype in DTYPES:
            assert frozen(data(3, 2, dtype=dtype)).dtype == dtype

    def test_an_exception_in_a_step_in_python_comes_out(self, monkeypatch):
        frozen = fastnn.freeze(fastnn.Softmax(1))

        def failing(x, dim, out):
            raise MemoryError("no room")

        monkeypatch.setattr(sys.modules["fastnn.functional.softmax"], "softmax", failing)
        with pytest.raises(MemoryError, match="no room"):
            frozen(data(2, 3, 4))


class TestImmutability:
    def test_the_model_may_change_afterwards(self):
        model = randomised(fastnn.Sequential(linear(4, 3), fastnn.BatchNorm(3)))
        frozen = fastnn.freeze(model)
        x = data(5, 4)
        before = frozen(x)
        for parameter in model.parameters():
            parameter.data[...] = 7
        model[1].running_mean[...] = 100
        np.testing.assert_array_equal(frozen(x), before)

    def test_freezing_leaves_the_model_alone(self):
        model = fastnn.Sequential(linear(4, 3), fastnn.BatchNorm(3), fastnn.Dropout())
        state = model.state_dict()
        fastnn.freeze(model)
        assert model.training
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, state[name])

    def test_nothing_can_be_set(self, small):
        for name in ("dtype", "_nodes", "anything"):
            with pytest.raises(AttributeError, match="does not change"):
                setattr(small, name, 1)
            with pytest.raises(AttributeError, match="does not change"):
                delattr(small, name)
        with pytest.raises(ValueError, match="read-only"):
            small._nodes[0].arrays["weight"][0, 0] = 1


class TestThreads:
    def test_many_threads_share_one_network(self):
        model = randomised(
            fastnn.Sequential(
                linear(16, 64), fastnn.BatchNorm(64), fastnn.ReLU(), fastnn.Residual(linear(64, 64)),
                fastnn.LayerNorm(64), fastnn.Softmax(),
            )
        )  # fmt: skip
        frozen = fastnn.freeze(model)
        inputs = [data(n, 16, seed=n) for n in (1, 2, 5, 64, 300, 700)]
        expected = [frozen(x) for x in inputs]
        wrong = []

        def ask(first):
            for k in range(150):
                at = (first + k) % len(inputs)
                if not np.array_equal(frozen(inputs[at]), expected[at]):
                    wrong.append((first, k))

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_threads_meet_new_forms_at_once(self):
        frozen = fastnn.freeze(fastnn.Sequential(conv(1, 4, 3), fastnn.ReLU()))
        images = [data(1, 1, n, n, seed=n) for n in range(4, 24)]
        answers = [[None] * len(images) for _ in range(8)]

        def ask(k):
            for at, x in enumerate(images):
                answers[k][at] = frozen(x)

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for k in range(8):
            for one, other in zip(answers[k], answers[0]):
                np.testing.assert_array_equal(one, other)


class TestFreeze:
    def test_a_layer_of_another_type(self):
        class Doubled(fastnn.ReLU):
            def _evaluate(self, x):
                return 2 * F.relu(x)

        with pytest.raises(TypeError, match=r"model must consist of .*BatchNorm.*, got Doubled"):
            fastnn.freeze(fastnn.Sequential(Doubled()))

    def test_a_batch_norm_without_running_statistics(self):
        with pytest.raises(ValueError, match="without running statistics"):
            fastnn.freeze(fastnn.BatchNorm(3, track_running_stats=False))

    def test_mixed_dtypes(self):
        with pytest.raises(ValueError, match="one dtype"):
            fastnn.freeze(fastnn.Sequential(linear(3, 3), linear(3, 3, dtype=np.float64)))

    @pytest.mark.parametrize("model", [fastnn.Flatten(0), fastnn.Softmax(0)])
    def test_what_mixes_samples(self, model):
        with pytest.raises(ValueError, match="does not fit"):
            fastnn.freeze(model)(data(2, 3))

    def test_every_layer_has_a_rule(self):
        from fastnn.inference.lower import _NOTHING, _RULES

        composite = {fastnn.Layer, fastnn.Sequential, fastnn.Residual, fastnn.Dropout}
        every = {value for name in fastnn.layers.__all__ if isinstance(value := getattr(fastnn, name), type)}
        assert every - {fastnn.Parameter} - composite - set(_RULES) - set(_NOTHING) == set()

    def test_repr(self):
        model = fastnn.Sequential(
            fastnn.Residual(linear(3, 3)), conv(4, 2, 3, groups=2), fastnn.Residual(fastnn.Tanh())
        )
        assert repr(fastnn.freeze(model)) == (
            "Frozen(\n  0: linear(3, 3) + input\n  1: conv2d(4, 2, kernel_size=(3, 3))\n"
            "  2: elementwise + tanh\n  3: elementwise + (1)\n)"
        )

    def test_nodes_are_checked(self):
        from fastnn.inference.frozen import Frozen

        with pytest.raises(ValueError, match="node 0 is of the unknown kind"):
            Frozen([Node("magic", -1, {}, {})])
