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

TEMPLATE_FILE = "chat_template.jinja"
_LONGEST = 10_000_000  # characters of a prompt
_MOST_STEPS = 200_000  # some thousands of messages
ROLES = ("system", "developer", "user", "assistant", "tool")
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


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidInput for what is no message, and for an unknown role: most templates write any that they are
    given, and the model then answers to one that it has never seen."""
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidInput('a message is a mapping with a "role" and a "content", such as {"role": "user", …}')
        if message["role"] not in ROLES:
            raise InvalidInput(f"message {number} has the role {message['role']!r}; roles are {', '.join(ROLES)}")


class _Limited(ImmutableSandboxedEnvironment):
    """Counts rounds of loops, calls of macros and what is asked for, so that a template that never ends is stopped,
    and multiplies small things only."""

    intercepted_binops = frozenset(["*", "**"])

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.steps = 0
        self.globals["range"] = self._range

    def _parse(self, *source: Any) -> nodes.Template:
        """Count a step wherever a template can go round: ten loops within each other ask for no attribute."""
        tree = super()._parse(*source)
        for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            counted = nodes.ExprStmt(nodes.EnvironmentAttribute("step"))
            node.body.insert(0, counted.set_lineno(node.lineno))  # type: ignore[attr-defined]
        return tree

    @property
    def step(self) -> None:
        """Counts by being read: a call through the sandbox would take several times as long."""
        self._count(1)

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
