"""conv2d against a float64 loop over kernel elements, and against PyTorch."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

U = {np.float32: 2.0**-24, np.float64: 2.0**-53}


def windows(x, k, m, stride, dilation, oh, ow):
    """The view of padded x (N, C, H, W) that kernel element (k, m) multiplies."""
    (sh, sw), (dh, dw) = stride, dilation
    return x[:, :, k * dh : k * dh + (oh - 1) * sh + 1 : sh, m * dw : m * dw + (ow - 1) * sw + 1 : sw]


def reference(x, w, b, dy_of, stride, padding, dilation, groups):
    """Result, gradients and the sums of absolute terms of each, all float64, channels first."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    (top, bottom), (left, right) = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kh, kw = w.shape[2:]
    oh = (padded.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (padded.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    n, channels = x.shape[:2]
    wg = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    y = np.zeros((n, w.shape[0], oh, ow))
    dy = dy_of(y.shape).astype(np.float64)
    dyg = dy.reshape(n, groups, w.shape[0] // groups, oh, ow)
    dpad, dw, size = np.zeros_like(padded), np.zeros_like(wg), np.zeros_like(y)
    for k, m in itertools.product(range(kh), range(kw)):
        part = windows(padded, k, m, stride, dilation, oh, ow).reshape(n, groups, channels // groups, oh, ow)
        y += np.einsum("ngcij,goc->ngoij", part, wg[..., k, m]).reshape(y.shape)
        size += np.einsum("ngcij,goc->ngoij", abs(part), abs(wg[..., k, m])).reshape(y.shape)
        dw[..., k, m] = np.einsum("ngcij,ngoij->goc", part, dyg)
        spread = np.einsum("ngoij,goc->ngcij", dyg, wg[..., k, m]).reshape(n, channels, oh, ow)
        windows(dpad, k, m, stride, dilation, oh, ow)[...] += spread
    dx = dpad[:, :, top : padded.shape[2] - bottom, left : padded.shape[3] - right]
    if b is not None:
        y += b.astype(np.float64)[:, None, None]
    return y, (dx, dw.reshape(w.shape), dy.sum((0, 2, 3))), size


CASES = [  # x shape, (out, kernel), stride, padding, dilation, groups
    ((2, 3, 5, 6), (4, (3, 3)), (1, 1), (0, 0), (1, 1), 1),
    ((2, 3, 5, 6), (4, (3, 3)), (1, 1), (1, 1), (1, 1), 1),
    ((3, 4, 9, 8), (6, (3, 2)), (2, 3), (2, 1), (1, 2), 2),
    ((2, 4, 7, 7), (4, (3, 3)), (1, 1), (1, 1), (1, 1), 4),
    ((2, 4, 7, 8), (8, (3, 5)), (2, 1), (1, 2), (2, 1), 4),
    ((2, 5, 6, 4), (7, (1, 1)), (1, 1), (0, 0), (1, 1), 1),
    ((2, 6, 6, 4), (4, (1, 1)), (1, 1), (0, 0), (1, 1), 2),
    ((2, 5, 6, 4), (7, (1, 1)), (2, 2), (1, 1), (1, 1), 1),
    ((1, 1, 1, 1), (1, (1, 1)), (1, 1), (0, 0), (1, 1), 1),
    ((1, 1, 2, 3), (1, (3, 5)), (1, 1), (4, 3), (1, 1), 1),
    ((2, 1, 4, 4), (2, (2, 2)), (3, 3), (5, 6), (3, 2), 1),  # windows wholly in the padding
    ((40, 16, 8, 8), (8, (3, 3)), (1, 1), (1, 1), (1, 1), 1),  # several images in a block, more than one block
    ((2, 40, 40, 41), (3, (3, 3)), (1, 1), (1, 1), (1, 1), 1),  # one image is several blocks; terms > 320
    # 16 channels of a group or more are side by side in the gradient of the weights; 256 pixels are one running sum
    ((3, 4, 9, 8), (80, (3, 2)), (2, 3), (2, 1), (1, 2), 2),
    ((70, 2, 4, 4), (33, (3, 3)), (1, 1), (1, 1), (1, 1), 1),
    ((2, 3, 20, 23), (20, (3, 3)), (1, 1), (1, 1), (1, 1), 1),
    ((2, 1, 3, 300), (16, (2, 3)), (1, 1), (0, 1), (1, 1), 1),
    # 1×1 convolutions that move no window take an image as one row; 16 channels or more, in blocks of up to 32
    ((3, 5, 6, 7), (49, (1, 1)), (1, 1), (0, 0), (1, 1), 1),
    ((2, 20, 5, 5), (40, (1, 1)), (1, 1), (0, 0), (1, 1), 2),
    ((2, 5, 6, 7), (32, (1, 1)), (2, 1), (0, 0), (1, 1), 1),
    # depthwise: channels 64, 32, 16 and one at a time; rows longer than a tile; columns that no window meets
    ((2, 117, 5, 6), (117, (3, 3)), (1, 1), (1, 1), (1, 1), 117),
    ((2, 5, 9, 8), (5, (3, 2)), (2, 3), (2, 1), (1, 2), 5),
    ((1, 33, 7, 5), (33, (2, 2)), (3, 3), (0, 4), (1, 2), 33),
    ((3, 2, 12, 70), (4, (3, 5)), (1, 2), (1, 2), (2, 1), 2),
    ((0, 3, 5, 6), (4, (3, 3)), (1, 1), (0, 0), (1, 1), 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("case", CASES, ids=[str(i) for i in range(len(CASES))])
def test_value_and_gradients(case, last, dtype):
    shape, (out, kernel), stride, padding, dilation, groups = case
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(dtype)
    w = rng.standard_normal((out, shape[1] // groups, *kernel)).astype(dtype)
    b = rng.standard_normal(out).astype(dtype)
    kept = {}

    def dy_of(form):
        kept["dy"] = rng.standard_normal(form).astype(dtype)
        return kept["dy"]

    y, gradients, size = reference(x, w, b, dy_of, stride, tuple((p, p) for p in padding), dilation, groups)
    turn = (lambda a: np.ascontiguousarray(np.moveaxis(a, 1, -1))) if last else (lambda a: a)
    axis = -1 if last else 1
    got, ctx = F.conv2d_forward(turn(x), w, b, stride, padding, dilation, groups, channel_axis=axis)
    plain = F.conv2d(turn(x), w, b, stride, padding, dilation, groups, channel_axis=axis)
    np.testing.assert_array_equal(got, plain)
    # n terms added in any order: relative to the sum of their absolute values, n + 1 roundings
    terms = w[0].size + 1
    assert got.dtype == dtype
    assert np.all(abs(got - turn(y)) <= (terms + 1) * U[dtype] * (turn(size) + abs(b).max(initial=0)))
    grads = F.conv2d_backward(turn(kept["dy"]), ctx)
    counts = (out // groups * kernel[0] * kernel[1], y.size // out, y.size // out)
    for name, mine, true, count in zip(("dx", "dw", "db"), grads, gradients, counts):
        true = turn(true) if name == "dx" else true
        assert mine.dtype == dtype, name
        assert mine.shape == true.shape, name
        # Gaussian terms: the largest sum of absolute values is below 4·√count times the largest factor, roughly count
        assert abs(mine - true).max(initial=0) <= (count + 2) * U[dtype] * 12 * max(1, count) ** 0.5, name


def test_same_and_valid_padding():
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 3, 6, 7)), rng.standard_normal((4, 3, 4, 3))
    same = F.conv2d(x, w, padding="same", dilation=(1, 2))
    true = reference(x, w, None, np.zeros, (1, 1), ((1, 2), (2, 2)), (1, 2), 1)[0]
    np.testing.assert_allclose(same, true, atol=1e-12)
    np.testing.assert_array_equal(F.conv2d(x, w, padding="valid"), F.conv2d(x, w))


def test_out_and_layouts_of_memory():
    rng = np.random.default_rng(3)
    x, w, b = rng.standard_normal((2, 3, 6, 7)), rng.standard_normal((3, 3, 3, 3)), rng.standard_normal(3)
    y = F.conv2d(x, w, b, padding=1)
    out = np.empty_like(y)
    assert F.conv2d(x, w, b, padding=1, out=out) is out
    np.testing.assert_array_equal(out, y)
    strided = np.empty((*y.shape, 2))[..., 0]
    np.testing.assert_array_equal(F.conv2d(x, w, b, padding=1, out=strided), y)
    inplace = x.copy()
    np.testing.assert_array_equal(F.conv2d(inplace, w, b, padding=1, out=inplace), y)
    np.testing.assert_array_equal(F.conv2d(np.asfortranarray(x), w[::-1][::-1], b, padding=1), y)
    with pytest.raises(ValueError, match="overlap"):
        F.conv2d_forward(x, w, b, padding=1, out=x)


@pytest.mark.parametrize("last", [False, True])
def test_threads_change_nothing(last):
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((32, 16, 16, 16), np.float32), rng.standard_normal((16, 16, 3, 3), np.float32)
    b, axis = rng.standard_normal(16, np.float32), -1 if last else 1
    results, before = [], fastnn.get_num_threads()
    try:
        for threads in (1, 2, 3):
            fastnn.set_num_threads(threads)
            y, ctx = F.conv2d_forward(x, w, b, padding=1, channel_axis=axis)
            results.append((y, *F.conv2d_backward(y, ctx)))
    finally:
        fastnn.set_num_threads(before)
    for other in results[1:]:
        for mine, same in zip(results[0], other):
            np.testing.assert_array_equal(mine, same)


@pytest.mark.parametrize("case", CASES, ids=[str(i) for i in range(len(CASES))])
def test_both_layouts_have_the_same_bits(case):
    shape, (out, kernel), stride, padding, dilation, groups = case
    rng = np.random.default_rng(6)
    x, w = rng.standard_normal(shape, np.float32), rng.standard_normal((out, shape[1] // groups, *kernel), np.float32)
    first, ctx = F.conv2d_forward(x, w, None, stride, padding, dilation, groups)
    last, last_ctx = F.conv2d_forward(
        np.moveaxis(x, 1, -1), w, None, stride, padding, dilation, groups, channel_axis=-1
    )
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), first)
    dx, dw, _ = F.conv2d_backward(first, ctx)
    dx_last, dw_last, _ = F.conv2d_backward(last, last_ctx)
    np.testing.assert_array_equal(np.moveaxis(dx_last, -1, 1), dx)
    np.testing.assert_array_equal(dw_last, dw)


def test_nan_spoils_its_own_image_and_channel_only():
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal((3, 2, 6, 5), np.float32), rng.standard_normal((4, 2, 3, 3), np.float32)
    x[1, 1, 5, 4] = np.nan
    y, ctx = F.conv2d_forward(x, w, padding=1)
    expected = np.zeros(y.shape, bool)
    expected[1, :, 4:, 3:] = True
    np.testing.assert_array_equal(np.isnan(y), expected)
    dw = F.conv2d_backward(np.ones_like(y), ctx)[1]
    assert np.isfinite(dw[:, 0]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 2}, "groups must divide"),
        ({"groups": 0}, "groups must divide"),
        ({"stride": 0}, "stride must be"),
        ({"stride": (1, 2, 3)}, "stride must be"),
        ({"padding": -1}, "padding must be"),
        ({"padding": "full"}, "padding must be"),
        ({"padding": "same", "stride": 2}, "needs stride 1"),
        ({"dilation": 9}, "smaller than the kernel"),
        ({"channel_axis": 2}, "channel_axis must be"),
        ({"bias": np.zeros(3)}, "bias must have shape"),
        ({"weight": np.zeros((4, 2, 3, 3))}, "takes 2 channels"),
        ({"weight": np.zeros((4, 3, 3))}, "weight must have shape"),
        ({"input": np.zeros((3, 5, 6))}, "four axes"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        F.conv2d(**{"input": np.zeros((2, 3, 5, 6)), "weight": np.zeros((4, 3, 3, 3))} | arguments)


def test_type_errors():
    x, w = np.zeros((2, 3, 5, 6)), np.zeros((4, 3, 3, 3))
    with pytest.raises(TypeError, match="weight must have the same dtype"):
        F.conv2d(x, w.astype(np.float32))
    with pytest.raises(TypeError, match="input must be float32 or float64"):
        F.conv2d(x.astype(int), w)
    with pytest.raises(TypeError, match="stride must be"):
        F.conv2d(x, w, stride=1.5)


@pytest.mark.peers
@pytest.mark.parametrize("case", CASES[:-1], ids=[str(i) for i in range(len(CASES) - 1)])
def test_against_torch(case):
    torch = pytest.importorskip("torch")
    shape, (out, kernel), stride, padding, dilation, groups = case
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(s) for s in (shape, (out, shape[1] // groups, *kernel), (out,))]
    tensors = [torch.from_numpy(a).requires_grad_() for a in arrays]
    true = torch.nn.functional.conv2d(*tensors, stride, padding, dilation, groups)
    y, ctx = F.conv2d_forward(*arrays, stride, padding, dilation, groups)
    np.testing.assert_allclose(y, true.detach().numpy(), rtol=0, atol=1e-11)
    dy = rng.standard_normal(y.shape)
    true.backward(torch.from_numpy(dy))
    for mine, tensor in zip(F.conv2d_backward(dy, ctx), tensors):
        np.testing.assert_allclose(mine, tensor.grad.numpy(), rtol=0, atol=1e-11)
