"""A .tflite file in memory of which others see some signatures only.

LiteRT reads, prepares and holds every subgraph of a file it opens, and a decoder's file has one for each length and
size of cache. So the file is mapped privately, and in the pages that hold them its lists of subgraphs and signatures
are shortened: nothing is copied but those pages, and the file itself stays as it is.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import BinaryIO

from mobile_llm.artifacts.flatbuffer import Table
from mobile_llm.errors import IntegrityFailed

_SUBGRAPHS, _SIGNATURES = 2, 7  # fields of a Model
_KEY, _SUBGRAPH = 2, 4  # fields of a SignatureDef


class MappedFile:
    """The file with these signatures, in the order it has them; None for all. What is written to the map reaches no
    file. Raises IntegrityFailed for a file that is no flatbuffer or lacks one of them."""

    def __init__(self, file: BinaryIO, signatures: Collection[str] | None) -> None:
        try:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise IntegrityFailed(f"{file.name} is empty") from None
        self._edits: dict[int, int] = {}
        if signatures is not None:
            try:
                with memoryview(self.memory) as data:
                    self._edits = _edits(data, signatures)
                    for place, value in self._edits.items():
                        struct.pack_into("<I", data, place, value)
            except (struct.error, ValueError, LookupError) as error:
                self.memory.close()
                message = f"{file.name} is not a TFLite file with {', '.join(signatures)}: {error}"
                raise IntegrityFailed(message) from None

    def forget(self) -> None:
        """Let go of pages that were read, but for those with edits. Weights are looked at as a file is opened, and not
        again once they are packed; and where the system keeps a file in large pieces, one look takes in a whole one."""
        first, behind = min(self._edits, default=0), max(self._edits, default=-4) + 4
        page = mmap.PAGESIZE
        with suppress(AttributeError):  # not on Windows
            for start, end in ((0, first // page * page), (-(-behind // page) * page, len(self.memory))):
                if start < end:
                    self.memory.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        self.memory.close()


def _edits(data: memoryview, keys: Collection[str]) -> dict[int, int]:
    """What to write, by place, so that these signatures are the only ones."""
    root = Table.root(data)
    graphs = [table.position for table in root.tables(_SUBGRAPHS)]
    known = {table.text(_KEY): table for table in root.tables(_SIGNATURES)}
    if missing := set(keys) - set(known):
        raise LookupError(f"it has no {', '.join(sorted(missing))}")
    kept = [table for key, table in known.items() if key in keys]
    chosen = sorted({table.number(_SUBGRAPH, "<I") for table in kept})
    edits: dict[int, int] = {}
    for table in kept:
        # The subgraph of number 0 may be left out, and stays number 0: it is the first of those that are kept.
        place = table.place(_SUBGRAPH)
        if place is not None:
            edits[place] = chosen.index(table.number(_SUBGRAPH, "<I"))
    edits |= _references(root, _SUBGRAPHS, [graphs[index] for index in chosen])
    return edits | _references(root, _SIGNATURES, [table.position for table in kept])


def _references(root: Table, field: int, tables: list[int]) -> dict[int, int]:
    """Make these the elements of a vector, which had no fewer. Each holds the distance from itself to its table."""
    start, _ = root.span(field)
    places = range(start, start + 4 * len(tables), 4)
    return {start - 4: len(tables), **{place: table - place for place, table in zip(places, tables)}}
