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
    FeedForward,
    Linear,
    Norm,
    Pooling,
)
from exporters.architectures.weights import Quantized, Weight
from exporters.formats.onnx.graph import BOOL, CONTRIB, FLOAT, INT32, INT64, Graph

_GELU_WITH_BIAS = {"gelu": "BiasGelu", "gelu_tanh": "FastGelu"}


class OnnxEncoderBuilder:
    """Implements `EncoderBuilder`; values are names of the graph."""

    def __init__(self, graph: Graph, outputs: dict[str, tuple[int | str, ...]]) -> None:
        self._graph = graph
        self._outputs = outputs
        self._unpadded = ""

    def input(self, name: str) -> str:
        return self._graph.input(name, INT64, ("batch", "sequence"))

    def output(self, name: str, value: str) -> None:
        self._graph.node("Identity", [value], output=name)
        self._graph.output(name, FLOAT, self._outputs[name])

    def embed(self, embeddings: Embeddings, ids: str, token_types: str | None) -> str:
        hidden = self._rows(embeddings.words, ids)
        if embeddings.token_types and token_types:
            hidden = self._graph.node("Add", [hidden, self._rows(embeddings.token_types, token_types)])
        hidden = self._graph.node("Add", [hidden, self._positions(embeddings, ids)])
        return self._norm(hidden, embeddings.norm)

    def attention_mask(self, mask: str) -> str:
        """The mask (batch, sequence) as int32, 0 for padding; and whether there is any."""
        smallest = self._graph.node("ReduceMin", [mask], keepdims=0)
        self._unpadded = self._graph.node("Cast", [smallest], to=BOOL)
        return self._graph.node("Cast", [mask], to=INT32)

    def attention(self, hidden: str, attention: Attention, mask: str) -> str:
        packed = self.linear(hidden, _packed(attention))
        query, key, value = self._graph.nodes("Split", [packed], 3, axis=-1)
        unpadded, padded = [query, key, value], [query, key, value, "", mask]
        context = self._graph.either(
            self._unpadded, [unpadded, padded], "MultiHeadAttention", num_heads=attention.heads
        )
        return self.linear(context, attention.output)

    def feed_forward(self, hidden: str, feed_forward: FeedForward) -> str:
        up, kind = feed_forward.up, feed_forward.activation
        if up.bias and kind in _GELU_WITH_BIAS:
            product = self._per_token(hidden, Linear(up.weight))
            expanded = self._graph.node(_GELU_WITH_BIAS[kind], [product, self._float(up.bias)], domain=CONTRIB)
        else:
            expanded = self.activation(self._per_token(hidden, up), kind)
        return self._per_token(expanded, feed_forward.down)

    def add_norm(self, hidden: str, residual: str, norm: Norm) -> str:
        return self._norm(self._graph.node("Sum", [hidden, residual]), norm)

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
        if kind == "gelu":
            return self._graph.node("Gelu", [hidden], domain=CONTRIB)
        if kind == "gelu_tanh":
            return self._graph.node("FastGelu", [hidden], domain=CONTRIB)
        if kind == "silu":
            return self._graph.node("Mul", [hidden, self._graph.node("Sigmoid", [hidden])])
        return self._graph.node({"relu": "Relu", "tanh": "Tanh"}[kind], [hidden])

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
        scale = g.constant(f"{name}.scale", weight.scale[:, 0])
        inputs = [hidden, integers, scale] + (["", self._float(bias)] if bias else [])
        return g.node("DynamicQuantizeMatMul", inputs, domain=CONTRIB)

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

    def _positions(self, embeddings: Embeddings, ids: str) -> str:
        """The first rows of the table, as many as the sequence has: (sequence, hidden)."""
        g, offset = self._graph, embeddings.position_offset
        length = g.node("Slice", [g.node("Shape", [ids]), g.vector(1), g.vector(2)])
        end = g.node("Add", [length, g.vector(offset)]) if offset else length
        return g.node("Slice", [self._float(embeddings.positions), g.vector(offset), end, g.vector(0)])

    def _norm(self, hidden: str, norm: Norm) -> str:
        inputs = [hidden, self._float(norm.weight), self._norm_bias(norm)]
        return self._graph.node("LayerNormalization", inputs, epsilon=norm.eps, axis=-1)

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
        return self._graph.once("Cast", stored, f"{name}.float32", to=FLOAT)

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


def _packed(attention: Attention) -> Linear:
    """Query, key and value as one product: their rows one after the other, scales too."""
    parts = (attention.query, attention.key, attention.value)
    first = attention.query.weight
    name = first.name.replace("query", "query_key_value")
    return Linear(_joined(name, [part.weight for part in parts]), _joined_bias(name, parts))


def _joined(name: str, weights: list[Weight]) -> Weight:
    quantized = [weight.quantized for weight in weights if weight.quantized]
    if not quantized:
        return Weight(name, np.concatenate([weight.floats for weight in weights]))
    integers = np.concatenate([q.integers for q in quantized])
    return Weight(name, Quantized(integers, np.concatenate([q.scale for q in quantized]), quantized[0].bits))


def _joined_bias(name: str, parts: tuple[Linear, ...]) -> Weight | None:
    biases = [part.bias for part in parts if part.bias]
    return _joined(name.replace("weight", "bias"), biases) if biases else None
