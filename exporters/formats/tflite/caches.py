"""How a decoder's cache is laid out, and what attention does with it.

Keys lie transposed, the way their product with queries reads them. Not covered: caches in int8, a quarter as large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from exporters.architectures.decoders.blocks import CausalAttention
from exporters.formats.tflite.flatbuffer import Types
from exporters.formats.tflite.nodes import Nodes
from exporters.formats.tflite.positions import Positions, Written
from exporters.formats.tflite.signatures import ROWS


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
    cached: int

    def input(self, kind: str, attention: CausalAttention, layer: int) -> int:
        tensor = ROWS[kind]
        return self.nodes.graph.input(tensor.input(layer), tensor.shape(attention, self.cached), Types.FLOAT32)

    def output(self, kind: str, value: int, layer: int) -> None:
        self.nodes.graph.output(ROWS[kind].output(layer), value)

    def transposed(self, key: int) -> int:
        """(1, kv_heads, rows, head_dim) -> (1, kv_heads, head_dim, rows)"""
        shape = self.nodes.graph.shape(key)
        if shape[2] == 1:
            return self.nodes.reshape(key, (*shape[:2], shape[3], 1))
        return self.nodes.transpose(key, (0, 1, 3, 2))


class FloatCaches:
    def __init__(self, ends: Ends) -> None:
        self._ends, self._nodes = ends, ends.nodes

    def keep(self, key: int, value: int, layer: int) -> None:
        self._ends.output("key", self._ends.transposed(key), layer)
        self._ends.output("value", value, layer)

    def scores(self, query: int, attention: CausalAttention, layer: int) -> int:
        return self._nodes.matmul(query, self._rows("key", attention, layer))

    def weighted(self, chances: int, attention: CausalAttention, layer: int) -> int:
        return self._nodes.matmul(chances, self._rows("value", attention, layer))

    def _rows(self, kind: str, attention: CausalAttention, layer: int) -> int:
        return self._ends.input(kind, attention, layer)


class WrittenCaches(FloatCaches):
    """With the new rows in their places already, but for the last, which none of the others reads."""

    def __init__(self, ends: Ends, positions: Positions) -> None:
        super().__init__(ends)
        self._positions = positions
        self._new: dict[str, int] = {}

    def keep(self, key: int, value: int, layer: int) -> None:
        super().keep(key, value, layer)
        self._new = {"key": self._ends.transposed(key), "value": value}

    def _rows(self, kind: str, attention: CausalAttention, layer: int) -> int:
        n, stored, new = self._nodes, super()._rows(kind, attention, layer), self._new[kind]
        ahead, behind = self._positions.written(attention.kv_heads)
        if kind == "key":
            return n.binary("Add", n.binary("Mul", stored, ahead.left), n.matmul(new, ahead.onto))
        return with_rows(n, stored, new, behind)


def with_rows(nodes: Nodes, stored: int, new: int, places: Written) -> int:
    """A cache with the new rows (1, kv_heads, rows, head_dim) in their places. Every number is one that was given:
    products with ones and zeros, and sums with zeros, are exact."""
    return nodes.binary("Add", nodes.binary("Mul", stored, places.left), nodes.matmul(places.onto, new))
