"""A bundle's tokenizer against the ids and texts of the reference tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporters.verification.rows import Row, Status
from mobile_llm.bundle.golden import GoldenText
from mobile_llm.tasks.tokenization import TextTokenizer


def tokenizer_rows(tokenizer: TextTokenizer, texts: Sequence[GoldenText], where: str) -> Iterator[Row]:
    """The bundle's tokenizer gives the reference's ids, and the ids give back its text."""
    encoded = [tokenizer.encode(text.given) for text in texts]
    wrong = sum((e.ids, e.types) != (t.ids, t.types) for e, t in zip(encoded, texts))
    yield count_row("tokenizer", "texts whose ids differ", wrong, where)
    wrong = sum(tokenizer.decode(t.ids) != t.decoded for t in texts)
    yield count_row("tokenizer", "texts whose decoding differs", wrong, where)


def count_row(entry: str, metric: str, wrong: int, where: str) -> Row:
    """A row of the bundle itself: so many differ, and none may."""
    status: Status = "failed" if wrong else "passed"
    return Row("bundle", entry, metric, float(wrong), 0.0, status, "nothing may differ", where)
