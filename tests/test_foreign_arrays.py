"""Arrays of other libraries: whatever speaks ``__array__``, DLPack or the buffer protocol goes in, without a copy."""

import array

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn._arrays import floating


class OnlyDLPack:
    """An array of a library that NumPy knows nothing about."""

    def __init__(self, values):
        self._values = values

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()


class OnlyArray:
    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return self._values


class OnlyInterface:
    def __init__(self, values):
        self._values = values
        self.__array_interface__ = values.__array_interface__


VALUES = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


@pytest.mark.parametrize("wrap", [OnlyDLPack, OnlyArray, OnlyInterface, memoryview])
class TestProtocols:
    def test_nothing_is_copied(self, wrap):
        result = floating(wrap(VALUES), "x")
        assert type(result) is np.ndarray
        assert result.ctypes.data == VALUES.ctypes.data
        assert result.shape == VALUES.shape

    def test_functions_layers_and_frozen_networks_answer_with_numpy_arrays(self, wrap):
        model = fastnn.LayerNorm(4).eval()
        for answer in (lambda x: F.layer_norm(x, 4), F.relu, F.softmax, model, fastnn.freeze(model)):
            y = answer(wrap(VALUES))
            assert type(y) is np.ndarray
            np.testing.assert_array_equal(y, answer(VALUES))


def test_a_flat_buffer_of_the_standard_library():
    flat = array.array("d", [1.0, -2.0, 3.0])
    assert floating(flat, "x").ctypes.data == flat.buffer_info()[0]
    np.testing.assert_array_equal(F.relu(flat), [1.0, 0.0, 3.0])


def test_dlpack_of_another_device_is_a_type_error():
    class Elsewhere(OnlyDLPack):
        def __dlpack_device__(self):
            return (2, 0)  # CUDA

        def __dlpack__(self, **options):
            raise BufferError("the array is on a GPU")

    with pytest.raises(TypeError, match=r"^x must be an array of float32 or float64, got Elsewhere: "):
        floating(Elsewhere(VALUES), "x")


@pytest.mark.peers
class TestTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def test_nothing_is_copied(self, torch):
        tensor = torch.from_numpy(VALUES.copy())
        assert floating(tensor, "x").ctypes.data == tensor.data_ptr()
        assert floating(tensor.double(), "x").dtype == np.float64

    def test_a_tensor_that_requires_a_gradient_is_a_type_error(self, torch):
        # Its history would be lost without a word; PyTorch's message says to detach it.
        tensor = torch.from_numpy(VALUES.copy()).requires_grad_()
        model = fastnn.LayerNorm(4).eval()
        for answer in (lambda x: F.layer_norm(x, 4), F.relu, F.softmax, model, fastnn.freeze(model)):
            with pytest.raises(TypeError, match=r"must be an array of float32 or float64, got Tensor: .*detach\(\)"):
                answer(tensor)
        np.testing.assert_array_equal(F.relu(tensor.detach()), F.relu(VALUES))

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int64"])
    def test_other_dtypes_are_type_errors(self, torch, dtype):
        with pytest.raises(TypeError, match=r"^x must be "):
            floating(torch.zeros(3, dtype=getattr(torch, dtype)), "x")

    def test_a_strided_tensor(self, torch):
        tensor = torch.from_numpy(VALUES.copy())
        np.testing.assert_array_equal(F.relu(tensor.T), F.relu(np.ascontiguousarray(VALUES.T)))


@pytest.mark.peers
def test_jax_arrays_are_not_copied():
    jax = pytest.importorskip("jax")
    values = jax.numpy.asarray(VALUES)
    assert floating(values, "x").ctypes.data == values.unsafe_buffer_pointer()
    np.testing.assert_array_equal(F.relu(values), F.relu(VALUES))


IMAGES = np.random.default_rng(1).standard_normal((6, 4, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("wrap", [OnlyDLPack, OnlyArray])
@pytest.mark.parametrize(
    "make",
    [
        lambda: fastnn.BatchNorm(4),
        lambda: fastnn.BatchNorm(4, virtual_batch_size=2),
        lambda: fastnn.InstanceNorm(4, track_running_stats=True),
        lambda: fastnn.Residual(fastnn.BatchNorm(4)),
        lambda: fastnn.Sequential(fastnn.ReLU(), fastnn.Flatten()),
    ],
)
def test_layers_in_training_and_evaluation(make, wrap):
    ours, theirs = make(), make()
    np.testing.assert_array_equal(ours(wrap(IMAGES)), theirs(IMAGES))
    np.testing.assert_array_equal(ours.backward(wrap(IMAGES)), theirs.backward(IMAGES))
    np.testing.assert_array_equal(ours.eval()(wrap(IMAGES)), theirs.eval()(IMAGES))


def test_a_layer_sees_the_channels_of_such_an_array():
    with pytest.raises(ValueError, match=r"num_features = 5 channels on axis 1, got shape \(6, 4, 3, 3\)"):
        fastnn.BatchNorm(5)(OnlyDLPack(IMAGES))


def test_axes_masks_targets_and_gradients():
    only = OnlyDLPack
    for values in (IMAGES, only(IMAGES)):
        y = F.drop_path(values, 0.5, True, generator=fastnn.Generator(1))
        np.testing.assert_array_equal(y, F.drop_path(IMAGES, 0.5, True, generator=fastnn.Generator(1)))
    for axes in ((0, 2), (1, 3)):
        with pytest.raises(ValueError, match="overlap"):
            F.standardize_forward(only(IMAGES), axes, out=IMAGES)
    marks = IMAGES > -1
    np.testing.assert_array_equal(F.layer_norm(IMAGES, 3, mask=only(marks)), F.layer_norm(IMAGES, 3, mask=marks))
    logits, target = IMAGES[:, :, 0, 0], np.arange(6) % 4
    loss, ctx = F.cross_entropy_forward(logits, only(target), reduction="none")
    np.testing.assert_array_equal(loss, F.cross_entropy(logits, target, reduction="none"))
    np.testing.assert_array_equal(
        F.cross_entropy_backward(only(VALUES.ravel()[:6]), ctx), F.cross_entropy_backward(VALUES.ravel()[:6], ctx)
    )
