"""What a model that writes is made of: one engine, its tokenizer, its chat template, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from mobile_llm.bundle import Bundle
from mobile_llm.bundle.manifest import Generation
from mobile_llm.errors import IntegrityFailed, InvalidInput, InvalidSpec
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.form import Form
from mobile_llm.generation.grammars import Grammar, Grammars
from mobile_llm.generation.loop import Request
from mobile_llm.generation.prompts import Calls, prompt_of
from mobile_llm.generation.stream import Done, Stream
from mobile_llm.generation.template import TEMPLATE_FILE, ChatTemplate, Message
from mobile_llm.generation.tools import Tools
from mobile_llm.generation.turn import Turn, Turns
from mobile_llm.tasks.tokenization import TOKENIZER_FILE, TextTokenizer


class Writer:
    """Shared by a model and its sessions."""

    def __init__(self, engine: DecoderEngine) -> None:
        self.engine = engine
        self.turns = Turns(engine.close)
        self.tokenizer = TextTokenizer(engine.bundle)
        self.template = chat_template(engine.bundle)
        self.generation = engine.manifest.task.generation or Generation(stop=())

    @cached_property
    def grammars(self) -> Grammars:
        """What compiles schemas for this model's tokens."""
        text = self.engine.bundle.own_file(TOKENIZER_FILE).read_text(encoding="utf-8")
        return Grammars(text, self.generation.stop)

    def prompt(self, messages: Sequence[Message], tools: Tools | None = None) -> str:
        """A conversation as the model reads it, up to where it is to answer. Raises InvalidInput, UnsupportedModel for
        tools of which the template knows nothing."""
        return prompt_of(self.needed_template(), messages, tools)

    def needed_template(self) -> ChatTemplate:
        """Raises InvalidInput where there is none."""
        if self.template is None:
            raise InvalidInput(f"this model has no chat template ({TEMPLATE_FILE}); pass the prompt as one text")
        return self.template

    def encode(self, prompt: str | Sequence[Message], tools: Tools | None = None) -> list[int]:
        """A prompt's ids. A conversation's template writes the special tokens itself."""
        if not isinstance(prompt, str):
            return self.encode_prompt(self.prompt(prompt, tools))
        if tools is not None:
            raise InvalidInput("tools are part of a conversation; pass the prompt as messages, not as one text")
        return list(self.tokenizer.encode(prompt).ids)

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of what the template has written."""
        return list(self.tokenizer.encode(text, special=False).ids)

    def form(self, request: Request, schema: Grammar | None, calls: Calls | None = None) -> Form:
        """The same request for an answer that meets `schema`, or makes the calls that are forced. Raises InvalidSpec
        for a schema that cannot be followed, and for both at once."""
        grammar = schema
        if calls is not None and calls.forced:
            if schema is not None:
                raise InvalidSpec(
                    "an answer cannot meet a schema and be a call too; leave out schema, or force no call"
                )
            grammar = calls.grammar(self.grammars.marker)
        if grammar is None:
            return Form(request, None, calls, self.tokenizer.decode)
        room = self.engine.context - len(request.ids) + 1  # the last token is written, and not read
        constraint = self.grammars.start(grammar, min(request.max_tokens, room))
        return Form(replace(request, constraint=constraint), constraint, calls, self.tokenizer.decode)

    def stream(self, request: Request, turn: Turn, done: Done) -> Stream:
        """An answer that is written as it is read."""
        return Stream(self.engine, self.tokenizer.decode, request, turn, done)


def chat_template(bundle: Bundle) -> ChatTemplate | None:
    """A bundle's template, None where it has none. Raises IntegrityFailed for a file that cannot be read."""
    if not any(file.path == TEMPLATE_FILE for file in bundle.manifest.files):
        return None
    try:
        source = bundle.own_file(TEMPLATE_FILE).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise IntegrityFailed(f"{TEMPLATE_FILE} is not UTF-8; fetch the bundle again") from None
    generation = bundle.manifest.task.generation
    return ChatTemplate(source, generation.special if generation else None)
