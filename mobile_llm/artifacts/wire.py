"""Protocol buffers on the wire (https://protobuf.dev/programming-guides/encoding), read without generated classes.

A message is its fields by number; bytes stay views of the file. What a field means is its reader's business.
Not covered: groups, which none of our formats uses.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mobile_llm.errors import IntegrityFailed

Result = TypeVar("Result")


def map_file(path: Path) -> memoryview:
    """A file's bytes, read as they are looked at. Raises IntegrityFailed for a missing or empty file."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise IntegrityFailed(f"{path.name} cannot be read: {error}; fetch it again") from None


def refuse_malformed(read: Callable[[Path], Result]) -> Callable[[Path], Result]:
    """A reader that raises IntegrityFailed, naming the file, for whatever a malformed file makes it stumble on."""

    @wraps(read)
    def checked(path: Path) -> Result:
        try:
            return read(path)
        except (ValueError, IndexError, KeyError, TypeError, struct.error, RecursionError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise IntegrityFailed(f"{path.name} is damaged or of another kind ({reason}); fetch it again") from None

    return checked


class Message:
    """The fields of one message. Numbers come as unsigned integers, everything else as a memoryview."""

    def __init__(self, data: memoryview) -> None:
        self._fields: dict[int, list[Any]] = {}
        for number, value in fields(data):
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def integer(self, number: int, default: int = 0) -> int:
        """A varint as a signed 64-bit number (the last one given counts)."""
        return _signed(self._fields[number][-1]) if number in self._fields else default

    def text(self, number: int) -> str:
        return bytes(self.view(number)).decode()

    def view(self, number: int) -> memoryview:
        """Raw bytes; empty where the field is absent."""
        found = self._fields.get(number, [memoryview(b"")])[-1]
        if not isinstance(found, memoryview):
            raise ValueError(f"field {number} should be bytes")
        return found

    def message(self, number: int) -> Message:
        return Message(self.view(number))

    def messages(self, number: int) -> list[Message]:
        return [Message(view) for view in self._fields.get(number, ())]

    def texts(self, number: int) -> list[str]:
        return [bytes(view).decode() for view in self._fields.get(number, ())]

    def integers(self, number: int) -> list[int]:
        """Repeated varints, packed or not."""
        found: list[int] = []
        for value in self._fields.get(number, ()):
            found += [_signed(v) for v in _varints(value)] if isinstance(value, memoryview) else [_signed(value)]
        return found

    def numbers(self, number: int, dtype: str) -> np.ndarray:
        """Repeated fixed-width numbers ("<f4", "<f8"), packed or not."""
        width = np.dtype(dtype).itemsize
        parts = [
            bytes(value) if isinstance(value, memoryview) else value.to_bytes(width, "little")
            for value in self._fields.get(number, ())
        ]
        return np.frombuffer(b"".join(parts), dtype)

    def number(self, number: int) -> float:
        """A 32-bit float."""
        values = self.numbers(number, "<f4")
        return float(values[-1]) if len(values) else 0.0


def fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Every field with its number, in the order of the file."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            yield number, int.from_bytes(_take(data, position, width), "little")
            position += width
        elif kind == 2:
            size, position = _varint(data, position)
            yield number, _take(data, position, size)
            position += size
        else:
            raise ValueError(f"wire type {kind} at byte {position}")


def _take(data: memoryview, position: int, size: int) -> memoryview:
    if position + size > len(data):
        raise ValueError(f"{size} bytes wanted at {position}, {len(data) - position} left")
    return data[position : position + size]


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError(f"no number ends at byte {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varints(data: memoryview) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
