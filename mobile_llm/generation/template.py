"""Chat templates: messages to a prompt, in jinja2's sandbox.

A template comes with a model, so it is not trusted: it reads what it is given, reaches no attribute that could run
code, and is stopped where it writes or loops too much.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mobile_llm.errors import InvalidInput

_LONGEST = 10_000_000  # characters of a prompt
_MOST_STEPS = 1_000_000
Message = Mapping[str, Any]


class ChatTemplate:
    """A compiled template. `knows_tools` is whether it asks for tools at all: others leave them out without a word.

    Raises InvalidInput for what is none.
    """

    def __init__(self, source: str, special: Mapping[str, str] | None = None) -> None:
        self._special = dict(special or {})
        self._environment = _environment()
        self.source = source
        try:
            self._template = self._environment.from_string(source)
            self.knows_tools = "tools" in meta.find_undeclared_variables(self._environment.parse(source))
        except jinja2.TemplateError as error:
            raise InvalidInput(f"the chat template cannot be read: {error}; take another copy of the model") from None

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None = None, answer: bool = True) -> str:
        """The prompt of a conversation; with `answer` it ends where the model is to begin.

        Raises InvalidInput for messages that are none and for what the template itself refuses.
        """
        check_messages(messages)
        values = {"messages": list(messages), "tools": tools, "add_generation_prompt": answer, **self._special}
        self._environment.steps = 0
        try:
            return _joined(self._template.generate(**values))
        except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError, RecursionError) as error:
            raise InvalidInput(f"the chat template refuses this conversation: {error}") from None


def check_messages(messages: Sequence[Any]) -> None:
    """Raises InvalidInput for what are no messages."""
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidInput('a message is a mapping with a "role" and a "content", such as {"role": "user", …}')


class _Limited(ImmutableSandboxedEnvironment):
    """Counts what a template loops over, calls and asks for, so that one that never ends is stopped, and multiplies
    small things only."""

    intercepted_binops = frozenset(["*", "**"])

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.steps = 0
        self.globals["range"] = self._range

    def getattr(self, obj: Any, attribute: str) -> Any:
        self._count(1)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self._count(1)
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, (str, list, tuple)) or isinstance(right, (str, list, tuple)) or operator == "**":
            self._count(abs(int(right if isinstance(right, int) else left)))
        return super().call_binop(context, operator, left, right)

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._count(len(numbers))
        return numbers

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > _MOST_STEPS:
            raise jinja2.TemplateRuntimeError(f"it takes more than {_MOST_STEPS:,} steps")


def _environment() -> _Limited:
    environment = _Limited(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


class _Generation(Extension):
    """`{% generation %}` marks what the model writes, for training; here its inside is written as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own convention

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        inside: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return inside


def _joined(pieces: Iterator[str]) -> str:
    parts: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > _LONGEST or len(parts) > _MOST_STEPS:
            raise jinja2.TemplateRuntimeError(f"the prompt would be longer than {_LONGEST:,} characters")
        parts.append(piece)
    return "".join(parts)


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False, **settings: Any) -> str:
    """As transformers has it: no HTML is escaped."""
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **settings)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
