from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The choice of the build, and the thread team (_runtime).
ISA: str
LEVELS: dict[str, int]
MODULES: dict[str, tuple[str, ...]]

def built() -> list[str]: ...
def available() -> list[str]: ...
def cpu_level() -> int: ...
def team_kind() -> Literal["own", "OpenMP", "none"]: ...
def set_thread_limit(limit: int) -> None: ...
def get_thread_limit() -> int: ...

# _streams.pyx
class StreamCounter:
    @property
    def seed(self) -> int: ...
    @property
    def stream(self) -> int: ...
    def take(self) -> int: ...
    def _set(self, seed: int, stream: int) -> None: ...

# random.pyx
def threefry4x32(counter: Sequence[int], key: Sequence[int], rounds: int = 20) -> tuple[int, int, int, int]: ...
def fill_words(out: Array, seed: int, stream: int) -> None: ...
def uniform_interval(low: float, high: float, single: bool) -> tuple[float, float, float]: ...
def fill_uniform(out: Array, seed: int, stream: int, low: float, width: float, top: float) -> None: ...
def fill_normal(out: Array, seed: int, stream: int, mean: float, std: float) -> None: ...
def permutation(n: int, seed: int, stream: int) -> Array: ...

# SGD and the gradient accumulator (_tensors, sgd, accumulate).
class TensorTable:
    groups: int
    def __init__(self, parameters: list[Any], names: list[str], groups: list[int], by_rows: bool) -> None: ...
    def bind(self, slot: int, arrays: Sequence[Array | None]) -> None: ...

def sgd_step(
    table: TensorTable,
    groups: list[tuple[float, float, float, float, bool, bool, bool, bool]],
    clip_norm: float,
    skip_nonfinite: bool,
    radius: float,
    row_norm: float,
) -> bool: ...
def clip_gradients(table: TensorTable, limit: float) -> float: ...
def gradient_norm(table: TensorTable) -> float: ...
def parameter_norm(table: TensorTable) -> float: ...
def project_ball(table: TensorTable, radius: float) -> None: ...
def project_rows(table: TensorTable, bound: float) -> None: ...
def zero_gradients(table: TensorTable) -> None: ...
def accumulator_add(table: TensorTable, weight: float, before: float) -> None: ...
def accumulator_finish(table: TensorTable, weight: float) -> tuple[float, float]: ...

# Plans: _plan.pyx, and the steps that the kernels' modules make.
class Step: ...
class Finisher: ...

class CallStep(Step):
    def __init__(
        self,
        function: Callable[[Array, Array | None, Array], object],
        dtype: np.dtype[Any],
        x_shape: tuple[int, ...],
        y_shape: tuple[int, ...],
    ) -> None: ...

class Plan:
    def __init__(
        self,
        dtype: np.dtype[Any],
        x_shape: tuple[int, ...],
        y_shape: tuple[int, ...],
        steps: list[tuple[Step, int, int, int]],
        slots: list[int],
        work: float,
        granule: int,
        chunk: int,
        python: bool,
    ) -> None: ...

class Executor:
    def __call__(self, x: Any, *, out: Array | None = None) -> Array: ...
    def _run(self, x: Array, choose: Callable[[tuple[int, ...]], Array | None]) -> Array: ...

class ActivationFinisher(Finisher):
    def __init__(self, kind: int, p: float, q: float, double_precision: bool) -> None: ...

class ElementwiseStep(Step):
    def __init__(self, size: int, finisher: Finisher | None, double_precision: bool) -> None: ...

class LinearStep(Step):
    def __init__(self, packed: tuple[Any, ...], n: int, rows: int, finisher: Finisher | None) -> None: ...

class ConvolutionStep(Step):
    def __init__(
        self,
        packed: Array,
        bias: Array | None,
        rows: int,
        groups: int,
        channels: int,
        x_at: tuple[int, ...],
        x_sizes: tuple[int, ...],
        steps: tuple[int, ...],
        starts: Array,
        form: tuple[int, ...],
        images: int,
        taps: Array,
        out_at: tuple[int, ...],
        out_sizes: tuple[int, ...],
        finisher: Finisher | None,
    ) -> None: ...

class NormStep(Step):
    def __init__(
        self,
        groups: int,
        n: int,
        entries: int,
        period: int,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        centered: bool,
        given: Array | None,
        finisher: Finisher | None,
        double_precision: bool,
    ) -> None: ...

class PoolStep(Step):
    def __init__(
        self,
        planes: int,
        run: int,
        h: tuple[int, ...],
        w: tuple[int, ...],
        maximum: bool,
        count_padding: bool,
        divisor: int,
        double_precision: bool,
    ) -> None: ...

class SoftmaxStep(Step):
    def __init__(self, rows: int, n: int, double_precision: bool) -> None: ...

def linear_panels(weight: Array, bias: Array | None) -> tuple[Array, Array | None, Array]: ...
def convolution_rows(weight: Array, groups: int) -> Array: ...

# activation
ACTIVATIONS: dict[str, int]

def activation_forward(kind: int, x: Any, out: Any = None, p: float = 0, q: float = 0) -> Array | None: ...
def activation_backward(kind: int, dy: Any, saved: Array, p: float = 0, q: float = 0) -> Array | None: ...

# convolution
PLANE_MARGIN: int
PLANE_MULTIPLE: int

def shifted_products(
    x: Array,
    x_at: tuple[int, ...],
    x_sizes: tuple[int, ...],
    steps: tuple[int, ...],
    starts: Array,
    form: tuple[int, ...],
    images: int,
    channels: int,
    groups: int,
    shifts: Array,
    weight: Array,
    places: Array,
    rows: int,
    group_stride: int,
    row_stride: int,
    bias: Array | None,
    out: Array,
    out_offset: int,
    out_at: tuple[int, ...],
    out_sizes: tuple[int, ...],
    count: int,
) -> None: ...

# convolution_weights
def weight_gradient(
    x: Array,
    x_at: tuple[int, ...],
    x_sizes: tuple[int, ...],
    steps: tuple[int, ...],
    starts: Array,
    form: tuple[int, ...],
    images: int,
    channels: int,
    groups: int,
    shifts: Array,
    dy: Array,
    dy_at: tuple[int, ...],
    dy_sizes: tuple[int, ...],
    origin: Array,
    rows: int,
    total: Array,
    count: int,
) -> None: ...

# elementwise_loss
MSE: int
BCE_WITH_LOGITS: int

def elementwise_loss(
    kind: int, x: Array, target: Array, weight: Array | None, positive: Array | None, losses: Array | None
) -> float: ...
def elementwise_loss_backward(
    kind: int,
    x: Array,
    target: Array,
    weight: Array | None,
    positive: Array | None,
    scale: float,
    scales: Array | None,
    dx: Array,
) -> None: ...

# loss
def cross_entropy_rows(
    x: Array, target: Array, weight: Array | None, ignore: int, smoothing: float, statistics: Array, losses: Array
) -> tuple[float, float] | int: ...
def cross_entropy_rows_backward(
    x: Array,
    target: Array,
    weight: Array | None,
    ignore: int,
    smoothing: float,
    statistics: Array,
    scale: float,
    scales: Array | None,
    dx: Array,
) -> None: ...

# pool
def pool_forward(
    x: Array,
    y: Array,
    winner: Array | None,
    planes: int,
    run: int,
    h: tuple[int, ...],
    w: tuple[int, ...],
    maximum: bool,
    count_padding: bool = True,
    divisor: int = 0,
) -> None: ...
def pool_backward(
    dy: Array,
    dx: Array,
    winner: Array | None,
    planes: int,
    run: int,
    h: tuple[int, ...],
    w: tuple[int, ...],
    maximum: bool,
    count_padding: bool = True,
    divisor: int = 0,
) -> None: ...

# products
def linear_product(x: Any, w: Any, bias: Any, out: Any = None) -> Array | None: ...
def matrix_product(a: Array, b: Array, out: Array, bias: Array | None = None, add: bool = False) -> None: ...

# softmax
def softmax(x: Any, dim: Any, logarithm: bool, out: Any = None) -> Array | None: ...
def softmax_backward(dy: Any, y: Any, dim: Any, logarithm: bool) -> Array | None: ...

# sums
def channel_sums(x: Array, outer: int, channels: int, inner: int) -> Array: ...
def add_bias(y: Array, bias: Array, outer: int, channels: int, inner: int) -> None: ...

# depthwise
def depthwise_products(
    x: Array, weight: Array, bias: Array | None, rows: Array, columns: Array, out: Array
) -> None: ...

# fill
def fill_constant(out: Array, value: float) -> None: ...

# dropout.pyx
def draw_dropout(
    x: object, p: object, mode: str, source: object, out: object = None
) -> tuple[Array, int, int, float] | None: ...
def redraw_dropout(
    dy: object,
    seed: int,
    stream: int,
    p: float,
    scale: float,
    axes: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Array | None: ...
def ready(x: object) -> bool: ...
def dropout(
    x: Array,
    p: float,
    scale: float,
    seed: int,
    stream: int,
    out: Array | None = None,
    shift: float = -0.0,
    fill: float = 0.0,
    first: int = 0,
) -> Array: ...
def apply_mask(
    x: Array,
    mask: Array,
    repeats: int,
    inner: int,
    scale: float,
    out: Array | None = None,
    shift: float = -0.0,
    fill: float = 0.0,
) -> Array: ...

# noise.pyx
def noise(x: Array, y: Array, sigma: float, multiply: bool, seed: int, stream: int) -> None: ...

# norms. Each returns y, or (y, ctx) where `context` is the class of ctx; `gate` does what is not plain.
def trailing_norm(
    x: Any,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: Any,
    mask: Any,
    out: Any,
    centered: bool,
    context: Any,
    gate: Any,
) -> Any: ...
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: Any,
    momentum: Any,
    eps: Any,
    channel_axis: Any,
    mask: Any,
    out: Any,
    context: Any,
    gate: Any,
) -> Any: ...
def instance_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    use_input_stats: Any,
    momentum: Any,
    eps: Any,
    channel_axis: Any,
    mask: Any,
    out: Any,
    context: Any,
    gate: Any,
) -> Any: ...
def group_norm(
    x: Any,
    num_groups: Any,
    weight: Any,
    bias: Any,
    eps: Any,
    channel_axis: Any,
    mask: Any,
    out: Any,
    context: Any,
    gate: Any,
) -> Any: ...
def standardize(x: Any, axis: Any, eps: Any, mask: Any, out: Any, context: Any, gate: Any) -> Any: ...
def norm_backward(dy: Any, ctx: Any, context: Any, gate: Any) -> tuple[Array, Array | None, Array | None]: ...
def batch_population(x: Any, weight: Any, bias: Any, eps: Any, channel_axis: Any, gate: Any) -> tuple[Array, Array]: ...
def groups_from_running(mean: Array, variance: Array, eps: float) -> Array: ...

# The kernels of norms, for that module alone.
rows_forward: object
rows_backward: object
rows_backward_own: object
columns_forward: object
columns_backward: object
