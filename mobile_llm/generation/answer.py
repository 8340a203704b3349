"""What was written, and what it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mobile_llm.generation.loop import Finish, Reader
from mobile_llm.generation.template import Message
from mobile_llm.generation.tools import ToolCall, assistant_message
from mobile_llm.machine import peak_memory


@dataclass(frozen=True)
class Stats:
    """`first_token_seconds` count from the call to the first token chosen. Rates are tokens a second: of the prompt
    without the `cached_tokens`, which had been read before, and of the answer after its first token (None where there
    is no second). `peak_memory` is the most bytes that the process has held so far, None where that is unknown. Of the
    `proposed_tokens` of prompt lookup the `accepted_tokens` were written."""

    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    first_token_seconds: float
    prefill_rate: float
    decode_rate: float | None
    peak_memory: int | None
    proposed_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class Answer:
    """What was written. `finish` says why it ended: at a `stop` token or string, at the `length` asked for, or because
    the `context` is full. `tokens` are all that were written, also those of a stop string, which is not in `text`, and
    those of the `tool_calls`. Under a grammar, `complete` says whether the text is whole by it, and an answer that had
    to be brought to its end within max_tokens finishes with `length` too. Answers are equal that say the same, however
    long it took."""

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: Finish
    stats: Stats = field(compare=False)
    complete: bool = True
    tool_calls: tuple[ToolCall, ...] = ()

    def message(self) -> Message:
        """The next message of the conversation."""
        return assistant_message(self.text, self.tool_calls)


class Stopwatch:
    """Times the steps of one answer; what its reader does in between does not count as decoding."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._steps: list[float] = []
        self._first = 0.0

    def step(self, started: float) -> None:
        """A step that began at `started` (of `time.perf_counter`) is done."""
        now = time.perf_counter()
        self._steps.append(now - started)
        if len(self._steps) == 1:
            self._first = now - self._start

    def stats(self, prompt: int, cached: int, answer: int, reader: Reader) -> Stats:
        later = self._steps[1:]
        return Stats(
            prompt_tokens=prompt,
            cached_tokens=cached,
            answer_tokens=answer,
            first_token_seconds=self._first,
            prefill_rate=(prompt - cached) / self._steps[0],
            decode_rate=len(later) / sum(later) if later else None,
            peak_memory=peak_memory(),
            proposed_tokens=reader.proposed,
            accepted_tokens=reader.accepted,
        )
