"""How a model writes calls of tools, told from its chat template alone.

Covered: Hermes and Qwen (`<tool_call>{"name": …, "arguments": …}</tool_call>`), Mistral (`[TOOL_CALLS][{…}]`), Llama 3
(bare `{"name": …, "parameters": …}`). Not covered: calls that are not JSON (Qwen3-Coder, GLM, Python as Gemma and
Llama 4 have it) and Mistral's `[ARGS]`; those templates are refused by name of what is covered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mobile_llm.errors import UnsupportedModel
from mobile_llm.generation.json_schema import source
from mobile_llm.generation.template import Message
from mobile_llm.generation.tools import Tool, ToolCall


@dataclass(frozen=True)
class ToolSyntax:
    """A call is `marker`, `before`, a JSON object of a name and arguments, `after`, and `end`, a marker too. A marker
    may be a special token."""

    marker: str
    before: str
    arguments: str
    after: str
    end: str

    def grammar(self, tools: Sequence[Tool], marker: Callable[[str], str]) -> str:
        """Lark for exactly one call of one of `tools`; `marker` gives the Lark of a marker."""
        calls = "\n".join(self._rules(i, tool) for i, tool in enumerate(tools))
        choices = " | ".join(f"call_{i}" for i in range(len(tools)))
        around = [marker(self.marker) if self.marker else "", _quoted(self.before), "call"]
        around += [_quoted(self.after), marker(self.end) if self.end else ""]
        return f"%llguidance {{}}\nstart: {' '.join(part for part in around if part)}\ncall: {choices}\n{calls}\n"

    def _rules(self, index: int, tool: Tool) -> str:
        opening = f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "{self.arguments}": '
        schema = source({"type": "object", **tool.parameters})
        return f"call_{index}: {_quoted(opening)} arguments_{index} {_quoted('}')}\narguments_{index}: %json {schema}"

    def parse(self, text: str, names: Sequence[str]) -> tuple[str, tuple[ToolCall, ...]]:
        """An answer, special tokens included, as the words before its calls and the calls. Where anything in it is no
        call of one of `names`, all of it is words."""
        words, *pieces = text.split(self.marker) if self.marker else ("", text.removeprefix(_PYTHON))
        try:
            found = [call for piece in pieces for call in _calls(piece.lstrip())]
        except (ValueError, RecursionError):
            return text, ()
        if not found or any(name not in names for name, _ in found):
            return text, ()
        calls = [ToolCall(name, arguments, _id(text, i)) for i, (name, arguments) in enumerate(found)]
        return words.strip(), tuple(calls)


HERMES = ToolSyntax("<tool_call>", "\n", "arguments", "\n", "</tool_call>")
MISTRAL = ToolSyntax("[TOOL_CALLS]", "[", "arguments", "]", "")
LLAMA = ToolSyntax("", "", "parameters", "", "")

_PYTHON = "<|python_tag|>"  # may stand before what Llama 3 calls
_NAME_AND_PARAMETERS = re.compile(r'\{ ?\\?"name\\?": ?[^}]*\\?"parameters\\?"')  # in a template's words to the model
_OTHER_CALLS = ("<function=", "<arg_key>", "[ARGS]", "<|tool_call", "<start_function_call>", "<function_call>")


def syntax_of(template: str) -> ToolSyntax:
    """Raises UnsupportedModel for a template that writes calls in another way."""
    if not any(sign in template for sign in _OTHER_CALLS):
        if "<tool_call>" in template and "arguments" in template:
            return HERMES
        if "[TOOL_CALLS]" in template:
            return replace(MISTRAL, before=" [") if "[TOOL_CALLS] [" in template else MISTRAL
        if _NAME_AND_PARAMETERS.search(template):
            return LLAMA
    raise UnsupportedModel(
        "this model's template writes tool calls in a way that is not read here; those of Hermes and Qwen, of Llama 3 "
        "and of Mistral are"
    )


def described(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """A conversation for a template that knows no tools: they stand in the system message, calls in the assistant's
    and results in the user's, as Hermes has them but in words of ours."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    words = "\n\n".join([*(str(message["content"]) for message in system), _described(tools)])
    rest = [_in_words(message) for message in messages[len(system) :]]
    return [{"role": "system", "content": words}, *rest]


def _described(tools: Sequence[Tool]) -> str:
    listed = "\n".join(json.dumps(tool.definition()["function"], ensure_ascii=False) for tool in tools)
    return (
        f"You can call these functions:\n{listed}\n\nTo call one, write nothing but\n"
        '<tool_call>\n{"name": the function\'s name, "arguments": an object of its arguments}\n</tool_call>\n'
        "Its result comes back to you in <tool_response>."
    )


def _in_words(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = [{key: call["function"][key] for key in ("name", "arguments")} for call in message.get("tool_calls", ())]
    if not calls:
        return message
    written = [f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls]
    return {"role": "assistant", "content": "\n".join([*filter(None, [message["content"]]), *written])}


def _calls(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The calls that a text begins with. Raises ValueError for what is none."""
    value, _ = json.JSONDecoder().raw_decode(text)
    for call in value if isinstance(value, list) else [value]:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise ValueError("a call has a name")
        arguments = call.get("arguments", call.get("parameters"))
        if not isinstance(arguments, dict):
            raise ValueError("arguments are an object")
        yield call["name"], arguments


def _id(text: str, index: int) -> str:
    return hashlib.sha256(f"{index} {text}".encode()).hexdigest()[:9]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
