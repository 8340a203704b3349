"""LiteRT-LM files (.litertlm, LiteRT-LM's schema/core/litertlm_header_schema.fbs): a header that lists sections, one of
them a TFLite model. Sections of the kinds that our files have are read, others are passed over; nothing is run."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mobile_llm.artifacts import tflite
from mobile_llm.artifacts.flatbuffer import Table
from mobile_llm.artifacts.graph import ArtifactGraph
from mobile_llm.artifacts.wire import Message, map_file, refuse_malformed

_MAGIC, _MAJOR = b"LITERTLM", 1
_HEADER_AT = 32
_TFLITE_MODEL, _LLM_METADATA, _HF_TOKENIZER = 3, 5, 6
_LARGEST_TOKENIZER = 1 << 28


@dataclass(frozen=True)
class Contents:
    """What a file holds: a TFLite model, tokenizer.json, and of the metadata the ids that end an answer, the most
    tokens of a conversation, and the chat template ("" without one)."""

    model: memoryview
    tokenizer: bytes
    stop: tuple[int, ...]
    most_tokens: int
    template: str


@refuse_malformed
def read(path: Path) -> ArtifactGraph:
    """The graph of the model inside. Raises IntegrityFailed for what is not a LiteRT-LM file."""
    return replace(tflite.parse(_sections(path)[_TFLITE_MODEL]), format="litertlm")


@refuse_malformed
def read_ends(path: Path) -> ArtifactGraph:
    """The same without operators and constants."""
    return replace(tflite.parse_ends(_sections(path)[_TFLITE_MODEL]), format="litertlm")


@refuse_malformed
def unpack(path: Path) -> Contents:
    """Raises IntegrityFailed for what is not a LiteRT-LM file, or lacks one of these sections."""
    sections = _sections(path)
    metadata = Message(sections[_LLM_METADATA])
    return Contents(
        model=sections[_TFLITE_MODEL],
        tokenizer=_inflated(sections[_HF_TOKENIZER]),
        stop=tuple(i for token in metadata.messages(2) for i in token.message(1).integers(1)),
        most_tokens=metadata.integer(5),
        template=metadata.text(7),
    )


@contextmanager
def model_file(path: Path) -> Iterator[Path]:
    """The model inside as a .tflite file, there while the block runs: what opened it keeps its contents."""
    with TemporaryDirectory() as scratch:
        model = Path(scratch) / f"{path.stem}.tflite"
        model.write_bytes(unpack(path).model)
        yield model


def _sections(path: Path) -> dict[int, memoryview]:
    """The bytes of each section by its kind."""
    data = map_file(path)
    magic, major = bytes(data[:8]), struct.unpack_from("<I", data, 8)[0]
    if (magic, major) != (_MAGIC, _MAJOR):
        raise ValueError(f"it begins with {magic!r} {major} instead of {_MAGIC!r} {_MAJOR}")
    header = data[_HEADER_AT : struct.unpack_from("<Q", data, _HEADER_AT - 8)[0]]
    listed = Table.root(header).table(1)
    return dict(_section(data, table) for table in (listed.tables(0) if listed else ()))


def _section(data: memoryview, table: Table) -> tuple[int, memoryview]:
    start, end = table.number(1, "<Q"), table.number(2, "<Q")
    if not start <= end <= len(data):
        raise ValueError(f"a section from byte {start} to {end} is not inside the file")
    return table.number(3, "<B"), data[start:end]


def _inflated(section: memoryview) -> bytes:
    """Behind the size it has when it is unpacked."""
    size = struct.unpack_from("<Q", section, 0)[0]
    if size > _LARGEST_TOKENIZER:
        raise ValueError(f"a tokenizer of {size} bytes")
    try:
        contents = zlib.decompressobj().decompress(section[8:], size + 1)
    except zlib.error as error:
        raise ValueError(f"a tokenizer that cannot be unpacked: {error}") from None
    if len(contents) != size:
        raise ValueError(f"a tokenizer of {len(contents)} bytes instead of {size}")
    return contents
