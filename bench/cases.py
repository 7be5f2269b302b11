"""The table of cases that drives every benchmark: what is computed, on which shape, and which network it comes from.

`pytest bench` times each on this machine, `bench/peers.py` beside PyTorch and JAX; a test demands a case for every
public operation. Shapes are real ones from a single row to beyond the caches, with odd sizes among them.
"""

from typing import Any

from case import Case, Shape

# ---- norms -----------------------------------------------------------------------------------------------------------

LAYER_NORM = [
    ((1, 64), "tiny classifier, one row"),
    ((1, 768), "BERT-base, one token"),
    ((32, 768), "BERT-base, 32 tokens"),
    ((512, 768), "BERT-base, one sequence"),
    ((4096, 768), "BERT-base, 8 sequences"),
    ((4096, 17), "FT-Transformer, 17 features"),
    ((197, 192), "ViT-Ti, one image"),
    ((1576, 384), "ViT-S, 8 images"),
    ((257, 1280), "ViT-H, one image"),
    ((8192, 64), "Performer head of 64"),
    ((127, 1023), "odd width and length"),
    ((1, 4096), "decoder of width 4096, one token"),
    ((1024, 4096), "decoder of width 4096, prefill"),
    ((64, 12288), "GPT-3, 64 tokens"),
    ((16, 50257), "GPT-2 vocabulary"),
    ((25088, 96), "ConvNeXt-T stage 1, 8 images"),
    ((6272, 192), "ConvNeXt-T stage 2, 8 images"),
    ((392, 768), "ConvNeXt-T stage 4, 8 images"),
]

RMS_NORM = [
    ((1, 4096), "Llama-7B, one token"),
    ((512, 4096), "Llama-7B, prefill"),
    ((2048, 4096), "Llama-7B, longer prefill, beyond the caches"),
    ((2048, 2048), "TinyLlama, prefill"),
    ((64, 896), "Qwen2-0.5B, 64 tokens"),
    ((16384, 128), "Qwen3 query heads"),
    ((333, 1536), "Qwen2-1.5B, odd length"),
]

# Written channels first; each runs in both layouts.
IMAGES = [
    ((32, 64, 56, 56), "ResNet-50 stage 1"),
    ((32, 128, 28, 28), "ResNet-50 stage 2"),
    ((32, 256, 14, 14), "ResNet-50 stage 3"),
    ((32, 512, 7, 7), "ResNet-50 stage 4"),
    ((8, 2048, 7, 7), "ResNet-50 last"),
    ((1, 64, 56, 56), "ResNet-50 stage 1, batch 1"),
    ((1, 512, 7, 7), "ResNet-50 stage 4, batch 1"),
    ((8, 32, 112, 112), "MobileNetV2 stem"),
    ((16, 576, 14, 14), "MobileNetV2 expansion"),
    ((2, 64, 128, 128), "U-Net level 1"),
    ((5, 24, 97, 97), "odd size"),
]

TABULAR = [
    ((64, 10), "tabular, small batch"),
    ((256, 100), "tabular"),
    ((1024, 17), "tabular, odd width"),
    ((8192, 512), "tabular, wide"),
]

# In evaluation mode: inference, so batches of one too.
EVALUATED = [IMAGES[k] for k in (0, 3, 5, 7)] + [((1, 100), "tabular, one row"), TABULAR[2]]

INSTANCE_NORM = [
    ((32, 64, 28, 28), "style transfer, batch 32"),
    ((4, 32, 128, 128), "style transfer"),
    ((1, 256, 64, 64), "CycleGAN"),
    ((2, 32, 97, 97), "odd size"),
]

GROUP_NORM = [
    ((8, 128, 32, 32), 32, "DDPM U-Net"),
    ((2, 320, 64, 64), 32, "Stable Diffusion U-Net"),
    ((1, 512, 64, 64), 32, "Stable Diffusion VAE"),
    ((32, 256, 14, 14), 32, "ResNet-50 with group norm"),
    ((3, 36, 31, 31), 6, "odd size"),
]

STANDARDIZE = [
    ((8, 96, 28, 28), (1,), "ConvNeXt, channels first"),
    ((64, 1000), (0,), "features of a data set"),
    ((16, 80, 300), (2,), "log-mel spectrogram"),
]

# Those whose time in float64 is worth a line: rows, and columns with both layouts.
WIDE: list[tuple[str, Shape, dict[str, Any]]] = [
    ("layer_norm", (512, 768), {}),
    ("batch_norm", (8, 128, 28, 28), {"training": True}),
    ("batch_norm", (8, 28, 28, 128), {"training": True, "channel_axis": -1}),
]


def last(shape: Shape) -> Shape:
    """The same image with the channels last."""
    return (shape[0], *shape[2:], shape[1])


def _both_layouts(shape: Shape) -> list[tuple[Shape, dict[str, Any]]]:
    return [(shape, {}), (last(shape), {"channel_axis": -1})] if len(shape) > 2 else [(shape, {})]


def _norms() -> list[Case]:
    table: list[Case] = []

    def both_ways(operation: str, shape: Shape, source: str, dtype: str = "float32", **options: Any) -> None:
        # Forward reads x and writes y; backward reads x and dy and writes dx. Parameters and statistics are small.
        table.append(Case(operation, shape, source, 2, "norm forward", options, dtype))
        table.append(Case(f"{operation}_backward", shape, source, 3, "norm backward", options, dtype))

    for shape, source in LAYER_NORM:
        both_ways("layer_norm", shape, source)
    for shape, source in RMS_NORM:
        both_ways("rms_norm", shape, source)
    for image, source in IMAGES + TABULAR:
        for shape, layout in _both_layouts(image):
            both_ways("batch_norm", shape, source, training=True, **layout)
    for image, source in EVALUATED:
        for shape, layout in _both_layouts(image):
            both_ways("batch_norm", shape, source, training=False, **layout)
    for image, source in INSTANCE_NORM:
        for shape, layout in _both_layouts(image):
            both_ways("instance_norm", shape, source, **layout)
    for image, groups, source in GROUP_NORM:
        for shape, layout in _both_layouts(image):
            both_ways("group_norm", shape, source, num_groups=groups, **layout)
    for shape, axis, source in STANDARDIZE:
        both_ways("standardize", shape, source, axis=axis)
    for operation, shape, options in WIDE:
        both_ways(operation, shape, "in double precision", dtype="float64", **options)
    return table


# ---- other functions -------------------------------------------------------------------------------------------------

ACTIVATIONS = ["relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus"]
ACTIVATION_SHAPES = [
    ((1, 10), "one row"),
    ((512, 3072), "BERT-base, feed-forward"),
    ((32, 64, 56, 56), "ResNet-50 stage 1"),
]
SOFTMAX = [((384, 384), "BERT-base, one head"), ((16, 50257), "GPT-2 vocabulary")]
CLASSIFIERS = [((64, 10), "digits"), ((256, 1000), "ImageNet"), ((16, 50257), "GPT-2 vocabulary")]
DROPOUT = [
    ((256,), "one row"),
    ((1000,), "one small layer"),
    ((128, 512), "64 K elements"),
    ((1024, 1024), "1 M elements"),
    ((512, 3072), "BERT-base, feed-forward"),
    ((4096, 4096), "16 M elements, beyond the caches"),
]


def _functions() -> list[Case]:
    table: list[Case] = []

    def both_ways(
        operation: str, shape: Shape, source: str, family: str, arrays: tuple[float, float], **options: Any
    ) -> None:
        table.append(Case(operation, shape, source, arrays[0], family, options))
        table.append(Case(f"{operation}_backward", shape, source, arrays[1], family, options))

    for operation in ACTIVATIONS:
        for shape, source in ACTIVATION_SHAPES if operation in ("relu", "gelu") else ACTIVATION_SHAPES[1:2]:
            both_ways(operation, shape, source, "activation", (2, 3))
    for operation in ("softmax", "log_softmax"):
        for shape, source in SOFTMAX:
            both_ways(operation, shape, source, "activation", (2, 3), dim=-1)
    for shape, source in CLASSIFIERS:
        both_ways("cross_entropy", shape, source, "loss", (1, 2))
    both_ways("mse_loss", (256, 1000), "regression", "loss", (2, 3))
    both_ways("binary_cross_entropy_with_logits", (256, 1000), "1000 labels", "loss", (2, 3))
    both_ways("linear", (256, 512), "classifier head", "product", (3, 4), out=512)
    both_ways("conv2d", (4, 32, 28, 28), "small conv net", "product", (2, 3), out=32, kernel_size=3, padding=1)
    both_ways("conv2d", (2, 256, 56, 56), "ResNet-50 stage 1", "product", (1.25, 2.5), out=64, kernel_size=1)
    depthwise: dict[str, Any] = {"out": 144, "kernel_size": 3, "padding": 1, "groups": 144}
    both_ways("conv2d", (8, 144, 28, 28), "MobileNet-v2, depthwise", "product", (2, 3), **depthwise)
    both_ways("conv2d", (8, 28, 28, 144), "MobileNet-v2, depthwise", "product", (2, 3), **depthwise, channel_axis=-1)
    both_ways("max_pool2d", (32, 64, 56, 56), "ResNet-50 stage 1", "pooling", (1.25, 1.25), kernel_size=2)
    both_ways("avg_pool2d", (32, 64, 56, 56), "DenseNet transition", "pooling", (1.25, 1.25), kernel_size=2)
    for shape, source in DROPOUT:
        for p in (0.1, 0.5):
            both_ways("dropout", shape, source, "dropout", (2, 2), p=p)
    both_ways("gaussian_dropout", (512, 3072), "BERT-base, feed-forward", "dropout", (2, 2), p=0.1)
    both_ways("alpha_dropout", (512, 3072), "self-normalising net", "dropout", (2, 2), p=0.1)
    # Its gradient is dy itself: nothing moves.
    both_ways("gaussian_noise", (512, 3072), "BERT-base, feed-forward", "dropout", (2, 0), sigma=0.1)
    both_ways("drop_path", (64, 197, 192), "ViT-Ti, 64 images", "dropout", (2, 2), p=0.2)
    table.append(Case("dropout_mask", (512, 3072), "BERT-base, feed-forward", 0.25, "dropout", {"p": 0.1}))
    return table


# ---- objects ---------------------------------------------------------------------------------------------------------

# The shape of SGD and accumulation is the list of parameter sizes.
RESNET18 = (9408, *[36864] * 4, 73728, *[147456] * 3, 294912, *[589824] * 3, 1179648, *[2359296] * 3, 512000)
MLP = (784 * 256, 256, 256 * 10, 10)
INITIALISERS = [
    "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "lecun_normal", "orthogonal",
    "trunc_normal", "uniform", "normal", "variance_scaling", "constant", "zeros", "ones",
]  # fmt: skip


# Networks that `networks.py` builds, and the batches they are trained on.
NETWORKS = [
    ("MLP 64-128-128-10", (64, 64), "digits"),
    ("MLP 784-1024-1024-10", (128, 784), "MNIST"),
    ("conv net", (64, 1, 8, 8), "what make demo trains"),
    ("residual net", (32, 3, 32, 32), "small ResNet on CIFAR-10"),
]
CALLS = ["LayerNorm", "RMSNorm", "BatchNorm", "Linear", "ReLU", "Dropout"]
DRAWS = ["Generator.uniform", "Generator.normal", "Generator.words", "Generator.permutation"]
SCHEDULES = [
    "Constant", "Exponential", "Cosine", "CosineRestarts", "Linear", "Polynomial", "Piecewise", "InverseTime",
    "InverseSqrt", "Warmup", "Join", "OneCycle", "Cyclic", "ReduceOnPlateau",
]  # fmt: skip


def _learning() -> list[Case]:
    """What works on lists of parameters, and whole networks."""
    table = [
        Case("SGD.step", MLP, "MLP on MNIST", 5, "SGD"),
        Case("SGD.step", RESNET18, "ResNet-18", 5, "SGD"),
        Case("SGD.step", (2**23,), "one matrix of 8.4 M", 5, "SGD"),
        Case("SGD.step", RESNET18, "ResNet-18", 6, "SGD", {"clip_norm": 1.0}),
        Case("SGD.step", (2**20,), "one matrix of 1024 × 1024", 7, "SGD", {"constraint": "MaxRowNorm"}),
        Case("SGD.step", (2**20,), "one matrix of 1024 × 1024", 7, "SGD", {"constraint": "L2Ball"}),
        Case("optim.clip_grad_norm", RESNET18, "ResNet-18", 3, "SGD"),
        Case("optim.l2_penalty", RESNET18, "ResNet-18", 1, "SGD"),
        Case("optim.add_gradient_noise", MLP, "MLP on MNIST", 2, "random numbers"),
        Case("GradientAccumulator.add", MLP, "MLP on MNIST", 4, "accumulation"),
        Case("GradientAccumulator.add", RESNET18, "ResNet-18", 4, "accumulation"),
        Case("GradientAccumulator.add", RESNET18, "ResNet-18", 6, "accumulation", {"statistics": True}),
        Case("GradientAccumulator.finish", RESNET18, "ResNet-18, with one addition", 7, "accumulation"),
        Case("GradientAccumulator.sample", MLP, "MLP on MNIST", 3, "random numbers"),
        Case("save", RESNET18, "ResNet-18", 2, "files"),
        Case("load", RESNET18, "ResNet-18", 2, "files"),
        Case("load_metadata", RESNET18, "ResNet-18", 0, "files"),
    ]
    for net, shape, source in NETWORKS:
        table.append(Case("training step", shape, source, 1, "training step", {"net": net}))
        table.append(Case("inference", (1, *shape[1:]), f"{source}, one sample", 1, "inference", {"net": net}))
        table.append(Case("inference", shape, source, 1, "inference", {"net": net}))
    over_samples = ("train.fit", "train.evaluate", "train.predict", "full_gradient", "recalibrate", "init.audit")
    return table + [
        Case(operation, (256, 1, 8, 8), "256 digits", 1, "training step", {"net": "conv net"})
        for operation in over_samples
    ]


def _small() -> list[Case]:
    """Random numbers, initialisers, what a call and an import cost."""
    table = [Case(draw, (2**20,), "a million", 1, "random numbers") for draw in DRAWS]
    table.append(Case("random.threefry4x32", (4,), "one block", 1, "random numbers"))
    for name in INITIALISERS:
        shape = (256, 256) if name == "orthogonal" else (512, 256, 3, 3)
        table.append(Case(f"init.{name}", shape, "ResNet-50 filters", 1, "initialiser"))
    table += [Case(f"{name}.__call__", (1, 64), "one row, in evaluation mode", 2, "call overhead") for name in CALLS]
    table += [Case(f"schedules.{name}", (10000,), "each of 10 000 steps", 2, "schedule") for name in SCHEDULES]
    table += [
        Case("import", (), "beyond an empty interpreter", 0, "import", {"module": m}) for m in ("numpy", "fastnn")
    ]
    return table


NORMS = _norms()
CASES = NORMS + _functions() + _learning() + _small()

# Sizes that double, for the growth of the cost; the slope must stay that of the bytes.
GROWTH = [Case("layer_norm", (2**k, 256), "growth", 2, "growth") for k in range(0, 15, 2)]
# A few cases on 1, 2, … threads.
SCALING = [
    Case("layer_norm", (4096, 768), "BERT-base, 8 sequences", 2, "threads"),
    Case("batch_norm_backward", (32, 128, 28, 28), "ResNet-50 stage 2", 3, "threads", {"training": True}),
    Case("dropout", (2048, 2048), "beyond the caches", 2, "threads", {"p": 0.1}),
    Case("SGD.step", (2**21,), "one matrix of 2.1 M", 5, "threads"),
]
