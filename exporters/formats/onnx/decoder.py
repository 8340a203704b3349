"""The decoder family in ONNX, laid out for onnxruntime's CPU kernels on phones.

GroupQueryAttention holds the cache, turns queries and keys by their positions and keeps windows and soft caps; query,
key and value go into it as one product, unless queries and keys are normalized first or the three are stored in
different ways. A sum and the RMS norm after it are one operator. Gate and up are one product. Logits are those of the
last position, or of as many as `num_logits_to_keep` says (0: all), a constant that a caller may override: both parts of
the residual are cut before the last norm.

Covered: a batch of one, or of sequences of one length, of which chunks after the first are one token each.
Not covered: padding.
"""

from __future__ import annotations

import numpy as np

from exporters.architectures.blocks import FeedForward, GatedFeedForward
from exporters.architectures.decoders.blocks import AnyNorm, CausalAttention, DecoderModel
from exporters.formats.onnx.activations import activation
from exporters.formats.onnx.attention_cached import BATCH, NEW, CachedAttention
from exporters.formats.onnx.graph import FLOAT, INT64, Graph
from exporters.formats.onnx.norms import normalized, sum_and_normalized
from exporters.formats.onnx.products import Products

KEPT = "num_logits_to_keep"  # the name that transformers.js knows
_END = 2**63 - 1


class OnnxDecoderBuilder:
    """Implements `DecoderBuilder`; values are names of the graph, (batch, sequence, width). `in_blocks`: see
    `Products`."""

    def __init__(self, graph: Graph, context: int, in_blocks: bool) -> None:
        self._graph = graph
        self._products = Products(graph, in_blocks)
        self._ids = graph.input("input_ids", INT64, (BATCH, NEW))
        self._attention = CachedAttention(graph, self._products, self._ids, context)

    def embed(self, model: DecoderModel) -> str:
        g = self._graph
        hidden = self._products.rows(model.words, self._ids)
        if model.embedding_scale != 1.0:
            hidden = g.node("Mul", [hidden, g.number(model.embedding_scale)])
        if model.positions is None:
            return hidden
        places = self._attention.positions(model.position_offset)
        return g.node("Add", [hidden, self._products.rows(model.positions, places)])

    def norm(self, hidden: str, norm: AnyNorm) -> str:
        return normalized(self._graph, hidden, norm)

    def add_norm(self, hidden: str, added: str, norm: AnyNorm) -> tuple[str, str]:
        return sum_and_normalized(self._graph, hidden, added, norm)

    def attention(self, normed: str, attention: CausalAttention, layer: int) -> str:
        return self._attention.attend(normed, attention, layer)

    def feed_forward(self, normed: str, feed_forward: FeedForward | GatedFeedForward) -> str:
        if isinstance(feed_forward, GatedFeedForward):
            prefix = feed_forward.up.weight.name.rsplit(".", 2)[0]
            gate, up = self._products.several(normed, prefix, gate=feed_forward.gate, up=feed_forward.up)
            expanded = self._graph.node("Mul", [activation(self._graph, gate, feed_forward.activation), up])
        else:
            up = self._products.linear(normed, feed_forward.up)
            expanded = activation(self._graph, up, feed_forward.activation)
        return self._products.linear(expanded, feed_forward.down)

    def asked_for(self, hidden: str, added: str) -> tuple[str, str]:
        g = self._graph
        kept = g.node("Unsqueeze", [g.overridable(KEPT, np.array(1, np.int64)), g.vector(0)])
        last = [g.node("Neg", [kept]), g.vector(_END), g.vector(1)]
        return g.node("Slice", [hidden, *last]), g.node("Slice", [added, *last])

    def logits(self, normed: str, model: DecoderModel) -> None:
        g = self._graph
        logits = self._products.logits(normed, model.head, model.tied)
        if model.soft_cap is not None:
            capped = g.node("Tanh", [g.node("Mul", [logits, g.number(1 / model.soft_cap)])])
            logits = g.node("Mul", [capped, g.number(model.soft_cap)])
        g.node("Identity", [logits], "logits")
        # What it is by default: onnxruntime-genai reads from it that prompts give one row.
        g.output("logits", FLOAT, (BATCH, 1, model.vocabulary))
        self._attention.outputs()
