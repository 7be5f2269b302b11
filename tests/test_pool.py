"""Pooling against a loop over windows, and against PyTorch."""

import itertools
import math

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn.functional.pool.windows import geometry

CASES = [  # x shape, kernel, stride, padding, dilation, ceil_mode
    ((2, 3, 8, 8), 2, None, 0, 1, False),
    ((2, 3, 7, 9), (3, 2), None, 0, 1, True),
    ((2, 3, 7, 9), 3, 2, 1, 1, False),
    ((2, 3, 7, 9), 3, 2, 1, 1, True),
    ((2, 2, 9, 11), (3, 2), (2, 3), (1, 0), (2, 3), False),
    ((2, 2, 9, 11), (3, 2), (1, 1), (1, 1), (2, 3), True),
    ((1, 17, 5, 5), 5, None, 0, 1, False),
    ((1, 1, 1, 1), 1, None, 0, 1, False),
    ((1, 5, 4, 70), (2, 3), (2, 1), 0, 1, False),
    ((1, 5, 4, 70), (1, 2), (3, 4), 0, 1, True),
    ((0, 3, 8, 8), 2, None, 0, 1, False),
]


def both(value):
    return (value, value) if isinstance(value, int) else value


def windows(shape, kernel, stride, padding, dilation, ceil_mode):
    """For each output place: the input places of its window inside the image, and its extent with padding."""
    kernel = both(kernel)
    axes = []
    for size, k, s, p, d in zip(shape[2:], kernel, both(stride or kernel), both(padding), both(dilation)):
        exact = (size + 2 * p - d * (k - 1) - 1) / s + 1
        count = math.ceil(exact) if ceil_mode else math.floor(exact)
        if ceil_mode and (count - 1) * s >= size + p:
            count -= 1
        axes.append(
            [
                (
                    [i for i in (o * s - p + d * j for j in range(k)) if 0 <= i < size],
                    min(o * s - p + k, size + p) - (o * s - p),
                )
                for o in range(count)
            ]
        )
    return axes


def reference(x, dy_of, kind, kernel, stride, padding, dilation, ceil_mode, include=True, divisor=None):
    rows, columns = windows(x.shape, kernel, stride, padding, dilation, ceil_mode)
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    dy, dx = dy_of(y.shape), np.zeros(x.shape)
    for (i, (ih, high)), (j, (iw, wide)) in itertools.product(enumerate(rows), enumerate(columns)):
        part = x[:, :, ih][:, :, :, iw].reshape(*x.shape[:2], len(ih) * len(iw))
        places = list(itertools.product(ih, iw))
        if kind == "max":
            y[:, :, i, j] = part.max(-1)
            winners = part.argmax(-1)
            for n, c in np.ndindex(*x.shape[:2]):
                dx[n, c][places[winners[n, c]]] += dy[n, c, i, j]
        else:
            count = divisor or (high * wide if include else len(places))
            y[:, :, i, j] = part.sum(-1) / count
            for place in places:
                dx[:, :, place[0], place[1]] += dy[:, :, i, j] / count
    return y, dx


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=[str(i) for i in range(len(CASES))])
@pytest.mark.parametrize("kind", ["max", "avg", "avg without padding", "avg by 3"])
def test_value_and_gradient(kind, case, dtype, last):
    shape, kernel, stride, padding, dilation, ceil_mode = case
    rng = np.random.default_rng(1)
    x = rng.integers(-9, 9, shape).astype(dtype)  # with ties
    kept = {}

    def dy_of(form):
        kept["dy"] = rng.standard_normal(form).astype(dtype)
        return kept["dy"].astype(np.float64)

    turn = (lambda a: np.ascontiguousarray(np.moveaxis(a, 1, -1))) if last else (lambda a: a)
    axis = 3 if last else -3
    if kind == "max":
        y, dx = reference(x, dy_of, "max", kernel, stride, padding, dilation, ceil_mode)
        arguments = (kernel, stride, padding, dilation, ceil_mode)
        plain, forward, backward = F.max_pool2d, F.max_pool2d_forward, F.max_pool2d_backward
    else:
        include, divisor = kind != "avg without padding", 3 if kind == "avg by 3" else None
        y, dx = reference(x, dy_of, "avg", kernel, stride, padding, 1, ceil_mode, include, divisor)
        arguments = (kernel, stride, padding, ceil_mode, include, divisor)
        plain, forward, backward = F.avg_pool2d, F.avg_pool2d_forward, F.avg_pool2d_backward
    got, ctx = forward(turn(x), *arguments, channel_axis=axis)
    np.testing.assert_array_equal(got, plain(turn(x), *arguments, channel_axis=axis))
    # sums of small integers are exact, the division rounds once
    np.testing.assert_array_equal(got, turn(y).astype(dtype))
    mine = backward(turn(kept["dy"]), ctx)
    assert mine.dtype == dtype
    # each place adds at most as many shares as the kernel has elements
    bound = 2 * math.prod(both(kernel)) * np.finfo(dtype).eps * abs(kept["dy"]).max(initial=0) * math.prod(both(kernel))
    assert abs(mine - turn(dx)).max(initial=0) <= bound


def test_nan_and_infinity():
    x = np.full((1, 1, 2, 6), -np.inf)
    x[0, 0, 1, 2] = np.nan
    x[0, 0, :, 4:] = [[1, np.nan], [5, 2]]
    y, ctx = F.max_pool2d_forward(x, 2)
    np.testing.assert_array_equal(y, [[[[-np.inf, np.nan, np.nan]]]])
    dx = F.max_pool2d_backward(np.array([[[[1.0, 2.0, 3.0]]]]), ctx)
    np.testing.assert_array_equal(dx, [[[[1, 0, 0, 0, 0, 3], [0, 0, 2, 0, 0, 0]]]])


def test_padding_never_wins():
    y, ctx = F.max_pool2d_forward(np.full((1, 1, 2, 2), -np.inf), 3, 1, 1)
    assert np.all(y == -np.inf)
    assert F.max_pool2d_backward(np.ones_like(y), ctx).sum() == 4


def test_out():
    x = np.random.default_rng(2).standard_normal((1, 2, 4, 4))
    for op in (F.max_pool2d, F.avg_pool2d):
        y = op(x, 2)
        for out in (np.empty_like(y), np.empty((*y.shape, 2))[..., 1]):
            assert op(x, 2, out=out) is out
            np.testing.assert_array_equal(out, y)
        same = x.copy()
        np.testing.assert_array_equal(op(same, 1, out=same), x)


@pytest.mark.parametrize("last", [False, True])
def test_threads_change_nothing(last):
    x = np.random.default_rng(3).standard_normal((16, 32, 32, 32), np.float32)
    before, results = fastnn.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastnn.set_num_threads(threads)
            results.append([])
            for forward, backward in (
                (F.max_pool2d_forward, F.max_pool2d_backward),
                (F.avg_pool2d_forward, F.avg_pool2d_backward),
            ):
                y, ctx = forward(x, 3, 2, 1, channel_axis=-1 if last else 1)
                results[-1] += [y, backward(y, ctx)]
    finally:
        fastnn.set_num_threads(before)
    for other in results[1:]:
        for mine, same in zip(results[0], other):
            np.testing.assert_array_equal(mine, same)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be"),
        ({"kernel_size": 2, "stride": 0}, "stride must be"),
        ({"kernel_size": 2, "padding": 2}, "at most half the window"),
        ({"kernel_size": 2, "padding": -1}, "padding must be"),
        ({"kernel_size": 9}, "smaller than the window"),
        ({"kernel_size": 2, "channel_axis": 0}, "channel_axis must be"),
    ],
)
@pytest.mark.parametrize("op", [F.max_pool2d, F.avg_pool2d])
def test_errors(op, arguments, message):
    with pytest.raises(ValueError, match=message):
        op(np.zeros((1, 1, 4, 4)), **arguments)


def test_bad_divisor():
    with pytest.raises(ValueError, match="divisor_override must be"):
        F.avg_pool2d(np.zeros((1, 1, 4, 4)), 2, divisor_override=0)


@pytest.mark.peers
@pytest.mark.parametrize("case", CASES[:-1], ids=[str(i) for i in range(len(CASES) - 1)])
def test_against_torch(case):
    torch = pytest.importorskip("torch")
    shape, kernel, stride, padding, dilation, ceil_mode = case
    x = np.random.default_rng(4).standard_normal(shape)
    peer = torch.nn.functional
    for mine, theirs, arguments in (
        (F.max_pool2d_forward, peer.max_pool2d, (kernel, stride, padding, dilation, ceil_mode)),
        (F.avg_pool2d_forward, peer.avg_pool2d, (kernel, stride, padding, ceil_mode, False)),
        (F.avg_pool2d_forward, peer.avg_pool2d, (kernel, stride, padding, ceil_mode, True)),
    ):
        tensor = torch.from_numpy(x).requires_grad_()
        true = theirs(tensor, *arguments)
        y, ctx = mine(x, *arguments)
        np.testing.assert_allclose(y, true.detach().numpy(), rtol=1e-14, atol=1e-15)
        dy = np.random.default_rng(5).standard_normal(y.shape)
        true.backward(torch.from_numpy(dy))
        backward = F.max_pool2d_backward if mine is F.max_pool2d_forward else F.avg_pool2d_backward
        np.testing.assert_allclose(backward(dy, ctx), tensor.grad.numpy(), rtol=1e-13, atol=1e-14)
        tensor.grad = None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("size", "options"), [((0, 0), (2, 1, 1)), ((1, 1), (2, 1, 2, 4)), ((3, 1), ((1, 2), 1, (0, 2), 4))]
)
def test_windows_that_see_padding_only(size, options, dtype):
    """Their maximum is −∞, and their gradient goes nowhere."""
    y, context = F.max_pool2d_forward(np.ones((2, 3, *size), dtype), *options)
    assert np.all(np.isneginf(y))
    np.testing.assert_array_equal(F.max_pool2d_backward(np.ones_like(y), context), np.zeros((2, 3, *size), dtype))


def test_planes_beyond_the_winners_integers():
    with pytest.raises(ValueError, match="input must have less than 2³¹ elements in each image"):
        geometry((1, 1, 2**16, 2**15), 2, None, 0, 1, False, 1, True, True, None)  # no array of 8 GB is needed
