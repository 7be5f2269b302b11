"""Floating-point formats that NumPy lacks, widened to float32; every value is exact."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["DECODERS", "pack_f4"]


@functools.cache
def _table(exponent_bits: int, mantissa_bits: int, bias: int, nan: tuple[int, ...] = ()) -> Array:
    """Code → value of a format with a sign bit; subnormal where the exponent field is 0; `nan` lists the NaN codes."""
    codes = np.arange(2 ** (1 + exponent_bits + mantissa_bits))
    mantissa = codes % 2**mantissa_bits
    exponent = codes // 2**mantissa_bits % 2**exponent_bits
    significand = np.where(exponent == 0, mantissa, mantissa + 2**mantissa_bits)
    magnitude = np.ldexp(significand.astype(np.float64), np.maximum(exponent, 1) - bias - mantissa_bits)
    values: Array = np.where(codes < len(codes) // 2, magnitude, -magnitude).astype(np.float32)
    values[list(nan)] = np.nan
    return values


def _e4m3(codes: Array) -> Array:
    return _table(4, 3, 7, nan=(0x7F, 0xFF))[codes]


def _e4m3_fnuz(codes: Array) -> Array:
    return _table(4, 3, 8, nan=(0x80,))[codes]


def _e5m2_fnuz(codes: Array) -> Array:
    return _table(5, 2, 16, nan=(0x80,))[codes]


def _e5m2(codes: Array) -> Array:
    """The upper byte of an IEEE half."""
    return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def _e8m0(codes: Array) -> Array:
    """The exponent field of a float32 alone; 0 is the subnormal 2⁻¹²⁷ and 255 is NaN."""
    values = (codes.astype(np.uint32) << 23).view(np.float32)
    values[codes == 0] = 2.0**-127
    values[codes == 255] = np.nan
    return values


def _bfloat16(codes: Array) -> Array:
    """The upper half of a float32."""
    return (codes.astype(np.uint32) << 16).view(np.float32)


def _f4(codes: Array) -> Array:
    """Two E2M1 values in each byte, the first in the low half."""
    return _table(2, 1, 1)[np.stack([codes & 15, codes >> 4], axis=-1).reshape(-1)]


# Name in a safetensors file → (type of the stored words, words to a flat float32 array).
DECODERS: dict[str, tuple[np.dtype[Any], Callable[[Array], Array]]] = {
    "BF16": (np.dtype("<u2"), _bfloat16),
    "F8_E4M3": (np.dtype("u1"), _e4m3),
    "F8_E4M3FNUZ": (np.dtype("u1"), _e4m3_fnuz),
    "F8_E5M2": (np.dtype("u1"), _e5m2),
    "F8_E5M2FNUZ": (np.dtype("u1"), _e5m2_fnuz),
    "F8_E8M0": (np.dtype("u1"), _e8m0),
    "F4": (np.dtype("u1"), _f4),
}


def pack_f4(codes: Array) -> Array:
    """An even number of 4-bit codes, one in each byte, as half as many bytes."""
    pairs = codes.reshape(-1, 2)
    return pairs[:, 0] & 15 | pairs[:, 1] << 4
