"""A .tflite file in memory of which others see some signatures only.

LiteRT reads, prepares and holds every subgraph of a file it opens, and a decoder's file has one for each length and
size of cache. So the file is mapped privately, and in the pages that hold them its lists of subgraphs and signatures
are shortened: nothing is copied but those pages, and the file itself stays as it is.

Flatbuffers, as far as needed (https://flatbuffers.dev/internals): a table begins with the distance back to its vtable,
which has the place of each field in the table or 0; a field that refers to something, and each element of a vector of
tables, holds the distance from itself.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from typing import BinaryIO

from mobile_llm.errors import IntegrityFailed

_SUBGRAPHS, _SIGNATURES = 2, 7  # fields of a Model
_KEY, _SUBGRAPH = 2, 4  # fields of a SignatureDef


def mapped(file: BinaryIO, signatures: Collection[str] | None) -> mmap.mmap:
    """The file with these signatures, in the order it has them; None for all. What is written to the map reaches no
    file. Raises IntegrityFailed for a file that is no flatbuffer or lacks one of them."""
    try:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except ValueError:
        raise IntegrityFailed(f"{file.name} is empty") from None
    if signatures is not None:
        try:
            _narrow(_Tables(view), signatures)
        except (struct.error, UnicodeDecodeError, LookupError) as error:
            view.close()
            raise IntegrityFailed(f"{file.name} is not a TFLite file with {', '.join(signatures)}: {error}") from None
    return view


class _Tables:
    """Places are offsets from the file's beginning."""

    def __init__(self, view: mmap.mmap) -> None:
        self._view = view

    def number(self, place: int) -> int:
        return int(struct.unpack_from("<I", self._view, place)[0])

    def write(self, place: int, number: int) -> None:
        struct.pack_into("<I", self._view, place, number)

    def followed(self, place: int) -> int:
        return place + self.number(place)

    def field(self, table: int, index: int) -> int | None:
        """Where it is; None for one that was left out."""
        vtable = table - struct.unpack_from("<i", self._view, table)[0]
        size, *_ = struct.unpack_from("<H", self._view, vtable)
        (offset,) = struct.unpack_from("<H", self._view, vtable + 4 + 2 * index) if 4 + 2 * index < size else (0,)
        return table + offset if offset else None

    def needed(self, table: int, index: int) -> int:
        place = self.field(table, index)
        if place is None:
            raise LookupError(f"field {index} of a table is missing")
        return place

    def elements(self, vector: int) -> range:
        count = self.number(vector)
        if vector + 4 + 4 * count > len(self._view):
            raise LookupError("a vector ends behind the file")
        return range(vector + 4, vector + 4 + 4 * count, 4)

    def text(self, vector: int) -> str:
        return self._view[vector + 4 : vector + 4 + self.number(vector)].decode()

    def refer(self, vector: int, tables: list[int]) -> None:
        """Make these the elements of a vector, which had no fewer."""
        for place, table in zip(self.elements(vector), tables, strict=False):
            self.write(place, table - place)
        self.write(vector, len(tables))


def _narrow(tables: _Tables, keys: Collection[str]) -> None:
    root = tables.followed(0)
    subgraphs, signatures = (tables.followed(tables.needed(root, field)) for field in (_SUBGRAPHS, _SIGNATURES))
    known = {_key(tables, place): tables.followed(place) for place in tables.elements(signatures)}
    if missing := set(keys) - set(known):
        raise LookupError(f"it has no {', '.join(sorted(missing))}")
    kept = [known[key] for key in known if key in keys]
    graphs = [tables.followed(place) for place in tables.elements(subgraphs)]
    chosen = sorted({_subgraph(tables, signature) for signature in kept})
    for signature in kept:
        _renumber(tables, signature, chosen.index(_subgraph(tables, signature)))
    tables.refer(subgraphs, [graphs[index] for index in chosen])
    tables.refer(signatures, kept)


def _key(tables: _Tables, place: int) -> str:
    return tables.text(tables.followed(tables.needed(tables.followed(place), _KEY)))


def _subgraph(tables: _Tables, signature: int) -> int:
    place = tables.field(signature, _SUBGRAPH)
    return 0 if place is None else tables.number(place)


def _renumber(tables: _Tables, signature: int, index: int) -> None:
    """The subgraph of number 0 may be left out, and stays number 0: it is the first of those that are kept."""
    if index != _subgraph(tables, signature):
        tables.write(tables.needed(signature, _SUBGRAPH), index)
