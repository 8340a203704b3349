"""Storing the weights of a finished .tflite file in fewer bits.

int8: the tables of fully connected layers and lookups that hold a quantized weight's values get its integers and
scales; the kernels take them as they are. float16: every large constant is stored so, and widened once when the file
is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.architectures.stored import Integers, is_large
from exporters.architectures.traced import Traced

_OPS, _TYPES = schema.BuiltinOperator, schema.TensorType
# The operators that multiply floats with per-channel integers, and the first version that does.
_VERSIONS = {_OPS.FULLY_CONNECTED: 9, _OPS.EMBEDDING_LOOKUP: 4}


def write_narrow(path: Path, traced: Traced, precision: str) -> None:
    """Rewrite the file at `path` for "int8" or "fp16"."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    narrow = _Narrow(model)
    for graph in model.subgraphs:
        if precision == "fp16":
            narrow.halve(graph)
        else:
            narrow.store_integers(graph, Integers(traced))
    narrow.forget_unused()
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(size + (1 << 20))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(memoryview(builder.Bytes)[builder.Head() :])


class _Narrow:
    """Edits a parsed file. Buffers that tensors share are left alone: each narrowed tensor gets its own."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._shared: dict[tuple[int, int], int] = {}

    def store_integers(self, graph: Any, integers: Integers) -> None:
        for place, tensor in enumerate(graph.tensors):
            values = self._values(tensor)
            users = [op for op in graph.operators if place in op.inputs]
            if values is None or not users or not all(self._takes_integers(op, place) for op in users):
                continue
            weight, transposed = integers.find(values) or (None, True)
            if weight is None or transposed:  # the kernels want a scale per row
                continue
            tensor.type = _TYPES.INT8
            tensor.buffer = self._buffer(tensor.buffer, weight.integers)
            tensor.quantization = _per_row(weight.scale[:, 0])
            for op in users:
                self._raise_version(op)

    def halve(self, graph: Any) -> None:
        """Each large float constant becomes float16 and a DEQUANTIZE before all other operators."""
        added = []
        for place, tensor in enumerate(list(graph.tensors)):
            values = self._values(tensor)
            if values is None:
                continue
            half = schema.TensorT()
            half.name, half.shape, half.hasRank = tensor.name + b".half", tensor.shape, tensor.hasRank
            half.type, half.buffer = _TYPES.FLOAT16, self._buffer(tensor.buffer, values.astype(np.float16))
            tensor.buffer = 0
            graph.tensors.append(half)
            added.append(self._widening(len(graph.tensors) - 1, place))
        graph.operators = added + list(graph.operators)

    def forget_unused(self) -> None:
        """Empty the buffers that no tensor has any more: their places must stay, since tensors count by them."""
        used = {tensor.buffer for graph in self._model.subgraphs for tensor in graph.tensors}
        used |= {entry.buffer for entry in self._model.metadata or ()}
        for place, buffer in enumerate(self._model.buffers):
            if place not in used:
                buffer.data = None

    def _values(self, tensor: Any) -> np.ndarray | None:
        """A large float constant's values, None for any other tensor."""
        data = self._model.buffers[tensor.buffer].data
        if tensor.type != _TYPES.FLOAT32 or data is None or not len(data):
            return None
        values = np.asarray(data, np.uint8).view(np.float32).reshape(tensor.shape)
        return values if is_large(values) else None

    def _takes_integers(self, op: Any, place: int) -> bool:
        return self._kind(op) in _VERSIONS and len(op.inputs) > 1 and op.inputs[1] == place

    def _kind(self, op: Any) -> int:
        code = self._model.operatorCodes[op.opcodeIndex]
        return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))

    def _raise_version(self, op: Any) -> None:
        kind = self._kind(op)
        op.opcodeIndex = self._code(kind, _VERSIONS[kind])
        if kind == _OPS.FULLY_CONNECTED:
            op.builtinOptions.asymmetricQuantizeInputs = True

    def _widening(self, source: int, target: int) -> Any:
        op = schema.OperatorT()
        op.opcodeIndex = self._code(_OPS.DEQUANTIZE, 3)
        op.inputs, op.outputs = np.array([source], np.int32), np.array([target], np.int32)
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.DequantizeOptions, schema.DequantizeOptionsT()
        return op

    def _code(self, kind: int, version: int) -> int:
        codes = self._model.operatorCodes
        for index, code in enumerate(codes):
            if (code.builtinCode, code.version) == (kind, version):
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, min(kind, 127), version
        codes.append(code)
        return len(codes) - 1

    def _buffer(self, original: int, values: np.ndarray) -> int:
        """What a buffer became, once for all tensors that held it; the wide contents go."""
        key = (original, values.itemsize)
        if key not in self._shared:
            buffer = schema.BufferT()
            buffer.data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
            self._shared[key] = len(self._model.buffers)
            self._model.buffers.append(buffer)
        return self._shared[key]


def _per_row(scale: np.ndarray) -> Any:
    found = schema.QuantizationParametersT()
    found.scale, found.zeroPoint, found.quantizedDimension = scale, np.zeros(len(scale), np.int64), 0
    return found
