"""The norm layers: parameters, running statistics, modes, ghost batches and exact recalibration."""

import threading

import numpy as np
import pytest

import fastnn
import fastnn.functional as F


def images(seed, samples=6, channels=3, size=4, dtype=np.float32):
    return (1 + 2 * np.random.default_rng(seed).standard_normal((samples, channels, size, size))).astype(dtype)


LAYERS = {
    "BatchNorm": (lambda **k: fastnn.BatchNorm(3, **k), lambda x, w, b: F.batch_norm(x, None, None, w, b, True)),
    "LayerNorm": (lambda **k: fastnn.LayerNorm(4, **k), lambda x, w, b: F.layer_norm(x, 4, w, b)),
    "RMSNorm": (lambda **k: fastnn.RMSNorm((4, 4), **k), lambda x, w, b: F.rms_norm(x, (4, 4), w)),
    "InstanceNorm": (
        lambda **k: fastnn.InstanceNorm(3, affine=True, **k),
        lambda x, w, b: F.instance_norm(x, None, None, w, b),
    ),
    "GroupNorm": (lambda **k: fastnn.GroupNorm(3, 3, **k), lambda x, w, b: F.group_norm(x, 3, w, b)),
}

layers = pytest.mark.parametrize("name", LAYERS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@layers
def test_is_thin_over_its_function(name, dtype):
    make, function = LAYERS[name]
    layer = make(dtype=dtype)
    x, dy = images(1, dtype=dtype), images(2, dtype=dtype)
    for parameter in layer.parameters():
        assert parameter.data.dtype == dtype
        assert not parameter.decay
        parameter.data += images(3, dtype=dtype).ravel()[: parameter.data.size].reshape(parameter.data.shape)
    weight, bias = layer.weight.data, None if layer.bias is None else layer.bias.data
    np.testing.assert_array_equal(layer(x), function(x, weight, bias))
    dx = layer.backward(dy)
    assert dx.shape == x.shape
    once = [p.grad.copy() for p in layer.parameters()]
    assert all(g.any() for g in once)
    layer(x)
    layer.backward(dy)
    for parameter, gradient in zip(layer.parameters(), once):
        np.testing.assert_array_equal(parameter.grad, 2 * gradient)


@layers
def test_starts_as_the_plain_norm(name):
    layer = LAYERS[name][0]()
    assert (layer.weight.data == 1).all()
    assert layer.bias is None or not layer.bias.data.any()


@layers
def test_a_wrong_dtype(name):
    with pytest.raises(TypeError, match=r"float64.*float32|float32.*float64"):
        LAYERS[name][0]()(images(0, dtype=np.float64))
    with pytest.raises(TypeError, match="dtype"):
        LAYERS[name][0](dtype=np.float16)


def test_absent_parameters():
    assert fastnn.LayerNorm(4, elementwise_affine=False).parameters() == []
    assert [n for n, _ in fastnn.LayerNorm(4, bias=False).named_parameters()] == ["weight"]
    assert fastnn.RMSNorm(4, elementwise_affine=False).parameters() == []
    assert fastnn.BatchNorm(4, affine=False).parameters() == []
    assert fastnn.InstanceNorm(4).parameters() == []
    assert fastnn.GroupNorm(2, 4, affine=False).parameters() == []


def test_shapes_of_numpy():
    assert fastnn.LayerNorm(np.array([3, 4])).normalized_shape == (3, 4)
    assert fastnn.RMSNorm(np.int8(3)).normalized_shape == (3,)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: fastnn.BatchNorm(0), "num_features must be at least 1, got 0"),
        (lambda: fastnn.BatchNorm(3, eps=0.0), "eps must be positive, got 0"),
        (lambda: fastnn.InstanceNorm(-1), "num_features"),
        (lambda: fastnn.GroupNorm(0, 4), "num_groups"),
        (lambda: fastnn.GroupNorm(3, 4), "num_groups must divide num_channels 4, got 3"),
        (lambda: fastnn.LayerNorm(()), "normalized_shape"),
        (lambda: fastnn.LayerNorm((3, -1)), "normalized_shape"),
        (lambda: fastnn.RMSNorm(0), "normalized_shape"),
        (lambda: fastnn.BatchNorm(3, virtual_batch_size=0), "virtual_batch_size"),
        (lambda: fastnn.BatchNorm(3, momentum=np.inf), "momentum must be finite, got inf"),
        (lambda: fastnn.InstanceNorm(3, momentum=np.nan), "momentum must be finite, got nan"),
        (lambda: fastnn.BatchNorm(3)(images(0, channels=4)), "num_features = 3"),
        (lambda: fastnn.BatchNorm(3)(np.ones((), np.float32)), "input must have a batch axis and a channel axis"),
    ],
)
def test_hyper_parameters_are_checked(call, match):
    with pytest.raises(ValueError, match=match):
        call()


class TestRunningStatistics:
    def test_state(self):
        layer = fastnn.BatchNorm(3)
        state = layer.state_dict()
        assert list(state) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
        assert state["num_batches_tracked"].dtype == np.int64
        assert state["num_batches_tracked"].shape == ()
        assert list(fastnn.BatchNorm(3, affine=False, track_running_stats=False).state_dict()) == []
        assert list(fastnn.InstanceNorm(3).state_dict()) == []

    def test_evaluation_uses_and_keeps_them(self):
        layer = fastnn.BatchNorm(3)
        for seed in range(4):
            layer(images(seed))
        assert layer.num_batches_tracked == 4
        layer.eval()
        before = layer.state_dict()
        x = images(9)
        expected = F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight.data, layer.bias.data)
        np.testing.assert_array_equal(layer(x), expected)
        for key, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, before[key])

    def test_without_them_evaluation_uses_the_batch(self):
        for layer in (fastnn.BatchNorm(3, track_running_stats=False), fastnn.InstanceNorm(3)):
            x = images(0)
            np.testing.assert_array_equal(layer.eval()(x), layer.train()(x))

    def test_instance_norm_with_them(self):
        layer = fastnn.InstanceNorm(3, track_running_stats=True, dtype=np.float64)
        x = images(0, dtype=np.float64)
        layer(x)
        np.testing.assert_allclose(layer.running_mean, 0.1 * x.mean((0, 2, 3)))
        np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x.var((2, 3), ddof=1).mean(0))
        y = layer.eval()(x)
        expected = (x - layer.running_mean[:, None, None]) / np.sqrt(layer.running_var[:, None, None] + 1e-5)
        np.testing.assert_allclose(y, expected)

    def test_no_momentum_weighs_by_samples(self):
        layer = fastnn.BatchNorm(3, momentum=None, dtype=np.float64)
        batches = [images(seed, samples, dtype=np.float64) for seed, samples in enumerate((5, 5, 2, 1))]
        for x in batches:
            layer(x)
        weights = [len(x) for x in batches]
        np.testing.assert_allclose(
            layer.running_mean, np.average([x.mean((0, 2, 3)) for x in batches], 0, weights), rtol=1e-12
        )
        np.testing.assert_allclose(
            layer.running_var, np.average([x.var((0, 2, 3), ddof=1) for x in batches], 0, weights), rtol=1e-12
        )

    def test_an_empty_batch_counts_for_nothing(self):
        layer = fastnn.BatchNorm(3)
        layer(images(0))
        before = layer.state_dict()
        assert layer(np.empty((0, 3, 4, 4), np.float32)).shape == (0, 3, 4, 4)
        for key, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, before[key])

    def test_a_failed_call_changes_nothing(self):
        layer = fastnn.BatchNorm(3)
        before = layer.state_dict()
        for bad in (np.ones((1, 3), np.float32), images(0, dtype=np.float64), images(0, channels=4)):
            with pytest.raises((TypeError, ValueError)):
                layer(bad)
        for key, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, before[key])
        with pytest.raises(RuntimeError, match="backward"):
            layer.backward(images(0))

    def test_a_round_trip_of_the_state(self):
        for momentum in (0.1, None):
            layer, other = (fastnn.BatchNorm(3, momentum=momentum) for _ in range(2))
            layer(images(0))
            other.load_state_dict(layer.state_dict())
            np.testing.assert_array_equal(layer(images(1)), other(images(1)))
            for key, value in layer.state_dict().items():
                np.testing.assert_array_equal(value, other.state_dict()[key])


class TestGhostBatches:
    @pytest.mark.parametrize("samples", [1, 4, 8, 10])
    def test_each_is_normalised_by_itself(self, samples):
        ghost = fastnn.BatchNorm(3, virtual_batch_size=4, dtype=np.float64)
        plain = fastnn.BatchNorm(3, dtype=np.float64)
        x, dy = images(0, samples, dtype=np.float64), images(1, samples, dtype=np.float64)
        y = ghost(x)
        parts = [plain(x[i : i + 4]) for i in range(0, samples, 4)]
        np.testing.assert_array_equal(y, np.concatenate(parts))
        dx = ghost.backward(dy)
        starts = list(range(0, samples, 4))
        expected = {i: plain.backward(dy[i : i + 4]) for i in reversed(starts)}
        np.testing.assert_array_equal(dx, np.concatenate([expected[i] for i in starts]))
        for own, their in zip(ghost.parameters(), plain.parameters()):
            np.testing.assert_allclose(own.grad, their.grad, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(ghost.running_var, plain.running_var)

    @pytest.mark.parametrize("axis", [1, -1])
    def test_a_last_one_of_a_single_value_changes_nothing(self, axis):
        ghost = fastnn.BatchNorm(3, virtual_batch_size=4, channel_axis=axis)
        before = {name: value.copy() for name, value in ghost.state_dict().items()}
        with pytest.raises(ValueError, match=r"last virtual batch of 4 more than one value .* got shape \(9, 3\)"):
            ghost(np.random.default_rng(0).standard_normal((9, 3), np.float32))
        for name, value in ghost.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    @pytest.mark.parametrize("samples", [6, 9, 12])
    def test_a_gradient_of_other_samples_changes_nothing(self, samples):
        ghost = fastnn.BatchNorm(3, virtual_batch_size=4)
        ghost(images(0, 8))
        with pytest.raises(ValueError, match=rf"dy must have as many samples .* 8, got shape \({samples}, 3"):
            ghost.backward(images(1, samples))
        assert not any(parameter.grad.any() for parameter in ghost.parameters())
        ghost.backward(images(1, 8))

    def test_evaluation_does_not_split(self):
        ghost = fastnn.BatchNorm(3, virtual_batch_size=4)
        ghost(images(0, 10))
        plain = fastnn.BatchNorm(3)
        plain.load_state_dict(ghost.state_dict())
        np.testing.assert_array_equal(ghost.eval()(images(1, 10)), plain.eval()(images(1, 10)))


class TestRecalibration:
    def model(self):
        return fastnn.Sequential(
            fastnn.BatchNorm(3, dtype=np.float64), fastnn.ReLU(), fastnn.BatchNorm(3, dtype=np.float64)
        )

    @pytest.mark.parametrize("cuts", [[100], [32, 64, 96], [99], [1, 2]])
    def test_a_single_layer_gets_the_exact_statistics(self, cuts):
        x = 5 + np.random.default_rng(0).standard_normal((100, 3, 2)) ** 3
        layer = fastnn.BatchNorm(3, dtype=np.float64)
        fastnn.recalibrate(layer, np.split(x, cuts))
        np.testing.assert_allclose(layer.running_mean, x.mean((0, 2)), rtol=1e-13)
        np.testing.assert_allclose(layer.running_var, x.var((0, 2), ddof=1), rtol=1e-12)

    def test_a_model_keeps_its_mode_and_parameters(self):
        model = self.model()
        model.eval()
        before = {n: p.data.copy() for n, p in model.named_parameters()}
        fastnn.recalibrate(model, [(images(k, dtype=np.float64), "label") for k in range(3)])
        assert not model.training
        for name, parameter in model.named_parameters():
            np.testing.assert_array_equal(parameter.data, before[name])
        whole = np.concatenate([images(k, dtype=np.float64) for k in range(3)])
        state = model.state_dict()
        np.testing.assert_allclose(state["0.running_mean"], whole.mean((0, 2, 3)), rtol=1e-12)

    def test_later_layers_see_earlier_ones_as_in_training(self):
        model, batch = self.model(), images(0, 20, dtype=np.float64)
        fastnn.recalibrate(model, [batch])
        inner = F.relu(F.batch_norm(batch, None, None, training=True))
        np.testing.assert_allclose(model.state_dict()["2.running_mean"], inner.mean((0, 2, 3)), rtol=1e-12)

    def test_a_failure_changes_nothing(self):
        model = self.model()
        before = model.state_dict()

        def batches():
            yield images(0, dtype=np.float64)
            raise OSError("disk")

        with pytest.raises(OSError, match="disk"):
            fastnn.recalibrate(model, batches())
        with pytest.raises(ValueError, match="batches"):
            fastnn.recalibrate(model, [])
        for key, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[key])
        assert all(layer.training for _, layer in model.named_layers())


def test_evaluation_in_many_threads():
    layer = fastnn.BatchNorm(3)
    layer(images(0))
    layer.eval()
    inputs = [images(k) for k in range(8)]
    expected = [layer(x) for x in inputs]
    results = [None] * 8

    def work(k):
        for _ in range(20):
            results[k] = layer(inputs[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(results, expected):
        np.testing.assert_array_equal(ours, theirs)
    assert layer._contexts == layer.train()._contexts == []


@pytest.mark.parametrize("channel_axis", [1, -1])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_batch_shows_in_the_running_statistics_of_its_channel_alone(poison, channel_axis):
    x = np.random.default_rng(0).standard_normal((6, 4, 3, 4)).astype(np.float32)
    x[2, 1, 0, 1] = poison
    layer = fastnn.BatchNorm(4, channel_axis=channel_axis)
    layer(x)
    spoiled = np.arange(4) == 1
    np.testing.assert_array_equal(~np.isfinite(layer.running_mean), spoiled)
    np.testing.assert_array_equal(np.isnan(layer.running_var), spoiled)
