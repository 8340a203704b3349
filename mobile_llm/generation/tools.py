"""Tools that a model may call, the calls it makes, and how both stand in a conversation.

Definitions and messages are those of OpenAI's chat API, which models' templates take too. How a call is written is the
model's own affair: see `tool_syntax`. Not covered: several forced calls at once, files and pictures as results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mobile_llm.errors import InvalidInput, InvalidSpec
from mobile_llm.generation.json_schema import ANY_OBJECT
from mobile_llm.generation.template import Message

AUTO, NONE, REQUIRED = "auto", "none", "required"


@dataclass(frozen=True)
class Tool:
    """A function by its name, what it is for, and the JSON schema of its arguments (an object)."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: dict(ANY_OBJECT))

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidSpec("a tool has no name; give it one to be called by")
        if not isinstance(self.parameters, Mapping) or self.parameters.get("type", "object") != "object":
            raise InvalidSpec(
                f'the parameters of the tool {self.name} are no JSON schema of an object ("type": "object")'
            )

    @classmethod
    def read(cls, definition: Any) -> Tool:
        """From a mapping as of OpenAI's API, with or without `{"type": "function", "function": …}` around it."""
        inner = definition.get("function", definition) if isinstance(definition, Mapping) else definition
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise InvalidSpec('a tool is a mapping with a "name", a "description" and "parameters", its JSON schema')
        return cls(inner["name"], inner.get("description") or "", inner.get("parameters") or dict(ANY_OBJECT))

    def definition(self) -> dict[str, Any]:
        """As templates take it."""
        described = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": described}


@dataclass(frozen=True)
class Tools:
    """What may be called in one answer. `choice` is "auto" (the model decides), "none", "required" (exactly one call)
    or the name of the tool that has to be called. `describe` tells a model whose template knows no tools about them in
    the system message, in words of ours that it was not trained on."""

    tools: tuple[Tool, ...]
    choice: str = AUTO
    describe: bool = False

    def __post_init__(self) -> None:
        names = [tool.name for tool in self.tools]
        if not names:
            raise InvalidSpec("there are no tools to call; leave tools out")
        if len(set(names)) < len(names):
            raise InvalidSpec(f"two tools have one name; each of {', '.join(names)} needs its own")
        if self.choice not in (AUTO, NONE, REQUIRED, *names):
            raise InvalidSpec(f'tool_choice is {self.choice!r}; it is "auto", "none", "required" or one of {names}')

    @classmethod
    def read(cls, definitions: Sequence[Any], choice: Any = AUTO, describe: bool = False) -> Tools:
        """From mappings as of OpenAI's API; `choice` too may be `{"type": "function", "function": {"name": …}}`."""
        if isinstance(choice, Mapping):
            choice = Tool.read(choice).name
        return cls(tuple(Tool.read(definition) for definition in definitions), choice, describe)

    @property
    def definitions(self) -> list[dict[str, Any]]:
        return [tool.definition() for tool in self.tools]

    @property
    def forced(self) -> tuple[Tool, ...]:
        """Those of which one has to be called; none where the model may answer in words."""
        if self.choice in (AUTO, NONE):
            return ()
        return self.tools if self.choice == REQUIRED else tuple(t for t in self.tools if t.name == self.choice)


@dataclass(frozen=True)
class ToolCall:
    """A call that a model made. `id` is nine letters and digits, which is what the strictest templates ask for."""

    name: str
    arguments: Mapping[str, Any]
    id: str


def assistant_message(text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """An answer as the next message of its conversation."""
    made = [
        {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
        for call in calls
    ]
    return {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}


def tool_message(call: ToolCall, result: str) -> dict[str, Any]:
    """What a call gave, as the next message of its conversation."""
    return {"role": "tool", "name": call.name, "tool_call_id": call.id, "content": result}


def has_calls(messages: Sequence[Message]) -> bool:
    """Whether a conversation holds calls or their results."""
    return any(message.get("tool_calls") or message.get("role") == "tool" for message in messages)


def normalized(messages: Sequence[Message]) -> list[Message]:
    """Messages with arguments as mappings, which templates write as JSON, and with a text where OpenAI's API has none.

    Raises InvalidInput for a call that is none.
    """
    return [_normalized(message) if message.get("tool_calls") else message for message in messages]


def _normalized(message: Message) -> Message:
    calls = message["tool_calls"]
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise InvalidInput("the tool_calls of a message are a list of calls")
    return {**message, "content": message.get("content") or "", "tool_calls": [_call(call) for call in calls]}


def _call(call: Any) -> dict[str, Any]:
    inner = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise InvalidInput('a tool call is {"type": "function", "function": {"name": …, "arguments": …}}')
    arguments = inner.get("arguments", {})
    try:
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        read = None
    if not isinstance(read, Mapping):
        raise InvalidInput(f"the arguments of the call of {inner['name']} are no JSON object")
    return {**call, "type": "function", "function": {**inner, "arguments": read}}
