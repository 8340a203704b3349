"""What a GGUF file says of itself: its metadata, and where each tensor lies. Nothing is believed.

Layout: the four letters GGUF, version, number of tensors, number of settings, the settings (name, type, value), the
tensors (name, shape, type, offset), padding, then the data (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

Every count and length is held against the bytes that are left before anything is allocated for it. Not covered: big
endian files, version 1, models split over several files, arrays of arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from mobile_llm.errors import InvalidInput, UnsupportedModel

_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_ENTRIES = 65_536  # settings, or tensors; files of the largest models have some thousand
_MOST_DIMENSIONS = 4
_LARGEST_ALIGNMENT = 1 << 20


@dataclass(frozen=True)
class Tensor:
    """`shape` in PyTorch's order; `kind` is a number of `gguf.GGMLQuantizationType`; `start` is the place in the
    file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    bytes: int


@dataclass(frozen=True)
class Header:
    path: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def architecture(self) -> str:
        return str(self.settings.get("general.architecture"))

    def setting(self, name: str) -> Any:
        """A setting of the architecture, such as `block_count`; None where the file has none."""
        return self.settings.get(f"{self.architecture}.{name}")


def read_header(path: Path) -> Header:
    """Raises InvalidInput for a file that is damaged, cut short or no GGUF file, UnsupportedModel for what is not
    covered."""
    if find_spec("gguf") is None:
        raise UnsupportedModel(f'{path} is a GGUF file, which takes the package gguf: pip install "mobile-llm[gguf]"')
    size = path.stat().st_size
    if size < 24:
        raise InvalidInput(f"{path} is no GGUF file, or cut short ({size} bytes); fetch it again")
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        try:
            return _read(path, _Cursor(data, size))
        except _Damaged as error:
            raise InvalidInput(f"{path} is damaged or cut short ({error}); fetch the file again") from None


class _Damaged(Exception):
    """What is wrong with the file, in a few words."""


class _Cursor:
    """A place in the file; whatever would reach over its end is damage."""

    def __init__(self, data: mmap, size: int) -> None:
        self._data, self._size, self.place = data, size, 0

    @property
    def left(self) -> int:
        return self._size - self.place

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise _Damaged(f"{what} takes {count} bytes at {self.place}, and {self.left} are left")
        start, self.place = self.place, self.place + count
        return self._data[start : self.place]

    def number(self, letter: str, what: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}"), what))[0]

    def text(self, what: str) -> str:
        try:
            return self.take(self.number("Q", what), what).decode("utf-8")
        except UnicodeDecodeError:
            raise _Damaged(f"{what} is not UTF-8") from None


def _read(path: Path, cursor: _Cursor) -> Header:
    if cursor.take(4, "the magic") != b"GGUF":
        raise InvalidInput(f"{path} is no GGUF file: it does not begin with these four letters")
    version = cursor.number("I", "the version")
    if version not in _VERSIONS:
        raise UnsupportedModel(f"{path} has GGUF version {version} (or is big-endian); 2 and 3 are covered: convert it")
    tensors, settings = (_count(cursor, what, least) for what, least in (("tensors", 24), ("settings", 13)))
    known: dict[str, Any] = {}
    for _ in range(settings):
        name = cursor.text("the name of a setting")
        _refuse_second(name, known, "setting")
        known[name] = _value(cursor, cursor.number("I", name), name)
    if known.get("split.count", 1) > 1:
        raise UnsupportedModel(f"{path} is one of {known['split.count']} parts of a model; merge them into one file")
    return Header(path, known, _tensors(cursor, tensors, known.get("general.alignment", 32)))


def _count(cursor: _Cursor, what: str, least: int) -> int:
    """How many entries follow, of at least `least` bytes each."""
    count: int = cursor.number("Q", f"the number of {what}")
    if count > min(_MOST_ENTRIES, cursor.left // least):
        raise _Damaged(f"it claims {count} {what}")
    return count


def _value(cursor: _Cursor, kind: int, name: str) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind], name)
    if kind == _STRING:
        return cursor.text(name)
    if kind == _ARRAY:
        return _array(cursor, name)
    raise _Damaged(f"{name} has the unknown type {kind}")


def _array(cursor: _Cursor, name: str) -> list[Any]:
    kind, count = cursor.number("I", name), cursor.number("Q", name)
    if kind in _SCALARS:
        items = cursor.take(count * struct.calcsize(f"<{_SCALARS[kind]}"), name)
        return list(struct.unpack(f"<{count}{_SCALARS[kind]}", items))
    if kind != _STRING:
        raise _Damaged(f"{name} is an array of the unknown type {kind}")
    if count > cursor.left // 8:
        raise _Damaged(f"{name} claims {count} strings")
    return [cursor.text(name) for _ in range(count)]


def _tensors(cursor: _Cursor, count: int, alignment: Any) -> dict[str, Tensor]:
    if type(alignment) is not int or not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise _Damaged(f"general.alignment is {alignment!r}")
    entries: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(count):
        name = cursor.text("the name of a tensor")
        _refuse_second(name, entries, "tensor")
        entries[name] = (_shape(cursor, name), cursor.number("I", name), cursor.number("Q", name))
    cursor.take(-cursor.place % alignment, "the padding before the tensors")
    found = {name: _placed(name, entry, cursor, alignment) for name, entry in entries.items()}
    _refuse_overlap(found)
    return found


def _shape(cursor: _Cursor, name: str) -> tuple[int, ...]:
    count = cursor.number("I", name)
    if not 1 <= count <= _MOST_DIMENSIONS:
        raise _Damaged(f"{name} has {count} dimensions")
    return tuple(cursor.number("Q", name) for _ in range(count))[::-1]


def _placed(name: str, entry: tuple[tuple[int, ...], int, int], cursor: _Cursor, alignment: int) -> Tensor:
    shape, kind, offset = entry
    per_block, block_bytes = _block(name, kind)
    size = prod(shape) // per_block * block_bytes
    if not size or shape[-1] % per_block:
        raise _Damaged(f"{name} has the shape {shape}")
    if offset % alignment or offset + size > cursor.left:
        raise _Damaged(f"{name} would take {size} bytes at {cursor.place + offset}, outside the file")
    return Tensor(name, shape, kind, cursor.place + offset, size)


def _block(name: str, kind: int) -> tuple[int, int]:
    """How many numbers a block of this type holds, and its bytes; a block of zeros tells whether it can be read."""
    import gguf
    import numpy as np

    try:
        quantization = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise UnsupportedModel(
            f"{name} has the tensor type {kind}, which gguf does not know; upgrade it, or take another quantization"
        ) from None
    per_block, size = gguf.GGML_QUANT_SIZES[quantization]
    try:
        gguf.dequantize(np.zeros((1, size), np.uint8), quantization)
    except NotImplementedError:
        raise UnsupportedModel(
            f"{name} is of the type {quantization.name}, which cannot be widened; take a file with another quantization"
        ) from None
    return per_block, size


def _refuse_second(name: str, known: Mapping[str, Any], what: str) -> None:
    if name in known:
        raise _Damaged(f"the {what} {name} is there twice")


def _refuse_overlap(tensors: Mapping[str, Tensor]) -> None:
    placed = sorted(tensors.values(), key=lambda tensor: tensor.start)
    for tensor, after in pairwise(placed):
        if tensor.start + tensor.bytes > after.start:
            raise _Damaged(f"{tensor.name} and {after.name} share bytes")
