"""JSON schemas as llguidance takes them, and its refusals in one sentence each.

The library finds most contradictions itself. It does not find an object that has to hold itself, without end: that is
found here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mobile_llm.errors import InvalidSpec

ANY_OBJECT: dict[str, Any] = {"type": "object"}  # what is called JSON mode
_SPACES = {"whitespace_pattern": r" |\n[ \t]{0,20}"}
_AFTER = "leave it out, and check the answer for it"
# What the library says, and what that means for who wrote the schema. The first that is found counts.
_SENTENCES = (
    (r"Unsatisfiable schema: (.*)", "no answer can meet this schema: {}"),
    (r"Unimplemented keys: \[(.*)\]", f"this schema asks for {{}}, which cannot be followed; {_AFTER}"),
    (r"Unknown format: (.*)", f"this schema asks for the format {{}}, which is not known; {_AFTER}, or give a pattern"),
    (r"(oneOf) constraints", "this schema has a {} whose choices overlap, which cannot be followed; use anyOf"),
    (r"Resource '(.*?)' is not", "this schema refers to {}, outside of itself; copy what is there into its $defs"),
    (r"regex parse error.* error: (.*not supported)", f"a pattern of this schema cannot be followed: {{}}; {_AFTER}"),
    (r"regex parse error.* error: (.*)", "this is no JSON schema: a pattern in it is no regular expression, {}"),
    (r"(.*too (?:large|big|many|complex).*)", "this schema is more than can be followed: {}; make it smaller"),
    (r"(.*)", "this is no JSON schema: {}"),
)


def source(schema: Mapping[str, Any]) -> str:
    """A schema as text, with how white space is written. Raises InvalidSpec for what is no schema, or one that no
    finite answer meets."""
    if not isinstance(schema, Mapping):
        raise InvalidSpec(f'a JSON schema is a mapping such as {{"type": "object"}}, not {type(schema).__name__}')
    try:
        text = json.dumps({**schema, "x-guidance": _SPACES}, ensure_ascii=False, allow_nan=False)
        finite = _Finite(json.loads(text)).whole()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSpec(f"this is no JSON schema: {error}; pass what json.loads gives") from None
    if not finite:
        raise InvalidSpec("no answer can meet this schema: something in it has to hold itself without end")
    return text


def refusal(error: str) -> InvalidSpec:
    """What the library says about a schema, in a sentence that says what to do."""
    said = " ".join(error.split())
    found = ((re.search(pattern, said), sentence) for pattern, sentence in _SENTENCES)
    return InvalidSpec(next(sentence.format(match[1]) for match, sentence in found if match))


class _Finite:
    """Whether a schema has finite answers. In doubt it has: keywords that are not looked at are the library's part."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._ending: set[str] = set()  # references that were found to end

    def whole(self) -> bool:
        return self._ends(self._root, frozenset())

    def _ends(self, schema: Any, inside: frozenset[str]) -> bool:
        """`inside` holds the references being followed: the smallest answer never goes through one twice."""
        if not isinstance(schema, dict):
            return True
        target = schema.get("$ref")
        if isinstance(target, str) and not self._reference_ends(target, inside):
            return False
        if not all(any(self._ends(one, inside) for one in choices) for choices in _choices(schema)):
            return False
        return all(self._ends(part, inside) for part in _parts(schema))

    def _reference_ends(self, target: str, inside: frozenset[str]) -> bool:
        if target in self._ending:
            return True
        if target in inside or not self._ends(self._at(target), inside | {target}):
            return False
        self._ending.add(target)
        return True

    def _at(self, target: str) -> Any:
        """What a pointer within the schema leads to; True, which says nothing, where it leads nowhere or away."""
        if target != "#" and not target.startswith("#/"):
            return True
        found = self._root
        for key in target.split("/")[1:]:
            found = _inner(found, key.replace("~1", "/").replace("~0", "~"))
        return found


def _inner(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return value[int(key)] if key.isdigit() and int(key) < len(value) else True
    return value.get(key, True) if isinstance(value, dict) else True


def _choices(schema: dict[str, Any]) -> Iterator[list[Any]]:
    """Lists of schemas of which an answer has to meet one."""
    return (schema[key] for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list))


def _parts(schema: dict[str, Any]) -> Iterator[Any]:
    """Schemas that an answer, or something it cannot do without, has to meet."""
    yield from _list(schema.get("allOf"))
    if schema.get("type") == "object":
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from (properties[name] for name in _list(schema.get("required")) if name in properties)
    if schema.get("type") == "array" and isinstance(schema.get("minItems"), int):
        least, first = schema["minItems"], _list(schema.get("prefixItems"))
        yield from first[:least]
        if least > len(first):
            yield schema.get("items", True)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
