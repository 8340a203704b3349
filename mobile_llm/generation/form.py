"""The form of an answer: a grammar that it follows, calls that it may make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mobile_llm.generation.answer import Answer
from mobile_llm.generation.grammars import GrammarConstraint
from mobile_llm.generation.loop import Request
from mobile_llm.generation.prompts import Calls


@dataclass(frozen=True)
class Form:
    """`request` has the `constraint`, if there is one; `decode` gives the text of ids, special tokens in or out."""

    request: Request
    constraint: GrammarConstraint | None
    calls: Calls | None
    decode: Callable[..., str]

    def end(self, answer: Answer) -> Answer:
        """An answer that was written, with what the form says of it."""
        if self.constraint is not None:
            shortened = self.constraint.shortened and answer.finish == "stop"
            answer = replace(answer, finish="length" if shortened else answer.finish, complete=self.constraint.complete)
        return answer if self.calls is None else self._with_calls(answer, self.calls)

    def _with_calls(self, answer: Answer, calls: Calls) -> Answer:
        text, made = calls.read(self.decode(answer.tokens, special=True))
        return replace(answer, text=text, tool_calls=made) if made else answer
