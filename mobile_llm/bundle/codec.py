"""Typed dataclasses to JSON and back, strictly: a wrong type or an unknown key is an error that names its place.

Covers what manifests are made of: strings, numbers, booleans, None, tuples, string-keyed mappings, unions of
these, and dataclasses of them.
"""

from __future__ import annotations

import json
import reprlib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from mobile_llm.errors import InvalidInput

T = TypeVar("T")


def read_json(path: Path) -> Any:
    """The document in a file. Raises InvalidInput, naming the file, for what cannot be read as JSON in UTF-8."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path.name} cannot be read ({error.strerror})") from None
    except RecursionError:
        raise InvalidInput(f"{path.name} is nested too deeply to be read") from None
    except ValueError as error:
        raise InvalidInput(f"{path.name} is not JSON in UTF-8 ({error})") from None


def to_json(value: Any) -> Any:
    """Plain JSON data; keys whose value is the default are left out."""
    if is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value) if not _is_default(f, value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], data: Any, where: str, ignore_unknown: bool = False) -> T:
    """Build `kind` from JSON data. Raises InvalidInput naming the place (`where`) and what was expected."""
    return _Decoder(ignore_unknown).decode(kind, data, where)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_default(f: Any, owner: Any) -> bool:
    value = getattr(owner, f.name)
    if f.default is not MISSING:
        return value == f.default
    return f.default_factory is not MISSING and value == f.default_factory()


class _Decoder:
    def __init__(self, ignore_unknown: bool) -> None:
        self.ignore_unknown = ignore_unknown

    def decode(self, kind: Any, data: Any, where: str) -> Any:
        origin = get_origin(kind)
        if is_dataclass(kind):
            return self._dataclass(kind, data, where)
        if origin in (Union, types.UnionType):
            return self._union(get_args(kind), data, where)
        if origin is tuple:
            return self._tuple(get_args(kind), data, where)
        if origin is not None and issubclass(origin, Mapping):
            _expect(isinstance(data, dict), where, "an object", data)
            return {key: self.decode(get_args(kind)[1], item, f"{where}.{key}") for key, item in data.items()}
        if kind is type(None):
            _expect(data is None, where, "null", data)
            return None
        _expect(type(data) is kind or (kind is float and type(data) is int), where, kind.__name__, data)
        return data

    def _dataclass(self, kind: Any, data: Any, where: str) -> Any:
        _expect(isinstance(data, dict), where, "an object", data)
        hints = _hints(kind)
        unknown = [key for key in data if key not in hints]
        if unknown and not self.ignore_unknown:
            raise InvalidInput(f"{where} has an unknown key {unknown[0]!r}; known are {', '.join(hints)}")
        missing = [
            f.name for f in fields(kind) if f.name not in data and f.default is MISSING and f.default_factory is MISSING
        ]
        if missing:
            raise InvalidInput(f"{where} lacks the key {missing[0]!r}")
        return kind(**{k: self.decode(hints[k], v, f"{where}.{k}") for k, v in data.items() if k in hints})

    def _union(self, kinds: tuple[Any, ...], data: Any, where: str) -> Any:
        possible = [kind for kind in kinds if data is None or kind is not type(None)]
        for kind in possible:
            try:
                return self.decode(kind, data, where)
            except InvalidInput as error:
                last = error
        raise last

    def _tuple(self, kinds: tuple[Any, ...], data: Any, where: str) -> Any:
        _expect(isinstance(data, list), where, "a list", data)
        if kinds[-1] is not Ellipsis:
            _expect(len(data) == len(kinds), where, f"{len(kinds)} items", data)
            return tuple(self.decode(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, data)))
        return tuple(self.decode(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(data))


def _expect(condition: bool, where: str, expected: str, data: Any) -> None:
    if not condition:
        raise InvalidInput(f"{where} should be {expected}, not {type(data).__name__} {reprlib.repr(data)}")
