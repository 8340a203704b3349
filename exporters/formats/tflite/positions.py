"""What a decoder knows of positions, worked out once for a signature from `input_pos` alone, so that a runtime has to
feed neither rotary tables nor masks.

The new tokens stand one after the other; the cache's row `j` holds position `j`, and what is in rows from the first
new position on does not count. All that follows the lookups stays inside XNNPACK.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from exporters.architectures.decoders.blocks import Rope
from exporters.architectures.weights import Weight
from exporters.formats.tflite.flatbuffer import Types
from exporters.formats.tflite.layers import Layers
from exporters.formats.tflite.nodes import Nodes

# What the scores of tokens that are not seen get added. exp(-10000) is 0 in float32, and float16 can hold the sum.
_UNSEEN = 1e4


class Positions:
    """Of `rows` new tokens after at most `cached` tokens in the cache, none of them at `context` or beyond."""

    def __init__(self, nodes: Nodes, layers: Layers, rows: int, cached: int, context: int) -> None:
        self._nodes, self._layers, self._graph = nodes, layers, nodes.graph
        self._rows, self._cached, self._context = rows, cached, context
        given = self._graph.input("input_pos", (1, rows))
        self._places = nodes.cast(given) if cached else -1
        self._ids = nodes.reshape(given, (rows,), Types.INT32)
        self._turns: dict[tuple[bytes, float], tuple[int, int]] = {}
        self._rotations: dict[int, int] = {}
        self._masks: dict[int | None, int] = {}

    def first(self) -> int:
        """The first new token's, int32 (1,)."""
        return self._nodes.slice(self._ids, (0,), (1,), Types.INT32)

    def learned(self, table: Weight, offset: int) -> int:
        """The rows of a table of positions, (rows, hidden)."""
        used = replace(table, name=f"{table.name} from {offset}", value=table.floats[offset : offset + self._context])
        return self._layers.lookup(used, self._ids)

    def turned(self, value: int, rope: Rope) -> int:
        """(rows, heads, head_dim), each head turned by the position of its row."""
        n, half = self._nodes, rope.turned // 2
        cosines, sines = self._tables(rope)
        if self._rows == 1:
            return n.matmul(value, self._rotation(cosines, sines, self._graph.shape(value)[-1]))
        cosines, sines = (n.reshape(x, (self._rows, 1, half)) for x in (cosines, sines))
        first, second = n.columns(value, 0, half), n.columns(value, half, half)
        left = n.binary("Sub", n.binary("Mul", first, cosines), n.binary("Mul", second, sines))
        right = n.binary("Add", n.binary("Mul", second, cosines), n.binary("Mul", first, sines))
        rest = self._graph.shape(value)[-1] - rope.turned
        return n.concatenate(left, right, *([n.columns(value, rope.turned, rest)] if rest else []))

    def mask_of_cache(self, window: int | None) -> int:
        """(1, 1, rows or 1, cached) to add to the scores with the cache."""
        if window not in self._masks:
            n, graph = self._nodes, self._graph
            columns = graph.constant(f"places_{self._cached}", np.arange(self._cached, dtype=np.float32)[None])
            first = n.slice(self._places, (0, 0), (1, 1))
            seen = self._step(n.binary("Sub", first, columns))
            if window is not None:
                oldest = n.binary("Sub", n.reshape(self._places, (self._rows, 1)), graph.number(float(window)))
                seen = n.binary("Mul", seen, self._step(n.binary("Sub", columns, oldest)))
            penalty = n.scaled(n.binary("Sub", seen, graph.number(1.0)), _UNSEEN)
            self._masks[window] = n.reshape(penalty, (1, 1, *graph.shape(penalty)))
        return self._masks[window]

    def mask_of_new(self, window: int | None) -> int:
        """(1, 1, rows, rows) to add to the scores among the new tokens."""
        ago = np.arange(self._rows)[:, None] - np.arange(self._rows)
        unseen = (ago < 0) | (ago >= (window or self._rows))
        values = np.where(unseen, -_UNSEEN, 0).astype(np.float32)[None, None]
        return self._graph.constant(f"mask_{self._rows}_{window}", values)

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

    def _rotation(self, cosines: int, sines: int, head_dim: int) -> int:
        """The matrix (1, head_dim, head_dim) that turns a row of one position when multiplied from the right."""
        if cosines not in self._rotations:
            n, half = self._nodes, self._graph.shape(cosines)[-1]
            rest = head_dim - 2 * half
            along, across = (self._padded(x, rest, value) for x, value in ((cosines, 1.0), (sines, 0.0)))
            swaps = np.zeros((head_dim, head_dim), np.float32)
            swaps[half : 2 * half, :half], swaps[:half, half : 2 * half] = -np.eye(half), np.eye(half)
            kept = n.binary("Mul", self._graph.constant(f"eye_{head_dim}", np.eye(head_dim, dtype=np.float32)), along)
            swapped = n.binary("Mul", self._graph.constant(f"swaps_{head_dim}_{half}", swaps), across)
            self._rotations[cosines] = n.reshape(n.binary("Add", kept, swapped), (1, head_dim, head_dim))
        return self._rotations[cosines]

    def _padded(self, halves: int, rest: int, value: float) -> int:
        """(1, half) -> (1, 2 half + rest): twice, then a constant."""
        padding = np.full((1, rest), value, np.float32)
        more = [self._graph.constant(f"{rest} times {value}", padding)] if rest else []
        return self._nodes.concatenate(halves, halves, *more)
