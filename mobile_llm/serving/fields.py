"""Reading the fields of a JSON object: typed, named in every error, and none overlooked.

A field that is null counts as left out, as OpenAI has it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mobile_llm.serving.errors import BadField


class Fields:
    """A JSON object at `place` (such as `messages[0]`; "" for the body). Raises BadField for what is none."""

    def __init__(self, value: Any, place: str = "") -> None:
        if not isinstance(value, dict):
            raise BadField(place, f"{place or 'the body'} is a JSON object, not {_name(value)}")
        self._values = {name: inner for name, inner in value.items() if inner is not None}
        self._place = place

    def refuse_others(
        self, known: Collection[str], without_effect: Collection[str], only: Mapping[str, Any] | None = None
    ) -> None:
        """Raises BadField for every field but those that are `known`, those that are `without_effect` on an answer,
        and those that have the `only` value which asks for nothing."""
        for name, value in self._values.items():
            if only and name in only:
                if value != only[name]:
                    raise self.bad(name, f"can only be {only[name]!r} here; leave it out")
            elif name not in known and name not in without_effect:
                raise self.bad(name, "is not supported here and would change the answer; leave it out")

    def text(self, name: str) -> str | None:
        return self._get(name, (str,), "a text")

    def flag(self, name: str) -> bool:
        """False where it is left out."""
        return bool(self._get(name, (bool,), "true or false"))

    def integer(self, name: str) -> int | None:
        return self._get(name, (int,), "a whole number")

    def number(self, name: str) -> float | None:
        value = self._get(name, (int, float), "a number")
        return None if value is None else float(value)

    def items(self, name: str) -> list[Any]:
        """Empty where it is left out."""
        return self._get(name, (list,), "a list") or []

    def objects(self, name: str) -> list[Fields]:
        """Of a list of objects; empty where it is left out."""
        return [Fields(item, f"{self._at(name)}[{number}]") for number, item in enumerate(self.items(name))]

    def texts(self, name: str) -> list[str]:
        """Of one text, or a list of texts; empty where it is left out."""
        value = self._get(name, (str, list), "a text or a list of texts")
        texts = [value] if isinstance(value, str) else value or []
        if not all(isinstance(text, str) for text in texts):
            raise self.bad(name, "is a text or a list of texts, and not of token ids or lists; send texts")
        return texts

    def inner(self, name: str) -> Fields | None:
        """Of an object within this one."""
        return Fields(self._values[name], self._at(name)) if name in self._values else None

    def any(self, name: str) -> Any:
        return self._values.get(name)

    def bad(self, name: str, what: str) -> BadField:
        """The error of one of its fields: `what` goes on after its name."""
        return BadField(self._at(name), f"{self._at(name)} {what}")

    def _get(self, name: str, kinds: tuple[type, ...], wanted: str) -> Any:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.bad(name, f"is {wanted}, not {_name(value)}")
        return value

    def _at(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name


_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _name(value: Any) -> str:
    return _NAMES.get(type(value), "a number")
