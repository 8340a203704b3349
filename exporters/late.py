"""A flatbuffer builder that leaves room for large contents, and asks for them only while the file is written: of all
weights one is in memory at a time, and not a second time each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import flatbuffers
import numpy as np

Contents = Callable[[], np.ndarray]
_ALIGNED = 16  # bytes that contents start at a multiple of


class LateBuilder(flatbuffers.Builder):
    """Room that is not written to takes no memory."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._late: list[tuple[int, int, Contents]] = []  # how far from the end, how many bytes, what

    def late(self, size: int, contents: Contents) -> int:
        """A vector of `size` bytes, which `contents` gives when asked, as an array of any type."""
        self.StartVector(1, size, _ALIGNED)
        self.head -= size
        self._late.append((self.Offset(), size, contents))
        return int(self.EndVector())

    def write(self, path: Path) -> None:
        """The finished buffer."""
        written, length = self.Head(), len(self.Bytes)
        with path.open("wb") as file:
            for from_end, size, contents in sorted(self._late, key=lambda item: -item[0]):
                place = length - from_end
                file.write(memoryview(self.Bytes)[written:place])
                values = np.ascontiguousarray(contents()).reshape(-1).view(np.uint8)
                if len(values) != size:
                    raise ValueError(f"room was left for {size} bytes, and there are {len(values)}")
                file.write(values.data)
                written = place + size
            file.write(memoryview(self.Bytes)[written:])
