"""The norms' contract: values and gradients, masks, running statistics, out=, empty and single elements, errors."""

import numpy as np
import pytest

import fastnn.functional as F
import reference as ref
from norm_operations import OPERATIONS

DTYPES = [np.float32, np.float64]
BOUND = 4.0

operations = pytest.mark.parametrize("name", OPERATIONS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
masked_operations = pytest.mark.parametrize("name", [k for k, op in OPERATIONS.items() if op.masks])


def masks(shape):
    """Masks of several broadcastable shapes, none of which leaves a group empty."""
    rng = np.random.default_rng(5)
    full = rng.random(shape) < 0.6
    full[(slice(None), *(0,) * (len(shape) - 1))] = True
    return {
        "full": full,
        "trailing": np.arange(shape[-1]) < max(2, shape[-1] - 3),
        "by sample": (np.arange(shape[0]) != 1).reshape(-1, *(1,) * (len(shape) - 1)),
        "all": np.ones((), bool),
    }


def check(op, x, dy, weight, bias, mask=None):
    """The results' units of error, forward and backward."""
    more = {} if mask is None else {"mask": mask}
    y, context = op.forward(x, weight, bias, **more)
    f = op.oracle(x, weight, bias, mask=mask)
    b = ref.backward(dy, f, weight)
    grads = op.backward(dy, context)
    errors = {"y": ref.forward_units(y, f, weight), "dinput": ref.dinput_units(grads[0], b)}
    if weight is not None:
        errors["dweight"] = ref.dweight_units(grads[1], b)
    if bias is not None:
        errors["dbias"] = ref.dbias_units(grads[2], b)
    return {key: value for key, value in errors.items() if not value <= BOUND}


class TestValues:
    @dtypes
    @operations
    def test_forward_and_backward(self, name, dtype):
        op = OPERATIONS[name]
        x, dy, weight, bias = op.data(1, dtype)
        assert not check(op, x, dy, weight, bias)
        assert not check(op, x, dy, None, None)
        assert not check(op, x, dy, weight, None)

    @dtypes
    @masked_operations
    def test_masks(self, name, dtype):
        op = OPERATIONS[name]
        x, dy, weight, bias = op.data(2, dtype)
        for kind, mask in masks(op.shape).items():
            f = op.oracle(x, mask=mask)
            if (f.count >= 2).all():
                assert not check(op, x, dy, weight, bias, mask), kind

    @masked_operations
    def test_a_full_mask_is_no_mask(self, name):
        op = OPERATIONS[name]
        x, _, weight, bias = op.data(2, np.float64)
        masked = op.plain(x, weight, bias, mask=np.ones(x.shape, bool))
        np.testing.assert_allclose(masked, op.plain(x, weight, bias), rtol=1e-15, atol=1e-15)

    @dtypes
    @masked_operations
    def test_what_the_mask_leaves_out_reaches_no_other_position(self, name, dtype):
        op = OPERATIONS[name]
        x, _, weight, bias = op.data(3, dtype)
        mask = masks(op.shape)["full"]
        spoiled = np.where(mask, x, np.array([np.nan, np.inf, 3e38], dtype)[np.arange(x.size).reshape(x.shape) % 3])
        with np.errstate(over="ignore"):
            y = op.plain(spoiled, weight, bias, mask=mask)
        np.testing.assert_array_equal(y[mask], op.plain(x, weight, bias, mask=mask)[mask])

    @dtypes
    @masked_operations
    def test_a_group_that_counts_nothing_gives_bias_and_zero_gradients(self, name, dtype):
        op = OPERATIONS[name]
        x, dy, weight, bias = op.data(4, dtype)
        y, context = op.forward(x, weight, bias, mask=np.zeros(x.shape, bool))
        f = op.oracle(x, weight, bias, mask=np.zeros(x.shape, bool))
        np.testing.assert_array_equal(y, f.y.astype(dtype))
        dinput, dweight, _ = op.backward(dy, context)
        assert not dinput.any()
        assert dweight is None or not dweight.any()

    @operations
    def test_gradients_by_finite_differences(self, name):
        op = OPERATIONS[name]
        x, dy, weight, bias = op.data(6, np.float64)
        more = {"mask": masks(op.shape)["full"]} if op.masks else {}
        _, context = op.forward(x, weight, bias, **more)
        grads = op.backward(dy, context)
        rng = np.random.default_rng(0)
        step = 1e-5
        for k, operand in enumerate((x, weight, bias)):
            if operand is None:
                assert grads[k] is None
                continue
            for index in rng.permutation(operand.size)[:6]:
                ends = []
                for sign in (step, -step):
                    moved = [None if a is None else a.copy() for a in (x, weight, bias)]
                    moved[k].flat[index] += sign
                    ends.append((op.plain(*moved, **more) * dy).sum())
                assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(grads[k].flat[index], rel=1e-5, abs=1e-5)

    @dtypes
    @pytest.mark.parametrize("n", [1, 2, 3, 31, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2049])
    def test_widths_around_the_lanes_and_blocks(self, n, dtype):
        rng = np.random.default_rng(n)
        for rows in (1, 2, 7, 8, 9, 17):
            x, dy = (1 + rng.standard_normal((2, rows, n))).astype(dtype)
            weight, bias = rng.standard_normal((2, n)).astype(dtype)
            y, context = F.layer_norm_forward(x, n, weight, bias)
            f = ref.forward(x, ref.layer_view(x.shape, n), weight, bias)
            b = ref.backward(dy, f, weight)
            dinput, dweight, dbias = F.layer_norm_backward(dy, context)
            assert ref.forward_units(y, f, weight) <= BOUND
            assert ref.dinput_units(dinput, b) <= BOUND
            assert ref.dweight_units(dweight, b) <= BOUND
            assert ref.dbias_units(dbias, b) <= BOUND

    @dtypes
    @pytest.mark.parametrize("channels", [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 130])
    def test_channels_around_the_lanes_and_blocks(self, channels, dtype):
        rng = np.random.default_rng(channels)
        for samples, pixels in ((2, 1), (9, 1), (3, 5), (1, 63), (2, 64), (1, 65), (3, 1025)):
            weight, bias = rng.standard_normal((2, channels)).astype(dtype)
            for shape, axis in (((samples, channels, pixels), 1), ((samples, pixels, channels), -1)):
                x, dy = (1 + rng.standard_normal((2, *shape))).astype(dtype)
                y, context = F.batch_norm_forward(x, None, None, weight, bias, True, channel_axis=axis)
                f = ref.forward(x, ref.batch_view(shape, axis), weight, bias)
                b = ref.backward(dy, f, weight)
                dinput, dweight, dbias = F.batch_norm_backward(dy, context)
                assert ref.forward_units(y, f, weight) <= BOUND
                assert ref.dinput_units(dinput, b) <= BOUND
                assert ref.dweight_units(dweight, b) <= BOUND
                assert ref.dbias_units(dbias, b) <= BOUND

    @dtypes
    @operations
    def test_the_companion_gives_the_same_bits_and_copies_nothing(self, name, dtype):
        op = OPERATIONS[name]
        x, _, weight, bias = op.data(7, dtype)
        y, context = op.forward(x, weight, bias)
        np.testing.assert_array_equal(y, op.plain(x, weight, bias))
        kept = [a for a in context if isinstance(a, np.ndarray) and a.shape == x.shape]
        assert all(any(np.shares_memory(a, own) for own in (x, weight, bias) if own is not None) for a in kept)
        with pytest.raises((AttributeError, TypeError)):
            context.something_new = 1

    def test_eps_of_rms_norm_defaults_to_the_dtype(self):
        for dtype in DTYPES:
            x = np.full((2, 3), 1e-4, dtype)
            np.testing.assert_array_equal(F.rms_norm(x, 3), F.rms_norm(x, 3, None, float(np.finfo(dtype).eps)))

    def test_an_imaginary_root_is_not_a_number(self):
        x = np.random.default_rng(0).standard_normal((2, 8))
        assert np.isnan(F.layer_norm(x, 8, None, None, -100.0)).all()
        assert np.isnan(F.group_norm(x, 2, None, None, -100.0)).all()
        assert np.isnan(F.rms_norm(x, 8, None, -100.0)).all()

    def test_channels_last_is_channels_first_moved(self):
        x = np.random.default_rng(1).standard_normal((3, 4, 5, 6))
        moved = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        for name, arguments in (
            ("batch_norm", (None, None, None, None, True)),
            ("instance_norm", ()),
            ("group_norm", (2,)),
        ):
            op = getattr(F, name)
            last = op(moved, *arguments, channel_axis=-1)
            np.testing.assert_allclose(np.moveaxis(last, -1, 1), op(x, *arguments), rtol=1e-14, atol=1e-14)
            np.testing.assert_array_equal(last, op(moved, *arguments, channel_axis=3))


class TestNumbersOfOtherTypes:
    """What the gate converts gives the bits of Python's own numbers."""

    def test_same_bits(self):
        rng = np.random.default_rng(18)
        x = rng.standard_normal((5, 6, 4)).astype(np.float32)
        mean, var = np.zeros(6, np.float32), np.ones(6, np.float32)
        own = {"eps": 0.25, "channel_axis": 1}
        other = {"eps": np.float32(0.25), "channel_axis": np.int64(-2)}
        for call in (
            lambda k, one: F.batch_norm(x, mean.copy(), var.copy(), training=one, **k),
            lambda k, one: F.batch_norm(x, mean, var, **k),
            lambda k, one: F.instance_norm(x, use_input_stats=one, **k),
            lambda k, one: F.group_norm(x, 3 * one, **k),
        ):
            expected = call(own, True)
            for one in (1, np.bool_(True)):
                np.testing.assert_array_equal(call(other, one), expected)
        for shape, axes in (([6, 4], [1, 2]), (np.array([6, 4]), np.array([-1, 1]))):
            y = F.layer_norm(x, shape, eps=np.float32(0.25))
            np.testing.assert_array_equal(y, F.layer_norm(x, (6, 4), eps=0.25))
            np.testing.assert_array_equal(y, F.standardize(x, axes, np.float32(0.25)))

    def test_running_statistics_move_alike(self):
        x = np.random.default_rng(19).standard_normal((5, 6)).astype(np.float32)
        pairs = []
        for training, momentum in ((True, 1.0), (1, 1), (np.bool_(True), np.float64(1.0))):
            pairs.append((np.zeros(6, np.float32), np.ones(6, np.float32)))
            F.batch_norm(x, *pairs[-1], training=training, momentum=momentum)
        np.testing.assert_array_equal(pairs[1], pairs[0])
        np.testing.assert_array_equal(pairs[2], pairs[0])
        assert pairs[0][0].all()


class TestRunningStatistics:
    @dtypes
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize(("shape", "axis"), [((5, 6, 4, 3), 1), ((5, 4, 3, 6), -1), ((33, 6), 1)])
    def test_batch_norm_updates_them_in_place(self, shape, axis, masked, dtype):
        rng = np.random.default_rng(8)
        x = (2 + rng.standard_normal(shape)).astype(dtype)
        mean, var = rng.random((2, 6)).astype(dtype)
        old = mean.copy(), var.copy()
        mask = rng.random(shape) < 0.5 if masked else None
        for momentum in (0.1, 0.0, 1.0, 0.37):
            F.batch_norm(x, mean, var, None, None, True, momentum, channel_axis=axis, mask=mask)
            f = ref.forward(x, ref.batch_view(shape, axis), mask=mask)
            for new, before, batch in zip((mean, var), old, (f.mean, f.unbiased)):
                expected = ref.running(before, batch, momentum)
                assert ref.units(new, expected, np.maximum(abs(before), abs(batch.ravel()))) <= BOUND
            old = mean.copy(), var.copy()

    @pytest.mark.parametrize(("shape", "axis"), [((5, 6, 4, 3), 1), ((5, 4, 3, 6), -1)])
    def test_instance_norm_takes_the_mean_over_the_batch(self, shape, axis):
        rng = np.random.default_rng(9)
        x = rng.standard_normal(shape)
        mean, var = rng.random((2, 6))
        old = mean.copy(), var.copy()
        F.instance_norm(x, mean, var, momentum=0.3, channel_axis=axis)
        f = ref.forward(x, ref.instance_view(shape, axis))
        for new, before, batch in zip((mean, var), old, (f.mean, f.unbiased)):
            np.testing.assert_allclose(new, ref.running(before, batch.mean(0), 0.3).astype(float), rtol=1e-14)

    @dtypes
    @pytest.mark.parametrize(("shape", "axis"), [((5, 6, 4, 3), 1), ((5, 4, 3, 6), -1), ((33, 6), 1)])
    @pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
    def test_in_evaluation_they_are_constants(self, name, shape, axis, dtype):
        if name == "instance_norm" and len(shape) == 2:
            return
        rng = np.random.default_rng(10)
        x, dy = rng.standard_normal((2, *shape)).astype(dtype)
        mean, var, weight, bias = rng.random((4, 6)).astype(dtype)
        kept = mean.copy(), var.copy()
        y, context = getattr(F, f"{name}_forward")(x, mean, var, weight, bias, False, channel_axis=axis)
        grads = getattr(F, f"{name}_backward")(dy, context)
        f = ref.forward(x, ref.batch_view(shape, axis), weight, bias, constants=kept)
        b = ref.backward(dy, f, weight)
        assert ref.forward_units(y, f, weight) <= BOUND
        assert ref.dinput_units(grads[0], b) <= BOUND
        assert ref.dweight_units(grads[1], b) <= BOUND
        assert ref.dbias_units(grads[2], b) <= BOUND
        np.testing.assert_array_equal((mean, var), kept)

    @dtypes
    @pytest.mark.parametrize(("shape", "axis"), [((5, 6, 4, 3), 1), ((5, 4, 3, 6), -1), ((33, 6), 1)])
    def test_every_batch_reaches_them(self, shape, axis, dtype):
        x = np.random.default_rng(20).standard_normal(shape).astype(dtype)
        channel = [slice(None)] * len(shape)
        for k, value in enumerate((np.nan, np.inf, 0.75)):
            channel[axis] = k
            x[tuple(channel)] = value
        mean, var = np.zeros(6, dtype), np.ones(6, dtype)
        F.batch_norm(x, mean, var, training=True, momentum=0.5, eps=1e-300, channel_axis=axis)
        assert np.isnan([mean[:2], var[:2]]).all()
        assert (mean[2], var[2]) == (0.375, 0.5)
        assert np.isfinite([mean[3:], var[3:]]).all()

    @dtypes
    def test_in_evaluation_a_channel_depends_on_no_neighbour(self, dtype):
        x, var = np.zeros((1, 17), dtype), np.random.default_rng(21).random(17).astype(dtype)
        _, expected = F.batch_norm_forward(x, np.zeros(17, dtype), var)
        for value in (np.inf, np.finfo(dtype).max, 0, -1):
            var[3] = value
            _, context = F.batch_norm_forward(x, np.zeros(17, dtype), var)
            np.testing.assert_array_equal(np.delete(context.groups, 3, 0), np.delete(expected.groups, 3, 0))

    @dtypes
    @pytest.mark.parametrize("n", [1, 7, 8, 15, 16, 17, 64, 65])
    def test_in_evaluation_a_zero_keeps_its_sign(self, n, dtype):
        zero = np.zeros(3, dtype)
        assert np.signbit(F.batch_norm(np.full((2, 3, n), -0.0, dtype), zero, zero + 1, None, -zero)).all()
        assert np.signbit(F.batch_norm(np.full((n, 3), -0.0, dtype), zero, zero + 1, None, -zero)).all()

    def test_an_empty_batch_leaves_them_alone(self):
        mean, var = np.ones(3), np.full(3, 2.0)
        assert F.batch_norm(np.empty((0, 3, 4)), mean, var, training=True).shape == (0, 3, 4)
        assert (mean == 1).all()
        assert (var == 2).all()

    def test_they_may_be_strided(self):
        x = np.random.default_rng(11).standard_normal((7, 3))
        mean, var, plain_mean, plain_var = np.zeros(6)[::2], np.ones(6)[::2], np.zeros(3), np.ones(3)
        F.batch_norm(x, mean, var, training=True)
        F.batch_norm(x, plain_mean, plain_var, training=True)
        np.testing.assert_array_equal(mean, plain_mean)
        np.testing.assert_array_equal(var, plain_var)

    def test_only_one_of_them(self):
        x = np.random.default_rng(12).standard_normal((7, 3))
        with pytest.raises(ValueError, match="running_"):
            F.batch_norm(x, np.zeros(3), None)
        with pytest.raises(ValueError, match="running_"):
            F.batch_norm(x, None, None)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_instances_that_count_nothing_or_one(self, dtype):
        """The mean is over the instances that count something, the variance over those that have one."""
        x = np.random.default_rng(3).standard_normal((4, 2, 9)).astype(dtype)
        mask = np.ones((4, 2, 9), bool)
        mask[0] = False
        mask[1, :, 1:] = False
        mean, variance = np.zeros(2, dtype), np.zeros(2, dtype)
        F.instance_norm(x, mean, variance, momentum=1.0, mask=mask)
        exact = x.astype(np.longdouble)
        terms = np.stack([exact[1, :, 0], *exact[2:].mean(axis=2)])
        variances = exact[2:].var(axis=2, ddof=1)
        for actual, parts in ((mean, terms), (variance, variances)):  # four roundings of no more than Σ|parts|
            assert (abs(actual - parts.mean(axis=0)) <= 2 * np.finfo(dtype).eps * abs(parts).sum(axis=0)).all()


class TestOut:
    @dtypes
    @operations
    def test_in_place(self, name, dtype):
        op = OPERATIONS[name]
        x, _, weight, bias = op.data(13, dtype)
        expected = op.plain(x, weight, bias)
        assert op.plain(x, weight, bias, out=x) is x
        np.testing.assert_array_equal(x, expected)

    @dtypes
    @pytest.mark.parametrize("n", [3072, 6151, 9217])
    def test_long_rows_in_place(self, n, dtype):
        """Rows with so many weights are written some columns at a time."""
        x, weight, bias = (np.random.default_rng(n).standard_normal(s).astype(dtype) for s in ((9, n), n, n))
        for b in (bias, None):
            expected = F.layer_norm(x, n, weight, b)
            y = x.copy()
            np.testing.assert_array_equal(F.layer_norm(y, n, weight, b, out=y), expected)
            f = ref.forward(x, ref.layer_view(x.shape, n), weight, b)
            assert ref.forward_units(expected, f, weight) <= BOUND

    @operations
    @pytest.mark.parametrize("at", ["start", "end"])
    @pytest.mark.parametrize("which", ["weight", "bias", "mask"])
    def test_over_another_operand(self, name, which, at):
        op = OPERATIONS[name]
        x, _, weight, bias = op.data(15, np.float32)
        mask = np.random.default_rng(15).random(x.shape) < 0.7 if op.masks else None
        operands = {"weight": weight, "bias": bias, "mask": mask}
        if operands[which] is None:
            pytest.skip(f"{name} has no {which}")
        arguments = operands if op.masks else {"weight": weight, "bias": bias}
        expected = op.plain(x, **arguments)
        out, operand = np.zeros_like(x), operands[which]
        place = out.reshape(-1).view(np.uint8)
        place = place[: operand.nbytes] if at == "start" else place[-operand.nbytes :]
        inside = place.view(operand.dtype).reshape(operand.shape)
        inside[...] = operand
        np.testing.assert_array_equal(op.plain(x, **{**arguments, which: inside}, out=out), expected)

    @operations
    def test_partial_overlap_and_any_layout(self, name):
        op = OPERATIONS[name]
        x, _, weight, bias = op.data(14, np.float64)
        expected = op.plain(x, weight, bias)
        buffer = np.zeros(x.size + 5)
        for shift in (0, 1, 5):
            source = buffer[5 - shift : 5 - shift + x.size].reshape(x.shape)
            target = buffer[5:].reshape(x.shape)
            source[...] = x
            assert op.plain(source, weight, bias, out=target) is target
            np.testing.assert_array_equal(target, expected)
        for target in (
            np.empty(x.shape, order="F"),
            np.empty((*x.shape, 2))[..., 1],
            np.empty(x.shape, ">f8"),
            np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float64).reshape(x.shape),
        ):
            assert op.plain(x, weight, bias, out=target) is target
            np.testing.assert_array_equal(target, expected)

    @operations
    def test_over_a_parameter(self, name):
        op = OPERATIONS[name]
        if op.parameters is None:
            return
        x, _, _, bias = op.data(15, np.float64)
        buffer = np.random.default_rng(0).standard_normal(x.size)
        weight = buffer[: int(np.prod(op.parameters))].reshape(op.parameters)
        expected = op.plain(x, weight.copy(), bias)
        np.testing.assert_array_equal(op.plain(x, weight, bias, out=buffer.reshape(x.shape)), expected)

    @operations
    def test_forward_with_context_refuses_to_lose_its_input(self, name):
        op = OPERATIONS[name]
        x, _, weight, bias = op.data(16, np.float32)
        kept = x.copy()
        for out in (x, x[::-1]):
            with pytest.raises(ValueError, match="out"):
                op.forward(x, weight, bias, out=out)
        np.testing.assert_array_equal(x, kept)
        target = np.empty_like(x)
        assert op.forward(x, weight, bias, out=target)[0] is target

    @operations
    def test_refused(self, name):
        op = OPERATIONS[name]
        x, _, weight, bias = op.data(17, np.float32)
        locked = np.empty_like(x)
        locked.flags.writeable = False
        for out, error in (
            ([1.0], TypeError),
            (np.empty(x.shape), TypeError),
            (np.empty(x.shape[1:], np.float32), ValueError),
            (locked, ValueError),
        ):
            with pytest.raises(error, match="out"):
                op.plain(x, weight, bias, out=out)
