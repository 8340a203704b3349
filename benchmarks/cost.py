"""What one forward pass costs physically, counted from the artifact's graph: operations, bytes read, file size.

Covered: linear layers (products with a constant weight), attention (products of two computed values), rows read
from embedding tables; batch 1. An operation is a multiplication or an addition: two per multiply-accumulate.
Not covered: normalization, activation functions, softmax and data movement (a few per cent of the operations, more
of the time for short texts), position tables, which are sliced and not looked up (0.5 % of MiniLM's bytes at 128
tokens), convolutions and fused attention other than MultiHeadAttention: the last two are named in `uncounted`.
The head of a classifier is counted for every token although only one passes through it (pooler and
classifier of a six-layer BERT: 1.4 %), so that formats that do not state its shape agree with those that do.
Where shapes are static, what is counted is the smallest entry point that fits, padding included: that is what runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt

from benchmarks.weights import Names, Weight
from mobile_llm.artifacts import read
from mobile_llm.artifacts.graph import ArtifactGraph, Dimension, Function, Op, Tensor
from mobile_llm.bundle import Artifact, Bundle, EntryPoint
from mobile_llm.engine import longest, static_length
from mobile_llm.errors import InvalidInput

_LINEAR = {"MatMul", "Gemm", "MatMulInteger", "DynamicQuantizeMatMul", "FULLY_CONNECTED", "linear", "matmul"}
_INTEGER = {"MatMulInteger", "DynamicQuantizeMatMul", "FULLY_CONNECTED"}
_ATTENTION = {"MatMul", "BATCH_MATMUL", "matmul"}
_EMBEDDING = {"Gather", "GATHER", "EMBEDDING_LOOKUP", "gather"}
_HEAVY = {"Conv", "CONV_2D", "conv", "Attention", "GroupQueryAttention", "scaled_dot_product_attention", "LSTM", "GRU"}


@dataclass(frozen=True)
class Cost:
    """One forward pass.

    Attributes:
        tokens: positions computed, padding to a static shape included.
        linear: operations of linear layers; `attention`: of products of two computed values.
        weight_bytes: stored bytes of the weights that are read once (of embedding tables, only the rows used).
        arithmetic: "int8", "float16" or "float32": what most linear operations multiply in.
        uncounted: heavy operators that are not counted, by type.
    """

    tokens: int
    linear: int
    attention: int
    weight_bytes: int
    file_bytes: int
    arithmetic: str
    uncounted: tuple[str, ...] = ()

    @property
    def operations(self) -> int:
        return self.linear + self.attention


def artifact_cost(bundle: Bundle, artifact_id: str, tokens: int) -> Cost:
    """The cost of `tokens` tokens in an artifact of a bundle. Raises InvalidInput for more than it takes."""
    artifact = bundle.choose(artifact_id)[1]
    return graph_cost(read(artifact.format, bundle.path(artifact.path)), artifact, artifact_id, tokens)


def graph_cost(graph: ArtifactGraph, artifact: Artifact, artifact_id: str, tokens: int) -> Cost:
    entry = smallest(artifact, artifact_id, tokens)
    function = graph.functions.get(entry.signature or "") or next(iter(graph.functions.values()))
    count = _Count(static_length(entry) or tokens)
    count.add(function, Names(function))
    return count.cost(artifact.size)


def smallest(artifact: Artifact, artifact_id: str, tokens: int) -> EntryPoint:
    """The entry point that the runtime would take. Raises InvalidInput where none fits."""
    entries = next(iter(artifact.entry_points.values()))
    fitting = [entry for entry in entries if longest(entry) >= tokens]
    if not fitting:
        most = max(longest(entry) for entry in entries)
        raise InvalidInput(f"{artifact_id} takes up to {most} tokens, not {tokens}; ask for a shorter length")
    return min(fitting, key=longest)


class _Count:
    """Adds operators up over a function and the branches inside it."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._linear: Counter[str] = Counter()
        self._attention = 0
        self._bytes: dict[int, int] = {}
        self._uncounted: Counter[str] = Counter()

    def add(self, function: Function, names: Names) -> None:
        for op in function.ops:
            branches = [_Branch(f, names, self._tokens) for f in op.attributes.values() if isinstance(f, Function)]
            if branches:
                self._merge(max(branches, key=lambda branch: branch.operations))
            else:
                self._op(op, op.type.removeprefix("com.microsoft."), names)

    def cost(self, file_bytes: int) -> Cost:
        arithmetic = self._linear.most_common(1)[0][0] if self._linear else "float32"
        uncounted = tuple(f"{kind} x{count}" for kind, count in self._uncounted.items())
        read_bytes, linear = sum(self._bytes.values()), self._linear.total()
        return Cost(self._tokens, linear, self._attention, read_bytes, file_bytes, arithmetic, uncounted)

    @property
    def operations(self) -> int:
        return self._linear.total() + self._attention

    def _merge(self, other: _Count) -> None:
        self._linear += other._linear
        self._attention += other._attention
        self._bytes |= other._bytes
        self._uncounted += other._uncounted

    def _op(self, op: Op, kind: str, names: Names) -> None:
        if kind == "MatMulNBits":
            self._blocks(op, names)
        elif kind == "MultiHeadAttention":
            self._fused(op, names)
        elif kind in _EMBEDDING:
            self._rows(op, names)
        elif kind in _LINEAR and (weight := _matrix(op, names)):
            self._product(op, kind, weight, names)
        elif kind in _ATTENTION:
            self._computed(op, kind, names)
        elif kind in _HEAVY:
            self._uncounted[kind] += 1

    def _product(self, op: Op, kind: str, weight: Weight, names: Names) -> None:
        self._linear[_arithmetic(kind, weight, names.tensor(op.outputs[0]))] += 2 * self._tokens * weight.elements
        self._read(weight)

    def _blocks(self, op: Op, names: Names) -> None:
        """4-bit weights in blocks: the file states the sizes as attributes, the weight is packed bytes."""
        self._linear["float32"] += 2 * self._tokens * int(op.attributes["K"]) * int(op.attributes["N"])
        for name in op.inputs[1:]:
            if name and (weight := names.weight(name)):
                self._read(weight)

    def _fused(self, op: Op, names: Names) -> None:
        hidden = names.width(op.inputs[0])
        if hidden is None:
            self._uncounted["MultiHeadAttention"] += 1
        else:
            self._attention += 4 * self._tokens**2 * hidden

    def _computed(self, op: Op, kind: str, names: Names) -> None:
        """Both operands are computed. B·M·K, B·K·N and B·M·N elements make B·M·K·N products, whichever is
        transposed."""
        sides = [self._shape(op, name, names) for name in (*_operands(op), op.outputs[0])]
        if any(side is None for side in sides):
            self._uncounted[kind] += 1
            return
        shapes = [side for side in sides if side is not None]
        batch = prod(shapes[2][:-2])
        self._attention += 2 * round(sqrt(prod(prod(shape) for shape in shapes) / batch))

    def _shape(self, op: Op, name: str, names: Names) -> tuple[int, ...] | None:
        tensor = names.tensor(name)
        if tensor is None or tensor.shape is None:
            return None
        return tuple(self._size(size) for size in tensor.shape)

    def _size(self, size: Dimension) -> int:
        """The batch is one and stated, so what is not stated runs along the sequence."""
        return size if isinstance(size, int) else self._tokens

    def _rows(self, op: Op, names: Names) -> None:
        table = next((w for name in op.inputs if (w := names.weight(name)) and len(w.shape) == 2), None)
        if table is not None and table.shape[0]:
            share = min(self._tokens, table.shape[0]) / table.shape[0]
            for tensor in table.stored:
                self._bytes.setdefault(id(tensor), round(tensor.stored_bytes * share))

    def _read(self, weight: Weight) -> None:
        self._bytes |= {id(tensor): tensor.stored_bytes for tensor in weight.stored}


class _Branch(_Count):
    """One branch of control flow, counted on its own."""

    def __init__(self, function: Function, around: Names, tokens: int) -> None:
        super().__init__(tokens)
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
