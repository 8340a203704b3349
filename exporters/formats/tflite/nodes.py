"""Operators in the words of the builders: shapes are worked out, options filled in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from exporters.architectures.weights import Weight
from exporters.formats.tflite.flatbuffer import Ops, Subgraph, Types, options

_BINARY = {"Add": Ops.ADD, "Sub": Ops.SUB, "Mul": Ops.MUL, "Div": Ops.DIV}


class Nodes:
    """Adds operators to a subgraph; values are tensor indices."""

    def __init__(self, graph: Subgraph) -> None:
        self.graph = graph
        self._wide: dict[str, int] = {}

    def floats(self, weight: Weight) -> int:
        """A float constant; float16 is widened, once, when the file is loaded."""
        stored = self.graph.constant(weight.name, weight.floats)
        if weight.floats.dtype == np.float32:
            return stored
        if weight.name not in self._wide:
            self._wide[weight.name] = self.dequantize(stored)
        return self._wide[weight.name]

    def dequantize(self, tensor: int) -> int:
        return self.graph.op(Ops.DEQUANTIZE, [tensor], self.graph.shape(tensor), options("Dequantize"), version=3)

    def binary(self, kind: str, a: int, b: int, dtype: int = Types.FLOAT32) -> int:
        shape = np.broadcast_shapes(self.graph.shape(a), self.graph.shape(b))
        return self.graph.op(_BINARY[kind], [a, b], shape, options(kind), dtype=dtype)

    def unary(self, op: int, a: int) -> int:
        return self.graph.op(op, [a], self.graph.shape(a))

    def scaled(self, a: int, factor: float) -> int:
        return self.binary("Mul", a, self.graph.number(float(np.float32(factor))))

    def smaller(self, a: int, bound: float) -> int:
        """min(a, bound)"""
        return self.graph.op(Ops.MINIMUM, [a, self.graph.number(bound)], self.graph.shape(a), options("MaximumMinimum"))

    def larger(self, a: int, bound: float) -> int:
        """max(a, bound)"""
        return self.graph.op(Ops.MAXIMUM, [a, self.graph.number(bound)], self.graph.shape(a), options("MaximumMinimum"))

    def cast(self, a: int) -> int:
        settings = options("Cast", inDataType=Types.INT32, outDataType=Types.FLOAT32)
        return self.graph.op(Ops.CAST, [a], self.graph.shape(a), settings)

    def reduce(self, op: int, a: int, axis: int) -> int:
        """Reduce one axis and keep it with size 1."""
        shape = list(self.graph.shape(a))
        shape[axis] = 1
        return self.graph.op(op, [a, self.graph.ints(axis)], shape, options("Reducer", keepDims=True))

    def reshape(self, a: int, shape: Sequence[int], dtype: int = Types.FLOAT32) -> int:
        if math.prod(shape) != math.prod(self.graph.shape(a)):
            raise ValueError(f"{self.graph.shape(a)} has not as many entries as {tuple(shape)}")
        return self.graph.op(Ops.RESHAPE, [a, self.graph.ints(*shape)], shape, options("Reshape"), dtype=dtype)

    def transpose(self, a: int, order: Sequence[int]) -> int:
        shape = [self.graph.shape(a)[axis] for axis in order]
        return self.graph.op(Ops.TRANSPOSE, [a, self.graph.ints(*order)], shape, options("Transpose"))

    def slice(self, a: int, begin: Sequence[int], size: Sequence[int], dtype: int = Types.FLOAT32) -> int:
        inputs = [a, self.graph.ints(*begin), self.graph.ints(*size)]
        return self.graph.op(Ops.SLICE, inputs, size, options("Slice"), dtype=dtype)

    def gather(self, table: int, rows: int, axis: int) -> int:
        shape = list(self.graph.shape(table))
        shape[axis] = self.graph.shape(rows)[0]
        return self.graph.op(Ops.GATHER, [table, rows], shape, options("Gather", axis=axis))

    def rows(self, a: int, first: int, count: int) -> int:
        """`count` entries of the first axis of two."""
        return self.span(a, 0, first, count)

    def columns(self, a: int, first: int, count: int) -> int:
        """`count` entries of the last axis."""
        return self.span(a, len(self.graph.shape(a)) - 1, first, count)

    def span(self, a: int, axis: int, first: int, count: int) -> int:
        """`count` entries of an axis."""
        begin, size = [0] * len(self.graph.shape(a)), list(self.graph.shape(a))
        begin[axis], size[axis] = first, count
        return self.slice(a, begin, size)

    def concatenate(self, *parts: int, axis: int = -1) -> int:
        shape = list(self.graph.shape(parts[0]))
        shape[axis] = sum(self.graph.shape(part)[axis] for part in parts)
        return self.graph.op(Ops.CONCATENATION, parts, shape, options("Concatenation", axis=axis % len(shape)))

    def matmul(self, a: int, b: int, transpose: bool = False) -> int:
        rows, columns = self.graph.shape(a)[-2], self.graph.shape(b)[-2 if transpose else -1]
        settings = options("BatchMatMul", adjX=False, adjY=transpose)
        return self.graph.op(Ops.BATCH_MATMUL, [a, b], (*self.graph.shape(a)[:-2], rows, columns), settings)

    def softmax(self, a: int) -> int:
        return self.graph.op(Ops.SOFTMAX, [a], self.graph.shape(a), options("Softmax", beta=1.0))
