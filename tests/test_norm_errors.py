"""What the norms refuse, in words; and the empty and single elements that they do not."""

import numpy as np
import pytest

import fastnn.functional as F
from norm_operations import OPERATIONS

operations = pytest.mark.parametrize("name", OPERATIONS)


class TestRefused:
    @operations
    @pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.complex64, np.float16, object])
    def test_other_dtypes(self, name, dtype):
        op = OPERATIONS[name]
        with pytest.raises(TypeError, match=f"input must be float32 or float64, got {np.dtype(dtype)}"):
            op.plain(np.ones(op.shape, dtype))

    @operations
    def test_mixed_dtypes(self, name):
        op = OPERATIONS[name]
        x, dy, weight, bias = op.data(1, np.float32)
        if weight is not None:
            with pytest.raises(TypeError, match=r"weight .*float32.*float64"):
                op.plain(x, weight.astype(np.float64), bias)
        if bias is not None:
            with pytest.raises(TypeError, match=r"bias .*float32.*float64"):
                op.plain(x, weight, bias.astype(np.float64))
        _, context = op.forward(x, weight, bias)
        with pytest.raises(TypeError, match=r"float32.*float64"):
            op.backward(dy.astype(np.float64), context)

    @operations
    def test_other_shapes(self, name):
        op = OPERATIONS[name]
        x, dy, weight, bias = op.data(1, np.float32)
        if weight is not None:
            with pytest.raises(ValueError, match="weight must have shape"):
                op.plain(x, np.ones(99, np.float32), bias)
        if bias is not None:
            with pytest.raises(ValueError, match="bias must have shape"):
                op.plain(x, weight, np.ones(99, np.float32))
        _, context = op.forward(x, weight, bias)
        with pytest.raises(ValueError, match="shape"):
            op.backward(dy[1:], context)

    @pytest.mark.parametrize("name", [k for k, op in OPERATIONS.items() if op.masks])
    def test_masks(self, name):
        op = OPERATIONS[name]
        x = op.data(1, np.float32)[0]
        with pytest.raises(TypeError, match="mask must be boolean, got float32"):
            op.plain(x, mask=np.ones(x.shape, np.float32))
        with pytest.raises(ValueError, match="mask must be broadcastable"):
            op.plain(x, mask=np.ones(99, bool))

    def test_axes(self):
        x = np.ones((4, 6, 5))
        for call in (
            lambda: F.layer_norm(x, 6),
            lambda: F.layer_norm(x, (4, 6, 5, 1)),
            lambda: F.layer_norm(x, ()),
            lambda: F.rms_norm(x, 6),
            lambda: F.group_norm(x, 4),
            lambda: F.group_norm(x, 0),
            lambda: F.group_norm(x, -1),
            lambda: F.standardize(x, 3),
            lambda: F.standardize(x, (0, 0)),
            lambda: F.standardize(x, (1, -2)),
            lambda: F.batch_norm(x, None, None, training=True, channel_axis=3),
            lambda: F.instance_norm(x, channel_axis=-4),
            lambda: F.batch_norm(np.ones(4), None, None, training=True),
        ):
            with pytest.raises(ValueError, match=r"normalized_shape|num_groups|axis|dimension|axes"):
                call()

    @pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
    def test_one_value_for_each_channel(self, shape):
        x = np.ones(shape)
        with pytest.raises(ValueError, match=r"more than 1 value per channel.*\(1, 3"):
            F.batch_norm(x, None, None, training=True)
        with pytest.raises(ValueError, match=r"more than 1 value per channel.*\(1, 3"):
            F.group_norm(x, 3)
        assert F.batch_norm(x, np.zeros(3), np.ones(3)).shape == shape  # evaluation may

    def test_one_pixel_for_each_instance(self):
        with pytest.raises(ValueError, match=r"more than 1 spatial element.*\(2, 3, 1, 1\)"):
            F.instance_norm(np.ones((2, 3, 1, 1)))

    @pytest.mark.parametrize("eps", [0.0, -1e-5])
    def test_batch_norm_in_training_needs_a_positive_eps(self, eps):
        with pytest.raises(ValueError, match="eps"):
            F.batch_norm(np.ones((4, 3)), None, None, training=True, eps=eps)

    def test_running_statistics(self):
        x = np.ones((4, 3), np.float32)
        good = np.zeros(3, np.float32)
        locked = good.copy()
        locked.flags.writeable = False
        for bad, error in (
            (np.zeros(4, np.float32), ValueError),
            (np.zeros(3), TypeError),
            (locked, ValueError),
            ([0.0, 0.0, 0.0], (TypeError, ValueError)),
        ):
            with pytest.raises(error, match="running_mean"):
                F.batch_norm(x, bad, good, training=True)
            with pytest.raises(error, match="running_var"):
                F.batch_norm(x, good, bad, training=True)
        assert not good.any()

    @pytest.mark.parametrize("which", ["running_mean", "running_var"])
    @pytest.mark.parametrize("strided", [False, True])
    @pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
    def test_running_statistics_inside_out(self, name, strided, which):
        x = np.random.default_rng(0).standard_normal((4, 3, 6)).astype(np.float32)
        out = np.full((4, 3, 12), 5, np.float32)[:, :, ::2] if strided else np.full((4, 3, 6), 5, np.float32)
        running = {"running_mean": np.ones(3, np.float32), "running_var": np.ones(3, np.float32)}
        running[which] = out[0, :, 1] if strided else out[1, 2, :3]
        flag = "training" if name == "batch_norm" else "use_input_stats"
        with pytest.raises(ValueError, match=f"out must not overlap {which}, which training updates"):
            getattr(F, name)(x, **running, **{flag: True}, out=out)
        assert (out == 5).all()
        assert (running["running_mean"] + running["running_var"] == 6).all()
        expected = getattr(F, name)(x, **{k: v.copy() for k, v in running.items()}, **{flag: False})
        np.testing.assert_array_equal(getattr(F, name)(x, **running, **{flag: False}, out=out), expected)

    @operations
    @pytest.mark.parametrize("which", ["input", "weight", "bias", "mask"])
    def test_an_array_that_was_resized(self, name, which):
        op = OPERATIONS[name]
        x, dy, weight, bias = (None if array is None else array.copy() for array in op.data(1, np.float32))
        if which == "bias":
            weight = None
        mask = np.ones(x.shape, bool)
        resized = {"input": x, "weight": weight, "bias": bias, "mask": mask if op.masks else None}[which]
        if resized is None:
            pytest.skip(f"{name} has no {which}")
        _, context = op.forward(x, weight, bias, **({"mask": mask} if op.masks else {}))
        resized.resize((2, 2), refcheck=False)
        with pytest.raises(ValueError, match="input, weight, bias and mask must not be resized between"):
            op.backward(np.ones_like(x) if which == "input" else dy, context)

    def test_a_context_of_another_operation(self):
        x = np.ones((2, 3), np.float32)
        for context in (F.linear_forward(x, x)[1], tuple(F.layer_norm_forward(x, 3)[1]), None):
            with pytest.raises(TypeError, match="ctx must be a NormContext, got"):
                F.layer_norm_backward(x, context)

    def test_nothing_is_half_changed(self):
        x, mean, var = np.ones((4, 3)), np.zeros(3), np.ones(3)
        for more in ({"out": np.empty((4, 4))}, {"mask": np.ones((4, 3))}, {"weight": np.ones(4)}):
            with pytest.raises((TypeError, ValueError)):
                F.batch_norm(x, mean, var, training=True, **more)
        assert (mean == 0).all()
        assert (var == 1).all()


class TestEmptyAndSingle:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @operations
    def test_no_samples(self, name, dtype):
        op = OPERATIONS[name]
        if name in ("standardize the first axis", "standardize everything", "layer_norm of everything"):
            return  # their groups are empty, see below
        shape = (0, *op.shape[1:])
        x = np.empty(shape, dtype)
        _, _, weight, bias = op.data(1, dtype)
        y, context = op.forward(x, weight, bias)
        assert y.shape == shape
        assert y.dtype == dtype
        dinput, dweight, dbias = op.backward(x, context)
        assert dinput.shape == shape
        for gradient, parameter in ((dweight, weight), (dbias, bias)):
            if parameter is not None:
                np.testing.assert_array_equal(gradient, np.zeros_like(parameter))

    def test_empty_groups(self):
        assert F.layer_norm(np.empty((3, 0)), 0).shape == (3, 0)
        assert F.rms_norm(np.empty((3, 0)), 0).shape == (3, 0)
        assert F.standardize(np.empty((0, 3)), 0).shape == (0, 3)
        assert F.standardize(np.empty((3, 0, 2)), (0, 1)).shape == (3, 0, 2)

    def test_groups_of_one(self):
        bias = np.array([0.5, -2.0, 3.0])
        x = np.random.default_rng(0).standard_normal((4, 3))
        np.testing.assert_array_equal(F.layer_norm(x[:, :1], 1, None, bias[:1]), np.full((4, 1), 0.5))
        np.testing.assert_array_equal(F.group_norm(x, 3, None, bias), np.broadcast_to(bias, (4, 3)))
        np.testing.assert_array_equal(F.standardize(x, ()), np.zeros((4, 3)))
        np.testing.assert_array_equal(F.standardize(np.ones(1), 0), np.zeros(1))

    def test_array_likes(self):
        np.testing.assert_array_equal(F.standardize([1.0, 2.0, 3.0], 0), F.standardize(np.array([1.0, 2.0, 3.0]), 0))
