"""A conversation's token ids, so that what was read and written before keeps its tokens and need not be read again.

A tokenizer may cut the text of an answer otherwise than the model wrote it. So the ids of the last turn are kept, and
only what the template writes after it is tokenized, unless this would be another text.
"""

from __future__ import annotations

from collections.abc import Sequence

from mobile_llm.generation.answer import Answer
from mobile_llm.generation.template import Message
from mobile_llm.generation.writer import Writer

# Tokens of a text that is still being typed may be cut otherwise once it goes on: these are ways to go on, and so many
# tokens before the first difference are left out too.
_CONTINUATIONS = ("a", " a", "1", "。")
_UNSURE = 2


class Transcript:
    """Knows the text and the ids up to the end of the last answer."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._text = ""
        self._ids: tuple[int, ...] = ()

    def ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A conversation's ids, up to where the model is to answer. Raises InvalidInput."""
        text = self._writer.prompt(messages)
        whole = tuple(self._writer.encode_prompt(text))
        if not self._ids or not text.startswith(self._text):
            return whole
        joined = (*self._ids, *self._writer.encode_prompt(text[len(self._text) :]))
        return joined if self._exactly(joined) == self._exactly(whole) else whole

    def stable(self, messages: Sequence[Message], typed: str) -> tuple[int, ...]:
        """The ids that stay as they are when the user goes on typing."""
        ways = [self.ids([*messages, {"role": "user", "content": typed + more}]) for more in _CONTINUATIONS]
        same = next((i for i, tokens in enumerate(zip(*ways)) if len(set(tokens)) > 1), min(map(len, ways)))
        return ways[0][: max(0, same - _UNSURE)]

    def wrote(self, messages: Sequence[Message], ids: Sequence[int], answer: Answer) -> None:
        """Remember a turn, unless its tokens stand for another text than the answer's, as after a stop string."""
        if self._exactly(answer.tokens) == answer.text:
            self._text = self._writer.prompt(messages) + answer.text
            self._ids = (*ids, *answer.tokens)

    def _exactly(self, ids: Sequence[int]) -> str:
        return self._writer.tokenizer.decode(ids, special=True)
