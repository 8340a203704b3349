"""From a conversation and the tools of its next answer to a prompt, through the model's own template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobile_llm.errors import UnsupportedModel
from mobile_llm.generation.grammars import Lark
from mobile_llm.generation.template import ChatTemplate, Message, check_messages
from mobile_llm.generation.tool_syntax import HERMES, ToolSyntax, described, syntax_of
from mobile_llm.generation.tools import NONE, ToolCall, Tools, has_calls, normalized

_KNOWS_NONE = (
    "this model's chat template knows no tools and would leave them out without a word; take a model that was trained "
    "to call tools, or have them described in the system message (describe=True)"
)


def prompt_of(template: ChatTemplate, messages: Sequence[Message], tools: Tools | None) -> str:
    """A conversation as the model reads it, up to where it is to begin.

    Raises UnsupportedModel for tools, or calls among the messages, of which the template knows nothing; InvalidInput
    for messages that are none.
    """
    check_messages(messages)
    messages = normalized(messages)
    if template.knows_tools:
        return template.render(messages, tools.definitions if tools else None)
    if tools is not None and tools.describe:
        return template.render(described(messages, tools.tools))
    if tools is not None or has_calls(messages):
        raise UnsupportedModel(_KNOWS_NONE)
    return template.render(messages)


@dataclass(frozen=True)
class Calls:
    """The calls that an answer may make, and how the model writes them."""

    tools: Tools
    syntax: ToolSyntax

    @property
    def forced(self) -> bool:
        return bool(self.tools.forced)

    def grammar(self, marker: Callable[[str], str]) -> Lark:
        """Of exactly one call; `marker` gives the Lark of a text that may be a special token."""
        return Lark(self.syntax.grammar(self.tools.forced, marker))

    def read(self, written: str) -> tuple[str, tuple[ToolCall, ...]]:
        """What was written, special tokens included, as words and calls."""
        return self.syntax.parse(written, [tool.name for tool in self.tools.tools])


def calls_of(template: ChatTemplate | None, tools: Tools | None) -> Calls | None:
    """None where nothing may be called. Raises UnsupportedModel for a template that knows no tools, or writes calls in
    a way that is not read here."""
    if tools is None or tools.choice == NONE:
        return None
    if template is not None and template.knows_tools:
        return Calls(tools, syntax_of(template.source))
    if not tools.describe:
        raise UnsupportedModel(_KNOWS_NONE)
    return Calls(tools, HERMES)
