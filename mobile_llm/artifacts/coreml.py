"""ML programs of Core ML packages (coremltools' mlmodel/format/{Model,MIL}.proto), constants left on disk.

Large constants lie in weight.bin: a 64-byte header, and for each constant 64 bytes of metadata followed by its
data. Not covered: models that are not ML programs, sparse and palettized constants.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mobile_llm.artifacts.constants import from_bytes, shaped
from mobile_llm.artifacts.graph import ArtifactGraph, Dimension, Function, Op, Tensor
from mobile_llm.artifacts.wire import Message, map_file, refuse_malformed
from mobile_llm.errors import IntegrityFailed

_TYPES = {
    1: "bool", 2: "string", 10: "float16", 11: "float32", 12: "float64", 13: "bfloat16", 21: "int8", 22: "int16",
    23: "int32", 24: "int64", 25: "int4", 31: "uint8", 32: "uint16", 33: "uint32", 34: "uint64", 35: "uint4",
}  # fmt: skip
_HEADER, _METADATA, _SENTINEL = 64, 64, 0xDEADBEEF
_MODEL_PATH = "@model_path/"
_STATE = 5  # the field of a value's type that says it is a state


@refuse_malformed
def read(path: Path) -> ArtifactGraph:
    """Read an .mlpackage. Raises IntegrityFailed for a damaged one or one that is no ML program."""
    specification = _specification(path)
    model = Message(map_file(specification))
    if 502 not in model:
        raise IntegrityFailed(f"{path.name} holds no ML program; export it with mobile-llm, or convert it to one")
    program = _Program(specification.parent)
    functions = [program.function(entry) for entry in model.message(502).messages(2)]
    return ArtifactGraph("coreml", {f.name: f for f in functions}, {"specification": model.integer(1)})


read_ends = read  # what an output is, only its operator says


def _specification(package: Path) -> Path:
    manifest = package / "Manifest.json"
    if not manifest.is_file():
        raise IntegrityFailed(f"{package.name} is not a Core ML package: it has no Manifest.json; fetch it again")
    items = json.loads(manifest.read_text(encoding="utf-8"))
    relative = items["itemInfoEntries"][items["rootModelIdentifier"]]["path"]
    return _inside(package / "Data", relative)


def _inside(folder: Path, relative: str) -> Path:
    pure = PurePosixPath(relative)
    path = folder / pure
    if pure.is_absolute() or ".." in pure.parts or not path.resolve().is_relative_to(folder.resolve()):
        raise IntegrityFailed(f"a Core ML package names {relative!r}, which lies outside it; do not use it")
    return path


class _Program:
    """Reads functions; `folder` is what `@model_path` stands for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def function(self, entry: Message) -> Function:
        name, function = entry.text(1), entry.message(2)
        blocks = {block.text(1): block.message(2) for block in function.messages(3)}
        block = blocks[function.text(2)]
        parameters = [(named.text(1), named.message(2)) for named in function.messages(1)]
        tensors = {name: _typed(name, kind) for name, kind in parameters}
        inputs = tuple(name for name, kind in parameters if _STATE not in kind)
        states = tuple(name for name, kind in parameters if _STATE in kind)
        ops = tuple(self._ops(block, tensors))
        return Function(name, inputs, tuple(block.texts(2)), ops, tensors, states=states)

    def _ops(self, block: Message, tensors: dict[str, Tensor]) -> Iterator[Op]:
        """The operators; constants go into `tensors` instead."""
        for operation in block.messages(3):
            kind = operation.text(1)
            outputs = [_typed(named.text(1), named.message(2)) for named in operation.messages(3)]
            attributes = {a.text(1): a.message(2) for a in operation.messages(5)}
            if kind == "const":
                tensors[outputs[0].name] = self._constant(outputs[0].name, attributes["val"])
                continue
            if operation.messages(4):
                raise ValueError(f"{kind} has blocks inside")
            tensors |= {tensor.name: tensor for tensor in outputs}
            label = outputs[0].name if outputs else f"{kind}.{len(tensors)}"  # what writes a state gives nothing
            arguments = {
                a.text(1): self._argument(a.message(2), f"{label}.{a.text(1)}", tensors) for a in operation.messages(2)
            }
            for parameter, value in attributes.items():
                if parameter != "name":  # the constexpr operators of iOS 16 keep their contents here
                    tensors[f"{label}.{parameter}"] = self._constant(f"{label}.{parameter}", value)
                    arguments[parameter] = (f"{label}.{parameter}",)
            yield Op(kind, arguments, tuple(t.name for t in outputs), {}, label)

    def _argument(self, argument: Message, label: str, tensors: dict[str, Tensor]) -> tuple[str, ...]:
        names = []
        for place, binding in enumerate(argument.messages(1)):
            if 1 in binding:
                names.append(binding.text(1))
                continue
            name = f"{label}.{place}"
            tensors[name] = self._constant(name, binding.message(2))
            names.append(name)
        return tuple(names)

    def _constant(self, name: str, value: Message) -> Tensor:
        dtype, shape = _type(value.message(2))
        if 5 in value:
            place = value.message(5)
            path = place.text(1)
            if not path.startswith(_MODEL_PATH):
                raise IntegrityFailed(f"a Core ML package names {path!r}, which lies outside it; do not use it")
            blob = _inside(self._folder, path.removeprefix(_MODEL_PATH))
            count = int(np.prod(shape, dtype=np.int64))
            size = (count + 1) // 2 if dtype in ("int4", "uint4") else count * np.dtype(dtype).itemsize
            return Tensor(name, dtype, shape, size, partial(_blob, blob, place.integer(2), dtype, shape, size))
        immediate = value.message(3).message(1)
        return Tensor(name, dtype, shape, 0, partial(_immediate, immediate, dtype, shape))


def _typed(name: str, kind: Message) -> Tensor:
    return Tensor(name, *_type(kind))


def _type(message: Message) -> tuple[str, tuple[Any, ...]]:
    """(dtype, shape) of a tensor type, or of the tensor in a state; a list counts as its elements."""
    if _STATE in message:
        message = message.message(_STATE).message(1)
    tensor = message.message(1)
    if 1 not in message:
        return "?", ()
    return _TYPES[tensor.integer(1)], tuple(_dimension(d) for d in tensor.messages(3))


def _dimension(dimension: Message) -> Dimension:
    return dimension.message(1).integer(1) if 1 in dimension else "?"


def _blob(path: Path, offset: int, dtype: str, shape: tuple[int, ...], size: int) -> np.ndarray:
    data = map_file(path)
    if not 0 <= offset <= len(data) - _METADATA:
        raise IntegrityFailed(f"{path.name} ends before the constant at {offset}; fetch the bundle again")
    sentinel, _, stored, start = struct.unpack_from("<IIQQ", data, offset)
    if sentinel != _SENTINEL or stored != size or start + size > len(data):
        raise IntegrityFailed(f"{path.name} has no constant of {size} bytes at {offset}; fetch the bundle again")
    return from_bytes(data[start : start + size], dtype, shape)


def _immediate(value: Message, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    field = next((n for n in range(1, 8) if n in value), None)
    if field is None:
        return np.zeros(shape, bool if dtype == "bool" else dtype)
    contents = value.message(field)
    if field in (1, 6):
        return shaped(contents.numbers(1, "<f4" if field == 1 else "<f8").astype(dtype), shape)
    if field == 4:
        return shaped(np.array(contents.texts(1)), shape)
    if field == 7:
        return from_bytes(contents.view(1), dtype, shape)
    return shaped(np.array(contents.integers(1)).astype(bool if dtype == "bool" else dtype), shape)
