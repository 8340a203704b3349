"""The encoder family in TFLite, for one static sequence length and a batch of one.

Laid out for XNNPACK, and so that the GPU and NPU compilers take all but the lookups: two-dimensional hidden
states (sequence, hidden), an additive float mask, no gather, broadcast or boolean operator inside. int8 layers
hold our integers per channel; their activations stay float in the file and are quantized per row by the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporters.architectures.blocks import (
    Activation,
    Attention,
    Embeddings,
    FeedForward,
    GatedFeedForward,
    Linear,
    Norm,
    Pooling,
)
from exporters.architectures.weights import Weight
from exporters.formats.tflite.attention import Scores
from exporters.formats.tflite.flatbuffer import Ops, Subgraph, Types
from exporters.formats.tflite.layers import Layers
from exporters.formats.tflite.nodes import Nodes

# What padding's scores get added. exp(-10000) is 0 in float32, and float16 can still hold the sum.
_MASKED = 1e4


class TfliteEncoderBuilder:
    """Implements `EncoderBuilder` over one subgraph; values are tensor indices. `outputs` gives the shape of each
    output, of those that are kept: phones want the pooled vector, not every token's."""

    def __init__(self, graph: Subgraph, length: int, limit: int, outputs: Mapping[str, tuple[int, ...]]) -> None:
        self._graph = graph
        self._length = length
        self._outputs = outputs
        self._nodes = Nodes(graph)
        self._layers = Layers(self._nodes)
        self._scores = Scores(self._nodes, length, limit)

    def input(self, name: str) -> int:
        return self._graph.input(name, (1, self._length))

    def output(self, name: str, value: int) -> None:
        if name in self._outputs:
            shape = self._outputs[name]
            self._graph.output(name, value if self._graph.shape(value) == shape else self._nodes.reshape(value, shape))

    def embed(self, embeddings: Embeddings, ids: int, token_types: int | None) -> int:
        n, hidden = self._nodes, self._lookup(embeddings.words, ids)
        if embeddings.token_types:
            types = embeddings.token_types
            added = self._lookup(types, token_types) if token_types is not None else self._rows(types, 0, 1)
            hidden = n.binary("Add", hidden, added)
        if embeddings.positions:
            positions = self._rows(embeddings.positions, embeddings.position_offset, self._length)
            hidden = n.binary("Add", hidden, positions)
        normed = self.norm(hidden, embeddings.norm)
        return self.linear(normed, embeddings.projection) if embeddings.projection else normed

    def attention_mask(self, mask: int) -> int:
        """(1, 1, sequence) to add to scores: 0 for tokens, a large negative number for padding."""
        n = self._nodes
        shifted = n.binary("Sub", n.cast(mask), self._graph.number(1.0))
        return n.reshape(n.scaled(shifted, _MASKED), (1, 1, self._length))

    def attention(self, hidden: int, attention: Attention, mask: int) -> int:
        query, key, value = (self.linear(hidden, x) for x in (attention.query, attention.key, attention.value))
        return self.linear(self._scores.context(query, key, value, attention, mask), attention.output)

    def feed_forward(self, hidden: int, feed_forward: FeedForward | GatedFeedForward) -> int:
        if isinstance(feed_forward, GatedFeedForward):
            gate = self.activation(self.linear(hidden, feed_forward.gate), feed_forward.activation)
            expanded = self._nodes.binary("Mul", gate, self.linear(hidden, feed_forward.up))
        else:
            expanded = self.activation(self.linear(hidden, feed_forward.up), feed_forward.activation)
        return self.linear(expanded, feed_forward.down)

    def add(self, hidden: int, residual: int) -> int:
        return self._nodes.binary("Add", hidden, residual)

    def norm(self, hidden: int, norm: Norm) -> int:
        return self._layers.norm(hidden, norm)

    def first_token(self, hidden: int) -> int:
        return self._nodes.rows(hidden, 0, 1)

    def linear(self, hidden: int, linear: Linear) -> int:
        return self._layers.linear(hidden, linear)

    def activation(self, hidden: int, kind: Activation) -> int:
        return self._layers.activation(hidden, kind)

    def pool(self, hidden: int, mask: int, pooling: Pooling) -> int:
        n, pooled = self._nodes, self._pooled(hidden, mask, pooling)
        if not pooling.normalize:
            return pooled
        square = n.reduce(Ops.SUM, n.binary("Mul", pooled, pooled), 1)
        return n.binary("Mul", pooled, n.unary(Ops.RSQRT, n.larger(square, 1e-24)))

    def _pooled(self, hidden: int, mask: int, pooling: Pooling) -> int:
        if pooling.mode == "cls":
            return self.first_token(hidden)
        n = self._nodes
        column = n.reshape(n.cast(mask), (self._length, 1))
        if pooling.mode == "mean":
            total = n.reduce(Ops.SUM, n.binary("Mul", hidden, column), 0)
            return n.binary("Div", total, n.reduce(Ops.SUM, column, 0))
        below = n.scaled(n.binary("Sub", column, self._graph.number(1.0)), _MASKED)
        return n.reduce(Ops.REDUCE_MAX, n.binary("Add", hidden, below), 0)

    def _rows(self, table: Weight, first: int, count: int) -> int:
        return self._nodes.rows(self._nodes.floats(table), first, count)

    def _lookup(self, table: Weight, ids: int) -> int:
        """Rows of a table: (1, sequence) -> (sequence, hidden)."""
        return self._layers.lookup(table, self._nodes.reshape(ids, (self._length,), Types.INT32))
