"""Writing a .tflite file operator by operator, through the schema's own generated classes.

Whatever is equal is written once and referred to from many places: buffers, so that several static shapes cost one set
of weights, and the tables of tensors, operators and scales, of which they would cost as much again. What is computed
has no name for that reason. Weights, which runtimes pack once, lie behind what every run reads, so that a file that is
mapped fills memory with little more than that. Operator versions and options follow
tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.architectures.weights import Quantized
from exporters.late import LateBuilder
from mobile_llm.errors import UnsupportedModel

Ops = schema.BuiltinOperator
Options = schema.BuiltinOptions
Types = schema.TensorType

_TYPES = {
    np.dtype("float32"): Types.FLOAT32,
    np.dtype("float16"): Types.FLOAT16,
    np.dtype("int32"): Types.INT32,
    np.dtype("int8"): Types.INT8,
}
_LARGEST = 2**31 - 1
_BYTES_OF_A_TABLE = 256  # at most
_SHORT = 1 << 20  # bytes of what is looked for among what was written


class Model:
    """A file under construction: operator codes, buffers and subgraphs."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.description = "mobile_llm"
        self._model.operatorCodes = []
        self._model.subgraphs = []
        self._model.signatureDefs = []
        self._model.buffers = [schema.BufferT()]  # buffer 0 means "no contents"
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers: dict[str, int] = {}
        self._sizes: list[tuple[bool, int]] = []  # of each buffer: whether its numbers are as wide as computed ones
        self._scales: dict[str, _Once] = {}
        self._tables: dict[Hashable, _Once] = {}

    def buffer(self, name: str, values: np.ndarray) -> int:
        """Index of the buffer with these contents; the same name is stored once."""
        if name not in self._buffers:
            buffer = schema.BufferT()
            buffer.data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
            self._buffers[name] = len(self._model.buffers)
            self._sizes.append((values.itemsize >= 4, -values.nbytes))
            self._model.buffers.append(buffer)
        return self._buffers[name]

    def packed(self, name: str, integers: np.ndarray) -> int:
        """Index of the buffer with 4-bit integers, the first of two in the lower half of a byte."""
        if name in self._buffers:
            return self._buffers[name]
        halves = integers.view(np.uint8) & 0xF
        return self.buffer(name, halves[:, 0::2] | (halves[:, 1::2] << 4))

    def per_channel(self, name: str, weight: Quantized) -> Any:
        """The scales of an integer matrix, shared by the subgraphs that use it."""
        if name not in self._scales:
            self._scales[name] = _Once(_symmetric(weight.scale[:, 0]))
        return self._scales[name]

    def once(self, table: Any) -> Any:
        """The table, which is finished, or the one like it that is known; either is written once."""
        return self._tables.setdefault(_contents(table), _Once(table))

    def operator(self, op: int, version: int) -> int:
        """Index of an operator code."""
        key = (op, version)
        if key not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version = op, version
            code.deprecatedBuiltinCode = min(op, 127)
            self._codes[key] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[key]

    def add(self, subgraph: Any, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        """Append a finished subgraph with a signature of its own name."""
        signature = schema.SignatureDefT()
        signature.signatureKey = subgraph.name
        signature.subgraphIndex = len(self._model.subgraphs)
        signature.inputs = [self.once(_named(name, index)) for name, index in inputs.items()]
        signature.outputs = [self.once(_named(name, index)) for name, index in outputs.items()]
        self._model.subgraphs.append(subgraph)
        self._model.signatureDefs.append(signature)

    def save(self, path: Path) -> None:
        """Serialize. Raises UnsupportedModel above 2 GB, what offsets of a flatbuffer reach."""
        size = sum(len(b.data) for b in self._model.buffers if b.data is not None)
        if size > _LARGEST - (1 << 24):
            raise UnsupportedModel(f"{path.name} would exceed 2 GB, the limit of a .tflite file; choose int8")
        # Room for everything at once: a builder that grows copies all the weights.
        builder = _Builder(size + (1 << 22) + _BYTES_OF_A_TABLE * len(self._tables))
        self._pack_buffers(builder)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        path.parent.mkdir(parents=True, exist_ok=True)
        builder.write(path)

    def _pack_buffers(self, builder: Any) -> None:
        """A file is written from its end: the largest weights first, then smaller ones, then what stays as it is."""
        buffers = [_Once(buffer) for buffer in self._model.buffers]
        for _, buffer in sorted(zip(self._sizes, buffers[1:]), key=lambda pair: pair[0]):
            buffer.Pack(builder)
        self._model.buffers = buffers


class Subgraph:
    """One static shape. Tensors are their indices; `shape(tensor)` gives their sizes."""

    def __init__(self, model: Model, name: str) -> None:
        self.model = model
        self.name = name
        self._graph = schema.SubGraphT()
        self._graph.name = name
        self._graph.tensors, self._graph.operators = [], []
        self._inputs: dict[str, int] = {}
        self._outputs: dict[str, int] = {}
        self._constants: dict[str, int] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(size) for size in self._graph.tensors[tensor].shape)

    def tensor(self, name: str, shape: Sequence[int], dtype: int = Types.FLOAT32, buffer: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer, tensor.hasRank = name, dtype, buffer, True
        tensor.shape = np.array(shape, np.int32)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def input(self, name: str, shape: Sequence[int], dtype: int = Types.INT32) -> int:
        """An input of the signature."""
        self._inputs[name] = self.tensor(name, shape, dtype)
        return self._inputs[name]

    def output(self, name: str, tensor: int) -> None:
        self._outputs[name] = tensor

    def constant(self, name: str, values: np.ndarray) -> int:
        """A constant; the same name is the same tensor."""
        if name not in self._constants:
            buffer = self.model.buffer(name, values)
            self._constants[name] = self.tensor(name, values.shape, _TYPES[values.dtype], buffer)
        return self._constants[name]

    def integers(self, name: str, weight: Quantized) -> int:
        """An int8 matrix with one scale per row."""
        if name not in self._constants:
            index = self.constant(name, weight.integers)
            self._graph.tensors[index].quantization = self.model.per_channel(name, weight)
        return self._constants[name]

    def blocks(self, name: str, weight: Quantized) -> int:
        """A matrix of 4-bit integers, two in a byte, with a float16 scale for each block of a row."""
        if name not in self._constants:
            scales = self.constant(f"{name} scales", weight.scale.astype(np.float16))
            buffer = self.model.packed(name, weight.integers)
            self._constants[name] = self.tensor(name, weight.shape, Types.INT4, buffer)
            self._graph.tensors[self._constants[name]].quantization = _in_blocks(scales, weight.block)
        return self._constants[name]

    def ints(self, *values: int) -> int:
        """A constant int32 vector."""
        return self.constant(f"ints_{'_'.join(map(str, values))}", np.array(values, np.int32))

    def number(self, value: float) -> int:
        """A constant float32 scalar."""
        return self.constant(f"number_{value!r}", np.array(value, np.float32))

    def op(
        self,
        op: int,
        inputs: Sequence[int],
        shape: Sequence[int],
        options: Any = None,
        version: int = 1,
        dtype: int = Types.FLOAT32,
    ) -> int:
        """Add an operator with one output; its options' class names their kind."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.model.operator(op, version)
        result = self.tensor("", shape, dtype)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([result], np.int32)
        if options is not None:
            operator.builtinOptionsType = getattr(Options, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self._graph.operators.append(operator)
        return result

    def forget_unasked(self) -> None:
        """Drop the operators whose results reach no output."""
        asked, kept = set(self._outputs.values()), []
        for operator in reversed(self._graph.operators):
            if asked.intersection(operator.outputs):
                asked.update(operator.inputs)
                kept.append(operator)
        self._graph.operators = kept[::-1]

    def finish(self) -> None:
        """Hand the subgraph to the model."""
        self._graph.inputs = np.array(list(self._inputs.values()), np.int32)
        self._graph.outputs = np.array(list(self._outputs.values()), np.int32)
        self._graph.tensors = [self.model.once(tensor) for tensor in self._graph.tensors]
        self._graph.operators = [self.model.once(operator) for operator in self._graph.operators]
        self.model.add(self._graph, self._inputs, self._outputs)


class _Builder(LateBuilder):
    """Writes equal strings once, and equal vectors of numbers that are no weights."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[Hashable, int] = {}

    def CreateString(self, s: str, encoding: str = "utf-8", errors: str = "strict") -> int:  # noqa: N802
        if s not in self._written:
            self._written[s] = super().CreateString(s, encoding, errors)
        return self._written[s]

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
        if x.nbytes > _SHORT:
            return self.late(x.nbytes, lambda: x)
        key = _contents(x)
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


class _Once:
    """A table that is packed once, however many refer to it."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._packed: tuple[Any, int] | None = None

    def Pack(self, builder: Any) -> int:  # noqa: N802 - what the generated classes call
        if self._packed is None or self._packed[0] is not builder:
            self._packed = (builder, self._table.Pack(builder))
        return self._packed[1]


def _contents(value: Any) -> Hashable:
    """What two tables have in common that are written alike."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tobytes()
    if isinstance(value, _Once) or not hasattr(value, "__dict__"):
        return value
    return type(value), *(_contents(part) for part in vars(value).values())


def _symmetric(scale: np.ndarray) -> Any:
    """float32 scales, one for each row."""
    found = schema.QuantizationParametersT()
    found.scale, found.zeroPoint = scale, np.zeros(len(scale), np.int64)
    found.quantizedDimension = 0
    return found


def _in_blocks(scales: int, size: int) -> Any:
    """Symmetric scales per block: `scales` is the tensor that holds them."""
    found = schema.QuantizationParametersT()
    found.quantizedDimension = 0
    found.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    found.details = schema.BlockwiseQuantizationT()
    found.details.scales, found.details.zeroPoints, found.details.blockSize = scales, -1, size
    return found


def options(kind: str, **values: Any) -> Any:
    """An options table of the schema, such as `options("FullyConnected", keepNumDims=True)`."""
    table = getattr(schema, f"{kind}OptionsT")()
    for name, value in values.items():
        if not hasattr(table, name):
            raise AttributeError(f"{kind}Options has no {name}")
        setattr(table, name, value)
    return table


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
