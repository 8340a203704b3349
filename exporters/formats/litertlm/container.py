"""Writing a .litertlm file: a header that lists sections, then each section at a multiple of 16 KB.

Written by hand and not by litert-lm-builder, whose files hold the time and a random number: the same inputs give the
same bytes here. The header is a flatbuffer (LiteRT-LM's schema/core/litertlm_header_schema.fbs), LlmMetadata a protocol
buffer (its runtime/proto/llm_metadata.proto). Read back by `mobile_llm.artifacts.litertlm`.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import flatbuffers

LLM_METADATA, HF_TOKENIZER, TFLITE_MODEL = 5, 6, 3
_MAGIC, _VERSION = b"LITERTLM", (1, 7, 0)
_STRING = 9  # of the kinds of values that the header can hold
_HEADER_AT, _BLOCK = 32, 16 * 1024


@dataclass(frozen=True)
class Section:
    """Its `kind`, a number of the schema; bytes, or a file that is copied; what the header says of it."""

    kind: int
    contents: bytes | Path
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.contents.stat().st_size if isinstance(self.contents, Path) else len(self.contents)

    def open(self) -> BinaryIO:
        return self.contents.open("rb") if isinstance(self.contents, Path) else BytesIO(self.contents)


def write_container(path: Path, sections: Sequence[Section], about: Mapping[str, str]) -> None:
    """`about` is what the header says of the file."""
    size = len(_header(sections, [_BLOCK] * len(sections), about))  # as long as with the offsets that follow from it
    starts, at = [], _HEADER_AT + size
    for section in sections:
        starts.append(-(-at // _BLOCK) * _BLOCK)
        at = starts[-1] + section.size
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(_MAGIC + struct.pack("<3I", *_VERSION))
        file.seek(_HEADER_AT - 8)
        file.write(struct.pack("<Q", _HEADER_AT + size) + _header(sections, starts, about))
        for section, start in zip(sections, starts):
            file.seek(start)
            with section.open() as contents:
                shutil.copyfileobj(contents, file, 1 << 20)


def _header(sections: Sequence[Section], starts: Sequence[int], about: Mapping[str, str]) -> bytes:
    builder = flatbuffers.Builder(1024)
    objects = [_section(builder, section, start) for section, start in zip(sections, starts)]
    listed = _table(builder, [(0, _vector(builder, objects))])
    system = _table(builder, [(0, _pairs(builder, about))])
    builder.Finish(_table(builder, [(0, system), (1, listed)]))
    return bytes(builder.Output())


def _section(builder: flatbuffers.Builder, section: Section, start: int) -> int:
    items = _pairs(builder, section.about)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(0, items, 0)
    builder.PrependUint64Slot(1, start, 0)
    builder.PrependUint64Slot(2, start + section.size, 0)
    builder.PrependUint8Slot(3, section.kind, 0)
    return int(builder.EndObject())


def _pairs(builder: flatbuffers.Builder, values: Mapping[str, str]) -> int:
    return _vector(builder, [_pair(builder, key, value) for key, value in values.items()])


def _pair(builder: flatbuffers.Builder, key: str, value: str) -> int:
    name, text = builder.CreateString(key), _table(builder, [(0, builder.CreateString(value))])
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUint8Slot(1, _STRING, 0)
    builder.PrependUOffsetTRelativeSlot(2, text, 0)
    return int(builder.EndObject())


def _table(builder: flatbuffers.Builder, fields: Sequence[tuple[int, int]]) -> int:
    """A table of offsets, by field."""
    builder.StartObject(len(fields))
    for number, offset in fields:
        builder.PrependUOffsetTRelativeSlot(number, offset, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
