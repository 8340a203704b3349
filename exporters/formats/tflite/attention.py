"""Attention of the encoder family in TFLite, for one static length: products of (heads, sequence, head_dim), an
additive float mask, and what is added to scores (see `exporters.architectures.positions`)."""

from __future__ import annotations

import numpy as np

from exporters.architectures.blocks import Attention, Disentangled, Linear, RelativeBias, Rotary
from exporters.architectures.positions import keys_by_distance, queries_by_distance, relative_bias, rotary_tables
from exporters.formats.tflite.flatbuffer import Ops
from exporters.formats.tflite.nodes import Nodes

_MASKED = -1e4


class Scores:
    """Built once for a subgraph, so that layers share what depends on the length alone."""

    def __init__(self, nodes: Nodes, length: int, limit: int) -> None:
        self._nodes = nodes
        self._length = length
        self._limit = limit
        self._shared: dict[str, int] = {}

    def context(self, query: int, key: int, value: int, attention: Attention, mask: int) -> int:
        """(sequence, hidden) three times -> (sequence, hidden); the mask is (1, 1, sequence)."""
        n = self._nodes
        query, key, value = (self._heads(x, attention) for x in (n.scaled(query, attention.scale), key, value))
        if isinstance(attention.positions, Rotary):
            query, key = (self._rotated(x, attention, attention.positions.theta) for x in (query, key))
        scores = n.binary("Add", n.matmul(query, key, transpose=True), mask)
        for bias in self._biases(query, key, attention):
            scores = n.binary("Add", scores, bias)
        context = n.transpose(n.matmul(n.softmax(scores), value), (1, 0, 2))
        return n.reshape(context, (self._length, attention.heads * attention.head_dim))

    def _heads(self, value: int, attention: Attention) -> int:
        """(sequence, hidden) -> (heads, sequence, head_dim)."""
        split = self._nodes.reshape(value, (self._length, attention.heads, attention.head_dim))
        return self._nodes.transpose(split, (1, 0, 2))

    def _rotated(self, value: int, attention: Attention, theta: float) -> int:
        n, half = self._nodes, attention.head_dim // 2
        size = (attention.heads, self._length, half)
        first, second = n.slice(value, (0, 0, 0), size), n.slice(value, (0, 0, half), size)
        tables = zip(("cosines", "sines"), rotary_tables(theta, attention.head_dim, self._limit))
        cosines, sines = (self._first_rows(f"{name}_{theta:g}", table) for name, table in tables)
        left = n.binary("Sub", n.binary("Mul", first, cosines), n.binary("Mul", second, sines))
        right = n.binary("Add", n.binary("Mul", second, cosines), n.binary("Mul", first, sines))
        return n.concatenate(left, right)

    def _first_rows(self, name: str, table: np.ndarray) -> int:
        if name not in self._shared:
            whole = self._nodes.graph.constant(name, table)
            self._shared[name] = self._nodes.rows(whole, 0, self._length)
        return self._shared[name]

    def _biases(self, query: int, key: int, attention: Attention) -> list[int]:
        found, positions = [], attention.positions
        if isinstance(positions, RelativeBias):
            found.append(self._by_distance(positions))
        if isinstance(positions, Disentangled) and positions.key:
            vectors, rows = keys_by_distance(positions, attention)
            # Queries are scaled already, keys are not.
            found.append(self._skewed(self._compared(query, vectors, rows, positions.key)))
        if isinstance(positions, Disentangled) and positions.query:
            vectors, rows = queries_by_distance(positions, attention)
            scaled = vectors * np.float32(attention.scale)
            compared = self._skewed(self._compared(key, scaled, rows, positions.query))
            found.append(self._nodes.transpose(compared, (0, 2, 1)))
        if attention.window is not None:
            found.append(self._window(attention.window))
        return found

    def _by_distance(self, bias: RelativeBias) -> int:
        """(heads, sequence, sequence), once for all layers."""
        name = f"{bias.table.name} by distance"
        if name not in self._shared:
            graph = self._nodes.graph
            row = relative_bias(bias)[:, None, self._limit - self._length : self._limit + self._length]
            ones = graph.constant(f"ones_{self._length}", np.ones((1, self._length, 1), np.float32))
            wide = self._nodes.binary("Mul", graph.constant(f"{name}, {self._length}", np.ascontiguousarray(row)), ones)
            self._shared[name] = self._skewed(wide)
        return self._shared[name]

    def _compared(self, value: int, vectors: np.ndarray, rows: np.ndarray, linear: Linear) -> int:
        """(heads, sequence, head_dim) with the vectors of all distances: (heads, sequence, 2 sequence)."""
        graph, middle = self._nodes.graph, rows[self._limit - self._length : self._limit + self._length]
        side = "reversed" if rows[0] > rows[-1] else "forward"
        index = graph.constant(f"rows by distance, {side}, {self._length}", middle.astype(np.int32))
        table = graph.constant(f"{linear.weight.name} of distances", vectors)
        return self._nodes.matmul(value, self._nodes.gather(table, index, axis=1), transpose=True)

    def _skewed(self, value: int) -> int:
        """(heads, sequence, 2 sequence) over distances -> (heads, sequence, sequence) over keys."""
        n, size = self._nodes, self._length
        heads = n.graph.shape(value)[0]
        flat = n.reshape(value, (heads, 2 * size * size))
        cut = n.slice(flat, (0, size - 1), (heads, size * (2 * size - 1)))
        return n.slice(n.reshape(cut, (heads, size, 2 * size - 1)), (0, 0, 0), (heads, size, size))

    def _window(self, window: int) -> int:
        """(1, sequence, sequence): 0 near, a large negative number further than `window` away."""
        name = f"window of {window}"
        if name not in self._shared:
            n, places = self._nodes, np.arange(self._length, dtype=np.float32)
            across = n.graph.constant(f"places_across_{self._length}", places[None, :])
            down = n.graph.constant(f"places_down_{self._length}", places[:, None])
            apart = n.unary(Ops.ABS, n.binary("Sub", across, down))
            beyond = n.larger(n.binary("Sub", apart, n.graph.number(float(window))), 0.0)
            penalty = n.scaled(n.smaller(beyond, 1.0), _MASKED)
            self._shared[name] = n.reshape(penalty, (1, self._length, self._length))
        return self._shared[name]
