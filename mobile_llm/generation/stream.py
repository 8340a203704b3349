"""An answer while it is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from mobile_llm.errors import InvalidSpec
from mobile_llm.generation.answer import Answer, Stopwatch
from mobile_llm.generation.detokenizer import Detokenizer
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.lookup import reader_for
from mobile_llm.generation.loop import Finish, Request, write
from mobile_llm.generation.turn import Turn

Decode = Callable[[Sequence[int]], str]
Done = Callable[[Answer], Answer]  # told once, of an answer that came to its end; gives what is made of it


class Stream(Iterator[str]):
    """Pieces of text that add up to the answer, each of whole characters, none empty. Closing or dropping a stream
    before its end cancels the turn.

    Iterating raises Cancelled where the turn was cancelled, ContextFull at first for a prompt that does not fit.
    """

    def __init__(self, engine: DecoderEngine, decode: Decode, request: Request, turn: Turn, done: Done) -> None:
        self._turn = turn
        self._request = request
        self._done = done
        self._cached = kept = engine.shared(request.ids)
        turn.undo = lambda: engine.rewind(kept)
        self._engine = engine
        self._reader = reader_for(engine, request)
        self._loop = write(engine, request, turn.check, self._reader)
        self._text = Detokenizer(decode, request.stop)
        self._tokens: list[int] = []
        self._given: list[str] = []
        self._watch = Stopwatch()
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The whole. Raises InvalidSpec before the last piece was given."""
        if self._answer is None:
            raise InvalidSpec("the answer is not whole yet; read the stream to its end, or `drain()` it")
        return self._answer

    def __next__(self) -> str:
        while self._answer is None:
            with self._turn.step():
                text = self._advance()
            if text:
                return text
        raise StopIteration

    def drain(self) -> Answer:
        """Write to the end."""
        for _ in self:
            pass
        return self.answer

    def close(self) -> None:
        """Cancel the turn, unless it is over."""
        self._turn.cancel()

    def __del__(self) -> None:
        self.close()

    def _advance(self) -> str:
        started = time.perf_counter()
        finish = self._write_token()
        if finish is None or not self._tokens:
            self._watch.step(started)
        text = self._text.push(self._tokens[-1]) if finish is None else self._text.finish()
        self._given.append(text)
        if self._text.stopped:
            finish = "stop"
        if finish is not None:
            self._complete(finish)
        return text

    def _write_token(self) -> Finish | None:
        """One more token, or why there is none."""
        try:
            self._tokens.append(next(self._loop))
        except StopIteration as end:
            reason: Finish = end.value
            return reason
        return None

    def _complete(self, finish: Finish) -> None:
        self._turn.check()
        prompt = len(self._request.ids)
        self._engine.rewind(prompt + len(self._tokens))  # what was read ahead and not written
        stats = self._watch.stats(prompt, self._cached, len(self._tokens), self._reader)
        self._answer = self._done(Answer("".join(self._given), tuple(self._tokens), prompt, finish, stats))
        self._turn.finish()
