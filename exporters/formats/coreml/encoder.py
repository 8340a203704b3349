"""The encoder family as a MIL program, for any sequence length and a batch of one.

The program is built with the precision it is to have: float16 constants and arithmetic are written as such,
so no conversion pass has to find them. Safe in float16: the mask's constant fits, the mean is taken with weights
that sum to one, vectors are scaled by their largest entry before squaring. On the Neural Engine the lookups, the
mask and the shape arithmetic fall to the CPU, and a flexible length runs there at its default only.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

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
from exporters.formats.coreml.attention import Scores

# What padding's scores get added: exp(-10000) is 0, and float16 can still hold the sum.
_MASKED = 1e4
# float16 holds no smaller number; 1e-12 would be written as 0, and a constant row would divide by it.
_SMALLEST_EPSILON = 2.0**-24
_GELU = {"gelu": "EXACT", "gelu_tanh": "TANH_APPROXIMATION"}


class MilEncoderBuilder:
    """Implements `EncoderBuilder` inside a MIL function; values are its variables."""

    def __init__(self, inputs: dict[str, Any], dtype: type[np.floating[Any]], limit: int, kept: Container[str]) -> None:
        self._inputs = inputs
        self._dtype = dtype
        self._kept = kept
        self._scores = Scores(dtype, limit)
        self._constants: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def input(self, name: str) -> Any:
        return self._inputs[name]

    def output(self, name: str, value: Any) -> None:
        """Outputs are float32, whatever is computed in; those that are not kept are left out."""
        if name in self._kept:
            narrow = self._dtype != np.float32
            self.outputs[name] = (
                mb.cast(x=value, dtype="fp32", name=name) if narrow else mb.identity(x=value, name=name)
            )

    def embed(self, embeddings: Embeddings, ids: Any, token_types: Any | None) -> Any:
        length = mb.slice_by_index(x=mb.shape(x=ids), begin=[1], end=[2])
        self._scores.set_length(length)
        hidden = mb.gather(x=self._weight(embeddings.words), indices=ids, axis=0)
        if embeddings.token_types:
            table = self._weight(embeddings.token_types)
            rows = np.array([[0]], np.int32) if token_types is None else token_types
            hidden = mb.add(x=hidden, y=mb.gather(x=table, indices=rows, axis=0))
        if embeddings.positions:
            hidden = mb.add(x=hidden, y=self._positions(embeddings.positions, embeddings.position_offset, length))
        normed = self.norm(hidden, embeddings.norm)
        return self.linear(normed, embeddings.projection) if embeddings.projection else normed

    def attention_mask(self, mask: Any) -> Any:
        """(1, 1, 1, S) to add to scores."""
        masked = mb.mul(x=mb.sub(x=self._float(mask), y=self._number(1)), y=self._number(_MASKED))
        return mb.expand_dims(x=masked, axes=[1, 2])

    def attention(self, hidden: Any, attention: Attention, mask: Any) -> Any:
        query, key, value = (self.linear(hidden, x) for x in (attention.query, attention.key, attention.value))
        return self.linear(self._scores.context(query, key, value, attention, mask), attention.output)

    def feed_forward(self, hidden: Any, feed_forward: FeedForward | GatedFeedForward) -> Any:
        if isinstance(feed_forward, GatedFeedForward):
            gate = self.activation(self.linear(hidden, feed_forward.gate), feed_forward.activation)
            expanded = mb.mul(x=gate, y=self.linear(hidden, feed_forward.up))
        else:
            expanded = self.activation(self.linear(hidden, feed_forward.up), feed_forward.activation)
        return self.linear(expanded, feed_forward.down)

    def add(self, hidden: Any, residual: Any) -> Any:
        return mb.add(x=hidden, y=residual)

    def norm(self, hidden: Any, norm: Norm) -> Any:
        epsilon = norm.eps if self._dtype == np.float32 else max(norm.eps, _SMALLEST_EPSILON)
        gamma = self._weight(norm.weight)
        if norm.bias is None:
            return mb.layer_norm(x=hidden, axes=[-1], gamma=gamma, epsilon=self._dtype(epsilon))
        beta = self._weight(norm.bias)
        return mb.layer_norm(x=hidden, axes=[-1], gamma=gamma, beta=beta, epsilon=self._dtype(epsilon))

    def first_token(self, hidden: Any) -> Any:
        first = mb.slice_by_index(x=hidden, begin=[0, 0, 0], end=[1, 1, hidden.shape[-1]])
        return mb.squeeze(x=first, axes=[1])

    def linear(self, hidden: Any, linear: Linear) -> Any:
        if linear.bias is None:
            return mb.linear(x=hidden, weight=self._weight(linear.weight))
        return mb.linear(x=hidden, weight=self._weight(linear.weight), bias=self._weight(linear.bias))

    def activation(self, hidden: Any, kind: Activation) -> Any:
        if kind in _GELU:
            return mb.gelu(x=hidden, mode=_GELU[kind])
        return {"relu": mb.relu, "silu": mb.silu, "tanh": mb.tanh}[kind](x=hidden)

    def pool(self, hidden: Any, mask: Any, pooling: Pooling) -> Any:
        vector = self._pooled(hidden, mask, pooling)
        if not pooling.normalize:
            return vector
        largest = mb.reduce_max(x=mb.abs(x=vector), axes=[-1], keep_dims=True)
        scaled = mb.real_div(x=vector, y=mb.maximum(x=largest, y=self._number(_SMALLEST_EPSILON)))
        square = mb.reduce_sum(x=mb.mul(x=scaled, y=scaled), axes=[-1], keep_dims=True)
        return mb.real_div(x=scaled, y=mb.sqrt(x=square))

    def _pooled(self, hidden: Any, mask: Any, pooling: Pooling) -> Any:
        if pooling.mode == "cls":
            return self.first_token(hidden)
        real = self._float(mask)
        if pooling.mode == "mean":
            count = mb.reduce_sum(x=real, axes=[-1], keep_dims=True)
            weights = mb.expand_dims(x=mb.real_div(x=real, y=count), axes=[1])
            return mb.squeeze(x=mb.matmul(x=weights, y=hidden), axes=[1])
        below = mb.mul(x=mb.sub(x=real, y=self._number(1)), y=self._number(_MASKED))
        pushed = mb.add(x=hidden, y=mb.expand_dims(x=below, axes=[2]))
        return mb.reduce_max(x=pushed, axes=[1], keep_dims=False)

    def _positions(self, table: Weight, offset: int, length: Any) -> Any:
        """As many rows of the table as the sequence is long: (S, width)."""
        end = mb.add(x=length, y=np.array([offset], np.int32)) if offset else length
        width = np.array([table.shape[1]], np.int32)
        return mb.slice_by_index(x=self._weight(table), begin=[offset, 0], end=mb.concat(values=[end, width], axis=0))

    def _weight(self, weight: Weight) -> Any:
        """A constant under the checkpoint's name; integers are widened by the system where it needs them."""
        if weight.name not in self._constants:
            self._constants[weight.name] = self._new_weight(weight)
        return self._constants[weight.name]

    def _new_weight(self, weight: Weight) -> Any:
        quantized = weight.quantized
        if not quantized:
            return mb.const(val=weight.float32().astype(self._dtype, copy=False), name=weight.name)
        return mb.constexpr_affine_dequantize(
            quantized_data=quantized.integers,
            zero_point=np.int8(0),
            scale=quantized.scale[:, 0].astype(self._dtype),
            axis=np.int32(0),
            name=weight.name,
        )

    def _float(self, value: Any) -> Any:
        return mb.cast(x=value, dtype="fp32" if self._dtype == np.float32 else "fp16")

    def _number(self, value: float) -> Any:
        return self._dtype(value)
