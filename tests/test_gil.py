"""Other Python threads run while a kernel computes: every operation gives the GIL up once there is enough to do.

The interpreter is told to switch threads only after a minute. A thread that waits for the GIL can then have it during a
call only if the call gives it up.
"""

import sys
import threading

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import gradients, init, optim

pytestmark = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="an interpreter without a GIL"
)

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((64, 16, 32, 32)).astype(np.float32)  # 4 MB: a call outlasts the waking of a thread
ROWS = IMAGES.reshape(2048, 512)
CHANNELS = np.ones(16, np.float32)
KERNELS = RNG.standard_normal((16, 16, 3, 3)).astype(np.float32)
LABELS = np.arange(2048) % 512
SAME = RNG.standard_normal(ROWS.shape).astype(np.float32)

# operation → arguments; its companions are called with them too
DIFFERENTIABLE = {
    "batch_norm": (IMAGES, None, None, CHANNELS, CHANNELS, True),
    "layer_norm": (ROWS, 512),
    "rms_norm": (ROWS, 512),
    "instance_norm": (IMAGES,),
    "group_norm": (IMAGES, 4),
    "standardize": (IMAGES, (0, 2)),
    "dropout": (ROWS, 0.3),
    "gaussian_dropout": (ROWS, 0.3),
    "alpha_dropout": (ROWS, 0.3, True),  # PyTorch has evaluation as its default
    "linear": (ROWS, SAME[:512], ROWS[0]),
    "conv2d": (IMAGES, KERNELS),
    "max_pool2d": (IMAGES, 2),
    "avg_pool2d": (IMAGES, 2),
    "relu": (ROWS,),
    "leaky_relu": (ROWS,),
    "elu": (ROWS,),
    "gelu": (ROWS,),
    "silu": (ROWS,),
    "sigmoid": (ROWS,),
    "tanh": (ROWS,),
    "softplus": (ROWS,),
    "softmax": (ROWS, -1),
    "log_softmax": (ROWS, -1),
    "cross_entropy": (ROWS, LABELS),
    "mse_loss": (ROWS, SAME),
    "binary_cross_entropy_with_logits": (ROWS, SAME),
}


def _functionals():
    for name, arguments in DIFFERENTIABLE.items():
        plain, forward, backward = (getattr(F, name + end) for end in ("", "_forward", "_backward"))
        y, ctx = forward(*arguments)
        dy = 1.0 if np.ndim(y) == 0 else np.ones_like(y)
        yield name, lambda f=plain, a=arguments: f(*a)
        yield name + "_forward", lambda f=forward, a=arguments: f(*a)
        yield name + "_backward", lambda f=backward, a=(dy, ctx): f(*a)


def _objects():
    parameters = [fastnn.Parameter(SAME.copy())]
    accumulator = gradients.GradientAccumulator(parameters, statistics=True)
    generator = fastnn.Generator(0)
    network = fastnn.Sequential(fastnn.Conv2d(16, 16, 3, rng=0), fastnn.BatchNorm(16), fastnn.ReLU()).eval()
    yield "SGD.step", fastnn.SGD(parameters, momentum=0.9).step
    yield (
        "SGD.step, clipped and constrained",
        fastnn.SGD(parameters, clip_norm=1.0, constraint=optim.MaxRowNorm(1.0)).step,
    )
    yield "SGD.zero_grad", fastnn.SGD(parameters).zero_grad
    yield "GradientAccumulator.add", lambda: accumulator.add(3)
    yield "Generator.uniform", lambda: generator.uniform((2048, 512))
    yield "Generator.normal", lambda: generator.normal((2048, 512))
    yield "Generator.words", lambda: generator.words((2048, 512))
    yield "Generator.permutation", lambda: generator.permutation(2**20)
    yield "init.kaiming_uniform", lambda: init.kaiming_uniform((2048, 512), rng=0)
    yield "layer in evaluation", lambda: network(IMAGES)
    frozen = fastnn.freeze(network)
    yield "frozen network", lambda: frozen(IMAGES)


CALLS = dict([*_functionals(), *_objects()])


@pytest.fixture
def patient():
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)
    yield
    sys.setswitchinterval(before)


def gives_way(call, attempts=300):
    """Whether a thread that waits for the GIL got it during one of the calls."""
    for _ in range(attempts):
        ran, ready, go = [], threading.Event(), threading.Lock()
        go.acquire()

        def work(ran=ran, ready=ready, go=go):
            ready.set()
            with go:
                ran.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        ready.wait()
        go.release()  # the thread wakes up and waits for the GIL
        sum(range(5000))
        call()
        happened = bool(ran)
        thread.join()
        if happened:
            return True
    return False


@pytest.mark.parametrize("name", CALLS)
def test_the_gil_is_given_up(name, patient):
    assert gives_way(CALLS[name])


def test_a_call_that_keeps_it_is_noticed(patient):
    assert not gives_way(lambda: sum(range(20_000)), attempts=30)
