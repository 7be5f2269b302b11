"""The variance audit: against a forward and a backward pass written out, and its verdicts on deep networks."""

import math

import numpy as np
import pytest

import fastnn
from fastnn import init


def deep(activation, fill, *, depth=30, width=256, seed=0):
    """`depth` square linear layers with weights from fill(shape, rng=…), each followed by an activation."""
    generator = fastnn.Generator(seed)
    layers = []
    for _ in range(depth):
        linear = fastnn.Linear(width, width, bias=False)
        linear.weight.data = fill((width, width), rng=generator)
        layers += [linear, activation()]
    return fastnn.Sequential(*layers)


def batch(std=1.0, size=256, width=256):
    return init.normal((size, width), std=std, rng=99)


def test_against_passes_written_out():
    rng = np.random.default_rng(0)
    first, second, x, dy = (
        rng.normal(size=(7, 5)),
        rng.normal(size=(3, 7)),
        rng.normal(size=(11, 5)),
        rng.normal(size=(11, 3)),
    )
    model = fastnn.Sequential(
        fastnn.Linear(5, 7, bias=False, dtype=np.float64),
        fastnn.Tanh(),
        fastnn.Linear(7, 3, bias=False, dtype=np.float64),
    )
    model.load_state_dict({"0.weight": first, "2.weight": second})
    hidden = x @ first.T
    active = np.tanh(hidden)
    d_active = dy @ second
    d_hidden = d_active * (1 - active**2)
    report = init.audit(model, x, dy)
    assert report.names == ("0", "1", "2")
    assert report.kinds == ("Linear", "Tanh", "Linear")
    forward = [hidden.var(), active.var(), (active @ second.T).var()]
    backward = [(d_hidden @ first).var(), d_hidden.var(), d_active.var()]
    np.testing.assert_allclose(report.forward, forward, rtol=1e-13)
    np.testing.assert_allclose(report.backward, backward, rtol=1e-13)
    np.testing.assert_allclose(report.forward_ratios, [math.nan, math.nan, forward[2] / forward[0]], rtol=1e-13)
    np.testing.assert_allclose(report.backward_ratios, [backward[0] / backward[2], math.nan, math.nan], rtol=1e-13)


@pytest.mark.parametrize(
    ("activation", "fill", "std"),
    [
        (fastnn.Tanh, init.xavier_normal, 0.1),  # small enough for tanh's linear part, as the derivation assumes
        (fastnn.Tanh, init.xavier_uniform, 0.1),
        (fastnn.ReLU, init.kaiming_normal, 1.0),
        (fastnn.ReLU, init.kaiming_uniform, 1.0),
    ],
)
def test_steady(activation, fill, std):
    """What Xavier and Kaiming are derived to do, to 5 per cent, over 30 layers."""
    report = init.audit(deep(activation, fill), batch(std))
    assert report.mean_forward_ratio == pytest.approx(1, abs=0.05)
    assert report.mean_backward_ratio == pytest.approx(1, abs=0.05)
    assert report.forward_verdict == report.backward_verdict == "steady"


@pytest.mark.parametrize(
    ("activation", "fill", "ratio", "verdict"),
    [
        # the variance is multiplied by width · Var W, half of that with ReLU
        (fastnn.Tanh, lambda shape, rng: init.normal(shape, std=0.01, rng=rng), 256e-4, "vanishing"),
        (fastnn.ReLU, lambda shape, rng: init.normal(shape, std=0.01, rng=rng), 128e-4, "vanishing"),
        (fastnn.ReLU, init.xavier_normal, 0.5, "vanishing"),
        (fastnn.ReLU, lambda shape, rng: init.kaiming_normal(shape, rng=rng) * 2, 4.0, "exploding"),
    ],
)
def test_unsteady(activation, fill, ratio, verdict):
    report = init.audit(deep(activation, fill), batch())
    assert report.mean_forward_ratio == pytest.approx(ratio, rel=0.1)
    assert report.mean_backward_ratio == pytest.approx(ratio, rel=0.1)
    assert report.forward_verdict == report.backward_verdict == verdict


@pytest.mark.parametrize("nonsense", ["x", 10**400, np.arange(4), None])
def test_what_is_no_batch(nonsense):
    with pytest.raises(TypeError, match="x must be"):
        init.audit(fastnn.Identity(), nonsense)
    if nonsense is not None:
        with pytest.raises(TypeError, match="dy must be"):
            init.audit(fastnn.Identity(), np.ones(3), nonsense)


def test_takes_containers_apart():
    inner = fastnn.Sequential(fastnn.Linear(4, 4), fastnn.ReLU())
    model = fastnn.Sequential(inner, fastnn.Residual(fastnn.Sequential(fastnn.Linear(4, 4))), inner)
    report = init.audit(model, batch(width=4))
    assert report.names == ("0.0", "0.1", "1", "2.0", "2.1")
    assert report.kinds == ("Linear", "ReLU", "Residual", "Linear", "ReLU")
    assert (~np.isnan(report.forward_ratios)).tolist() == [False, False, False, True, True]
    assert (~np.isnan(report.backward_ratios)).tolist() == [True, True, False, False, False]


def test_one_layer_alone():
    report = init.audit(fastnn.Linear(4, 4), batch(width=4))
    assert report.names == ("",)
    assert math.isnan(report.mean_forward_ratio)
    assert report.forward_verdict == report.backward_verdict == "unknown"
    assert "Linear" in str(report)


def test_leaves_the_model_alone():
    """Modes, gradients, running statistics, random streams, and calls that wait for their backward."""
    generator = fastnn.Generator(1)
    model = fastnn.Sequential(
        fastnn.Linear(8, 8, rng=0), fastnn.BatchNorm(8), fastnn.Dropout(0.5, generator=generator), fastnn.ReLU()
    ).eval()
    model[0].training = True
    for parameter in model.parameters():
        parameter.grad += 1
    before = model.state_dict()
    report = init.audit(model, batch(3.0, width=8))
    assert report.forward[1] == pytest.approx(1, rel=1e-3)  # batch statistics: training mode
    assert [layer.training for _, layer in model.named_layers()] == [False, True, False, False, False]
    assert all((parameter.grad == 1).all() for parameter in model.parameters())
    assert all((array == before[name]).all() for name, array in model.state_dict().items())
    assert generator.state_dict() == {"seed": 1, "stream": 0}
    with pytest.raises(RuntimeError, match="none is left"):
        model.backward(batch(width=8))


def test_same_every_time_and_linear_in_dy():
    model = deep(fastnn.ReLU, init.kaiming_normal, depth=3, width=16)
    x, dy = batch(width=16), init.normal((256, 16), rng=5)
    assert (init.audit(model, x).backward == init.audit(model, x).backward).all()
    once, twice = init.audit(model, x, dy), init.audit(model, x, 2 * dy)
    assert (twice.forward == once.forward).all()
    assert (twice.backward == 4 * once.backward).all()


@pytest.mark.parametrize(("scale", "verdict"), [(0.0, "vanishing"), (1e30, "exploding"), (math.nan, "exploding")])
def test_past_having_a_ratio(scale, verdict):
    """Nothing is left, or nothing finite: 0/0 and inf/inf are no reason to call it steady."""
    model = deep(fastnn.ReLU, lambda shape, rng: init.normal(shape, rng=rng) * np.float32(scale), depth=4, width=16)
    report = init.audit(model, batch(width=16))
    assert report.forward_verdict == report.backward_verdict == verdict
    assert str(report).count(verdict) >= 8


def test_table():
    lines = str(init.audit(deep(fastnn.Tanh, init.xavier_normal, depth=3), batch(0.1))).splitlines()
    assert lines[0].split() == ["layer", "forward", "ratio", "backward", "ratio"]
    assert [line.split()[:2] for line in lines[1:-1]] == [[str(i), ["Linear", "Tanh"][i % 2]] for i in range(6)]
    assert lines[-1].startswith("mean")
    assert [line.count("steady") for line in lines[1:]] == [1, 1, 2, 2, 1, 1, 2]
    assert max(map(len, lines)) <= 100


def test_plot():
    pytest.importorskip("matplotlib").use("agg")
    import matplotlib.pyplot as plt

    report = init.audit(deep(fastnn.ReLU, init.kaiming_normal, depth=2, width=8), batch(width=8))
    ax = report.plot()
    assert report.plot(ax=ax) is ax
    assert (ax.lines[0].get_ydata() == report.forward).all()
    assert (ax.lines[1].get_ydata() == report.backward).all()
    assert ax.get_yscale() == "log"
    plt.close(ax.figure)


class Doubler:
    """Not of this package: all that the audit asks of a layer."""

    def __call__(self, x):
        return 2 * x

    def backward(self, dy):
        return 2 * dy

    def train(self):
        return self

    def named_children(self):
        return iter(())


def test_needs_the_protocol_alone():
    report = init.audit(Doubler(), batch(), batch())
    assert report.forward == pytest.approx(4, rel=0.02)
    assert report.backward == pytest.approx(4, rel=0.02)
    assert report.kinds == ("Doubler",)
