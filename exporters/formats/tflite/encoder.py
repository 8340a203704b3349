"""The encoder family in TFLite, for one static sequence length and a batch of one.

Laid out for XNNPACK, and so that the GPU and NPU compilers take all but the lookups: two-dimensional hidden
states (sequence, hidden), an additive float mask, no gather, broadcast or boolean operator inside. int8 layers
hold our integers per channel; their activations stay float in the file and are quantized per row by the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from exporters.architectures.weights import Weight
from exporters.formats.tflite.flatbuffer import Ops, Subgraph, Types, options

# What padding's scores get added. exp(-10000) is 0 in float32, and float16 can still hold the sum.
_MASKED = 1e4
_NO_BIAS = -1
_BINARY = {"Add": Ops.ADD, "Sub": Ops.SUB, "Mul": Ops.MUL, "Div": Ops.DIV}


class TfliteEncoderBuilder:
    """Implements `EncoderBuilder` over one subgraph; values are tensor indices."""

    def __init__(self, graph: Subgraph, length: int) -> None:
        self._graph = graph
        self._length = length
        self._wide: dict[str, int] = {}

    def input(self, name: str) -> int:
        return self._graph.input(name, (1, self._length))

    def output(self, name: str, value: int) -> None:
        """`last_hidden_state` is left out: phones want the pooled vector."""
        if name != "last_hidden_state":
            self._graph.output(name, value)

    def embed(self, embeddings: Embeddings, ids: int, token_types: int | None) -> int:
        hidden = self._lookup(embeddings.words, ids)
        if embeddings.token_types and token_types is not None:
            hidden = self._binary("Add", hidden, self._lookup(embeddings.token_types, token_types))
        table = self._float(embeddings.positions)
        positions = self._slice(table, (embeddings.position_offset, 0), (self._length, self._width(table)))
        return self._norm(self._binary("Add", hidden, positions), embeddings.norm)

    def attention_mask(self, mask: int) -> int:
        """(1, 1, sequence) to add to scores: 0 for tokens, a large negative number for padding."""
        shifted = self._binary("Sub", self._cast(mask), self._graph.number(1.0))
        scaled = self._binary("Mul", shifted, self._graph.number(_MASKED))
        return self._reshape(scaled, (1, 1, self._length))

    def attention(self, hidden: int, attention: Attention, mask: int) -> int:
        query = self._heads(self._scaled_query(hidden, attention), attention)
        key = self._heads(self.linear(hidden, attention.key), attention)
        value = self._heads(self.linear(hidden, attention.value), attention)
        scores = self._binary("Add", self._matmul(query, key, transpose=True), mask)
        weights = self._graph.op(Ops.SOFTMAX, [scores], self._graph.shape(scores), options("Softmax", beta=1.0))
        context = self._transpose(self._matmul(weights, value), (1, 0, 2))
        merged = self._reshape(context, (self._length, attention.heads * attention.head_dim))
        return self.linear(merged, attention.output)

    def feed_forward(self, hidden: int, feed_forward: FeedForward) -> int:
        expanded = self.activation(self.linear(hidden, feed_forward.up), feed_forward.activation)
        return self.linear(expanded, feed_forward.down)

    def add_norm(self, hidden: int, residual: int, norm: Norm) -> int:
        return self._norm(self._binary("Add", hidden, residual), norm)

    def first_token(self, hidden: int) -> int:
        return self._slice(hidden, (0, 0), (1, self._width(hidden)))

    def linear(self, hidden: int, linear: Linear) -> int:
        weight = linear.weight
        stored = self._graph.integers(weight.name, weight.quantized) if weight.quantized else self._float(weight)
        bias = self._float(linear.bias) if linear.bias else _NO_BIAS
        shape = (*self._graph.shape(hidden)[:-1], weight.shape[0])
        settings = options("FullyConnected", keepNumDims=True, asymmetricQuantizeInputs=True)
        # Version 9 is the first with per-channel integer weights over float activations.
        version = 9 if weight.quantized else 1
        return self._graph.op(Ops.FULLY_CONNECTED, [hidden, stored, bias], shape, settings, version)

    def activation(self, hidden: int, kind: Activation) -> int:
        if kind in ("gelu", "gelu_tanh"):
            settings = options("Gelu", approximate=kind == "gelu_tanh")
            return self._graph.op(Ops.GELU, [hidden], self._graph.shape(hidden), settings)
        if kind == "silu":
            return self._binary("Mul", hidden, self._unary(Ops.LOGISTIC, hidden))
        return self._unary({"relu": Ops.RELU, "tanh": Ops.TANH}[kind], hidden)

    def pool(self, hidden: int, mask: int, pooling: Pooling) -> int:
        pooled = self._pooled(hidden, mask, pooling)
        if not pooling.normalize:
            return pooled
        square = self._reduce(Ops.SUM, self._binary("Mul", pooled, pooled), 1)
        safe = self._graph.op(Ops.MAXIMUM, [square, self._graph.number(1e-24)], (1, 1), options("MaximumMinimum"))
        return self._binary("Mul", pooled, self._unary(Ops.RSQRT, safe))

    def _pooled(self, hidden: int, mask: int, pooling: Pooling) -> int:
        if pooling.mode == "cls":
            return self.first_token(hidden)
        column = self._reshape(self._cast(mask), (self._length, 1))
        if pooling.mode == "mean":
            total = self._reduce(Ops.SUM, self._binary("Mul", hidden, column), 0)
            return self._binary("Div", total, self._reduce(Ops.SUM, column, 0))
        below = self._binary("Sub", column, self._graph.number(1.0))
        pushed = self._binary("Add", hidden, self._binary("Mul", below, self._graph.number(_MASKED)))
        return self._reduce(Ops.REDUCE_MAX, pushed, 0)

    def _scaled_query(self, hidden: int, attention: Attention) -> int:
        scale = self._graph.number(float(np.float32(attention.head_dim**-0.5)))
        return self._binary("Mul", self.linear(hidden, attention.query), scale)

    def _heads(self, value: int, attention: Attention) -> int:
        """(sequence, hidden) -> (heads, sequence, head_dim)."""
        split = self._reshape(value, (self._length, attention.heads, attention.head_dim))
        return self._transpose(split, (1, 0, 2))

    def _norm(self, hidden: int, norm: Norm) -> int:
        mean = self._reduce(Ops.MEAN, hidden, 1)
        centered = self._binary("Sub", hidden, mean)
        variance = self._reduce(Ops.MEAN, self._binary("Mul", centered, centered), 1)
        inverse = self._unary(Ops.RSQRT, self._binary("Add", variance, self._graph.number(norm.eps)))
        scaled = self._binary("Mul", self._binary("Mul", centered, inverse), self._float(norm.weight))
        return self._binary("Add", scaled, self._float(norm.bias)) if norm.bias else scaled

    def _lookup(self, table: Weight, ids: int) -> int:
        """Rows of a table: (1, sequence) -> (sequence, hidden)."""
        flat = self._reshape(ids, (self._length,), Types.INT32)
        shape = (self._length, table.shape[1])
        if table.quantized:
            rows = [flat, self._graph.integers(table.name, table.quantized)]
            return self._graph.op(Ops.EMBEDDING_LOOKUP, rows, shape, version=4)
        stored = self._graph.constant(table.name, table.floats)
        if table.floats.dtype == np.float32:
            return self._graph.op(Ops.EMBEDDING_LOOKUP, [flat, stored], shape)
        # Only the rows that were looked up are widened, not the table.
        rows16 = self._graph.op(Ops.GATHER, [stored, flat], shape, options("Gather"), dtype=Types.FLOAT16)
        return self._dequantize(rows16)

    def _float(self, weight: Weight) -> int:
        """A float constant; float16 is widened, once, when the file is loaded."""
        stored = self._graph.constant(weight.name, weight.floats)
        if weight.floats.dtype == np.float32:
            return stored
        if weight.name not in self._wide:
            self._wide[weight.name] = self._dequantize(stored)
        return self._wide[weight.name]

    def _dequantize(self, tensor: int) -> int:
        shape = self._graph.shape(tensor)
        return self._graph.op(Ops.DEQUANTIZE, [tensor], shape, options("Dequantize"), version=3)

    def _binary(self, kind: str, a: int, b: int) -> int:
        shape = np.broadcast_shapes(self._graph.shape(a), self._graph.shape(b))
        return self._graph.op(_BINARY[kind], [a, b], shape, options(kind))

    def _unary(self, op: int, a: int) -> int:
        return self._graph.op(op, [a], self._graph.shape(a))

    def _cast(self, a: int) -> int:
        settings = options("Cast", inDataType=Types.INT32, outDataType=Types.FLOAT32)
        return self._graph.op(Ops.CAST, [a], self._graph.shape(a), settings)

    def _reduce(self, op: int, a: int, axis: int) -> int:
        """Reduce one axis and keep it with size 1."""
        shape = list(self._graph.shape(a))
        shape[axis] = 1
        return self._graph.op(op, [a, self._graph.ints(axis)], shape, options("Reducer", keepDims=True))

    def _reshape(self, a: int, shape: Sequence[int], dtype: int = Types.FLOAT32) -> int:
        settings = options("Reshape", newShape=np.array(shape, np.int32))
        return self._graph.op(Ops.RESHAPE, [a, self._graph.ints(*shape)], shape, settings, dtype=dtype)

    def _transpose(self, a: int, order: Sequence[int]) -> int:
        shape = [self._graph.shape(a)[axis] for axis in order]
        return self._graph.op(Ops.TRANSPOSE, [a, self._graph.ints(*order)], shape, options("Transpose"))

    def _slice(self, a: int, begin: Sequence[int], size: Sequence[int]) -> int:
        inputs = [a, self._graph.ints(*begin), self._graph.ints(*size)]
        return self._graph.op(Ops.SLICE, inputs, size, options("Slice"))

    def _matmul(self, a: int, b: int, transpose: bool = False) -> int:
        rows, columns = self._graph.shape(a)[-2], self._graph.shape(b)[-2 if transpose else -1]
        settings = options("BatchMatMul", adjX=False, adjY=transpose)
        return self._graph.op(Ops.BATCH_MATMUL, [a, b], (*self._graph.shape(a)[:-2], rows, columns), settings)

    def _width(self, a: int) -> int:
        return self._graph.shape(a)[-1]
