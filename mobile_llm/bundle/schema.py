"""The JSON Schema of manifest.json, derived from the dataclasses, for readers in other languages.

`python -m mobile_llm.bundle.schema` writes `manifest.schema.json` beside this file; a test holds the two equal.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from mobile_llm.bundle.manifest import SCHEMA_VERSION, Manifest

SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")
_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def manifest_schema() -> dict[str, Any]:
    """The schema of the newest manifest version, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"mobile_llm bundle manifest {SCHEMA_VERSION}",
        **_schema(Manifest),
    }


def _schema(kind: Any) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _object(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(k) for k in arguments]}
    if origin is tuple:
        return _array(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return {"type": _SCALARS[kind]}


def _array(kinds: tuple[Any, ...]) -> dict[str, Any]:
    if kinds[-1] is Ellipsis:
        return {"type": "array", "items": _schema(kinds[0])}
    items = [_schema(kind) for kind in kinds]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _object(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    return {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "properties": {name: _schema(hint) for name, hint in hints.items()},
        "required": required,
        "additionalProperties": False,
    }


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(manifest_schema(), indent=2) + "\n", encoding="utf-8")
