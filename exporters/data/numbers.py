"""Texts, or pairs of texts, with a number each, to be regressed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters.data.rows import Row
from exporters.data.texts import read_source, texts_of
from mobile_llm.errors import InvalidInput

if TYPE_CHECKING:
    from mobile_llm.tasks.tokenization import Text


@dataclass(frozen=True)
class NumberDataset:
    """`texts[i]` has the number `values[i]`; the single one of `label_names` is the column they stand in."""

    texts: tuple[Text, ...]
    values: tuple[float, ...]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def targets(self) -> tuple[float, ...]:
        """What a model should answer: the number of each text."""
        return self.values

    def with_label_names(self, names: Sequence[str]) -> NumberDataset:
        """The same rows: a number goes by no name."""
        return self

    def renamed(self, names: Mapping[str, str]) -> NumberDataset:
        raise InvalidInput(f"the labels of {self.source} are numbers, which have no names to change; leave them out")


def load_numbers(
    source: str, text_column: str = "text", label_column: str = "label", pair_column: str | None = None
) -> NumberDataset:
    """Read `source`: a .csv or .jsonl file, or `package:…`. Raises InvalidInput for the first row that cannot be used,
    and where all have one number: nothing can be learnt from it, and no correlation measured."""
    rows = read_source(source)
    texts = texts_of(rows, text_column, pair_column)
    values = tuple(_number(row, label_column) for row in rows)
    if len(set(values)) < 2:
        raise InvalidInput(f"{source} has a single number ({values[0]:g}) in {label_column!r}; it takes two to compare")
    return NumberDataset(texts, values, (label_column,), source)


def _number(row: Row, column: str) -> float:
    value = row.value(column, "--label-column")
    number = _read(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{row.place} has {value!r} for a number; write a finite one, such as 3.5, or drop the row")
    return number


def _read(value: str | int | float) -> float:
    """NaN for what is no number; Python's own 1_000 is none in data."""
    try:
        return math.nan if "_" in str(value) else float(value)
    except (ValueError, OverflowError):
        return math.nan
