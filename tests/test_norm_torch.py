"""Parity with PyTorch: on its own sample inputs for operators and modules, in float64, forward, backward and state."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def array(value):
    """Tensors as arrays (their strides kept), sequences of sizes as tuples, the rest as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().copy(order="K")
    return tuple(value) if isinstance(value, list | torch.Size) else value


def operator_samples(name):
    """The sample inputs that PyTorch tests its own operator with."""
    pytest.importorskip("expecttest", reason="PyTorch's test data need it")
    from torch.testing._internal.common_methods_invocations import op_db

    (first, *_) = [op for op in op_db if op.name == f"nn.functional.{name}"]
    return list(first.sample_inputs("cpu", torch.float64, requires_grad=True))


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "rms_norm", "instance_norm", "group_norm"])
def test_operator_samples(name):
    reference = getattr(torch.nn.functional, name)
    compared = 0
    for sample in operator_samples(name):
        if sample.input.ndim < (1 if name in ("layer_norm", "rms_norm") else 2):
            continue  # PyTorch takes an empty vector where we ask for a channel axis
        ours = [array(a) for a in (sample.input, *sample.args)]
        keywords = {key: array(value) for key, value in sample.kwargs.items()}
        theirs = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in sample.args]
        their_keywords = {
            key: a.detach().clone() if isinstance(a, torch.Tensor) else a for key, a in sample.kwargs.items()
        }
        x = sample.input.detach().clone().requires_grad_()
        weight = their_keywords.get("weight", next(iter(theirs[{"batch_norm": 2}.get(name, 1) :]), None))
        wanted = [x]
        if isinstance(weight, torch.Tensor):
            wanted.append(weight.requires_grad_())
        expected = reference(x, *theirs, **their_keywords)
        y, context = getattr(F, f"{name}_forward")(*ours, **keywords)
        np.testing.assert_allclose(y, expected.detach(), **CLOSE)
        running = [(k, a) for k, a in enumerate(theirs) if name == "batch_norm" and k < 2 and a is not None]
        for k, statistic in running:
            np.testing.assert_allclose(ours[1 + k], statistic, **CLOSE)
        for key in ("running_mean", "running_var"):
            if their_keywords.get(key) is not None:
                np.testing.assert_allclose(keywords[key], their_keywords[key], **CLOSE)
        dy = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        gradients = torch.autograd.grad(expected, wanted, dy)
        for own, their in zip(getattr(F, f"{name}_backward")(dy.numpy(), context), gradients):
            np.testing.assert_allclose(own, their, **CLOSE)
        compared += 1
    assert compared >= 5


MODULES = {
    "BatchNorm1d": "BatchNorm",
    "BatchNorm2d": "BatchNorm",
    "BatchNorm3d": "BatchNorm",
    "InstanceNorm1d": "InstanceNorm",
    "InstanceNorm2d": "InstanceNorm",
    "InstanceNorm3d": "InstanceNorm",
    "GroupNorm": "GroupNorm",
    "LayerNorm": "LayerNorm",
    "RMSNorm": "RMSNorm",
}


def module_samples(name):
    """(constructor arguments, keywords, input) of PyTorch's own module tests, in training."""
    pytest.importorskip("expecttest", reason="PyTorch's test data need it")
    from torch.testing._internal.common_modules import module_db

    (info,) = [m for m in module_db if m.name == f"nn.{name}"]
    for sample in info.module_inputs_func(info, "cpu", torch.float64, False, training=True):
        made = sample.constructor_input
        yield made.args, made.kwargs, sample.forward_input.args[0]


@pytest.mark.parametrize("name", MODULES)
def test_module_samples(name):
    compared = 0
    for arguments, keywords, x in module_samples(name):
        unbatched = name.startswith("Instance") and x.ndim == int(name[-2]) + 1
        if unbatched or ("bias" in keywords and name != "LayerNorm"):
            continue  # a batch axis is always there, and bias=False is LayerNorm's alone
        theirs = getattr(torch.nn, name)(*arguments, **keywords, dtype=torch.float64)
        ours = getattr(fastnn, MODULES[name])(*arguments, **keywords, dtype=np.float64)
        with torch.no_grad():
            for k, parameter in enumerate(theirs.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k)))
        state = {key: value.numpy() for key, value in theirs.state_dict().items()}
        ours.load_state_dict(state, strict="momentum" not in vars(ours) or ours.momentum is not None)
        for _ in range(3):  # running statistics grow
            leaf = x.detach().clone().requires_grad_()
            expected = theirs(leaf)
            np.testing.assert_allclose(ours(leaf.detach().numpy()), expected.detach(), **CLOSE)
            dy = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
            expected.backward(dy)
            np.testing.assert_allclose(ours.backward(dy.numpy()), leaf.grad, **CLOSE)
        for (key, own), (_, their) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            np.testing.assert_allclose(own.grad, their.grad, err_msg=key, **CLOSE)
        own_state = ours.state_dict()
        for key, value in theirs.state_dict().items():
            if key != "num_batches_tracked" or (len(x) and name.startswith("Batch")):  # we do not count empty batches
                np.testing.assert_allclose(own_state[key], value, err_msg=key, **CLOSE)
        np.testing.assert_allclose(ours.eval()(x.numpy()), theirs.eval()(x).detach(), **CLOSE)
        compared += 1
    assert compared >= 3


@pytest.mark.parametrize("momentum", [0.1, 0.25])
def test_batch_norm_over_a_training_run(momentum):
    rng = np.random.default_rng(0)
    theirs = torch.nn.BatchNorm2d(6, momentum=momentum)
    first, last = fastnn.BatchNorm(6, momentum=momentum), fastnn.BatchNorm(6, momentum=momentum, channel_axis=-1)
    for samples in (4, 7, 1, 4):
        x = (2 + 3 * rng.standard_normal((samples, 6, 5, 3))).astype(np.float32)
        expected = theirs(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(first(x), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.moveaxis(last(np.moveaxis(x, 1, -1)), -1, 1), expected, rtol=1e-4, atol=1e-5)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(first.state_dict()[key], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(last.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_where_pytorch_raises_we_do():
    for theirs, ours in (
        (lambda: torch.nn.functional.batch_norm(torch.ones(1, 3), None, None, training=True),
         lambda: F.batch_norm(np.ones((1, 3)), None, None, training=True)),
        (lambda: torch.nn.functional.instance_norm(torch.ones(2, 3, 1)), lambda: F.instance_norm(np.ones((2, 3, 1)))),
        (lambda: torch.nn.functional.group_norm(torch.ones(1, 3), 3), lambda: F.group_norm(np.ones((1, 3)), 3)),
    ):  # fmt: skip
        with pytest.raises(ValueError) as expected:
            theirs()
        with pytest.raises(ValueError, match=str(expected.value).split(" when")[0].removeprefix("Expected ")):
            ours()


def test_torch_tensors_are_accepted_without_a_copy():
    x = torch.randn(5, 8)
    np.testing.assert_array_equal(F.layer_norm(x, 8), F.layer_norm(x.numpy(), 8))
