"""Attention over a cache and new tokens, for one static shape of both.

In two parts, so that the cache is never copied: scores with the cache and with the new tokens apart, one softmax over
both, two weighted sums. Queries that share a key are stacked below each other instead of repeating keys and values.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from exporters.architectures.decoders.blocks import CausalAttention, RmsNorm
from exporters.formats.tflite.caches import Caches
from exporters.formats.tflite.flatbuffer import Ops
from exporters.formats.tflite.nodes import Nodes
from exporters.formats.tflite.positions import Positions


def rms_norm(nodes: Nodes, hidden: int, norm: RmsNorm) -> int:
    """Over the last axis. The gain is no part of what follows: integers stay the same in every format."""
    n, axis = nodes, len(nodes.graph.shape(hidden)) - 1
    mean = n.reduce(Ops.MEAN, n.binary("Mul", hidden, hidden), axis)
    inverse = n.unary(Ops.RSQRT, n.binary("Add", mean, n.graph.number(norm.eps)))
    gain = n.graph.constant(f"{norm.weight.name} gain", norm.gain())
    return n.binary("Mul", n.binary("Mul", hidden, inverse), gain)


class CachedAttention:
    """Of `rows` new tokens and the `cached` rows of the caches; 0 for none."""

    def __init__(self, nodes: Nodes, positions: Positions, caches: Caches, rows: int, cached: int) -> None:
        self._nodes, self._graph = nodes, nodes.graph
        self._positions, self._caches = positions, caches
        self._rows, self._cached = rows, cached

    def context(self, projected: int, attention: CausalAttention, layer: int) -> int:
        """Queries, keys and values beside each other (rows, (heads + 2 kv_heads) * head_dim) -> (rows, heads *
        head_dim)."""
        query, key, value = self._split(projected, attention)
        self._caches.keep(key, value, layer)
        scores = self._scores_of_new(query, key, attention)
        if not self._cached:
            return self._merged(self._nodes.matmul(self._nodes.softmax(scores), value), attention)
        return self._merged(self._with_cache(query, value, scores, attention, layer), attention)

    def _with_cache(self, query: int, value: int, scores: int, attention: CausalAttention, layer: int) -> int:
        n = self._nodes
        past = self._capped(self._caches.scores(query, attention, layer), attention)
        past = n.binary("Add", past, self._mask_of_cache(attention))
        chances = n.softmax(n.concatenate(past, scores))
        of_past = self._caches.weighted(n.columns(chances, 0, self._cached), attention, layer)
        of_new = n.columns(chances, self._cached, self._graph.shape(scores)[-1])
        return n.binary("Add", of_past, self._weighted_new(of_new, value, attention))

    def _mask_of_cache(self, attention: CausalAttention) -> int:
        return self._positions.mask_of_cache(attention.window, groups_of(attention))

    def _weighted_new(self, chances: int, value: int, attention: CausalAttention) -> int:
        """(1, kv_heads, groups * rows, head_dim) that the new tokens add."""
        return self._nodes.binary("Mul", chances, value) if self._rows == 1 else self._nodes.matmul(chances, value)

    def _scores_of_new(self, query: int, key: int, attention: CausalAttention) -> int:
        n = self._nodes
        if self._rows == 1:  # with one row, small operators are cheaper than a matrix product
            return self._capped(n.reduce(Ops.SUM, n.binary("Mul", query, key), 3), attention)
        scores = self._capped(n.matmul(query, key, transpose=True), attention)
        return n.binary("Add", scores, self._positions.mask_of_new(attention.window, groups_of(attention)))

    def _split(self, projected: int, attention: CausalAttention) -> tuple[int, int, int]:
        """Positions and scale applied: queries (1, kv_heads, groups * rows, head_dim), keys and values (1, kv_heads,
        rows, head_dim). All heads go through it as one, values too, so that operators are few."""
        n, count = self._nodes, attention.heads + 2 * attention.kv_heads
        heads = n.reshape(projected, self._positions.of_heads(count, attention.head_dim))
        heads = self._positions.turned(self._normed(heads, attention), attention.rope, _factors(attention))
        if self._rows > 1:
            heads = n.transpose(heads, (0, 2, 1, 3))
        query, key, value = self._apart(heads, attention, axis=1)
        return self._stacked(query, attention), key, value

    def _normed(self, heads: int, attention: CausalAttention) -> int:
        """Queries and keys, each head for itself, where there are norms for that."""
        if not attention.query_norm and not attention.key_norm:
            return heads
        axis = self._positions.heads_axis
        query, key, value = self._apart(heads, attention, axis)
        query, key = (
            rms_norm(self._nodes, x, norm) if norm else x
            for x, norm in ((query, attention.query_norm), (key, attention.key_norm))
        )
        return self._nodes.concatenate(query, key, value, axis=axis)

    def _apart(self, heads: int, attention: CausalAttention, axis: int) -> tuple[int, int, int]:
        """Queries, keys and values, which lie one after the other along an axis."""
        ends = np.cumsum([0, attention.heads, attention.kv_heads, attention.kv_heads]).tolist()
        query, key, value = (self._nodes.span(heads, axis, first, end - first) for first, end in pairwise(ends))
        return query, key, value

    def _stacked(self, query: int, attention: CausalAttention) -> int:
        """Those that share a key below each other."""
        shape = (1, attention.kv_heads, groups_of(attention) * self._rows, attention.head_dim)
        return query if self._graph.shape(query) == shape else self._nodes.reshape(query, shape)

    def _capped(self, scores: int, attention: CausalAttention) -> int:
        return soft_capped(self._nodes, scores, attention.soft_cap)

    def _merged(self, context: int, attention: CausalAttention) -> int:
        """(1, kv_heads, groups * rows, head_dim) -> (rows, heads * head_dim)"""
        n, width = self._nodes, attention.heads * attention.head_dim
        if self._rows > 1:
            context = n.reshape(context, (1, attention.heads, self._rows, attention.head_dim))
            context = n.transpose(context, (0, 2, 1, 3))
        return n.reshape(context, (self._rows, width))


def _factors(attention: CausalAttention) -> tuple[float | None, ...]:
    """What queries and keys are multiplied by, head by head; values are not."""
    return (attention.scale,) * attention.heads + (1.0,) * attention.kv_heads + (None,) * attention.kv_heads


def groups_of(attention: CausalAttention) -> int:
    """How many queries share a key."""
    return attention.heads // attention.kv_heads


def soft_capped(nodes: Nodes, value: int, cap: float | None) -> int:
    """`cap * tanh(value / cap)`, or the value itself."""
    if cap is None:
        return value
    return nodes.scaled(nodes.unary(Ops.TANH, nodes.scaled(value, 1 / cap)), cap)
