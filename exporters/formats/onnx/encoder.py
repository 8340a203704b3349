"""The encoder family in ONNX, laid out for onnxruntime's CPU kernels on phones.

Fused by hand, as the runtime's own optimizer would only do in part: query, key and value are one matrix
product, MultiHeadAttention does scores, softmax and sum (without a mask, where there is no padding, in blocks that
stay in the cache), BiasGelu the bias of the product before it. The residual
is a Sum and a LayerNormalization: SkipLayerNormalization, into which the optimizer would fuse an Add, takes three
times as long. int8 products are DynamicQuantizeMatMul: our integers per output channel, activations quantized at
run time with one range for the tensor, in the feed-forward block with one for each token.
"""

from __future__ import annotations

import numpy as np

from exporters.architectures.blocks import (
    Activation,
    Attention,
    Embeddings,
    EncoderModel,
    FeedForward,
    GatedFeedForward,
    Linear,
    Norm,
    Pooling,
)
from exporters.architectures.weights import Quantized, Weight
from exporters.formats.onnx.activations import activation
from exporters.formats.onnx.attention import packed, scores, sequence_length
from exporters.formats.onnx.graph import BOOL, CONTRIB, FLOAT, INT32, INT64, Graph

_GELU_WITH_BIAS = {"gelu": "BiasGelu", "gelu_tanh": "FastGelu"}


class OnnxEncoderBuilder:
    """Implements `EncoderBuilder`; values are names of the graph."""

    def __init__(self, graph: Graph, model: EncoderModel) -> None:
        self._graph = graph
        self._outputs = model.outputs
        self._limit = model.max_length
        self._reuses_layers = len({layer.attention.output.weight.name for layer in model.layers}) < len(model.layers)
        self._copies = 0
        self._unpadded = ""
        self._length = ""

    def input(self, name: str) -> str:
        return self._graph.input(name, INT64, ("batch", "sequence"))

    def output(self, name: str, value: str) -> None:
        self._graph.node("Identity", [value], output=name)
        self._graph.output(name, FLOAT, self._outputs[name])

    def embed(self, embeddings: Embeddings, ids: str, token_types: str | None) -> str:
        self._length = sequence_length(self._graph, ids)
        hidden = self._rows(embeddings.words, ids)
        if embeddings.token_types:
            types = embeddings.token_types
            added = self._rows(types, token_types) if token_types else self._first_row(types)
            hidden = self._graph.node("Add", [hidden, added])
        if embeddings.positions:
            hidden = self._graph.node(
                "Add", [hidden, self._positions(embeddings.positions, embeddings.position_offset)]
            )
        normed = self.norm(hidden, embeddings.norm)
        return self.linear(normed, embeddings.projection) if embeddings.projection else normed

    def attention_mask(self, mask: str) -> str:
        """The mask (batch, sequence) as int32, 0 for padding; and whether there is any."""
        smallest = self._graph.node("ReduceMin", [mask], keepdims=0)
        self._unpadded = self._graph.node("Cast", [smallest], to=BOOL)
        return self._graph.node("Cast", [mask], to=INT32)

    def attention(self, hidden: str, attention: Attention, mask: str) -> str:
        qkv = self._graph.nodes("Split", [self.linear(hidden, packed(attention))], 3, axis=-1)
        context = scores(self._graph, qkv, attention, [mask], self._unpadded, self._length, self._limit)
        return self.linear(context, attention.output)

    def feed_forward(self, hidden: str, feed_forward: FeedForward | GatedFeedForward) -> str:
        if isinstance(feed_forward, GatedFeedForward):
            gate = self.activation(self._per_token(hidden, feed_forward.gate), feed_forward.activation)
            expanded = self._graph.node("Mul", [gate, self._per_token(hidden, feed_forward.up)])
        else:
            expanded = self._expanded(hidden, feed_forward)
        return self._per_token(expanded, feed_forward.down)

    def add(self, hidden: str, residual: str) -> str:
        return self._graph.node("Sum", [hidden, residual])

    def norm(self, hidden: str, norm: Norm) -> str:
        inputs = [hidden, self._float(norm.weight), self._norm_bias(norm)]
        return self._graph.node("LayerNormalization", inputs, epsilon=norm.eps, axis=-1)

    def first_token(self, hidden: str) -> str:
        index = self._graph.constant("first", np.array(0, np.int64))
        return self._graph.node("Gather", [hidden, index], axis=1)

    def linear(self, hidden: str, linear: Linear) -> str:
        weight = linear.weight
        if weight.quantized:
            return self._integer_product(hidden, weight.name, weight.quantized, linear.bias)
        transposed = self._stored(f"{weight.name}.T", np.ascontiguousarray(weight.floats.T))
        product = self._graph.node("MatMul", [hidden, transposed])
        return self._graph.node("Add", [product, self._float(linear.bias)]) if linear.bias else product

    def activation(self, hidden: str, kind: Activation) -> str:
        return activation(self._graph, hidden, kind)

    def pool(self, hidden: str, mask: str, pooling: Pooling) -> str:
        pooled = {"cls": self._pool_cls, "mean": self._pool_mean, "max": self._pool_max}[pooling.mode](hidden, mask)
        if not pooling.normalize:
            return pooled
        length = self._graph.node("ReduceL2", [pooled], axes=[-1], keepdims=1)
        smallest = self._graph.constant("smallest_length", np.array(1e-12, np.float32))
        return self._graph.node("Div", [pooled, self._graph.node("Max", [length, smallest])])

    def _integer_product(self, hidden: str, name: str, weight: Quantized, bias: Weight | None) -> str:
        g = self._graph
        integers = g.constant(f"{name}.T", np.ascontiguousarray(weight.integers.T))
        if self._reuses_layers:
            integers = self._copy(integers, weight.shape[1])
        scale = g.constant(f"{name}.scale", weight.scale[:, 0])
        inputs = [hidden, integers, scale] + (["", self._float(bias)] if bias else [])
        return g.node("DynamicQuantizeMatMul", inputs, domain=CONTRIB)

    def _copy(self, integers: str, rows: int) -> str:
        """The whole of a constant, as a tensor of this use alone once the file is loaded: onnxruntime changes weights
        for some processors, and refuses to do so twice. Each slice ends elsewhere beyond the last row, or equal ones
        would be made one again."""
        g, self._copies = self._graph, self._copies + 1
        return g.node("Slice", [integers, g.vector(0), g.vector(rows + self._copies), g.vector(0)])

    def _per_token(self, hidden: str, linear: Linear) -> str:
        """A product whose int8 activations are rounded token by token. A few tokens carry values fifty times larger
        than the rest; with one range for all, the others would keep two bits. Rows are divided by their largest
        entry before the product and multiplied by it after."""
        if not linear.weight.quantized:
            return self.linear(hidden, linear)
        g = self._graph
        smallest = g.constant("smallest_range", np.array(1e-20, np.float32))
        largest = g.node("ReduceMax", [g.node("Abs", [hidden])], axes=[-1], keepdims=1)
        scale = g.node("Max", [largest, smallest])
        product = self.linear(g.node("Div", [hidden, scale]), Linear(linear.weight))
        product = g.node("Mul", [product, scale])
        return g.node("Add", [product, self._float(linear.bias)]) if linear.bias else product

    def _rows(self, table: Weight, ids: str) -> str:
        """Rows of a table; of an integer table the few that are looked up are dequantized."""
        g = self._graph
        if not table.quantized:
            return g.node("Gather", [self._float(table), ids], axis=0)
        integers = g.node("Gather", [g.constant(table.name, table.quantized.integers), ids], axis=0)
        scale = g.node("Gather", [g.constant(f"{table.name}.scale", table.quantized.scale), ids], axis=0)
        return g.node("Mul", [g.node("Cast", [integers], to=FLOAT), scale])

    def _first_row(self, table: Weight) -> str:
        return self._graph.node("Gather", [self._float(table), self._graph.constant("first", np.array(0, np.int64))])

    def _positions(self, table: Weight, offset: int) -> str:
        """The rows of the table from `offset` on, as many as the sequence has: (sequence, width)."""
        g = self._graph
        end = g.node("Add", [self._length, g.vector(offset)]) if offset else self._length
        return g.node("Slice", [self._float(table), g.vector(offset), end, g.vector(0)])

    def _expanded(self, hidden: str, feed_forward: FeedForward) -> str:
        up, kind = feed_forward.up, feed_forward.activation
        if not up.bias or kind not in _GELU_WITH_BIAS:
            return self.activation(self._per_token(hidden, up), kind)
        product = self._per_token(hidden, Linear(up.weight))
        return self._graph.node(_GELU_WITH_BIAS[kind], [product, self._float(up.bias)], domain=CONTRIB)

    def _norm_bias(self, norm: Norm) -> str:
        if norm.bias:
            return self._float(norm.bias)
        return self._graph.constant(f"{norm.weight.name}.no_bias", np.zeros(norm.weight.shape, np.float32))

    def _float(self, weight: Weight) -> str:
        return self._stored(weight.name, weight.floats)

    def _stored(self, name: str, values: np.ndarray) -> str:
        """A float constant as it is stored; float16 is widened when the model is loaded."""
        stored = self._graph.constant(name, values)
        if values.dtype == np.float32:
            return stored
        return self._graph.shared(f"{name}.float32", lambda: self._graph.node("Cast", [stored], to=FLOAT))

    def _pool_cls(self, hidden: str, mask: str) -> str:
        return self.first_token(hidden)

    def _pool_mean(self, hidden: str, mask: str) -> str:
        g = self._graph
        weights = self._mask_column(mask)
        total = g.node("ReduceSum", [g.node("Mul", [hidden, weights]), g.vector(1)], keepdims=0)
        count = g.node("ReduceSum", [weights, g.vector(1)], keepdims=0)
        return g.node("Div", [total, count])

    def _pool_max(self, hidden: str, mask: str) -> str:
        """Padding is pushed below every real value before the maximum is taken."""
        g = self._graph
        lowest = g.constant("lowest", np.array(np.finfo(np.float32).min, np.float32))
        real = g.node("Cast", [self._mask_column(mask)], to=BOOL)
        return g.node("ReduceMax", [g.node("Where", [real, hidden, lowest])], axes=[1], keepdims=0)

    def _mask_column(self, mask: str) -> str:
        """The mask as float, (batch, sequence, 1)."""
        return self._graph.node("Unsqueeze", [self._graph.node("Cast", [mask], to=FLOAT), self._graph.vector(2)])
