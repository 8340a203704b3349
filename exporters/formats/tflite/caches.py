"""How a decoder's cache is laid out, and what attention does with it.

Keys lie transposed, the way their product with queries reads them. Int8 rows have a scale for each head and token that
is applied outside the products; XNNPACK then multiplies the integers themselves. New rows are rounded in the file, so
that a runtime copies bytes whatever the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from exporters.architectures.decoders.blocks import CausalAttention
from exporters.formats.tflite.flatbuffer import Ops, Types
from exporters.formats.tflite.nodes import Nodes
from exporters.formats.tflite.signatures import CacheLayout

_SMALLEST = 1e-9  # of a row of zeros


class Caches(Protocol):
    """The caches of one signature; values are tensor indices."""

    def keep(self, key: int, value: int, layer: int) -> None:
        """The new rows (1, kv_heads, rows, head_dim) as outputs."""

    def scores(self, query: int, attention: CausalAttention, layer: int) -> int:
        """Queries (1, kv_heads, n, head_dim) with the cached keys: (1, kv_heads, n, cached)."""

    def weighted(self, chances: int, attention: CausalAttention, layer: int) -> int:
        """The sum of cached values by (1, kv_heads, n, cached): (1, kv_heads, n, head_dim)."""


@dataclass(frozen=True)
class Ends:
    """Inputs and outputs of a signature for its caches."""

    nodes: Nodes
    layout: CacheLayout
    cached: int

    def input(self, kind: str, attention: CausalAttention, layer: int) -> int:
        tensor = self.layout.tensors[kind]
        shape = tensor.shape(attention, self.cached)
        return self.nodes.graph.input(tensor.input(layer), shape, _TYPES[tensor.dtype])

    def output(self, kind: str, value: int, layer: int) -> None:
        self.nodes.graph.output(self.layout.tensors[kind].output(layer), value)

    def transposed(self, key: int) -> int:
        """(1, kv_heads, rows, head_dim) -> (1, kv_heads, head_dim, rows)"""
        shape = self.nodes.graph.shape(key)
        if shape[2] == 1:
            return self.nodes.reshape(key, (*shape[:2], shape[3], 1))
        return self.nodes.transpose(key, (0, 1, 3, 2))


_TYPES: Mapping[str, int] = {"float32": Types.FLOAT32, "int8": Types.INT8}


class FloatCaches:
    def __init__(self, ends: Ends) -> None:
        self._ends, self._nodes = ends, ends.nodes

    def keep(self, key: int, value: int, layer: int) -> None:
        self._ends.output("key", self._ends.transposed(key), layer)
        self._ends.output("value", value, layer)

    def scores(self, query: int, attention: CausalAttention, layer: int) -> int:
        return self._nodes.matmul(query, self._ends.input("key", attention, layer))

    def weighted(self, chances: int, attention: CausalAttention, layer: int) -> int:
        return self._nodes.matmul(chances, self._ends.input("value", attention, layer))


class IntegerCaches:
    def __init__(self, ends: Ends) -> None:
        self._ends, self._nodes = ends, ends.nodes

    def keep(self, key: int, value: int, layer: int) -> None:
        self._rounded("key", self._ends.transposed(key), 2, layer)
        self._rounded("value", value, 3, layer)

    def scores(self, query: int, attention: CausalAttention, layer: int) -> int:
        products = self._nodes.matmul(query, self._wide("key", attention, layer))
        return self._nodes.binary("Mul", products, self._ends.input("key_scale", attention, layer))

    def weighted(self, chances: int, attention: CausalAttention, layer: int) -> int:
        scaled = self._nodes.binary("Mul", chances, self._ends.input("value_scale", attention, layer))
        return self._nodes.matmul(scaled, self._wide("value", attention, layer))

    def _wide(self, kind: str, attention: CausalAttention, layer: int) -> int:
        stored = self._ends.input(kind, attention, layer)
        self._nodes.graph.scale(stored, 1 / 127)
        return self._nodes.dequantize(stored)

    def _rounded(self, kind: str, rows: int, axis: int, layer: int) -> None:
        """Rows as 127ths of their largest number, which is their scale."""
        n = self._nodes
        largest = n.larger(n.reduce(Ops.REDUCE_MAX, n.unary(Ops.ABS, rows), axis), _SMALLEST)
        self._ends.output(kind, n.quantized(n.binary("Div", rows, largest), 1 / 127), layer)
        heads = n.graph.shape(rows)[1]
        count = n.graph.shape(rows)[5 - axis]
        self._ends.output(f"{kind}_scale", n.reshape(largest, (1, heads, 1, count)), layer)
