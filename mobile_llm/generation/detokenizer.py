"""Tokens to text while they are written: pieces of text that are whole characters and add up to the whole.

Held back are tokens whose bytes are not a whole character yet, and text that could be the beginning of a stop string.
Works for any tokenizer that turns ids into text, also where a text's first space is dropped or added: a token is never
turned into text alone, but after those before it. Bytes that are no text (U+FFFD) are given once something whole
follows, or at the end.

Not covered: decoders that change text they gave long before, as WordPiece's clean-up may; no model that writes has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"


class Detokenizer:
    """One answer's text. `stopped` says that a stop string was written; it and what follows are not part of the text.
    Of several stop strings that one counts which is whole first, and of those whole at once the longest."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._before: list[int] = []  # tokens that were given last: what the next ones are turned into text after
        self._held: list[int] = []
        self._pending = ""  # text that could begin a stop string
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now; often none."""
        self._held.append(token)
        text = self._decoded()
        if not text or text.endswith(_BROKEN):
            return ""
        self._before, self._held = self._held, []
        return self._released(text)

    def finish(self) -> str:
        """What was held back, once nothing follows."""
        if self.stopped:
            return ""
        text = self._released(self._decoded()) + self._pending
        self._held, self._pending = [], ""
        return text

    def _decoded(self) -> str:
        """The text of the held tokens."""
        before, whole = self._decode(self._before), self._decode([*self._before, *self._held])
        if whole.startswith(before):
            return whole[len(before) :]
        return self._decode(self._held)  # bytes that made a character until one came that breaks the run

    def _released(self, text: str) -> str:
        """Of the pending text and `text`, what comes before a stop string or cannot belong to one."""
        text = self._pending + text
        ends = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stop if stop in text]
        if ends:
            end, length = min(ends)
            self.stopped, self._pending = True, ""
            return text[: end + length]
        kept = max((overlap(text, stop) for stop in self._stop), default=0)
        self._pending = text[len(text) - kept :]
        return text[: len(text) - kept]


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`, not all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
