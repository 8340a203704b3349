"""Positions as numbers that every format stores alike: what depends on weights and distances alone is computed once.

Distances run along a last axis of 2 S entries, entry `c` for `c - (S - 1)`. A builder multiplies or adds such rows
into (…, S, 2 S) and then skews them: of the flattened rows it drops the first S - 1 numbers, cuts S (2 S - 1) of the
rest into rows of 2 S - 1, and keeps S columns. Row `i` then starts i places further left, so that column `j` holds
distance `j - i`: no gather over pairs of tokens is needed, which phones' accelerators refuse.
"""

from __future__ import annotations

import numpy as np

from exporters.architectures.blocks import Attention, Disentangled, Linear, Norm, RelativeBias


def relative_bias(bias: RelativeBias) -> np.ndarray:
    """float32 (heads, 2 limit) over the distance from query to key."""
    return np.ascontiguousarray(bias.table.float32()[bias.rows[1:]].T)


def keys_by_distance(block: Disentangled, attention: Attention) -> tuple[np.ndarray, np.ndarray]:
    """What queries are compared with: float32 (heads, rows, head_dim), and its row for each distance from query to
    key, (2 limit,)."""
    assert block.key is not None
    return _heads(_projected(block, block.key), attention), block.rows[:-1][::-1].copy()


def queries_by_distance(block: Disentangled, attention: Attention) -> tuple[np.ndarray, np.ndarray]:
    """What keys are compared with, likewise, over the distance from key to query."""
    assert block.query is not None
    return _heads(_projected(block, block.query), attention), block.rows[1:].copy()


def rotary_tables(theta: float, head_dim: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines, float32 (limit, head_dim / 2)."""
    frequencies = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))
    angles = np.arange(limit, dtype=np.float32)[:, None] * frequencies.astype(np.float32)
    return np.cos(angles), np.sin(angles)


def _projected(block: Disentangled, linear: Linear) -> np.ndarray:
    vectors = block.table.float32()
    if block.norm:
        vectors = _normalized(vectors, block.norm)
    product = vectors @ linear.weight.float32().T
    return product + linear.bias.float32() if linear.bias else product


def _normalized(vectors: np.ndarray, norm: Norm) -> np.ndarray:
    centered = vectors - vectors.mean(-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + norm.eps) * norm.weight.float32()
    return scaled + norm.bias.float32() if norm.bias else scaled


def _heads(vectors: np.ndarray, attention: Attention) -> np.ndarray:
    split = vectors.reshape(len(vectors), attention.heads, attention.head_dim)
    return np.ascontiguousarray(split.transpose(1, 0, 2), np.float32)
