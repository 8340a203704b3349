"""TFLite files (tensorflow/compiler/mlir/lite/schema/schema.fbs): every subgraph as a function, constants left on
disk. Options of operators and sparse or 2-bit tensors are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.artifacts.constants import from_bytes
from mobile_llm.artifacts.flatbuffer import Table
from mobile_llm.artifacts.graph import ArtifactGraph, Function, Op, Tensor
from mobile_llm.artifacts.wire import map_file, refuse_malformed

_TYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip

_NOTHING = np.zeros(0, np.uint8)


@refuse_malformed
def read(path: Path) -> ArtifactGraph:
    """Raises IntegrityFailed for what is not a TFLite file."""
    return parse(map_file(path))


@refuse_malformed
def read_ends(path: Path) -> ArtifactGraph:
    """The same without operators and constants."""
    return parse_ends(map_file(path))


def parse(data: memoryview) -> ArtifactGraph:
    """The bytes of such a file. What is malformed raises errors of several kinds (see `refuse_malformed`)."""
    model = Table.root(data, b"TFL3")
    operators = model.each(1, _operator_name)
    buffers = model.each(4, partial(_buffer, data))
    return _graph(model, partial(_function, operators, buffers))


def parse_ends(data: memoryview) -> ArtifactGraph:
    return _graph(Table.root(data, b"TFL3"), _ends)


def _graph(model: Table, function: Callable[[Table, Table | None], Function]) -> ArtifactGraph:
    signatures = {table.number(4, "<I"): table for table in model.tables(7)}
    functions = [function(graph, signatures.get(index)) for index, graph in enumerate(model.tables(2))]
    return ArtifactGraph("tflite", {f.name: f for f in functions}, {"tflite": model.number(0, "<I")})


def _ends(graph: Table, signature: Table | None) -> Function:
    tables = graph.tables(0)
    inputs, outputs = ([int(i) for i in graph.vector(field, "<i4")] for field in (1, 2))
    tensors = {index: _tensor(tables[index], f"{index}:{tables[index].text(3)}", ()) for index in (*inputs, *outputs)}
    return Function(
        name=_name(graph, signature),
        inputs=tuple(tensors[index].name for index in inputs),
        outputs=tuple(tensors[index].name for index in outputs),
        ops=(),
        tensors={tensor.name: tensor for tensor in tensors.values()},
        signature={tensors[index].name: name for index, name in _names(signature)},
    )


def _name(graph: Table, signature: Table | None) -> str:
    return signature.text(2) if signature else graph.text(4) or "main"


def _names(signature: Table | None) -> list[tuple[int, str]]:
    """What a caller calls the tensors of a signature."""
    ends = [end for field in (0, 1) for end in signature.tables(field)] if signature else []
    return [(end.number(1, "<I"), end.text(0)) for end in ends]


def _function(operators: list[str], buffers: list[Any], graph: Table, signature: Table | None) -> Function:
    # Tensors are told apart by index: their names need not be unique.
    tensors = [_tensor(table, f"{i}:{table.text(3)}", buffers) for i, table in enumerate(graph.tables(0))]
    names = [tensor.name for tensor in tensors]

    def op(table: Table) -> Op:
        inputs = tuple(names[i] if i >= 0 else "" for i in table.vector(1, "<i4"))
        outputs = tuple(names[i] for i in table.vector(2, "<i4"))
        return Op(operators[table.number(0, "<I")], {"inputs": inputs}, outputs)

    return Function(
        name=_name(graph, signature),
        inputs=tuple(names[i] for i in graph.vector(1, "<i4")),
        outputs=tuple(names[i] for i in graph.vector(2, "<i4")),
        ops=tuple(graph.each(3, op)),
        tensors={tensor.name: tensor for tensor in tensors},
        signature={names[index]: name for index, name in _names(signature)},
    )


def _tensor(table: Table, name: str, buffers: Sequence[Any]) -> Tensor:
    """Without `buffers`, one that is no constant."""
    dtype = _TYPES[table.number(1, "<b")]
    shape = tuple(int(size) for size in table.vector(0, "<i4"))
    contents = buffers[table.number(2, "<I")] if buffers else _NOTHING
    load = partial(from_bytes, contents, dtype, shape) if len(contents) else None
    return Tensor(name, dtype, shape, len(contents), load, _quantization(table.table(4)))


def _quantization(table: Table | None) -> Mapping[str, Any]:
    scale = table.vector(2, "<f4") if table else np.zeros(0, np.float32)
    if table is None or not len(scale):
        return {}
    return {"scale": scale, "zero_point": table.vector(3, "<i8"), "axis": table.number(6)}


def _buffer(data: memoryview, table: Table) -> np.ndarray:
    """A buffer's bytes: inside the table, or behind it by offset and size in files above 2 GB."""
    start, size = table.number(1, "<Q"), table.number(2, "<Q")
    if start > 1:
        if start + size > len(data):
            raise ValueError(f"a buffer of {size} bytes at {start} ends beyond the file")
        return np.frombuffer(data[start : start + size], np.uint8)
    return table.vector(0, "<u1")


def _operator_name(table: Table) -> str:
    # Numbers above 127 stand in the newer field only.
    number = max(table.number(0, "<b"), table.number(3))
    name = operator_names()[number]
    return f"CUSTOM {table.text(1)}" if name == "CUSTOM" else name


@cache
def operator_names() -> tuple[str, ...]:
    """Builtin operators by number."""
    text = Path(__file__).with_name("tflite_operators.txt").read_text(encoding="utf-8")
    return tuple(name for line in text.splitlines() if not line.startswith("#") for name in line.split())
