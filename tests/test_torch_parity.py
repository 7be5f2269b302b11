"""Parity with PyTorch on its own sample inputs for operators and modules: value, gradients and state, both precisions.

Norms have a file of their own (test_norm_torch.py). Tolerances are those of PyTorch's assert_close for float32, which
is what its own kernels are held to, and tighter for float64.
"""

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

CLOSE = {torch.float32: {"rtol": 1.3e-6, "atol": 1e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-11}}
NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
BOTH = pytest.mark.parametrize("dtype", CLOSE, ids=str)

# Operator → its name in PyTorch's table, and how many of its gradients we compute: the first tensors'.
OPERATORS = {
    "linear": ("nn.functional.linear", 3),
    "conv2d": ("nn.functional.conv2d", 3),
    "max_pool2d": ("nn.functional.max_pool2d", 1),
    "avg_pool2d": ("nn.functional.avg_pool2d", 1),
    "relu": ("nn.functional.relu", 1),
    "leaky_relu": ("nn.functional.leaky_relu", 1),
    "elu": ("nn.functional.elu", 1),
    "gelu": ("nn.functional.gelu", 1),
    "silu": ("nn.functional.silu", 1),
    "sigmoid": ("sigmoid", 1),
    "tanh": ("tanh", 1),
    "softplus": ("nn.functional.softplus", 1),
    "softmax": ("softmax", 1),
    "log_softmax": ("log_softmax", 1),
    "cross_entropy": ("nn.functional.cross_entropy", 1),
    "mse_loss": ("nn.functional.mse_loss", 1),
    "binary_cross_entropy_with_logits": ("nn.functional.binary_cross_entropy_with_logits", 1),
    "dropout": ("nn.functional.dropout", 1),
    "alpha_dropout": ("nn.functional.alpha_dropout", 1),
}
IMAGES = {"conv2d", "max_pool2d", "avg_pool2d"}
# Keywords that say where or in which form PyTorch returns its result.
FORM = {"inplace", "return_indices"}


def array(value):
    """Tensors as arrays (their strides kept), PyTorch's empty stride as None, the rest as it is."""
    if isinstance(value, tuple) and not value:
        return None
    return value.detach().numpy().copy(order="K") if isinstance(value, torch.Tensor) else value


def comparable(name, sample):
    """Whether both sides mean the same: images have a batch axis here, and random results are no one's parity."""
    if name in IMAGES:
        return sample.input.ndim == 4
    if "dropout" in name:
        return not sample.kwargs.get("training", True) or sample.kwargs.get("p") == 0
    return True


def samples(name, dtype):
    """The sample inputs that PyTorch tests its own operator with."""
    pytest.importorskip("expecttest", reason="PyTorch's test data need it")
    from torch.testing._internal.common_methods_invocations import op_db

    (first, *_) = [op for op in op_db if op.name == OPERATORS[name][0]]
    return [s for s in first.sample_inputs("cpu", dtype, requires_grad=True) if comparable(name, s)]


@BOTH
@pytest.mark.parametrize("name", OPERATORS)
def test_operator_samples(name, dtype):
    reference = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    compared = 0
    for sample in samples(name, dtype):
        keywords = {key: value for key, value in sample.kwargs.items() if key not in FORM}
        y, context = getattr(F, f"{name}_forward")(
            *map(array, (sample.input, *sample.args)), **{key: array(value) for key, value in keywords.items()}
        )
        expected = reference(sample.input, *sample.args, **keywords)
        assert y.dtype == NUMPY[dtype]
        np.testing.assert_allclose(y, expected.detach(), **CLOSE[dtype])
        plain = getattr(F, name)(
            *map(array, (sample.input, *sample.args)), **{key: array(value) for key, value in keywords.items()}
        )
        np.testing.assert_array_equal(plain, y)
        if expected.requires_grad:
            tensors = [t for t in (sample.input, *sample.args) if isinstance(t, torch.Tensor) and t.requires_grad]
            leaves = tensors[: OPERATORS[name][1]]
            dy = torch.randn(expected.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
            result = getattr(F, f"{name}_backward")(array(dy), context)
            gradients = torch.autograd.grad(expected, leaves, dy)
            for own, their in zip(result if isinstance(result, tuple) else (result,), gradients, strict=False):
                assert own.dtype == NUMPY[dtype]
                np.testing.assert_allclose(own, their, **CLOSE[dtype])
        compared += 1
    assert compared >= 1


MODULES = [
    "Linear", "Conv2d", "MaxPool2d", "AvgPool2d", "ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Sigmoid", "Tanh",
    "Softplus", "Softmax",
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", MODULES)
def test_module_samples(name, dtype):
    pytest.importorskip("expecttest", reason="PyTorch's test data need it")
    from torch.testing._internal.common_modules import module_db

    (info,) = [m for m in module_db if m.name == f"nn.{name}"]
    compared = 0
    for sample in info.module_inputs_func(info, "cpu", dtype, False, training=True):
        (x,) = (*sample.forward_input.args, *sample.forward_input.kwargs.values())
        if name in ("Conv2d", "MaxPool2d", "AvgPool2d") and x.ndim != 4:
            continue
        made = sample.constructor_input
        keywords = {key: value for key, value in made.kwargs.items() if key not in FORM}
        if keywords.get("padding_mode", "zeros") != "zeros":
            continue
        keywords.pop("padding_mode", None)
        theirs = getattr(torch.nn, name)(*made.args, **keywords).to(dtype)
        learns = any(True for _ in theirs.parameters())
        ours = getattr(fastnn, name)(*made.args, **keywords, **({"dtype": NUMPY[dtype]} if learns else {}))
        ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
        leaf = x.detach().clone().requires_grad_()
        expected = theirs(leaf)
        np.testing.assert_allclose(ours(array(leaf)), expected.detach(), **CLOSE[dtype])
        dy = torch.randn(expected.shape, dtype=dtype, generator=torch.Generator().manual_seed(9))
        expected.backward(dy)
        np.testing.assert_allclose(ours.backward(array(dy)), leaf.grad, **CLOSE[dtype])
        for (key, own), (_, their) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            np.testing.assert_allclose(own.grad, their.grad, err_msg=key, **CLOSE[dtype])
        np.testing.assert_array_equal(ours.eval()(array(x)), ours.train()(array(x)))
        compared += 1
    assert compared >= 1


class Block(fastnn.Layer):
    """The basic block of a ResNet, with the names that torchvision gives its parts."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1 = fastnn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = fastnn.BatchNorm(out)
        self.conv2 = fastnn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = fastnn.BatchNorm(out)
        self.downsample = fastnn.Identity()
        if stride != 1 or channels != out:
            self.downsample = fastnn.Sequential(
                fastnn.Conv2d(channels, out, 1, stride, bias=False), fastnn.BatchNorm(out)
            )

    def _evaluate(self, x):
        y = self.bn2._evaluate(self.conv2._evaluate(F.relu(self.bn1._evaluate(self.conv1._evaluate(x)))))
        return F.relu(y + self.downsample._evaluate(x))

    def _forward(self, x):
        y, first = self.conv1._forward(x)
        y, second = self.bn1._forward(y)
        y, third = F.relu_forward(y)
        y, fourth = self.conv2._forward(y)
        y, fifth = self.bn2._forward(y)
        short, sixth = self.downsample._forward(x)
        y, last = F.relu_forward(y + short)
        return y, (first, second, third, fourth, fifth, sixth, last)

    def _backward(self, dy, context):
        first, second, third, fourth, fifth, sixth, last = context
        dy = F.relu_backward(dy, last)
        dx = self.conv2._backward(self.bn2._backward(dy, fifth), fourth)
        dx = self.conv1._backward(self.bn1._backward(F.relu_backward(dx, third), second), first)
        return dx + self.downsample._backward(dy, sixth)


STAGES = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]  # channels, out, stride


def their_resnet():
    nn = torch.nn

    class TheirBlock(nn.Module):
        def __init__(self, channels, out, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.downsample = nn.Identity()
            if stride != 1 or channels != out:
                self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + self.downsample(x))

    parts = {"conv1": nn.Conv2d(3, 16, 3, 1, 1, bias=False), "bn1": nn.BatchNorm2d(16), "relu": nn.ReLU()}
    for k, (channels, out, stride) in enumerate(STAGES):
        blocks = [TheirBlock(channels, out, stride), TheirBlock(out, out, 1)]
        parts[f"layer{k + 1}"] = nn.Sequential(*blocks)
    parts |= {"avgpool": nn.AvgPool2d(8), "flatten": nn.Flatten(), "fc": nn.Linear(64, 10)}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


def our_resnet():
    parts = {"conv1": fastnn.Conv2d(3, 16, 3, 1, 1, bias=False), "bn1": fastnn.BatchNorm(16), "relu": fastnn.ReLU()}
    for k, (channels, out, stride) in enumerate(STAGES):
        parts[f"layer{k + 1}"] = fastnn.Sequential(Block(channels, out, stride), Block(out, out, 1))
    parts |= {"avgpool": fastnn.AvgPool2d(8), "flatten": fastnn.Flatten(), "fc": fastnn.Linear(64, 10)}
    return fastnn.Sequential(parts)


def test_the_state_dict_of_a_small_resnet(tmp_path):
    torch.manual_seed(0)
    theirs, ours = their_resnet(), our_resnet()
    images = torch.randn(16, 3, 32, 32)
    for _ in range(3):
        theirs(images)  # running statistics that are not 0 and 1
    fastnn.save(tmp_path / "resnet.safetensors", {key: t.numpy() for key, t in theirs.state_dict().items()})
    ours.load_state_dict(fastnn.load(tmp_path / "resnet.safetensors"))
    x = array(images)
    np.testing.assert_allclose(ours.eval()(x), theirs.eval()(images).detach(), rtol=0, atol=1e-5)
    leaf = images.clone().requires_grad_()
    expected = theirs.train()(leaf)
    np.testing.assert_allclose(ours.train()(x), expected.detach(), rtol=0, atol=1e-5)
    expected.pow(2).sum().backward()
    np.testing.assert_allclose(ours.backward(2 * array(expected)), leaf.grad, rtol=0, atol=1e-4)
    for (key, own), (_, their) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        scale = float(their.grad.abs().max())
        np.testing.assert_allclose(own.grad, their.grad, rtol=0, atol=1e-4 * scale, err_msg=key)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value, rtol=1e-5, atol=1e-5, err_msg=key)
