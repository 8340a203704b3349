"""Questions with several answers to choose from: rows with `prompt` (or `question`), `choices` and `answer`.

`answer` is the place of the right choice, counted from 0, its letter, or its text. JSONL alone: a list does not fit a
CSV's field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporters.data.rows import Row
from exporters.data.texts import read_source
from mobile_llm.errors import InvalidInput

_PROMPTS = ("prompt", "question")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """`right` is the place of the right choice."""

    prompt: str
    choices: tuple[str, ...]
    right: int


def load_questions(source: str) -> tuple[Question, ...]:
    """Raises InvalidInput for the first row that is no question, naming it."""
    return tuple(_question(row) for row in read_source(source))


def _question(row: Row) -> Question:
    prompt = next((row.values[name] for name in _PROMPTS if name in row.values), None)
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidInput(f"{row.place} has no text in 'prompt' (nor in 'question'); write one, or remove the row")
    choices = row.values.get("choices")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise InvalidInput(f"{row.place} has no 'choices'; write a list of two or more texts")
    return Question(prompt, tuple(choices), _right(row, choices))


def _right(row: Row, choices: Sequence[str]) -> int:
    answer = row.values.get("answer")
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str) and choices.count(answer) == 1:
        return choices.index(answer)
    if isinstance(answer, str) and len(answer) == 1 and answer in _LETTERS[: len(choices)]:
        return _LETTERS.index(answer)
    raise InvalidInput(
        f"{row.place} has the answer {answer!r}; write the place of one of the {len(choices)} choices, counted from 0, "
        "its letter or its text"
    )
