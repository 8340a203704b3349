"""Adds up what the operators of a graph do: operations by arithmetic, and the bytes of constants that are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod, sqrt

from benchmarks.weights import Names, Weight
from mobile_llm.artifacts.graph import Dimension, Function, Op, Tensor

_LINEAR = {
    "MatMul",
    "FusedMatMul",
    "Gemm",
    "MatMulInteger",
    "DynamicQuantizeMatMul",
    "FULLY_CONNECTED",
    "linear",
    "matmul",
}
_INTEGER = {"MatMulInteger", "DynamicQuantizeMatMul", "FULLY_CONNECTED"}
_ATTENTION = {"MatMul", "BATCH_MATMUL", "matmul"}
_EMBEDDING = {"Gather", "GATHER", "EMBEDDING_LOOKUP", "gather"}
_HEAVY = {"Conv", "CONV_2D", "conv", "Attention", "scaled_dot_product_attention", "LSTM", "GRU"}
_ROUNDED_ACTIVATIONS = 4  # the accuracy level of MatMulNBits at which its kernels multiply integers


class Count:
    """Adds operators up over a function and the branches inside it: `tokens` new ones after `past`.

    `linear` holds operations by what they multiply in; `bytes` those of each constant that is read, by identity;
    `uncounted` heavy operators by type.
    """

    def __init__(self, tokens: int, past: int = 0) -> None:
        self.tokens = tokens
        self._past = past
        self.linear: Counter[str] = Counter()
        self.attention = 0
        self.bytes: dict[int, int] = {}
        self.uncounted: Counter[str] = Counter()

    def add(self, function: Function, names: Names) -> None:
        for op in function.ops:
            branches = [
                _Branch(f, names, self.tokens, self._past) for f in op.attributes.values() if isinstance(f, Function)
            ]
            if branches:
                self._merge(max(branches, key=lambda branch: branch.operations))
            else:
                self._op(op, op.type.removeprefix("com.microsoft."), names)

    @property
    def operations(self) -> int:
        return self.linear.total() + self.attention

    def _merge(self, other: Count) -> None:
        self.linear += other.linear
        self.attention += other.attention
        self.bytes |= other.bytes
        self.uncounted += other.uncounted

    def _op(self, op: Op, kind: str, names: Names) -> None:
        if kind == "MatMulNBits":
            self._blocks(op, names)
        elif kind == "MultiHeadAttention":
            self._fused(op, names)
        elif kind == "GroupQueryAttention":
            self._cached(op, names)
        elif kind in _EMBEDDING:
            self._rows(op, names)
        elif kind in _LINEAR and (weight := _matrix(op, names)):
            self._product(op, kind, weight, names)
        elif kind in _ATTENTION:
            self._computed(op, kind, names)
        elif kind in _HEAVY:
            self.uncounted[kind] += 1

    def _product(self, op: Op, kind: str, weight: Weight, names: Names) -> None:
        self.linear[_arithmetic(kind, weight, names.tensor(op.outputs[0]))] += 2 * self.tokens * weight.elements
        self._read(weight)

    def _blocks(self, op: Op, names: Names) -> None:
        """4-bit weights in blocks: the file states the sizes as attributes, the weight is packed bytes."""
        arithmetic = "int8" if op.attributes.get("accuracy_level") == _ROUNDED_ACTIVATIONS else "float32"
        self.linear[arithmetic] += 2 * self.tokens * int(op.attributes["K"]) * int(op.attributes["N"])
        for name in op.inputs[1:]:
            if name and (weight := names.weight(name)):
                self._read(weight)

    def _fused(self, op: Op, names: Names) -> None:
        hidden = names.width(op.inputs[0])
        if hidden is None:
            self.uncounted["MultiHeadAttention"] += 1
        else:
            self.attention += 4 * self.tokens**2 * hidden

    def _cached(self, op: Op, names: Names) -> None:
        """Query heads over a cache, each token over those before it and itself. Query, key and value may be in one."""
        width = names.width(op.inputs[0])
        if width is None:
            self.uncounted["GroupQueryAttention"] += 1
            return
        heads, kv_heads = int(op.attributes["num_heads"]), int(op.attributes["kv_num_heads"])
        width = width if op.inputs[1] else width * heads // (heads + 2 * kv_heads)
        pairs = self.tokens * self._past + self.tokens * (self.tokens + 1) // 2
        self.attention += 4 * pairs * width

    def _computed(self, op: Op, kind: str, names: Names) -> None:
        """Both operands are computed. B·M·K, B·K·N and B·M·N elements make B·M·K·N products, whichever is
        transposed."""
        sides = [self._shape(op, name, names) for name in (*_operands(op), op.outputs[0])]
        if any(side is None for side in sides):
            self.uncounted[kind] += 1
            return
        shapes = [side for side in sides if side is not None]
        batch = prod(shapes[2][:-2])
        self.attention += 2 * round(sqrt(prod(prod(shape) for shape in shapes) / batch))

    def _shape(self, op: Op, name: str, names: Names) -> tuple[int, ...] | None:
        tensor = names.tensor(name)
        if tensor is None or tensor.shape is None:
            return None
        return tuple(self._size(size) for size in tensor.shape)

    def _size(self, size: Dimension) -> int:
        """The batch is one and stated, so what is not stated runs along the sequence."""
        return size if isinstance(size, int) else self.tokens

    def _rows(self, op: Op, names: Names) -> None:
        table = next((w for name in op.inputs if (w := names.weight(name)) and len(w.shape) == 2), None)
        if table is not None and table.shape[0]:
            share = min(self.tokens, table.shape[0]) / table.shape[0]
            for tensor in table.stored:
                self.bytes.setdefault(id(tensor), round(tensor.stored_bytes * share))

    def _read(self, weight: Weight) -> None:
        self.bytes |= {id(tensor): tensor.stored_bytes for tensor in weight.stored}


class _Branch(Count):
    """One branch of control flow, counted on its own."""

    def __init__(self, function: Function, around: Names, tokens: int, past: int) -> None:
        super().__init__(tokens, past)
        self.add(function, Names(function, around))


def _arithmetic(kind: str, weight: Weight, output: Tensor | None) -> str:
    """What a product multiplies in: integers that nothing unpacks first, else what its result is."""
    if weight.dtype in ("int8", "uint8", "int4", "uint4") and not weight.unpacked and kind in _INTEGER:
        return "int8"
    stated = output.dtype if output is not None else "?"
    if stated == "?":
        stated = "float32" if weight.unpacked else weight.dtype
    return "float16" if stated == "float16" else "float32"


def _operands(op: Op) -> tuple[str, ...]:
    if "inputs" in op.arguments:
        return op.arguments["inputs"][:2]
    return (*op.arguments.get("x", ()), *op.arguments.get("y", ()), *op.arguments.get("weight", ()))


def _matrix(op: Op, names: Names) -> Weight | None:
    """The constant matrix among the two operands of a product."""
    return next(_matrices(op, names), None)


def _matrices(op: Op, names: Names) -> Iterator[Weight]:
    for name in _operands(op):
        weight = names.weight(name)
        if weight is not None and len(weight.shape) >= 2:
            yield weight
