"""Weights of Keras, Flax and differently named PyTorch models: against those libraries' formulas in NumPy."""

import numpy as np
import pytest

import fastnn
from fastnn import convert

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def spread(*shape):
    """Variances."""
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def their_conv(x, kernel, bias):
    """Keras's and Flax's: images (N, H, W, C), kernel (KH, KW, in, out), no padding."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwckl,klco->nhwo", windows, kernel) + bias


def their_norm(x, scale, offset, mean, var, epsilon):
    return (x - mean) / np.sqrt(var + epsilon) * scale + offset


KERAS = {
    "net/conv2d/kernel:0": draw(3, 2, 3, 5),
    "net/conv2d/bias:0": draw(5),
    "net/batch_normalization/gamma:0": draw(5),
    "net/batch_normalization/beta:0": draw(5),
    "net/batch_normalization/moving_mean:0": draw(5),
    "net/batch_normalization/moving_variance:0": spread(5),
    "net/dense/kernel:0": draw(4 * 4 * 5, 2),
    "net/dense/bias:0": draw(2),
}


class TestKeras:
    def theirs(self, x):
        conv, bias, gamma, beta, mean, var, dense, offset = KERAS.values()
        y = their_norm(their_conv(x, conv, bias), gamma, beta, mean, var, 1e-3)
        return np.maximum(y, 0).reshape(len(x), -1) @ dense + offset

    def model(self, axis):
        return fastnn.Sequential(
            fastnn.Conv2d(3, 5, (3, 2), channel_axis=axis),
            fastnn.BatchNorm(5, channel_axis=axis, **convert.keras_options(momentum=0.9)),
            *(fastnn.ReLU(), fastnn.Flatten(), fastnn.Linear(80, 2)),
        ).eval()

    @pytest.mark.parametrize("axis", [1, -1])
    def test_a_network_in_both_layouts(self, axis):
        model = self.model(axis)
        flattened = {"net.dense": (4, 4, 5)} if axis == 1 else None
        found = convert.match(model, convert.keras(KERAS, flattened))
        assert found.complete, str(found)
        model.load_state_dict(found.state, strict=False)
        x = draw(3, 6, 5, 3)
        y = model(np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if axis == 1 else x)
        np.testing.assert_allclose(y, self.theirs(x), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fastnn.freeze(model)(x if axis == -1 else x.transpose(0, 3, 1, 2)), y, atol=1e-5)

    @pytest.mark.parametrize("multiplier", [1, 2])
    def test_depthwise(self, multiplier):
        kernel, bias = draw(3, 3, 4, multiplier), draw(4 * multiplier)
        layer = fastnn.Conv2d(4, 4 * multiplier, 3, groups=4, channel_axis=-1)
        state = convert.keras({"depthwise/depthwise_kernel": kernel, "depthwise/bias": bias})
        layer.load_state_dict({name.rpartition(".")[2]: array for name, array in state.items()})
        x = draw(2, 5, 6, 4)
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        expected = np.einsum("nhwckl,klcm->nhwcm", windows, kernel).reshape(2, 3, 4, -1) + bias
        np.testing.assert_allclose(layer.eval()(x), expected, rtol=1e-4, atol=1e-5)

    def test_layer_norm(self):
        gamma, beta, x = draw(6), draw(6), draw(3, 6)
        layer = fastnn.LayerNorm(6, **convert.keras_options())
        layer.load_state_dict(convert.keras({"gamma": gamma, "beta": beta}))
        mean, var = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        np.testing.assert_allclose(layer(x), their_norm(x, gamma, beta, mean, var, 1e-3), rtol=1e-5, atol=1e-5)

    def test_a_step_of_training_has_their_momentum(self):
        layer = fastnn.BatchNorm(3, **convert.keras_options(momentum=0.75))
        x = draw(8, 3)
        layer(x)
        np.testing.assert_allclose(layer.running_mean, 0.75 * 0 + 0.25 * x.mean(axis=0), rtol=1e-5)

    @pytest.mark.parametrize(
        ("weights", "flattened", "error"),
        [
            ({"embedding/embeddings": draw(3, 2)}, None, "got 'embedding/embeddings'"),
            ({"conv1d/kernel": draw(3, 2, 4)}, None, "conv1d/kernel must have two axes"),
            ({"a/depthwise_kernel": draw(3, 2)}, None, "a/depthwise_kernel must have four axes"),
            ({"dense/kernel": draw(8, 3)}, {"dense": (2, 2, 3)}, r"flattened\['dense'\] = \(2, 2, 3\)"),
            ({"dense/kernel": draw(8, 3)}, {"dence": (2, 2, 2)}, "got 'dence'"),
        ],
    )
    def test_errors(self, weights, flattened, error):
        with pytest.raises(ValueError, match=error):
            convert.keras(weights, flattened)

    def test_momentum_out_of_range(self):
        with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 1.5"):
            convert.keras_options(momentum=1.5)


class TestFlax:
    def test_a_network(self):
        kernel, bias, scale, offset, dense, last = (
            draw(3, 3, 2, 4), draw(4), draw(4), draw(4), draw(4 * 4 * 4, 3), draw(3),
        )  # fmt: skip
        mean, var = draw(4), spread(4)
        variables = {
            "params": {
                "Conv_0": {"kernel": kernel, "bias": bias},
                "BatchNorm_0": {"scale": scale, "bias": offset},
                "Head": {"Dense_0": {"kernel": dense, "bias": last}},
            },
            "batch_stats": {"BatchNorm_0": {"mean": mean, "var": var}},
        }
        model = fastnn.Sequential(
            fastnn.Conv2d(2, 4, 3, channel_axis=-1),
            fastnn.BatchNorm(4, channel_axis=-1, **convert.flax_options(1e-5, 0.99)),
            *(fastnn.Flatten(), fastnn.Linear(64, 3)),
        ).eval()
        state = convert.flax(variables)
        assert sorted(state)[:2] == ["BatchNorm_0.bias", "BatchNorm_0.running_mean"]
        found = convert.match(model, state)
        assert found.complete, str(found)
        model.load_state_dict(found.state, strict=False)
        x = draw(2, 6, 6, 2)
        y = their_norm(their_conv(x, kernel, bias), scale, offset, mean, var, 1e-5)
        np.testing.assert_allclose(model(x), y.reshape(2, -1) @ dense + last, rtol=1e-4, atol=1e-4)

    def test_nnx_has_no_collections_and_numbers_as_names(self):
        state = convert.flax({"layers": {0: {"kernel": draw(3, 2), "bias": None}}})
        assert {name: array.shape for name, array in state.items()} == {"layers.0.weight": (2, 3)}

    def test_channels_first(self):
        kernel, x = draw(12, 5), draw(3, 2, 2, 3)
        weight = convert.flax({"d": {"kernel": kernel}}, flattened={"d": (2, 2, 3)})["d.weight"]
        ours = x.transpose(0, 3, 1, 2).reshape(3, 12) @ weight.T
        np.testing.assert_allclose(ours, x.reshape(3, 12) @ kernel, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("variables", [{"params": {"a": {"embedding": draw(2, 2)}}}, {"kernel": {"x": draw(2)}}])
    def test_errors(self, variables):
        with pytest.raises(ValueError, match="variables must be kernels"):
            convert.flax(variables)


def block(channels):
    return fastnn.Residual(
        fastnn.Sequential(
            fastnn.Conv2d(channels, channels, 3, padding=1, bias=False), fastnn.BatchNorm(channels), fastnn.ReLU(),
            fastnn.Conv2d(channels, channels, 3, padding=1, bias=False), fastnn.BatchNorm(channels),
        )
    )  # fmt: skip


def residual_network():
    return fastnn.Sequential(
        fastnn.Conv2d(3, 4, 3, padding=1, bias=False), fastnn.BatchNorm(4), fastnn.ReLU(),
        *[layer for _ in range(11) for layer in (block(4), fastnn.ReLU())],
        fastnn.AvgPool2d(4), fastnn.Flatten(), fastnn.Linear(4, 10),
    )  # fmt: skip


def their_state():
    """As torchvision names a ResNet's arrays, in the order of its layers."""
    state = {"conv1.weight": draw(4, 3, 3, 3)}

    def norm(name):
        arrays = {f"{name}.{part}": draw(4) for part in ("weight", "bias", "running_mean")}
        return arrays | {f"{name}.running_var": spread(4), f"{name}.num_batches_tracked": np.array(7)}

    state |= norm("bn1")
    for k in range(11):
        for j in (1, 2):
            state |= {f"layer1.{k}.conv{j}.weight": draw(4, 4, 3, 3)} | norm(f"layer1.{k}.bn{j}")
    return state | {"fc.weight": draw(10, 4), "fc.bias": draw(10)}


class TestMatch:
    @pytest.mark.parametrize("in_a_file", [False, True])
    def test_a_residual_network(self, tmp_path, in_a_file):
        state = their_state()
        if in_a_file:  # sorted by name: layer1.10 before layer1.2
            fastnn.save(tmp_path / "resnet", state)
            state = fastnn.load(tmp_path / "resnet")
        model = residual_network()
        found = convert.match(model, state)
        assert found.complete
        assert found.sources["0.weight"] == "conv1.weight"
        assert found.sources["7.layer.3.weight"] == "layer1.2.conv2.weight"
        assert found.sources["23.layer.1.running_var"] == "layer1.10.bn1.running_var"
        assert "layer.3.weight ← layer1.2.conv2.weight  (by shape)" in str(found)
        model.load_state_dict(found.state, strict=False)
        np.testing.assert_array_equal(model.state_dict()["27.weight"], state["fc.weight"])
        assert model[1].num_batches_tracked == 7

    @pytest.mark.peers
    def test_torch_sequential_by_name(self):
        nn = pytest.importorskip("torch").nn
        theirs = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
        model = fastnn.Sequential(fastnn.Linear(3, 4), fastnn.BatchNorm(4), fastnn.ReLU(), fastnn.Linear(4, 2))
        found = convert.match(model, {name: value.detach() for name, value in theirs.state_dict().items()})
        assert found.complete
        assert all(name == source for name, source in found.sources.items())

    def test_names_go_before_order(self):
        model = fastnn.Sequential({"a": fastnn.Linear(2, 2), "b": fastnn.Linear(2, 2)})
        state = {"b.weight": draw(2, 2), "b.bias": draw(2), "x.weight": draw(2, 2), "x.bias": draw(2)}
        assert convert.match(model, state).sources == {
            "a.weight": "x.weight", "a.bias": "x.bias", "b.weight": "b.weight", "b.bias": "b.bias",
        }  # fmt: skip

    def test_what_does_not_fit_is_reported(self):
        model = fastnn.Sequential(fastnn.Linear(3, 4), fastnn.BatchNorm(4), fastnn.Linear(4, 2, bias=False))
        state = {"0.weight": draw(4, 3), "0.bias": draw(5), "2.weight": draw(2, 4), "extra": draw(1)}
        found = convert.match(model, state)
        assert not found.complete
        assert found.sources == {"2.weight": "2.weight"}
        assert found.missing == {
            "0.weight": (4, 3), "0.bias": (4,), "1.weight": (4,), "1.bias": (4,), "1.running_mean": (4,),
            "1.running_var": (4,),
        }  # fmt: skip
        assert found.unused == {"0.weight": (4, 3), "0.bias": (5,), "extra": (1,)}
        assert "missing: 0.bias (4,)" in str(found)

    def test_the_model_stays_as_it_is(self):
        model = fastnn.Linear(2, 2)
        before = model.state_dict()
        convert.match(model, {"weight": draw(2, 2), "bias": draw(2)})
        np.testing.assert_array_equal(model.weight.data, before["weight"])
