"""The messages of a chat request, as the models' templates take them. Covered: texts, calls and their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mobile_llm.serving.fields import Fields

_KNOWN = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")
_NO_EFFECT = ("refusal", "annotations")


def read_messages(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    """Raises BadField for what is none, and for images and sound."""
    given = fields.objects("messages")
    if not given:
        raise fields.bad("messages", "has no message; send at least one")
    return tuple(map(_message, given))


def _message(fields: Fields) -> dict[str, Any]:
    fields.refuse_others(_KNOWN, _NO_EFFECT)
    if fields.text("role") is None:
        raise fields.bad("role", "is missing; say who speaks")
    content = _content(fields)
    if content is None and not fields.items("tool_calls"):
        raise fields.bad("content", "is missing; send a text")
    rest = {name: fields.any(name) for name in _KNOWN if fields.any(name) is not None}
    return {**rest, "content": content or ""}


def _content(fields: Fields) -> str | None:
    """A text, or the texts of parts joined."""
    if not isinstance(fields.any("content"), list):
        return fields.text("content")
    return "".join(map(_part, fields.objects("content")))


def _part(part: Fields) -> str:
    text = part.text("text")
    if part.any("type") != "text" or text is None:
        raise part.bad("type", f"is {part.any('type')!r}; this model takes parts with a text, of the type 'text', only")
    return text
