"""A tokenizer put before a written encoder, on the wire: the weights go from file to file and are never held.

An encoder's inputs become values that the tokenizer computes; `input_ids` becomes an output beside the encoder's own,
so that the ids can be compared. Field numbers are onnx.proto's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from mobile_llm.artifacts.wire import fields, map_file
from mobile_llm.errors import UnsupportedModel

_GRAPH, _OPSETS = 7, 8  # of a ModelProto
_INPUTS = 11  # of a GraphProto
_LARGEST = 2**31 - 1


def graft(encoder: Path, front: Any, target: Path) -> None:
    """Write `target`: the file `encoder` with the graph `front` before it."""
    fields_of_model = list(fields(map_file(encoder)))
    (graph,) = (value for number, value in fields_of_model if number == _GRAPH)
    kept = [(number, value) for number, value in fields(graph) if number != _INPUTS]
    wanted = {_name(value) for number, value in fields(graph) if number == _INPUTS}
    opsets = [value for number, value in fields_of_model if number == _OPSETS]
    own = _front_graph(front, wanted)
    size = len(own) + sum(_size(number, value) for number, value in kept)
    if size > _LARGEST:
        raise UnsupportedModel(f"{target.name} would exceed 2 GB, ONNX's limit for one file; choose int8")
    with target.open("wb") as file:
        for number, value in fields_of_model:
            if number != _GRAPH:
                file.writelines(_encoded(number, value))
        for opset in _missing_opsets(front, opsets):
            file.writelines(_encoded(_OPSETS, opset))
        file.write(_varint(_GRAPH << 3 | 2) + _varint(size) + own)
        for number, value in kept:
            file.writelines(_encoded(number, value))


def _front_graph(front: Any, wanted: set[str]) -> bytes:
    """The tokenizer's graph with names of its own, without what this encoder does not ask for."""
    named = onnx.compose.add_prefix(
        front, "text/", rename_inputs=False, rename_outputs=False, rename_value_infos=False, rename_functions=False
    )
    graph = named.graph
    graph.ClearField("name")  # the encoder's own counts
    unused = {output.name for output in graph.output} - wanted
    nodes = [node for node in graph.node if not set(node.output) & unused]
    del graph.node[:]
    graph.node.extend(nodes)
    outputs = [output for output in graph.output if output.name == "input_ids"]
    del graph.output[:]
    graph.output.extend(outputs)
    return bytes(graph.SerializeToString(deterministic=True))


def _missing_opsets(front: Any, encoded: list[Any]) -> list[bytes]:
    known = {onnx.OperatorSetIdProto.FromString(bytes(value)).domain for value in encoded}
    return [opset.SerializeToString(deterministic=True) for opset in front.opset_import if opset.domain not in known]


def _name(value_info: Any) -> str:
    return str(onnx.ValueInfoProto.FromString(bytes(value_info)).name)


def _encoded(number: int, value: Any) -> Iterator[Any]:
    """A field as it stands in a file: a number as a varint, everything else with its length."""
    if isinstance(value, int):
        yield _varint(number << 3) + _varint(value)
    else:
        yield _varint(number << 3 | 2) + _varint(len(value))
        yield value


def _size(number: int, value: Any) -> int:
    return sum(len(part) for part in _encoded(number, value))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
