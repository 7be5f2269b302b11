"""The table of cases that drives every benchmark: what is computed, on which shape, and which network it comes from.

`pytest bench` times each on this machine, `bench/peers.py` beside PyTorch and JAX; a test demands a case for every
public operation. Shapes are real ones from a single row to beyond the caches, with odd sizes among them.
"""

import math
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Parameters
    ----------
    operation : str
        The public name that is timed.
    shape : tuple of int
        Of the input, in memory order: channels last for the layout NHWC.
    source : str
        The network that has this shape.
    arrays : int
        How many arrays of this shape must move between memory and the processor, read and written together.
    options : dict
        What else the operation takes; `channel_axis` tells the layout.
    """

    operation: str
    shape: Shape
    source: str
    arrays: int
    family: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * (8 if self.dtype == "float64" else 4) * self.arrays

    @property
    def name(self) -> str:
        shown = [f"{key}={value}" for key, value in self.options.items()]
        size = "x".join(map(str, self.shape)) or "scalar"
        return "-".join([self.operation, size, *shown] + ([self.dtype] if self.dtype != "float32" else []))


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
    ((16, 32, 112, 112), "MobileNetV2 stem"),
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

EVAL_IMAGES = [IMAGES[k] for k in (0, 3, 5, 7)]

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


def last(shape: Shape) -> Shape:
    """The same image with the channels last."""
    return (shape[0], *shape[2:], shape[1])


def _both_layouts(shape: Shape) -> list[tuple[Shape, dict[str, Any]]]:
    return [(shape, {}), (last(shape), {"channel_axis": -1})] if len(shape) > 2 else [(shape, {})]


def _norms() -> list[Case]:
    table: list[Case] = []

    def both_ways(operation: str, shape: Shape, source: str, **options: Any) -> None:
        # Forward reads x and writes y; backward reads x and dy and writes dx. Parameters and statistics are small.
        table.append(Case(operation, shape, source, 2, "norm forward", options))
        table.append(Case(f"{operation}_backward", shape, source, 3, "norm backward", options))

    for shape, source in LAYER_NORM:
        both_ways("layer_norm", shape, source)
    for shape, source in RMS_NORM:
        both_ways("rms_norm", shape, source)
    for image, source in IMAGES + TABULAR:
        for shape, layout in _both_layouts(image):
            both_ways("batch_norm", shape, source, training=True, **layout)
    for image, source in EVAL_IMAGES:
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
    return table


NORMS = _norms()
CASES = NORMS
