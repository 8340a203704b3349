"""The texts of rows: one each, or a pair where there is a column for the second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.data.packages import PREFIX, read_package
from exporters.data.rows import Row, read_rows
from mobile_llm.errors import InvalidInput

if TYPE_CHECKING:
    from mobile_llm.tasks.tokenization import Text

PAIR_COLUMN = "text_pair"


def read_source(source: str) -> list[Row]:
    """The rows of a file or a package. Raises InvalidInput where there are none."""
    rows = read_package(source) if source.startswith(PREFIX) else list(read_rows(Path(source), source))
    if not rows:
        raise InvalidInput(f"{source} has no rows; it needs at least one with a text")
    return rows


def texts_of(rows: Sequence[Row], text_column: str, pair_column: str | None) -> tuple[Text, ...]:
    """Pairs where `pair_column` is named or a row has the column `text_pair`; then all rows must have both texts."""
    second = pair_column or (PAIR_COLUMN if any(PAIR_COLUMN in row.values for row in rows) else None)
    if second is None:
        return tuple(_text(row, text_column, "--text-column") for row in rows)
    return tuple((_text(row, text_column, "--text-column"), _text(row, second, "--text-pair-column")) for row in rows)


def are_pairs(texts: Sequence[Text]) -> bool:
    """Whether they are pairs; those of one data set are all of one kind."""
    return isinstance(texts[0], tuple)


def check_pairs(texts: Sequence[Text], source: str, wanted: bool) -> None:
    """Raises InvalidInput for pairs where a model takes single texts, or the other way round."""
    if are_pairs(texts) and not wanted:
        raise InvalidInput(
            f"{source} holds pairs of texts, and the model takes single ones; take out the second column, or, if the "
            "model was trained on pairs, export it with --text-pairs"
        )
    if wanted and not are_pairs(texts):
        raise InvalidInput(
            f"{source} holds single texts, and the model takes pairs; name the column of the second ones with "
            "--text-pair-column"
        )


def load_texts(source: str, text_column: str = "text") -> tuple[str, ...]:
    """The texts of `source` alone, for tasks that need no label. Raises InvalidInput for the first row without one."""
    return tuple(_text(row, text_column, "--text-column") for row in read_source(source))


def _text(row: Row, column: str, option: str) -> str:
    text = row.value(column, option)
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"{row.place} has no text in {column!r}; write one, or remove the row")
    return text
