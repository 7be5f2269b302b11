"""fit, evaluate and predict against loops written out in NumPy, and resumption against unbroken runs."""

import functools
import math
import sys

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn.train import DivergenceError, Evaluation, Event, evaluate, fit, predict, steps_per_epoch

fit = functools.partial(fit, progress=False)


def blobs(n=60, features=5, classes=3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (rng.standard_normal((n, features)) + 2 * np.eye(classes, features)[y]).astype(dtype), y


def linear(features, outputs, dtype=np.float64, seed=1):
    model = fastnn.Linear(features, outputs, rng=seed, dtype=dtype)
    return model, model.weight.data.copy(), model.bias.data.copy()


def softmax_gradient(weight, bias, x, y):
    """Mean cross-entropy of a linear classifier and its gradients, straight from the formula."""
    z = x @ weight.T + bias
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    d = (p - np.eye(p.shape[1])[y]) / len(y)
    return loss, d.T @ x, d.sum(axis=0)


def noisy_net(generator, seed=3):
    """Everything that has a state of its own: batch norm's statistics and dropout's generator."""
    return fastnn.Sequential(
        fastnn.Linear(5, 8, rng=seed),
        fastnn.BatchNorm(8),
        fastnn.ReLU(),
        fastnn.Dropout(0.4, generator=generator),
        fastnn.Linear(8, 3, rng=seed + 1),
    )


# -- the loop against NumPy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch"), [(60, 60), (60, 16), (61, 16), (7, 1), (5, 100)])
def test_steps_are_those_of_a_loop_in_numpy(n, batch):
    """Same order of the samples, same cuts, same updates. float64: about 20 steps of some 1e-16 each."""
    x, y = blobs(n, dtype=np.float64)
    model, weight, bias = linear(5, 3)
    optimizer = fastnn.SGD(model.parameters(), lr=0.2)
    history = fit(model, F.cross_entropy, optimizer, (x, y), 3, batch_size=batch, generator=fastnn.Generator(9))
    order, losses = fastnn.Generator(9), []
    for _ in range(3):
        for chosen in np.array_split(np.asarray(order.permutation(n)), math.ceil(n / batch)):
            loss, dweight, dbias = softmax_gradient(weight, bias, x[chosen], y[chosen])
            weight, bias = weight - 0.2 * dweight, bias - 0.2 * dbias
            losses.append(loss)
    np.testing.assert_allclose(model.weight.data, weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.bias.data, bias, rtol=0, atol=1e-12)
    np.testing.assert_allclose(history.loss, losses, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 4), (10, 3), (1, 27), (5, 6), (27, 2)])
def test_accumulation_changes_nothing_but_the_size_of_the_passes(batch, accumulation):
    """27 samples in one step, whole or in pieces, equal or not. Also against the full gradient's formula."""
    x, y = blobs(27, dtype=np.float64)
    model, weight, bias = linear(5, 3)
    optimizer = fastnn.SGD(model.parameters(), lr=0.3)
    data = (x, y)
    history = fit(model, F.cross_entropy, optimizer, data, 4, batch_size=batch, accumulation=accumulation)
    assert len(history.loss) == 4
    for k in range(4):
        loss, dweight, dbias = softmax_gradient(weight, bias, x, y)
        assert history.loss[k] == pytest.approx(loss, abs=1e-12)
        weight, bias = weight - 0.3 * dweight, bias - 0.3 * dbias
    np.testing.assert_allclose(model.weight.data, weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.bias.data, bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [1, 2, 7, 63, 64, 65, 127, 128, 129, 1347])
@pytest.mark.parametrize("batch", [1, 2, 64])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_no_batch_is_tiny(samples, batch, accumulation):
    """Every sample once; the fewest steps; batch sizes within one of each other in a step, none above the limit."""
    seen = []
    model = fastnn.Linear(1, 1, rng=0, dtype=np.float64)

    def augment(x, generator):
        seen.append(x[:, 0].astype(int))
        return np.zeros_like(x)

    x = np.arange(samples, dtype=np.float64)[:, None]
    optimizer = fastnn.SGD(model.parameters(), lr=0.0)
    fit(model, F.mse_loss, optimizer, (x, x), 1, batch_size=batch, accumulation=accumulation, augment=augment)
    sizes = [len(part) for part in seen]
    assert sorted(np.concatenate(seen)) == list(range(samples))
    assert max(sizes) <= batch
    assert min(sizes) >= min(batch, samples) // 2
    steps = steps_per_epoch(samples, batch, accumulation)
    assert steps == math.ceil(samples / (batch * accumulation))
    assert len(sizes) <= steps * accumulation


def test_history_and_events():
    x, y = blobs()
    model = noisy_net(fastnn.Generator(0))
    schedule = fastnn.schedules.Exponential(0.1, 0.5, every=4)
    optimizer = fastnn.SGD(model.parameters(), lr=schedule)
    events = []
    held_out = blobs(11, seed=8)
    history = fit(
        model, F.cross_entropy, optimizer, (x, y), 3, batch_size=20, validation=held_out, evaluate_training=True,
        callback=events.append, generator=fastnn.Generator(1),
    )  # fmt: skip
    np.testing.assert_array_equal(history.lr, [0.1 * 0.5 ** (k / 4) for k in range(9)])
    assert history.epoch_step.tolist() == [3, 6, 9]
    assert all(
        array.dtype == (np.int64 if name == "epoch_step" else np.float64) for name, array in history._asdict().items()
    )
    last = evaluate(model, F.cross_entropy, held_out)
    assert (history.validation_loss[-1], history.validation_accuracy[-1]) == last
    assert (history.training_loss[-1], history.training_accuracy[-1]) == evaluate(model, F.cross_entropy, (x, y))
    assert [event.step for event in events] == [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]
    assert [event.epoch for event in events] == [0] * 4 + [1] * 4 + [2] * 4
    assert [event.epoch_done for event in events] == [False, False, False, True] * 3
    assert [event.loss for event in events if not event.epoch_done] == history.loss.tolist()
    assert events[-1].validation == last
    assert math.isnan(events[0].validation.loss)


def test_without_evaluations_and_without_classes():
    x, _ = blobs()
    model, _, _ = linear(5, 5, np.float32)
    history = fit(model, F.mse_loss, fastnn.SGD(model.parameters(), lr=0.1), (x, x), 2, validation=(x, x))
    assert np.isnan(history.training_loss).all()
    assert np.isfinite(history.validation_loss).all()
    assert np.isnan(history.validation_accuracy).all()


def test_evaluate_and_predict():
    """Loss and accuracy as the formula has them, in pieces as in one, and the mode as it was."""
    x, y = blobs(50)
    model = noisy_net(fastnn.Generator(0))
    model.train()
    outputs = predict(model, x, batch_size=50)
    assert model.training
    p = np.exp(outputs.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(50), y]).mean(), (outputs.argmax(axis=1) == y).mean()
    for batch in (1, 7, 50, 1000):
        np.testing.assert_allclose(predict(model, x, batch), outputs, rtol=1e-5, atol=1e-6)
        assert evaluate(model, F.cross_entropy, (x, y), batch) == pytest.approx(expected, rel=1e-5)
    model.eval()
    assert isinstance(evaluate(model, F.cross_entropy, (x, y)), Evaluation)
    assert not model.training


def test_losses_as_function_partial_and_pair():
    x, y = blobs(dtype=np.float64)

    def train(loss):
        model, _, _ = linear(5, 3)
        return fit(model, loss, fastnn.SGD(model.parameters(), lr=0.1), (x, y), 2, generator=fastnn.Generator(0)).loss

    plain, smooth = train(F.cross_entropy), train(functools.partial(F.cross_entropy, label_smoothing=0.2))
    np.testing.assert_array_equal(plain, train((F.cross_entropy_forward, F.cross_entropy_backward)))
    smooth_pair = functools.partial(F.cross_entropy_forward, label_smoothing=0.2), F.cross_entropy_backward
    np.testing.assert_array_equal(smooth, train(smooth_pair))
    assert (smooth != plain).all()
    for wrong in (np.mean, "cross_entropy", (1, 2, 3), None):
        with pytest.raises(TypeError, match="loss must be a function with companions"):
            train(wrong)


# -- stopping and resuming -------------------------------------------------------------------------------------------


def resumable(path, epochs=3, callback=None, resume=False, default=False):
    """A run with everything that has a state; also the optimiser's momentum, a schedule and augmentation."""
    x, y = blobs(50)
    generator = fastnn.Generator(5)
    if default:
        fastnn.manual_seed(17 if not resume else 99)  # on resumption the state must come from the file
    model = noisy_net(None if default else fastnn.Generator(6))
    optimizer = fastnn.SGD(model.parameters(), lr=fastnn.schedules.Cosine(0.1, 12), momentum=0.9, weight_decay=1e-3)
    history = fit(
        model, F.cross_entropy, optimizer, (x, y), epochs, batch_size=7, accumulation=2, validation=blobs(20, seed=4),
        augment=lambda x, g: x + g.normal(x.shape, 0, 0.1), generator=generator, callback=callback, checkpoint=path,
        metadata={"note": "mine"}, resume=resume,
    )  # fmt: skip
    return model, history


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("stop", range(1, 13))
def test_resumed_runs_end_in_the_same_bytes(tmp_path, stop, default):
    """Stopped after every possible step; 4 steps are an epoch."""
    whole, history = resumable(tmp_path / "whole", default=default)
    _, begun = resumable(tmp_path / "broken", callback=lambda event: event.step == stop, default=default)
    assert len(begun.loss) == stop
    resumed, ended = resumable(tmp_path / "broken", resume=True, default=default)
    for a, b in zip(history, ended):
        np.testing.assert_array_equal(a, b)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "broken").read_bytes()
    for name, array in whole.state_dict().items():
        np.testing.assert_array_equal(array, resumed.state_dict()[name])
    assert fastnn.load_metadata(tmp_path / "whole")["note"] == "mine"


def test_a_run_that_died_resumes_from_its_last_epoch(tmp_path):
    resumable(tmp_path / "whole")

    def die(event):
        if event.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resumable(tmp_path / "dead", callback=die)
    assert int(fastnn.load(tmp_path / "dead")["position.epoch"]) == 1
    resumable(tmp_path / "dead", resume=True)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "dead").read_bytes()


def test_resuming_a_finished_run_changes_nothing_and_more_epochs_go_on(tmp_path):
    resumable(tmp_path / "f")
    before = (tmp_path / "f").read_bytes()
    resumable(tmp_path / "f", resume=True)
    assert (tmp_path / "f").read_bytes() == before
    resumable(tmp_path / "f", epochs=5, resume=True)
    resumable(tmp_path / "long", epochs=5)
    assert (tmp_path / "f").read_bytes() == (tmp_path / "long").read_bytes()


def test_what_cannot_be_resumed(tmp_path):
    x, y = blobs(50)

    def run(model, batch=7, path=tmp_path / "f", resume=True, **more):
        optimizer = fastnn.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return fit(
            model, F.cross_entropy, optimizer, (x, y), 1, batch_size=batch, checkpoint=path, resume=resume, **more
        )

    model, _, _ = linear(5, 3, np.float32)
    with pytest.raises(ValueError, match="resume needs the path"):
        run(model, path=None)
    with pytest.raises(FileNotFoundError):
        run(model)
    run(model, resume=False)
    with pytest.raises(
        fastnn.checkpoint.CheckpointError,
        match=r"belongs to a run with .*'batch_size': 7.*this one has .*'batch_size': 8",
    ):
        run(model, batch=8)
    other = fastnn.Linear(5, 4, rng=0)
    before = other.weight.data.copy()
    for stranger, message in [
        (other, r"weight must have shape \(4, 5\), got \(3, 5\)"),
        (fastnn.Sequential(other), "missing keys .*0.weight"),
        (noisy_net(fastnn.Generator(0)), "where .*generator1.* are needed"),
    ]:
        with pytest.raises(fastnn.checkpoint.CheckpointError, match=message):
            run(stranger)
    np.testing.assert_array_equal(other.weight.data, before)
    fastnn.save(tmp_path / "model", model.state_dict())
    with pytest.raises(fastnn.checkpoint.CheckpointError, match="not a checkpoint of a training run"):
        run(model, path=tmp_path / "model")
    arrays, metadata = fastnn.load(tmp_path / "f"), fastnn.load_metadata(tmp_path / "f")
    for key, value in [
        ("position.order", np.zeros(50, np.int64)), ("position.epoch", -1), ("position.epoch", [1, 2]),
        ("history.loss", np.zeros(3)), ("history.epoch_step", np.zeros(1)), ("history.more", np.zeros(3)), ("odd", 1),
    ]:  # fmt: skip
        damaged = arrays | {"position.step": 2 if key == "position.order" else arrays["position.step"], key: value}
        fastnn.save(tmp_path / "damaged", damaged, metadata)
        with pytest.raises(fastnn.checkpoint.CheckpointError, match="not a checkpoint of this run"):
            run(model, path=tmp_path / "damaged")
    # The model's part fits, the optimiser's does not: nothing of it may stay.
    stranger, _, _ = linear(5, 3, np.float32, seed=8)
    before = stranger.state_dict()
    fastnn.save(tmp_path / "damaged", arrays | {"optimizer.momentum.0": np.zeros(2, np.float32)}, metadata)
    with pytest.raises(fastnn.checkpoint.CheckpointError, match=r"momentum\.0 must have shape"):
        run(stranger, path=tmp_path / "damaged")
    assert all((before[name] == array).all() for name, array in stranger.state_dict().items())
    for missing in ("position.epoch", "history.lr", "generator0.seed"):
        fastnn.save(tmp_path / "damaged", {k: v for k, v in arrays.items() if not k.startswith(missing[:11])}, metadata)
        with pytest.raises(fastnn.checkpoint.CheckpointError):
            run(model, path=tmp_path / "damaged")


# -- failures --------------------------------------------------------------------------------------------------------


def test_divergence_stops_before_the_step():
    x, y = blobs()
    x[31] = np.nan
    model, _, _ = linear(5, 3, np.float32)
    with pytest.raises(DivergenceError, match=r"the loss became nan at step \d+ \(epoch 0\)") as caught:
        fit(model, F.cross_entropy, fastnn.SGD(model.parameters(), lr=0.1), (x, y), 1, batch_size=6)
    assert np.isfinite(model.weight.data).all()
    assert np.isfinite(caught.value.history.loss).all()
    assert f"step {len(caught.value.history.loss)} " in str(caught.value)
    assert model.training


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": np.zeros((3, 2))}, TypeError, r"data must be a pair of arrays \(inputs, targets\), got ndarray"),
        ({"data": (np.zeros((3, 5), np.float32), np.zeros(2, int))}, ValueError, "data must have equally many inputs"),
        ({"data": (np.zeros((0, 5), np.float32), np.zeros(0, int))}, ValueError, "at least one"),
        ({"validation": (np.zeros((3, 5)),)}, TypeError, "validation must be a pair"),
        ({"epochs": 0}, ValueError, "epochs must be an integer of at least 1, got 0"),
        ({"epochs": 1.5}, ValueError, "epochs must be"),
        ({"batch_size": -3}, ValueError, "batch_size must be"),
        ({"accumulation": True}, ValueError, "accumulation must be"),
        ({"generator": np.random.default_rng()}, TypeError, "generator must be a fastnn.Generator, got numpy"),
        ({"callback": 3}, TypeError, "callback must be a function, got int"),
        ({"augment": 3}, TypeError, "augment must be a function, got int"),
        ({"checkpoint": "no such folder/file"}, ValueError, "checkpoint must be a file in an existing folder, got 'no"),
        ({"checkpoint": "."}, ValueError, "checkpoint must be a file in an existing folder, got '.'"),
        ({"checkpoint": "file", "metadata": {"epochs": 3}}, TypeError, "must be str, got int"),
    ],
)
def test_refused_before_anything_changes(changes, error, message):
    model, weight, _ = linear(5, 3, np.float32)
    arguments = {"data": blobs(), "epochs": 1} | changes
    with pytest.raises(error, match=message):
        fit(model, F.cross_entropy, fastnn.SGD(model.parameters(), lr=0.1), **arguments)
    np.testing.assert_array_equal(model.weight.data, weight)


def test_model_and_optimizer_have_their_types():
    model = fastnn.Linear(5, 3)
    with pytest.raises(TypeError, match=r"model must be a fastnn\.Layer, got str"):
        fit("model", F.cross_entropy, fastnn.SGD(model.parameters(), lr=0.1), blobs(), 1)
    with pytest.raises(TypeError, match=r"optimizer must be a fastnn\.SGD, got str"):
        fit(model, F.cross_entropy, "SGD", blobs(), 1)


def test_parameters_that_are_not_finite_are_not_kept(tmp_path):
    """The last step of an epoch may spoil them after a finite loss."""
    path = tmp_path / "checkpoint"
    x, y = blobs()
    model = fastnn.Linear(5, 3, rng=0)
    fit(model, F.cross_entropy, fastnn.SGD(model.parameters(), lr=0.1), (x, y), 1, checkpoint=path)
    before, start = path.read_bytes(), model.state_dict()
    for callback in (None, lambda event: True):
        model.load_state_dict(start)
        optimizer = fastnn.SGD(model.parameters(), lr=1e38)
        with pytest.raises(DivergenceError, match=r"weight is not finite after step 0 \(epoch 0\)") as caught:
            fit(model, F.cross_entropy, optimizer, (x * 1e3, y), 1, checkpoint=path, callback=callback)
        assert len(caught.value.history.loss) == 1
        assert path.read_bytes() == before


def test_the_mode_is_as_it_was():
    model = noisy_net(fastnn.Generator(0))
    optimizer = fastnn.SGD(model.parameters(), lr=0.1)
    model.eval()
    fit(model, F.cross_entropy, optimizer, blobs(), 1)
    assert not model.training
    with pytest.raises(ValueError):
        fit(model, F.cross_entropy, optimizer, (blobs()[0], np.full(60, 7)), 1)
    assert not model.training
    model.train()
    fit(model, F.cross_entropy, optimizer, blobs(), 1, validation=blobs())
    assert model.training


FROZEN = [True, True, False, True, True, True]  # modes of noisy_net and its layers, the batch norm in evaluation


def failing(output, target):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x, y: predict(model, x),
        lambda model, x, y: evaluate(model, F.cross_entropy, (x, y)),
        lambda model, x, y: evaluate(model, (failing, failing), (x, y)),
        lambda model, x, y: fastnn.full_gradient(model, F.cross_entropy, (x, y), 16),
        lambda model, x, y: fastnn.full_gradient(model, (failing, failing), (x, y), 16),
        lambda model, x, y: fit(model, F.cross_entropy, fastnn.SGD(model.parameters()), (x, y), 1),
        lambda model, x, y: fit(model, (failing, failing), fastnn.SGD(model.parameters()), (x, y), 1),
    ],
)
def test_every_layer_is_in_its_own_mode_afterwards(call):
    """Also while an error is still held: its traceback keeps what ran alive."""
    model, error = noisy_net(fastnn.Generator(0)), None
    model[1].eval()
    try:
        call(model, *blobs())
    except ZeroDivisionError as caught:
        error = caught
    assert [layer.training for _, layer in model.named_layers()] == FROZEN, error


def test_the_optimizer_is_the_model_s():
    model, other = fastnn.Linear(5, 3, rng=0), fastnn.Linear(5, 3, rng=0)
    with pytest.raises(ValueError, match="optimizer must hold parameters of the model, got none of them"):
        fit(model, F.cross_entropy, fastnn.SGD(other.parameters()), blobs(), 1)
    fit(model, F.cross_entropy, fastnn.SGD([model.bias, *other.parameters()]), blobs(), 1)  # some will do


@pytest.mark.parametrize("x", [None, 3.0, np.ones((), np.float32), np.ones((0, 5), np.float32)])
def test_predict_needs_samples(x):
    with pytest.raises(ValueError, match="x must hold at least one sample, got shape"):
        predict(fastnn.Linear(5, 3), x)


# -- progress --------------------------------------------------------------------------------------------------------


def test_progress_shows_loss_accuracy_and_rate(capsys):
    pytest.importorskip("tqdm")
    model, _, _ = linear(5, 3, np.float32)
    optimizer = fastnn.SGD(model.parameters(), lr=0.125)
    fit(model, F.cross_entropy, optimizer, blobs(), 2, validation=blobs(), progress=True)
    shown = capsys.readouterr().err
    for part in ("loss ", "accuracy ", "lr 0.125", "held-out ", "2/2"):
        assert part in shown


def test_no_progress_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    model, _, _ = linear(5, 3, np.float32)
    fit(model, F.cross_entropy, fastnn.SGD(model.parameters(), lr=0.1), blobs(), 1, progress=True)
    assert capsys.readouterr().err == ""


def test_event_is_plain():
    assert Event(0, 1, 0.5, 0.1)._asdict().keys() == {
        "epoch", "step", "loss", "lr", "training", "validation", "epoch_done"
    }  # fmt: skip
