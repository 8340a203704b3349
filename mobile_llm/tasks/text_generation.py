"""Text generation: a prompt or a conversation in, what the model writes out, whole or while it is written. Greedy by
default.

Not covered: several answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from mobile_llm.generation import prefix
from mobile_llm.generation.answer import Answer
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.grammars import Grammar, Grammars
from mobile_llm.generation.loop import Request
from mobile_llm.generation.prompts import calls_of
from mobile_llm.generation.sampler import Sampler
from mobile_llm.generation.session import MOST_TOKENS, ChatSession, WhenFull
from mobile_llm.generation.stream import Stream
from mobile_llm.generation.template import Message
from mobile_llm.generation.tools import Tools
from mobile_llm.generation.writer import Writer


class ChatModel:
    """A model that writes, over one engine, which is in one turn at a time: a second one is refused (Busy). Prompts
    that begin as the one before are not read again. Use as a context manager or `close()` it."""

    def __init__(self, engine: DecoderEngine) -> None:
        self.engine = engine
        self._writer = Writer(engine)

    def session(
        self,
        system: str | None = None,
        messages: Sequence[Message] = (),
        sampler: Sampler | None = None,
        seed: int = 0,
        when_full: WhenFull = "error",
    ) -> ChatSession:
        """A conversation, with a message of the system first or with `messages` that were said before; see
        `ChatSession` for the rest. Raises InvalidInput for a model without a chat template and for messages that are
        none, InvalidSpec."""
        before = [{"role": "system", "content": system}] if system is not None else []
        return ChatSession(self._writer, [*before, *messages], sampler, seed, when_full)

    def generate(
        self,
        prompt: str | Sequence[Message],
        max_tokens: int = MOST_TOKENS,
        sampler: Sampler | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        schema: Grammar | None = None,
        tools: Tools | None = None,
        lookup: bool | None = None,
    ) -> Answer:
        """Write what follows a text, or the answer to a conversation, which goes through the model's chat template.

        `schema` is a JSON schema that the answer meets, or a Regex or Lark grammar that it follows. `tools` are what
        the model may call instead of answering in words, or has to. `lookup` has words that repeat the text so far read
        several at once; left out, where that is sure to change nothing.

        Raises ContextFull for a prompt that does not fit, InvalidInput for one that is empty or a conversation that
        the template refuses, InvalidSpec for settings that cannot be and for a schema that is none, that no answer
        meets, or that cannot be followed, UnsupportedModel for tools of which the model's template knows nothing, Busy.
        """
        return self.stream(prompt, max_tokens, sampler, seed, stop, schema, tools, lookup).drain()

    def stream(
        self,
        prompt: str | Sequence[Message],
        max_tokens: int = MOST_TOKENS,
        sampler: Sampler | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        schema: Grammar | None = None,
        tools: Tools | None = None,
        lookup: bool | None = None,
    ) -> Stream:
        """As `generate`, while it is written. Calls are among the pieces as the model writes them."""
        turn = self._writer.turns.begin()
        with turn.step():
            calls = calls_of(self._writer.template, tools)
            ids = tuple(self.encode(prompt, calls.tools if calls else None))
            stop_tokens = self._writer.generation.stop
            request = Request(ids, sampler or Sampler(), seed, max_tokens, stop_tokens, tuple(stop), lookup=lookup)
            form = self._writer.form(request, schema, calls)
            return self._writer.stream(form.request, turn, form.end)

    def restore_prefix(self, path: str | Path) -> int:
        """Take over a cache that a session has saved, and give how many tokens it holds: prompts that begin with them
        are read from there on. Raises InvalidInput for a prefix of another artifact, IntegrityFailed for a damaged
        one, BackendUnavailable where the artifact keeps its cache to itself, Busy."""
        turn = self._writer.turns.begin()
        with turn.step():
            tokens = prefix.restore(self.engine, Path(path))
            turn.finish()
        return tokens

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self._writer.template is not None

    @property
    def sampler(self) -> Sampler:
        """As the model's own defaults have it."""
        own = self._writer.generation
        return Sampler(own.temperature, own.top_k, own.top_p, own.min_p, own.repetition_penalty)

    @property
    def grammars(self) -> Grammars:
        """What compiles schemas for this model's tokens."""
        return self._writer.grammars

    def encode(self, prompt: str | Sequence[Message], tools: Tools | None = None) -> list[int]:
        """A prompt's ids. A conversation's template writes the special tokens itself."""
        return self._writer.encode(prompt, tools)

    def close(self) -> None:
        """Cancel the turn under way and free native memory. Sessions of this model are of no use then."""
        self._writer.turns.close()

    def __enter__(self) -> ChatModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


ENGINE = DecoderEngine


def open_task(engine: DecoderEngine) -> ChatModel:
    return ChatModel(engine)
