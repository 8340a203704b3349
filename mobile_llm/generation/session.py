"""A conversation with a model.

                load(bundle)                    stream, respond, prefill
    unloaded ---------------> loading ---> ready -----------------------> generating
        ^                        |         |   ^                              |  |
        '------------------------'         |   '------------------------------'  |
              it cannot be opened          |     the answer's end, an error,     |
                                           v     cancel: the turn is undone      |
                                        closed <---------------------------------'
                                               close: cancels, then closes

A model is unloaded or loading only in `mobile_llm.load`, which gives one that is ready or raises; so a session's
`state` is ready, generating or closed. Sessions of one model share its engine: one turn at a time (Busy), and what two
conversations begin with alike is read once.

Not covered: tools, images, several answers to one message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from mobile_llm.errors import ContextFull, InvalidSpec
from mobile_llm.generation import prefix
from mobile_llm.generation.answer import Answer
from mobile_llm.generation.grammars import Grammar
from mobile_llm.generation.loop import Request, read
from mobile_llm.generation.sampler import Sampler
from mobile_llm.generation.stream import Stream
from mobile_llm.generation.template import Message, check_messages
from mobile_llm.generation.transcript import Transcript
from mobile_llm.generation.turn import Turn
from mobile_llm.generation.writer import Writer

State = Literal["ready", "generating", "closed"]
WhenFull = Literal["error", "drop_oldest"]
Messages = tuple[Message, ...]
_ROOM: Mapping[WhenFull, str] = {
    "error": "begin another session, or open one with when_full='drop_oldest'",
    "drop_oldest": "shorten the message, or the system's",
}
MOST_TOKENS = 256  # of an answer, where nothing else is asked for


class ChatSession:
    """Messages so far, and the next answer. `when_full` says what happens once they do not fit the context: `error`
    raises ContextFull, `drop_oldest` forgets the oldest turns, but not the system's message, until half of it is free.

    The n-th answer draws its random numbers from `seed` + n, counted from 0.
    """

    def __init__(
        self,
        writer: Writer,
        messages: Sequence[Message] = (),
        sampler: Sampler | None = None,
        seed: int = 0,
        when_full: WhenFull = "error",
    ) -> None:
        if when_full not in get_args(WhenFull):
            raise InvalidSpec(f"when_full is {when_full!r}; it is one of {', '.join(get_args(WhenFull))}")
        writer.needed_template()
        check_messages(messages)
        self._writer = writer
        self._messages = tuple(messages)
        self._sampler = sampler or Sampler()
        self._seed = seed
        self._when_full = when_full
        self._transcript = Transcript(writer)
        self._answers = 0
        self._turn: Turn | None = None
        self._closed = False

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation; a turn under way is not part of it."""
        return self._messages

    @property
    def state(self) -> State:
        if self._closed:
            return "closed"
        return "ready" if self._turn is None or self._turn.over else "generating"

    def stream(
        self, text: str, max_tokens: int = MOST_TOKENS, stop: Sequence[str] = (), schema: Grammar | None = None
    ) -> Stream:
        """Say `text`, and give the answer while it is written, of a JSON schema or a grammar where `schema` is given.
        The conversation has both once it is whole.

        Raises Busy while the model is in another turn, ContextFull, InvalidInput for what the template refuses,
        InvalidSpec for settings that cannot be and for a schema that cannot be followed.
        """
        turn = self._begin()
        with turn.step():
            said, ids = self._fitting((*self._messages, _message("user", text)), max_tokens)
            stop_tokens = self._writer.generation.stop
            seed = self._seed + self._answers
            request = Request(ids, self._sampler, seed, max_tokens, stop_tokens, tuple(stop))
            form = self._writer.form(request, schema)
            return self._writer.stream(form.request, turn, lambda answer: self._keep(said, ids, form.end(answer)))

    def respond(
        self, text: str, max_tokens: int = MOST_TOKENS, stop: Sequence[str] = (), schema: Grammar | None = None
    ) -> Answer:
        """As `stream`, the whole answer. Raises Cancelled too."""
        return self.stream(text, max_tokens, stop, schema).drain()

    def prefill(self, text: str = "") -> int:
        """Read what is sure of the next turn, whose message begins with `text`, and give how many tokens that took.
        A cancel leaves what was read. Raises Busy, Cancelled, ContextFull."""
        turn = self._begin()
        with turn.step():
            taken = self._read(self._sure(text), turn)
            turn.finish()
        return taken

    def save_prefix(self, path: str | Path) -> int:
        """Write the cache of the conversation so far to a file, for `ChatModel.restore_prefix`; gives how many tokens
        it holds. Raises Busy, Cancelled, ContextFull, BackendUnavailable where an artifact keeps its cache to itself,
        InvalidInput for a path that cannot be written."""
        turn = self._begin()
        with turn.step():
            ids = self._sure("")
            self._read(ids, turn)
            prefix.save(self._writer.engine, len(ids), Path(path))
            turn.finish()
        return len(ids)

    def undo(self) -> None:
        """Forget the last message of the user and what came after it. Raises InvalidSpec where there is none."""
        turn = self._begin()
        with turn.step():
            places = _turns(self._messages)
            if not places:
                raise InvalidSpec("this conversation has no turn to undo")
            self._messages = self._messages[: places[-1]]
            turn.finish()

    def cancel(self) -> None:
        """End the turn under way, from any thread, without waiting: whoever reads its answer gets Cancelled."""
        if self._turn is not None:
            self._turn.cancel()

    def close(self) -> None:
        """Cancel, and refuse what follows. The model stays open."""
        self._closed = True
        self.cancel()

    def _begin(self) -> Turn:
        self._turn = turn = self._writer.turns.begin()
        if self._closed:
            turn.cancel()
            raise InvalidSpec("this session is closed; open another one with model.session()")
        return turn

    def _keep(self, said: Messages, ids: tuple[int, ...], answer: Answer) -> Answer:
        self._transcript.wrote(said, ids, answer)
        self._messages = (*said, answer.message())
        self._answers += 1
        return answer

    def _sure(self, typed: str) -> tuple[int, ...]:
        """The ids that the next turn begins with, whatever follows `typed`."""
        said, _ = self._fitting((*self._messages, _message("user", typed)), 1)
        return self._transcript.stable(said[:-1], typed)

    def _read(self, ids: tuple[int, ...], turn: Turn) -> int:
        """Have the engine's sequence begin with `ids`; gives how many of them it had to read."""
        engine = self._writer.engine
        if engine.tokens[: len(ids)] == ids:
            return 0
        kept = engine.shared(ids)
        read(engine, ids, turn.check)
        return len(ids) - kept

    def _fitting(self, said: Messages, max_tokens: int) -> tuple[Messages, tuple[int, ...]]:
        """What of a conversation fits the context with an answer of `max_tokens`, or of a quarter of the context where
        that is less, and its ids. Once turns have to go half of the context is freed, since all is read again then."""
        context = self._writer.engine.context
        ids = self._transcript.ids(said)
        if self._when_full == "drop_oldest" and len(ids) + min(max_tokens, context // 4) > context:
            while len(ids) > context // 2 and len(_turns(said)) > 1:
                said = _without_oldest(said)
                ids = self._transcript.ids(said)
        if len(ids) > context:
            raise ContextFull(
                f"the conversation has {len(ids)} tokens and the context {context}; {_ROOM[self._when_full]}"
            )
        return said, ids


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _turns(messages: Messages) -> list[int]:
    """Where each turn begins."""
    return [place for place, message in enumerate(messages) if message["role"] == "user"]


def _without_oldest(messages: Messages) -> Messages:
    """Without the first of several turns; what stands before it stays."""
    first, second, *_ = _turns(messages)
    return (*messages[:first], *messages[second:])
