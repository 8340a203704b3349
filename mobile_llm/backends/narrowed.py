"""A .tflite file in memory of which others see some signatures only.

LiteRT reads, prepares and holds every subgraph of a file it opens, and a decoder's file has one for each length and
size of cache. So the file is mapped privately, and in the pages that hold them its lists of subgraphs and signatures
are shortened: nothing is copied but those pages, and the file itself stays as it is.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from typing import BinaryIO

from mobile_llm.artifacts.flatbuffer import Table
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
            with memoryview(view) as data:
                _narrow(data, signatures)
        except (struct.error, ValueError, LookupError) as error:
            view.close()
            raise IntegrityFailed(f"{file.name} is not a TFLite file with {', '.join(signatures)}: {error}") from None
    return view


def _narrow(data: memoryview, keys: Collection[str]) -> None:
    root = Table.root(data)
    graphs = [table.position for table in root.tables(_SUBGRAPHS)]
    known = {table.text(_KEY): table for table in root.tables(_SIGNATURES)}
    if missing := set(keys) - set(known):
        raise LookupError(f"it has no {', '.join(sorted(missing))}")
    kept = [table for key, table in known.items() if key in keys]
    chosen = sorted({table.number(_SUBGRAPH, "<I") for table in kept})
    for table in kept:
        _renumber(data, table, chosen)
    _refer(data, root, _SUBGRAPHS, [graphs[index] for index in chosen])
    _refer(data, root, _SIGNATURES, [table.position for table in kept])


def _renumber(data: memoryview, signature: Table, chosen: list[int]) -> None:
    """The subgraph of number 0 may be left out, and stays number 0: it is the first of those that are kept."""
    number = signature.number(_SUBGRAPH, "<I")
    place = signature.place(_SUBGRAPH)
    if place is not None:
        struct.pack_into("<I", data, place, chosen.index(number))


def _refer(data: memoryview, root: Table, field: int, tables: list[int]) -> None:
    """Make these the elements of a vector, which had no fewer. Each holds the distance from itself to its table."""
    start, _ = root.span(field)
    for place, table in zip(range(start, start + 4 * len(tables), 4), tables):
        struct.pack_into("<I", data, place, table - place)
    struct.pack_into("<I", data, start - 4, len(tables))
