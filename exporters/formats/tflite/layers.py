"""What encoders and decoders are both made of: linear layers, activations, layer normalization, lookups.

Weights are float32, float16 (widened when the file is loaded), int8 with a scale per row, or 4 bits with a scale per
block of a row. The activations of integer layers stay float in the file: the kernel rounds them, row by row.
"""

from __future__ import annotations

import numpy as np

from exporters.architectures.blocks import Activation, Linear, Norm
from exporters.architectures.weights import Weight
from exporters.formats.tflite.flatbuffer import Ops, Types, options
from exporters.formats.tflite.nodes import Nodes
from mobile_llm.errors import UnsupportedModel

_NO_BIAS = -1
# The first version of FULLY_CONNECTED with integer weights per row over float activations; XNNPACK alone has blocks.
_INTEGERS_VERSION = 9
_BLOCK = 32  # XNNPACK's blocks are multiples of it


class Layers:
    """Adds layers to the subgraph of `nodes`; values are tensor indices."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._graph = nodes.graph

    def linear(self, hidden: int, linear: Linear) -> int:
        """(…, in) -> (…, out)"""
        weight = linear.weight
        if weight.quantized and linear.center is not None:
            hidden = self._nodes.binary("Sub", hidden, self._graph.constant(f"{weight.name} center", linear.center))
            bias = self._graph.constant(f"{weight.name} at its center", linear.at_center)
        else:
            bias = self._nodes.floats(linear.bias) if linear.bias else _NO_BIAS
        if weight.quantized and linear.outliers_beyond is not None:
            return self._outliers_apart(hidden, weight, bias, linear.outliers_beyond)
        return self._product(hidden, weight, bias)

    def _product(self, hidden: int, weight: Weight, bias: int) -> int:
        shape = (*self._graph.shape(hidden)[:-1], weight.shape[0])
        settings = options("FullyConnected", keepNumDims=True, asymmetricQuantizeInputs=True)
        version = _INTEGERS_VERSION if weight.quantized else 1
        return self._graph.op(Ops.FULLY_CONNECTED, [hidden, self._stored(weight), bias], shape, settings, version)

    def _outliers_apart(self, hidden: int, weight: Weight, bias: int, bound: float) -> int:
        """Rows (count, in) within the bound and, behind them, what is left of each: one product, so that weights are
        read once, whose halves are added up."""
        n, count = self._nodes, self._graph.shape(hidden)[0]
        within = n.smaller(n.larger(hidden, -bound), bound)
        both = self._product(n.concatenate(within, n.binary("Sub", hidden, within), axis=0), weight, _NO_BIAS)
        total = n.binary("Add", n.rows(both, 0, count), n.rows(both, count, count))
        return total if bias == _NO_BIAS else n.binary("Add", total, bias)

    def activation(self, hidden: int, kind: Activation) -> int:
        if kind in ("gelu", "gelu_tanh"):
            settings = options("Gelu", approximate=kind == "gelu_tanh")
            return self._graph.op(Ops.GELU, [hidden], self._graph.shape(hidden), settings)
        if kind == "silu":
            return self._nodes.binary("Mul", hidden, self._nodes.unary(Ops.LOGISTIC, hidden))
        return self._nodes.unary({"relu": Ops.RELU, "tanh": Ops.TANH}[kind], hidden)

    def norm(self, hidden: int, norm: Norm) -> int:
        """Over the last axis of two."""
        n = self._nodes
        centered = n.binary("Sub", hidden, n.reduce(Ops.MEAN, hidden, 1))
        variance = n.reduce(Ops.MEAN, n.binary("Mul", centered, centered), 1)
        inverse = n.unary(Ops.RSQRT, n.binary("Add", variance, self._graph.number(norm.eps)))
        scaled = n.binary("Mul", n.binary("Mul", centered, inverse), n.floats(norm.weight))
        return n.binary("Add", scaled, n.floats(norm.bias)) if norm.bias else scaled

    def lookup(self, table: Weight, rows: int) -> int:
        """Rows of a table: (count,) -> (count, width)."""
        shape = (*self._graph.shape(rows), table.shape[1])
        if table.quantized:
            return self._graph.op(Ops.EMBEDDING_LOOKUP, [rows, self._stored(table)], shape, version=4)
        stored = self._graph.constant(table.name, table.floats)
        if table.floats.dtype == np.float32:
            return self._graph.op(Ops.EMBEDDING_LOOKUP, [rows, stored], shape)
        # Only the rows that were looked up are widened, not the table.
        rows16 = self._graph.op(Ops.GATHER, [stored, rows], shape, options("Gather"), dtype=Types.FLOAT16)
        return self._nodes.dequantize(rows16)

    def _stored(self, weight: Weight) -> int:
        quantized = weight.quantized
        if quantized is None:
            return self._nodes.floats(weight)
        if quantized.bits == 8 and quantized.per_channel:
            return self._graph.integers(weight.name, quantized)
        if quantized.bits == 4 and quantized.block % _BLOCK == 0:
            return self._graph.blocks(weight.name, quantized)
        raise UnsupportedModel(
            f"{weight.name}: TFLite has no {quantized.bits}-bit integers in blocks of {quantized.block}; "
            f"it has 8 bits per channel, and 4 bits in blocks of a multiple of {_BLOCK}"
        )
