"""Text generation: a prompt or a conversation in, what the model writes out. Greedy by default.

Not covered: several answers at once, streaming (sessions will).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from mobile_llm.bundle import Bundle
from mobile_llm.bundle.manifest import Generation
from mobile_llm.errors import IntegrityFailed, InvalidInput, InvalidSpec
from mobile_llm.generation.constraint import Constraint
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.grammars import Grammar, GrammarConstraint, Grammars
from mobile_llm.generation.prompts import Calls, calls_of, prompt_of
from mobile_llm.generation.sampler import Choose, Sampler
from mobile_llm.generation.template import ChatTemplate, Message
from mobile_llm.generation.tools import ToolCall, Tools, assistant_message
from mobile_llm.tasks.tokenization import TOKENIZER_FILE, TextTokenizer

TEMPLATE_FILE = "chat_template.jinja"
Finish = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class Answer:
    """What was written. `finish` says why it ended: at a `stop` token or string, at the `length` asked for, or
    because the `context` is full. Under a grammar, `complete` says whether the text is whole by it, and an answer that
    had to be brought to its end within max_tokens finishes with `length` too. `text` is without the `tool_calls`."""

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: Finish
    complete: bool = True
    tool_calls: tuple[ToolCall, ...] = ()

    def message(self) -> Message:
        """The next message of the conversation."""
        return assistant_message(self.text, self.tool_calls)


class ChatModel:
    """A model that writes, over one engine. Prompts that begin as the one before are not read again."""

    def __init__(self, engine: DecoderEngine) -> None:
        self.engine = engine
        self._tokenizer = TextTokenizer(engine.bundle)
        self._generation = engine.manifest.task.generation or Generation(stop=())
        self._template = chat_template(engine.bundle)

    def generate(
        self,
        prompt: str | Sequence[Message],
        max_tokens: int = 256,
        sampler: Sampler | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        schema: Grammar | None = None,
        tools: Tools | None = None,
    ) -> Answer:
        """Write what follows a text, or the answer to a conversation, which goes through the model's chat template.

        `schema` is a JSON schema that the answer meets, or a Regex or Lark grammar that it follows. `tools` are what
        the model may call instead of answering in words, or has to.

        Raises ContextFull for a prompt that does not fit, InvalidInput for one that is empty or a conversation that
        the template refuses, InvalidSpec for settings that cannot be and for a schema that is none, that no answer
        meets, or that cannot be followed, UnsupportedModel for tools of which the model's template knows nothing.
        """
        if max_tokens < 1:
            raise InvalidSpec(f"max_tokens is {max_tokens}; ask for at least one")
        calls = calls_of(self._template, tools)
        ids = self.encode(prompt, calls.tools if calls else None)
        grammar = self._grammar_of(calls, schema)
        constraint = None if grammar is None else self._start(grammar, max_tokens, len(ids))
        answer = self._write(ids, max_tokens, (sampler or Sampler()).start(seed), stop, constraint)
        answer = answer if constraint is None else _under(constraint, answer)
        return answer if calls is None else self._with_calls(answer, calls)

    def _write(
        self, ids: list[int], max_tokens: int, choose: Choose, stop: Sequence[str], constraint: Constraint | None
    ) -> Answer:
        logits = self.engine.continue_with(ids)
        written: list[int] = []
        while True:
            if constraint is not None:
                constraint.apply(logits)
            token = choose(logits, [*ids, *written])
            if token in self._generation.stop:
                return self._answer(written, ids, "stop")
            written.append(token)
            if constraint is not None:
                constraint.accept(token)
                if constraint.finished():
                    return self._answer(written, ids, "stop")
            if any(text in self._tokenizer.decode(written) for text in stop):
                return self._answer(written, ids, "stop", stop)
            if len(written) == max_tokens:
                return self._answer(written, ids, "length")
            if len(self.engine.tokens) == self.engine.context:
                return self._answer(written, ids, "context")
            logits = self.engine.append([token])

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self._template is not None

    def encode(self, prompt: str | Sequence[Message], tools: Tools | None = None) -> list[int]:
        """A prompt's ids. A conversation's template writes the special tokens itself."""
        if isinstance(prompt, str):
            if tools is not None:
                raise InvalidInput("tools are part of a conversation; pass the prompt as messages, not as one text")
            ids = self._tokenizer.encode(prompt).ids
        elif self._template is None:
            raise InvalidInput(f"this model has no chat template ({TEMPLATE_FILE}); pass the prompt as one text")
        else:
            ids = self._tokenizer.encode(prompt_of(self._template, prompt, tools), special=False).ids
        if not ids:
            raise InvalidInput("the prompt is empty; a model that writes needs at least one token to begin with")
        return list(ids)

    @cached_property
    def grammars(self) -> Grammars:
        """What compiles schemas for this model's tokens."""
        text = self.engine.bundle.own_file(TOKENIZER_FILE).read_text(encoding="utf-8")
        return Grammars(text, self._generation.stop)

    def close(self) -> None:
        self.engine.close()

    def _start(self, grammar: Grammar, max_tokens: int, prompt_tokens: int) -> GrammarConstraint:
        room = self.engine.context - prompt_tokens + 1  # the last token is written, and not read
        return self.grammars.start(grammar, min(max_tokens, room))

    def _grammar_of(self, calls: Calls | None, schema: Grammar | None) -> Grammar | None:
        if calls is None or not calls.forced:
            return schema
        if schema is not None:
            raise InvalidSpec("an answer cannot meet a schema and be a call too; leave out schema, or force no call")
        return calls.grammar(self.grammars.marker)

    def _with_calls(self, answer: Answer, calls: Calls) -> Answer:
        text, made = calls.read(self._tokenizer.decode(answer.tokens, special=True))
        return replace(answer, text=text, tool_calls=made) if made else answer

    def _answer(self, written: list[int], prompt: list[int], finish: Finish, stop: Sequence[str] = ()) -> Answer:
        text = self._tokenizer.decode(written)
        places = [text.find(s) for s in stop if s in text]
        return Answer(text[: min(places)] if places else text, tuple(written), len(prompt), finish)


def _under(constraint: GrammarConstraint, answer: Answer) -> Answer:
    finish: Finish = "length" if constraint.shortened and answer.finish == "stop" else answer.finish
    return replace(answer, finish=finish, complete=constraint.complete)


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


ENGINE = DecoderEngine


def open_task(engine: DecoderEngine) -> ChatModel:
    return ChatModel(engine)
