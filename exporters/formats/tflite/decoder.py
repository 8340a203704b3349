"""The decoder family in TFLite, for one static shape: so many new tokens after a cache of so many rows.

Laid out for XNNPACK: two-dimensional hidden states (rows, hidden), query with key and value and gate with up as one
layer each. Norm gains and scales are operators of their own: the integers are the same in every format.
"""

from __future__ import annotations

import numpy as np

from exporters.architectures.blocks import FeedForward, GatedFeedForward, Linear
from exporters.architectures.decoders.blocks import AnyNorm, CausalAttention, DecoderModel, RmsNorm
from exporters.architectures.stacking import neighbours, stacked
from exporters.formats.tflite.cached import CachedAttention, rms_norm, soft_capped
from exporters.formats.tflite.caches import Caches, Ends, FloatCaches, WrittenCaches
from exporters.formats.tflite.flatbuffer import Ops, Subgraph, Types
from exporters.formats.tflite.layers import Layers
from exporters.formats.tflite.nodes import Nodes
from exporters.formats.tflite.positions import Positions
from exporters.formats.tflite.signatures import Shape
from exporters.formats.tflite.stepped import SteppedAttention


class Stacked:
    """Layers of the same input that are stored alike as one, made once for all signatures of a file."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], Linear] = {}

    def __call__(self, group: tuple[Linear, ...]) -> Linear:
        names = tuple(linear.weight.name for linear in group)
        if names not in self._known:
            self._known[names] = stacked(group)
        return self._known[names]


class TfliteDecoderBuilder:
    """Implements `DecoderBuilder` over one subgraph; values are tensor indices. Inputs: `tokens` and `input_pos`
    int32 (1, rows), the caches, and of a prefill `last_row` int32 (1,), the row whose logits are asked for; rows
    behind it are padding. Outputs: `logits` float32 (1, vocabulary), of a verify (rows, vocabulary), and the new rows
    of the caches."""

    def __init__(self, graph: Subgraph, shape: Shape, context: int, stacks: Stacked) -> None:
        self._graph, self._shape, self._stacks = graph, shape, stacks
        self._nodes = Nodes(graph)
        self._layers = Layers(self._nodes)
        self._tokens = graph.input("tokens", (1, shape.rows))
        self._positions = Positions(self._nodes, self._layers, shape.rows, shape.cached, context)
        attention = SteppedAttention if shape.verifies else CachedAttention
        self._attention = attention(self._nodes, self._positions, self._caches(), shape.rows, shape.cached)

    def embed(self, model: DecoderModel) -> int:
        n, ids = self._nodes, self._nodes.reshape(self._tokens, (self._shape.rows,), Types.INT32)
        hidden = self._layers.lookup(model.words, ids)
        if model.embedding_scale != 1:
            hidden = n.scaled(hidden, model.embedding_scale)
        if model.positions:
            hidden = n.binary("Add", hidden, self._positions.learned(model.positions, model.position_offset))
        return hidden

    def norm(self, hidden: int, norm: AnyNorm) -> int:
        if isinstance(norm, RmsNorm):
            return rms_norm(self._nodes, hidden, norm)
        return self._layers.norm(hidden, norm)

    def add_norm(self, hidden: int, added: int, norm: AnyNorm) -> tuple[int, int]:
        total = self._nodes.binary("Add", hidden, added)
        return total, self.norm(total, norm)

    def attention(self, normed: int, attention: CausalAttention, layer: int) -> int:
        products = self._products(normed, attention.query, attention.key, attention.value)
        projected = self._nodes.concatenate(*products) if products[1:] else products[0]
        return self._layers.linear(self._attention.context(projected, attention, layer), attention.output)

    def feed_forward(self, normed: int, feed_forward: FeedForward | GatedFeedForward) -> int:
        if isinstance(feed_forward, GatedFeedForward):
            products = self._products(normed, feed_forward.gate, feed_forward.up)
            gate, up = products if products[1:] else self._halves(products[0])
            expanded = self._nodes.binary("Mul", self._layers.activation(gate, feed_forward.activation), up)
        else:
            expanded = self._layers.activation(self._layers.linear(normed, feed_forward.up), feed_forward.activation)
        return self._layers.linear(expanded, feed_forward.down)

    def asked_for(self, hidden: int, added: int) -> tuple[int, int]:
        if self._shape.role != "prefill":
            return hidden, added
        selector = self._selector()
        return self._nodes.matmul(selector, hidden), self._nodes.matmul(selector, added)

    def logits(self, normed: int, model: DecoderModel) -> None:
        self._graph.output("logits", self._capped_logits(normed, model))

    def _capped_logits(self, normed: int, model: DecoderModel) -> int:
        return soft_capped(self._nodes, self._layers.linear(normed, model.head), model.soft_cap)

    def _caches(self) -> Caches:
        ends = Ends(self._nodes, self._shape.cached)
        return WrittenCaches(ends, self._positions) if self._shape.verifies else FloatCaches(ends)

    def _selector(self) -> int:
        """(1, rows): 1 at the row asked for, else 0. A product with it stays inside XNNPACK, a gather would not."""
        n, last = self._nodes, self._graph.input("last_row", (1,))
        places = self._graph.constant(f"places_{self._shape.rows}", np.arange(self._shape.rows, dtype=np.float32)[None])
        apart = n.unary(Ops.ABS, n.binary("Sub", places, n.reshape(n.cast(last), (1, 1))))
        return n.larger(n.binary("Sub", self._graph.number(1.0), apart), 0.0)

    def _halves(self, product: int) -> tuple[int, int]:
        half = self._graph.shape(product)[-1] // 2
        return self._nodes.columns(product, 0, half), self._nodes.columns(product, half, half)

    def _products(self, hidden: int, *linears: Linear) -> tuple[int, ...]:
        """The outputs of layers with the same input; neighbours that are stored alike are one product, in which they
        lie beside each other."""
        return tuple(self._layers.linear(hidden, self._stacks(group)) for group in neighbours(linears))
