"""What a decoder knows of positions, worked out once for a signature from `input_pos` alone, so that a runtime has to
feed neither rotary tables nor masks.

The new tokens stand one after the other; the cache's row `j` holds position `j`, and what is in rows from the first
new position on does not count. All that follows the lookups stays inside XNNPACK.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporters.architectures.decoders.blocks import Rope
from exporters.architectures.weights import Weight
from exporters.formats.tflite.flatbuffer import Ops, Types
from exporters.formats.tflite.layers import Layers
from exporters.formats.tflite.nodes import Nodes

# What the scores of tokens that are not seen get added. exp(-10000) is 0 in float32, and float16 can hold the sum.
_UNSEEN = 1e4


@dataclass(frozen=True)
class Written:
    """What new rows are multiplied by, (1, heads, rows, cached) or turned, and what is in the cache: zeros at places
    that are written, ones at others."""

    onto: int
    left: int


class Positions:
    """Of `rows` new tokens after at most `cached` tokens in the cache, none of them at `context` or beyond."""

    def __init__(self, nodes: Nodes, layers: Layers, rows: int, cached: int, context: int) -> None:
        self._nodes, self._layers, self._graph = nodes, layers, nodes.graph
        self._rows, self._cached, self._context = rows, cached, context
        given = self._graph.input("input_pos", (1, rows))
        self._places = nodes.cast(given) if cached else -1
        self._ids = nodes.reshape(given, (rows,), Types.INT32)
        self._turns: dict[tuple[bytes, float], tuple[int, int]] = {}
        self._made: dict[tuple[Any, ...], Any] = {}

    def first(self) -> int:
        """The first new token's, int32 (1,)."""
        return self._nodes.slice(self._ids, (0,), (1,), Types.INT32)

    def learned(self, table: Weight, offset: int) -> int:
        """The rows of a table of positions, (rows, hidden)."""
        used = replace(table, name=f"{table.name} from {offset}", value=table.floats[offset : offset + self._context])
        return self._layers.lookup(used, self._ids)

    @property
    def heads_axis(self) -> int:
        """Along which heads lie while they are turned; a single row's lie as they are used."""
        return 1 if self._rows == 1 else 2

    def of_heads(self, heads: int, head_dim: int) -> tuple[int, ...]:
        """The shape in which heads are turned."""
        shape = [1, self._rows, 1, head_dim]
        shape[self.heads_axis] = heads
        return tuple(shape)

    def turned(self, heads: int, rope: Rope | None, factors: Sequence[float | None]) -> int:
        """Of the shape `of_heads`: each turned by the position of its row and multiplied by its factor, or as it is
        where that is None."""
        n = self._nodes
        if rope is None:
            return n.binary("Mul", heads, self._by_head([1.0 if factor is None else factor for factor in factors]))
        half, size = rope.turned // 2, self._graph.shape(heads)[-1]
        along, across = self._turning(rope, tuple(factors), size)
        rest = [n.columns(heads, rope.turned, size - rope.turned)] if size > rope.turned else []
        swapped = n.concatenate(n.columns(heads, half, half), n.columns(heads, 0, half), *rest)
        return n.binary("Add", n.binary("Mul", heads, along), n.binary("Mul", swapped, across))

    def mask_of_cache(self, window: int | None, groups: int, each: bool = False) -> int:
        """(1, 1, groups * rows or 1, cached) to add to the scores with the cache: what lies before the first new token
        is seen, or before `each`."""
        key = ("cache", window, groups)
        if key not in self._made:
            n, graph, columns = self._nodes, self._graph, self._columns()
            end = self._of_queries(groups) if each else n.slice(self._places, (0, 0), (1, 1))
            seen = self._step(n.binary("Sub", end, columns))
            if window is not None:
                oldest = n.binary("Sub", self._of_queries(groups), graph.number(float(window)))
                seen = n.binary("Mul", seen, self._step(n.binary("Sub", columns, oldest)))
            penalty = n.scaled(n.binary("Sub", seen, graph.number(1.0)), _UNSEEN)
            self._made[key] = n.reshape(penalty, (1, 1, *graph.shape(penalty)))
        return self._made[key]

    def written(self, heads: int) -> tuple[Written, Written]:
        """Along the last axis and along the last but one, by which new rows get to their places in the cache. Neither
        the last does, nor padding, whose position is that of the token before it, or 0."""
        key = ("written", heads)
        if key not in self._made:
            n, graph, rows = self._nodes, self._graph, self._rows
            next_ones = n.binary("Sub", n.columns(self._places, 1, rows - 1), n.columns(self._places, 0, rows - 1))
            counts = n.concatenate(self._step(next_ones), graph.constant("none", np.zeros((1, 1), np.float32)))
            apart = n.unary(Ops.ABS, n.binary("Sub", n.reshape(self._places, (rows, 1)), self._columns()))
            at = n.larger(n.binary("Sub", graph.number(1.0), apart), 0.0)
            onto = n.binary("Mul", at, n.reshape(counts, (rows, 1)))
            left = n.binary("Sub", graph.number(1.0), n.reduce(Ops.SUM, onto, 0))
            ones = graph.constant(f"ones_{heads}", np.ones((1, heads, 1, 1), np.float32))
            ahead = n.binary("Mul", n.reshape(onto, (1, 1, rows, self._cached)), ones)
            self._made[key] = (
                Written(ahead, n.reshape(left, (1, 1, 1, self._cached))),
                Written(n.transpose(ahead, (0, 1, 3, 2)), n.reshape(left, (1, 1, self._cached, 1))),
            )
        return self._made[key]

    def mask_of_new(self, window: int | None, groups: int) -> int:
        """(1, 1, groups * rows, rows) to add to the scores among the new tokens."""
        ago = np.arange(self._rows)[:, None] - np.arange(self._rows)
        unseen = (ago < 0) | (ago >= (window or self._rows))
        values = np.where(unseen, -_UNSEEN, 0).astype(np.float32)
        return self._graph.constant(f"mask_{self._rows}_{window}_{groups}", np.tile(values, (groups, 1))[None, None])

    def _of_queries(self, groups: int) -> int:
        """The positions of queries that share a key, (groups * rows, 1)."""
        n = self._nodes
        below = n.concatenate(*[self._places] * groups) if groups > 1 else self._places
        return n.reshape(below, (groups * self._rows, 1))

    def _columns(self) -> int:
        """The cache's places, (1, cached)."""
        return self._graph.constant(f"places_{self._cached}", np.arange(self._cached, dtype=np.float32)[None])

    def _step(self, a: int) -> int:
        """Of whole numbers: 1 above 0, else 0."""
        return self._nodes.larger(self._nodes.smaller(a, 1.0), 0.0)

    def _tables(self, rope: Rope) -> tuple[int, int]:
        """Cosines and sines of the new tokens, (rows, turned / 2), by one lookup for all layers turned alike."""
        key = (rope.frequencies.tobytes(), rope.scaling)
        if key not in self._turns:
            table = Weight(f"turns_{len(self._turns)}", np.concatenate(rope.tables(self._context), axis=1))
            found, half = self._layers.lookup(table, self._ids), rope.turned // 2
            self._turns[key] = self._nodes.columns(found, 0, half), self._nodes.columns(found, half, half)
        return self._turns[key]

    def _turning(self, rope: Rope, factors: tuple[float | None, ...], head_dim: int) -> tuple[int, int]:
        """What heads are multiplied by, and what their halves are, exchanged, before both are added: each of the shape
        `of_heads`, for all layers that turn alike."""
        cosines, sines = self._tables(rope)
        key = ("turning", cosines, factors, head_dim)
        if key not in self._made:
            n, rest, by_row = self._nodes, head_dim - rope.turned, (1, self._rows, 1, head_dim)
            along = n.reshape(self._padded(cosines, cosines, rest, 1.0), by_row)
            across = n.reshape(self._padded(n.scaled(sines, -1.0), sines, rest, 0.0), by_row)
            times = self._by_head([factor or 0.0 for factor in factors])
            kept = self._by_head([float(factor is None) for factor in factors])
            along = n.binary("Add", n.binary("Mul", along, times), kept)
            self._made[key] = along, n.binary("Mul", across, times)
        return self._made[key]

    def _by_head(self, numbers: Sequence[float]) -> int:
        """To multiply heads by, in the shape `of_heads`."""
        shape = [1, 1, 1, 1]
        shape[self.heads_axis] = len(numbers)
        values = np.array(numbers, np.float32).reshape(shape)
        return self._graph.constant(f"by head, {values.shape} {values.tobytes().hex()}", values)

    def _padded(self, first: int, second: int, rest: int, value: float) -> int:
        """Both halves beside each other (rows, 2 half + rest), then a constant."""
        padding = np.full((self._rows, rest), value, np.float32)
        more = [self._graph.constant(f"{self._rows} of {rest} times {value}", padding)] if rest else []
        return self._nodes.concatenate(first, second, *more)
