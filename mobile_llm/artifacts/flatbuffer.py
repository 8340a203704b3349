"""FlatBuffers tables (https://flatbuffers.dev/internals), read without generated classes.

A table's field is found through its vtable by the field's position in the schema; absent fields have defaults.
Every offset is checked against the file's size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeVar, overload

import numpy as np

Item = TypeVar("Item")


class Table:
    """One table at a position in the file."""

    def __init__(self, data: memoryview, position: int) -> None:
        self._data = data
        self.position = position
        self._vtable = position - _unpack("<i", data, position)
        self._fields = (_unpack("<H", data, self._vtable) - 4) // 2

    @staticmethod
    def root(data: memoryview, identifier: bytes | None = None) -> Table:
        """The root table. Raises ValueError for a file of another kind, where its kind has an identifier."""
        if identifier is not None and bytes(data[4:8]) != identifier:
            raise ValueError(f"its identifier is {bytes(data[4:8])!r} instead of {identifier!r}")
        return Table(data, _unpack("<I", data, 0))

    def number(self, field: int, kind: str = "<i", default: int = 0) -> int:
        """A scalar; `kind` as in the struct module."""
        at = self.place(field)
        return default if at is None else _unpack(kind, self._data, at)

    def text(self, field: int) -> str:
        return bytes(self.vector(field, "<u1")).decode()

    def vector(self, field: int, dtype: str) -> np.ndarray:
        """A vector of numbers as a view of the file; empty where absent."""
        start, count = self.span(field)
        size = count * np.dtype(dtype).itemsize
        if start + size > len(self._data):
            raise ValueError(f"a vector of {size} bytes at {start} ends beyond the file")
        return np.frombuffer(self._data[start : start + size], dtype)

    def table(self, field: int) -> Table | None:
        at = self.place(field)
        return None if at is None else Table(self._data, at + _unpack("<I", self._data, at))

    def tables(self, field: int) -> Sequence[Table]:
        """A vector of tables, each read when it is looked at."""
        start, count = self.span(field)
        if start + 4 * count > len(self._data):
            raise ValueError(f"{count} tables at {start} end beyond the file")
        return _Tables(self._data, range(start, start + 4 * count, 4))

    def each(self, field: int, make: Callable[[Table], Item]) -> list[Item]:
        return [make(table) for table in self.tables(field)]

    def span(self, field: int) -> tuple[int, int]:
        """Where a vector's items start, and how many there are."""
        at = self.place(field)
        if at is None:
            return 0, 0
        start = at + _unpack("<I", self._data, at)
        return start + 4, _unpack("<I", self._data, start)

    def place(self, field: int) -> int | None:
        """Where a field is; None where it is absent."""
        if field >= self._fields:
            return None
        offset = _unpack("<H", self._data, self._vtable + 4 + 2 * field)
        return self.position + offset if offset else None


class _Tables(Sequence[Table]):
    """Tables, by the places of what refers to them."""

    def __init__(self, data: memoryview, places: range) -> None:
        self._data, self._places = data, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Table: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Table]: ...

    def __getitem__(self, index: int | slice) -> Table | Sequence[Table]:
        if isinstance(index, slice):
            return _Tables(self._data, self._places[index])
        place = self._places[index]
        return Table(self._data, place + _unpack("<I", self._data, place))


def _unpack(kind: str, data: memoryview, position: int) -> int:
    if position < 0:
        raise ValueError(f"an offset leads to byte {position}")
    value: int = struct.unpack_from(kind, data, position)[0]
    return value
