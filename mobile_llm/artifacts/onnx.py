"""ONNX files (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): the main graph, constants left on disk.

The branches of control flow are functions among an operator's attributes. Local functions are not entered, except to
find the external data they name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mobile_llm.artifacts.constants import from_bytes, shaped
from mobile_llm.artifacts.graph import ArtifactGraph, Dimension, Function, Op, Tensor
from mobile_llm.artifacts.wire import Message, map_file, refuse_malformed
from mobile_llm.errors import IntegrityFailed

_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 21: "uint4", 22: "int4",
}  # fmt: skip
_EXTERNAL = 1


@refuse_malformed
def read(path: Path) -> ArtifactGraph:
    """Raises IntegrityFailed for what is not an ONNX file or names data outside its folder."""
    external_data(path)
    model = _model(path)
    return _graph(model, _function(model.message(7), path.parent))


@refuse_malformed
def read_ends(path: Path) -> ArtifactGraph:
    """The same without operators and constants, and without a look at where those are kept."""
    model = _model(path)
    return _graph(model, _ends(model.message(7), path.parent))


def _graph(model: Message, function: Function) -> ArtifactGraph:
    versions = {opset.text(1) or "ai.onnx": opset.integer(2) for opset in model.messages(8)}
    return ArtifactGraph("onnx", {function.name: function}, {**versions, "ir": model.integer(1)})


@refuse_malformed
def external_data(path: Path) -> tuple[str, ...]:
    """The files beside `path` in which it keeps tensors, relative to its folder.

    Raises IntegrityFailed for one that would lie outside that folder.
    """
    model = _model(path)
    graphs = [model.message(7)]
    nodes = [node for function in model.messages(25) for node in function.messages(7)]
    locations = {_location(tensor) for tensor in _tensors(graphs, nodes) if tensor.integer(14) == _EXTERNAL}
    for location in locations:
        pure = PurePosixPath(location)
        outside = pure.is_absolute() or ".." in pure.parts or "\\" in location or ":" in location
        resolved = (path.parent / pure).resolve()
        if outside or not location or not resolved.is_relative_to(path.parent.resolve()):
            raise IntegrityFailed(
                f"{path.name} keeps data in {location!r}, which lies outside its folder; do not use it"
            )
    return tuple(sorted(locations))


def _model(path: Path) -> Message:
    """The file's one message. Its fields may all be left out on the wire, so a file that was cut between two of them
    is known by what no model can do without."""
    model = Message(map_file(path))
    if 7 not in model or 8 not in model:
        raise ValueError("it has no graph, or no operator set")
    return model


def _tensors(graphs: list[Message], nodes: list[Message]) -> Iterator[Message]:
    """Every tensor of graphs and nodes, those inside control flow included."""
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.messages(5)
            for sparse in graph.messages(15):
                yield from (sparse.message(1), sparse.message(2))
            nodes += graph.messages(1)
        else:
            for attribute in nodes.pop().messages(5):
                yield from attribute.messages(5) + attribute.messages(10)
                graphs += attribute.messages(6) + attribute.messages(11)


def _location(tensor: Message) -> str:
    return {entry.text(1): entry.text(2) for entry in tensor.messages(13)}.get("location", "")


def _function(graph: Message, folder: Path) -> Function:
    constants = {tensor.name: tensor for tensor in (_constant(t, folder) for t in graph.messages(5))}
    described = {tensor.name: tensor for tensor in map(_described, graph.messages(13))}
    ends = _ends(graph, folder)
    ops = tuple(_op(node, folder) for node in graph.messages(1))
    return replace(ends, ops=ops, tensors={**ends.tensors, **described, **constants})


def _ends(graph: Message, folder: Path) -> Function:
    tensors = {tensor.name: tensor for n in (11, 12) for tensor in map(_described, graph.messages(n))}
    inputs = [info.text(1) for info in graph.messages(11)]
    named = ((tensor.text(8), tensor) for tensor in graph.messages(5))
    constants = {name: _constant(tensor, folder) for name, tensor in named if name in inputs}
    return Function(
        name=graph.text(2),
        inputs=tuple(name for name in inputs if name not in constants),
        outputs=tuple(info.text(1) for info in graph.messages(12)),
        ops=(),
        tensors={**tensors, **constants},
        overridable=tuple(name for name in inputs if name in constants),
    )


def _op(node: Message, folder: Path) -> Op:
    domain = node.text(7)
    kind = f"{domain}.{node.text(4)}" if domain not in ("", "ai.onnx") else node.text(4)
    attributes = {a.text(1): _attribute(a, folder) for a in node.messages(5)}
    return Op(kind, {"inputs": tuple(node.texts(1))}, tuple(node.texts(2)), attributes, node.text(3))


def _attribute(attribute: Message, folder: Path) -> Any:
    readers: dict[int, Callable[[Message], Any]] = {
        1: lambda a: a.number(2),
        2: lambda a: a.integer(3),
        3: lambda a: a.text(4),
        4: lambda a: _values(a.message(5)),
        6: lambda a: a.numbers(7, "<f4").tolist(),
        7: lambda a: a.integers(8),
        5: lambda a: _function(a.message(6), folder),
        8: lambda a: a.texts(9),
    }
    reader = readers.get(attribute.integer(20))
    return reader(attribute) if reader else None


def _described(info: Message) -> Tensor:
    """A value of which the file states type and shape."""
    kind = info.message(2).message(1)
    shape = tuple(_dimension(d) for d in kind.message(2).messages(1)) if 2 in kind else None
    return Tensor(info.text(1), _TYPES.get(kind.integer(1), "?"), shape)


def _dimension(dimension: Message) -> Dimension:
    return dimension.integer(1) if 1 in dimension else (dimension.text(2) or "?")


def _constant(tensor: Message, folder: Path) -> Tensor:
    dtype, shape = _TYPES[tensor.integer(2)], tuple(tensor.integers(1))
    external = {entry.text(1): entry.text(2) for entry in tensor.messages(13)}
    if tensor.integer(14) == _EXTERNAL:
        load = partial(_external_values, external, dtype, shape, folder)
        return Tensor(tensor.text(8), dtype, shape, int(external.get("length", 0)), load)
    size = len(tensor.view(9)) or sum(len(tensor.view(n)) for n in (4, 5, 7, 10, 11))
    return Tensor(tensor.text(8), dtype, shape, size, partial(_values, tensor))


def _values(tensor: Message) -> np.ndarray:
    dtype, shape = _TYPES[tensor.integer(2)], tuple(tensor.integers(1))
    if 9 in tensor:
        return from_bytes(tensor.view(9), dtype, shape)
    if dtype in ("float32", "float64"):
        number, wire = (4, "<f4") if dtype == "float32" else (10, "<f8")
        return shaped(tensor.numbers(number, wire), shape)
    if dtype == "string":
        return shaped(np.array(tensor.texts(6)), shape)
    number = {"int64": 7, "uint32": 11, "uint64": 11}.get(dtype, 5)
    values = np.array(tensor.integers(number), np.int64)
    if dtype == "float16":
        return shaped(values.astype(np.uint16).view(np.float16), shape)
    return shaped(values.astype(dtype), shape)


def _external_values(external: dict[str, str], dtype: str, shape: tuple[int, ...], folder: Path) -> np.ndarray:
    data = map_file(folder / external["location"])
    start = int(external.get("offset", 0))
    size = int(external.get("length", len(data) - start))
    if min(start, size) < 0 or start + size > len(data):
        raise IntegrityFailed(f"{external['location']} has no {size} bytes at {start}; fetch the bundle again")
    return from_bytes(data[start : start + size], dtype, shape)
