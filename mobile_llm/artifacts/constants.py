"""Constants from the bytes that the three formats keep them in. Bytes that do not fill their shape are refused."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from mobile_llm.artifacts.graph import Dimension
from mobile_llm.errors import IntegrityFailed


def from_bytes(data: memoryview | np.ndarray, dtype: str, shape: Sequence[Dimension]) -> np.ndarray:
    """Little-endian values in row order; 4-bit integers come as int8, bfloat16 as float32.

    Raises IntegrityFailed where there are more or fewer of them than `shape` holds.
    """
    if dtype in ("int4", "uint4"):
        return shaped(_unpacked(np.frombuffer(data, np.uint8), dtype, shape), shape)
    stored = np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
    if len(data) % stored.itemsize:
        raise IntegrityFailed(f"a constant has {len(data)} bytes, which are no {dtype} numbers; fetch it again")
    values = np.frombuffer(data, stored)
    return shaped((values.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else values, shape)


def shaped(values: np.ndarray, shape: Sequence[Dimension]) -> np.ndarray:
    """`values` in `shape`. Raises IntegrityFailed where they do not fill it."""
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    if min(sizes, default=0) < 0 or values.size != prod(sizes):
        raise IntegrityFailed(f"a constant of shape {tuple(shape)} has {values.size} values; fetch it again")
    return values.reshape(sizes)


def _unpacked(packed: np.ndarray, dtype: str, shape: Sequence[Dimension]) -> np.ndarray:
    """Two integers to a byte, the lower half first; an odd number of them leaves the last half unused."""
    values = np.stack([packed & 15, packed >> 4], -1).reshape(-1).astype(np.int8)
    if len(values) == prod(int(size) for size in shape) + 1:
        values = values[:-1]
    return np.where(values > 7, values - 16, values).astype(np.int8) if dtype == "int4" else values
