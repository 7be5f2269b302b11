"""The layer protocol, containers and their names, and whole models against PyTorch."""

import copy
from collections import OrderedDict

import numpy as np
import pytest

import fastnn
import fastnn.functional as F


def test_layers_are_their_functions():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 4, 7, 6))
    conv = fastnn.Conv2d(4, 6, (3, 2), (2, 1), 1, dilation=(1, 2), groups=2, rng=1, dtype=np.float64)
    linear = fastnn.Linear(6, 3, rng=1, dtype=np.float64)
    for layer, expected in (
        (conv, F.conv2d(x, conv.weight.data, conv.bias.data, (2, 1), 1, (1, 2), 2)),
        (linear, F.linear(x, linear.weight.data, linear.bias.data)),
        (fastnn.ReLU(), F.relu(x)),
        (fastnn.LeakyReLU(0.3), F.leaky_relu(x, 0.3)),
        (fastnn.ELU(0.7), F.elu(x, 0.7)),
        (fastnn.GELU(), F.gelu(x)),
        (fastnn.GELU("tanh"), F.gelu(x, "tanh")),
        (fastnn.SiLU(), F.silu(x)),
        (fastnn.Sigmoid(), F.sigmoid(x)),
        (fastnn.Tanh(), F.tanh(x)),
        (fastnn.Softplus(0.5, 1.0), F.softplus(x, 0.5, 1.0)),
        (fastnn.Softmax(2), F.softmax(x, 2)),
        (fastnn.MaxPool2d(3, 2, 1, 1, True), F.max_pool2d(x, 3, 2, 1, 1, True)),
        (fastnn.AvgPool2d(3, 2, 1, True, False, 5), F.avg_pool2d(x, 3, 2, 1, True, False, 5)),
        (fastnn.Flatten(), x.reshape(2, -1)),
        (fastnn.Flatten(-3, 2), x.reshape(2, 28, 6)),
        (fastnn.Identity(), x),
        (fastnn.Residual(fastnn.ReLU()), x + F.relu(x)),
    ):
        np.testing.assert_array_equal(layer(x), expected)
        assert layer.backward(np.ones_like(expected)).shape == x.shape
        np.testing.assert_array_equal(layer.eval()(x), expected)
        with pytest.raises(RuntimeError, match="none is left"):
            layer.backward(expected)


def test_start_values_come_from_one_generator_of_either_kind():
    for rng, again in ((np.random.default_rng(3), np.random.default_rng(3)), (4, fastnn.Generator(4))):
        conv = fastnn.Conv2d(4, 6, 3, groups=2, rng=rng)
        bound = 1 / 18**0.5  # two channels of 3×3 come in
        weight = fastnn.init.kaiming_uniform((6, 2, 3, 3), 5**0.5, rng=again)
        np.testing.assert_array_equal(conv.weight.data, weight)
        np.testing.assert_array_equal(conv.bias.data, fastnn.init.uniform(6, -bound, bound, rng=again))
        assert 0.9 * bound < abs(weight).max() <= bound


def test_channels_last_layers():
    x = np.random.default_rng(2).standard_normal((2, 4, 7, 6), np.float32)
    first = fastnn.Sequential(fastnn.Conv2d(4, 5, 3, rng=3), fastnn.MaxPool2d(2), fastnn.AvgPool2d((2, 1)))
    last = fastnn.Sequential(
        fastnn.Conv2d(4, 5, 3, channel_axis=-1, rng=3),
        fastnn.MaxPool2d(2, channel_axis=-1),
        fastnn.AvgPool2d((2, 1), channel_axis=-1),
    )
    y = first(x)
    y_last = last(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(np.moveaxis(y_last, -1, 1), y, rtol=0, atol=1e-6)
    dx, dx_last = first.backward(y), last.backward(y_last)
    np.testing.assert_allclose(np.moveaxis(dx_last, -1, 1), dx, rtol=0, atol=1e-6)
    np.testing.assert_allclose(last[0].weight.grad, first[0].weight.grad, rtol=0, atol=1e-5)


def test_gradients_add_up_and_stack():
    layer = fastnn.Linear(3, 2, rng=0, dtype=np.float64)
    x = np.random.default_rng(3).standard_normal((2, 4, 3))
    dy = np.ones((4, 2))
    layer(x[0])
    layer(x[1])
    layer.backward(dy)
    np.testing.assert_allclose(layer.weight.grad, dy.T @ x[1], rtol=1e-14)
    layer.backward(dy)
    np.testing.assert_allclose(layer.weight.grad, dy.T @ (x[0] + x[1]), rtol=1e-14)
    np.testing.assert_array_equal(layer.bias.grad, [8, 8])
    layer.zero_grad()
    assert not layer.weight.grad.any()


def test_backward_without_the_input_gradient():
    def make():
        return fastnn.Sequential(
            fastnn.ReLU(),
            fastnn.Conv2d(2, 3, 3, padding=1, rng=1),
            fastnn.Residual(fastnn.Sequential(fastnn.Conv2d(3, 3, 1, rng=2), fastnn.Tanh())),
            fastnn.Flatten(),
            fastnn.Linear(48, 9, rng=3),
        )

    x = np.random.default_rng(5).standard_normal((10, 2, 4, 4), np.float32)
    mine, same = make(), make()
    mine.backward_parameters(mine(x))
    same.backward(same(x))
    for parameter, other in zip(mine.parameters(), same.parameters()):
        np.testing.assert_array_equal(parameter.grad, other.grad)
    with pytest.raises(RuntimeError, match="backward_parameters needs a call"):
        mine.backward_parameters(x)
    fastnn.Sequential(fastnn.ReLU())(x)
    alone = fastnn.Residual(fastnn.Linear(4, 4, rng=0))
    alone.backward_parameters(alone(x))
    assert alone.layer.weight.grad.any()
    frozen = fastnn.Sequential(fastnn.Linear(4, 4, rng=0))
    frozen[0].eval()
    with pytest.raises(RuntimeError, match="evaluation mode"):
        frozen.backward_parameters(frozen(x))


def test_start_values():
    layer = fastnn.Linear(400, 300, rng=7)
    same = fastnn.Linear(400, 300, rng=7)
    np.testing.assert_array_equal(layer.weight.data, same.weight.data)
    bound = 1 / np.sqrt(400)
    for values in (layer.weight.data, layer.bias.data):
        assert values.dtype == np.float32
        assert abs(values).max() <= bound * (1 + 1e-6)
        # standard error of a uniform variable's mean square: (bound²)·√(4/45/n)
        n = values.size
        assert abs(np.mean(values.astype(float) ** 2) - bound**2 / 3) <= 5 * bound**2 * np.sqrt(4 / 45 / n)
    conv = fastnn.Conv2d(8, 6, 3, groups=2, rng=7, dtype=np.float64)
    assert conv.weight.data.shape == (6, 4, 3, 3)
    assert 0.5 / 6 < abs(conv.weight.data).max() <= 1 / 6
    assert layer.weight.decay
    assert not layer.bias.decay
    assert fastnn.Linear(2, 3, bias=False).bias is None


def test_sequential():
    named = fastnn.Sequential(OrderedDict(first=fastnn.Linear(3, 4), second=fastnn.ReLU()))
    assert list(named.state_dict()) == ["first.weight", "first.bias"]
    model = fastnn.Sequential(named, fastnn.Linear(4, 2), fastnn.Residual(fastnn.Sequential(fastnn.Linear(2, 2))))
    assert list(model.state_dict()) == [
        "0.first.weight",
        "0.first.bias",
        "1.weight",
        "1.bias",
        "2.layer.0.weight",
        "2.layer.0.bias",
    ]
    assert len(model) == 3
    assert list(model) == [model[0], model[1], model[2]]
    assert model[0] is named
    assert model[-1].layer[0].weight is model.parameters()[4]
    assert model[:2][0] is named
    assert fastnn.Sequential()(np.ones(3)).shape == (3,)
    empty = fastnn.Sequential()
    empty(np.ones(3))
    assert empty.backward(np.ones(3)).shape == (3,)


def test_a_layer_of_a_sequential_can_be_replaced():
    model = fastnn.Sequential({"body": fastnn.Linear(3, 4), "head": fastnn.Linear(4, 2)})
    model.head = fastnn.Linear(4, 7)
    assert model(np.ones((1, 3), np.float32)).shape == (1, 7)
    assert model.backward(np.ones((1, 7), np.float32)).shape == (1, 3)
    assert model.head.weight.grad.any()
    model.last = fastnn.Linear(7, 5)
    assert list(model) == [model.body, model.head, model.last]
    del model.head, model.last
    assert list(model) == [model.body]
    twin = copy.deepcopy(model)
    assert list(twin) == [twin.body]
    assert twin.body is not model.body


def test_a_state_must_be_a_mapping():
    with pytest.raises(TypeError, match="d must be a mapping from names to arrays, got list"):
        fastnn.Linear(2, 3).load_state_dict([1])


@pytest.mark.parametrize("reason", ["read-only", "too large for the dtype"])
def test_a_state_is_loaded_whole_or_not_at_all(reason):
    layer = fastnn.Linear(2, 3, rng=0)
    state = {"weight": np.zeros((3, 2)), "bias": np.zeros(3)}
    if reason == "read-only":
        layer.bias.data.flags.writeable = False
        error, message = ValueError, "the layer's bias must be writeable, got a read-only array"
    else:
        state["bias"][1] = 1e300
        error, message = RuntimeWarning, "overflow"
    before = layer.state_dict()
    with pytest.raises(error, match=message):
        layer.load_state_dict(state)
    assert all((array == before[name]).all() for name, array in layer.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_in_a_mode_for_a_while(training):
    model = fastnn.Sequential(fastnn.Linear(3, 3), fastnn.BatchNorm(3).eval(), fastnn.Dropout())
    with pytest.raises(ZeroDivisionError), model.in_mode(training):
        assert [layer.training for _, layer in model.named_layers()] == [training] * 4
        model(np.ones((2, 3), np.float32))
        raise ZeroDivisionError
    assert [layer.training for _, layer in model.named_layers()] == [True, True, False, True]
    assert not model._contexts


def test_slices_keep_the_names():
    model = fastnn.Sequential(fastnn.ReLU(), fastnn.Linear(3, 4), fastnn.Sequential({"head": fastnn.Linear(4, 2)}))
    assert list(model[1:].state_dict()) == ["1.weight", "1.bias", "2.head.weight", "2.head.bias"]
    assert model[1:][0] is model[1]


def test_names_of_the_layers_must_be_free():
    for name in ("", "a.b", "training", "parameters", "_layers", 3):
        with pytest.raises(ValueError, match="name must be"):
            fastnn.Sequential({name: fastnn.ReLU()})
    with pytest.raises(TypeError, match="layers must be"):
        fastnn.Sequential(fastnn.ReLU(), "ReLU")
    with pytest.raises(TypeError, match="layer must be"):
        fastnn.Residual(len)


def test_an_error_leaves_no_context_behind():
    model = fastnn.Sequential(fastnn.Linear(3, 4), fastnn.Linear(5, 2))
    with pytest.raises(ValueError, match="input must have"):
        model(np.zeros((2, 3), np.float32))
    assert not any(layer._contexts for _, layer in model.named_layers())


def test_an_inner_layer_in_evaluation_mode():
    model = fastnn.Sequential(fastnn.ReLU(), fastnn.Linear(3, 4))
    model[1].eval()
    y = model(np.zeros((2, 3), np.float32))
    with pytest.raises(RuntimeError, match="Linear was in evaluation mode"):
        model.backward(y)


def test_residual_must_keep_the_shape():
    with pytest.raises(ValueError, match="keep the shape"):
        fastnn.Residual(fastnn.Linear(3, 1))(np.zeros((2, 3), np.float32))


def test_repr_is_a_tree():
    model = fastnn.Sequential(
        fastnn.Conv2d(1, 8, 3, padding="same", bias=False, channel_axis=-1),
        fastnn.Residual(fastnn.Sequential(fastnn.ReLU(), fastnn.MaxPool2d(3, 1, 1))),
        fastnn.AvgPool2d((4, 4), count_include_pad=False),
        fastnn.Flatten(),
    )
    assert (
        repr(model)
        == """Sequential(
  (0): Conv2d(1, 8, kernel_size=(3, 3), padding='same', channel_axis=-1, bias=False)
  (1): Residual(
    (layer): Sequential(
      (0): ReLU()
      (1): MaxPool2d((3, 3), stride=(1, 1), padding=(1, 1))
    )
  )
  (2): AvgPool2d((4, 4), count_include_pad=False)
  (3): Flatten()
)"""
    )


def test_repr_shows_what_is_not_the_default():
    assert [
        repr(layer)
        for layer in (fastnn.ELU(), fastnn.ELU(2), fastnn.GELU("tanh"), fastnn.Softplus(2), fastnn.Softmax(-1))
    ] == [
        "ELU()",
        "ELU(2.0)",
        "GELU('tanh')",
        "Softplus(2.0, 20.0)",
        "Softmax(-1)",
    ]


def test_summary(capsys):
    shared = fastnn.Linear(8, 8, rng=0)
    model = fastnn.Sequential(
        fastnn.Conv2d(1, 2, 3, rng=0), fastnn.Flatten(), fastnn.Residual(shared), shared, fastnn.ReLU()
    )
    model.train()
    text = fastnn.summary(model, (3, 1, 4, 4))
    assert capsys.readouterr().out == text + "\n"
    assert text.splitlines() == [
        "layer                                    output shape  parameters",
        "Sequential                               (3, 8)                92",
        "  (0): Conv2d(1, 2, kernel_size=(3, 3))  (3, 2, 2, 2)          20",
        "  (1): Flatten()                         (3, 8)                 0",
        "  (2): Residual                          (3, 8)                72",
        "    (layer): Linear(8, 8)                (3, 8)                72",
        "  (3): Linear(8, 8)                      (3, 8)                72",
        "  (4): ReLU()                            (3, 8)                 0",
        "92 parameters, 0.4 KiB",
    ]
    assert model.training
    assert not any("_evaluate" in vars(layer) or layer._contexts for _, layer in model.named_layers())
    with pytest.raises(ValueError, match="four axes"):
        fastnn.summary(model, (3, 4))
    assert not any("_evaluate" in vars(layer) for _, layer in model.named_layers())
    with pytest.raises(TypeError, match="model must be a layer, got str"):
        fastnn.summary("model", (3, 4))
    with pytest.raises(TypeError, match="input_shape must be"):
        fastnn.summary(model, (3.5, 4))
    with pytest.raises(ValueError, match="input_shape must hold"):
        fastnn.summary(model, (3, -4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fastnn.Linear(0, 3), "at least 1"),
        (lambda: fastnn.Conv2d(3, 0, 1), "at least 1"),
        (lambda: fastnn.Conv2d(3, 4, 1, groups=2), "groups must divide"),
        (lambda: fastnn.Conv2d(3, 4, 0), "kernel_size must be"),
        (lambda: fastnn.Conv2d(3, 4, 1, padding="full"), "padding must be"),
        (lambda: fastnn.Conv2d(3, 4, 1, 2, padding="same"), "needs stride 1"),
        (lambda: fastnn.Conv2d(3, 4, 1, channel_axis=0), "channel_axis must be"),
        (lambda: fastnn.MaxPool2d(2, 0), "stride must be"),
        (lambda: fastnn.AvgPool2d(2, divisor_override=0), "divisor_override must be"),
        (lambda: fastnn.GELU("erf"), "approximate must be"),
        (lambda: fastnn.Softplus(0), "beta must not be 0"),
        (lambda: fastnn.Softplus(threshold=np.nan), "threshold must be a number, got nan"),
        (lambda: fastnn.LeakyReLU(np.nan), "negative_slope must be finite, got nan"),
        (lambda: fastnn.ELU(np.inf), "alpha must be finite, got inf"),
        (lambda: fastnn.Flatten(1, 3)(np.zeros((2, 3))), "must have axes"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_dtype():
    with pytest.raises(TypeError, match="dtype must be"):
        fastnn.Linear(2, 3, dtype=np.int32)


@pytest.mark.peers
def test_a_model_against_torch():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    mine = fastnn.Sequential(
        fastnn.Conv2d(2, 6, 3, padding=1, dtype=np.float64),
        fastnn.ReLU(),
        fastnn.MaxPool2d(2),
        fastnn.Conv2d(6, 4, 3, dtype=np.float64),
        fastnn.AvgPool2d(2),
        fastnn.Flatten(),
        fastnn.Linear(4, 3, dtype=np.float64),
    )
    mine.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((5, 2, 8, 8)), rng.integers(0, 3, 5)
    tensor = torch.from_numpy(x).requires_grad_()
    true = nn.functional.cross_entropy(theirs(tensor), torch.from_numpy(labels))
    true.backward()
    loss, ctx = F.cross_entropy_forward(mine(x), labels)
    dx = mine.backward(F.cross_entropy_backward(1.0, ctx))
    np.testing.assert_allclose(loss, true.item(), rtol=1e-13)
    np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=0, atol=1e-14)
    for parameter, their in zip(mine.parameters(), theirs.parameters()):
        np.testing.assert_allclose(parameter.grad, their.grad.numpy(), rtol=0, atol=1e-13)


class TestAfterAFailedCall:
    """What a call that raises leaves behind."""

    def model(self):
        generator = fastnn.Generator(3)
        return fastnn.Sequential(
            fastnn.BatchNorm(4), fastnn.Dropout(0.5, generator=generator), fastnn.Linear(5, 2, rng=0)
        ), generator

    def test_a_layer_that_fails_is_as_it_was(self):
        x = np.ones((3, 4), np.float32)
        for bad in (
            x.astype(np.float64),
            np.ones((3, 5), np.float32),
            np.ones((1, 4), np.float32),
            x.astype(int),
            None,
        ):
            layer = fastnn.BatchNorm(4)
            before = {name: value.tobytes() for name, value in layer.state_dict().items()}
            with pytest.raises((TypeError, ValueError)):
                layer(bad)
            assert {name: value.tobytes() for name, value in layer.state_dict().items()} == before
            generator = fastnn.Generator(3)
            if not isinstance(bad, np.ndarray) or bad.dtype.kind != "f":
                with pytest.raises(TypeError):
                    fastnn.Dropout(0.5, generator=generator)(bad)
                assert generator.stream == 0

    def test_those_in_front_of_it_have_had_their_call_and_no_context_is_left(self):
        model, generator = self.model()
        with pytest.raises(ValueError, match="5"):
            model(np.ones((3, 4), np.float32))
        assert int(model[0].num_batches_tracked) == 1
        assert generator.stream == 1
        with pytest.raises(RuntimeError, match="none is left"):
            model.backward(np.ones((3, 2), np.float32))
