"""A data set in memory, checked: every text has words in it, every label is known.

Covered: one text and one label per row. Not covered: pairs of texts, several labels per row, numbers to regress.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporters.data.order import shuffled
from exporters.data.packages import PREFIX, read_package
from exporters.data.rows import Row, read_rows
from mobile_llm.errors import InvalidInput


@dataclass(frozen=True)
class Dataset:
    """`texts[i]` has the label `label_names[labels[i]]`; `source` is what it was read from."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    def with_label_names(self, names: Sequence[str]) -> Dataset:
        """The same rows with labels as indices into `names`, the labels of a model or of the training data.

        Where none of the data's labels is among `names` but all are integers in range, they are taken as
        indices. Raises InvalidInput for a label that `names` lacks.
        """
        if _are_indices(self.label_names, names):
            positions = [int(name) for name in self.label_names]
        else:
            self._refuse_unknown(names)
            positions = [names.index(name) for name in self.label_names]
        return replace(self, labels=tuple(positions[label] for label in self.labels), label_names=tuple(names))

    def renamed(self, names: Mapping[str, str]) -> Dataset:
        """The same rows with other strings for labels. Raises InvalidInput unless `names` has one for each."""
        missing = sorted(set(self.label_names) ^ set(names))
        if missing or len(set(names.values())) < len(names):
            raise InvalidInput(
                f"the labels of {self.source} are {', '.join(self.label_names)}; give each one a name of its own"
            )
        return replace(self, label_names=tuple(names[name] for name in self.label_names))

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """What is left, and a share of each label's rows, at least one, picked by `seed`; both in their old order.

        Raises InvalidInput where a label has a single row.
        """
        held_out: set[int] = set()
        for label, name in enumerate(self.label_names):
            rows = [i for i, of_row in enumerate(self.labels) if of_row == label]
            if len(rows) < 2:
                raise InvalidInput(
                    f"{self.source} has a single row with the label {name!r}, so none can be held out; "
                    "add rows, or pass the evaluation data apart"
                )
            count = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
            held_out.update(shuffled(rows, seed)[:count])
        return self._rows(set(range(len(self))) - held_out), self._rows(held_out)

    def _rows(self, chosen: set[int]) -> Dataset:
        order = sorted(chosen)
        return replace(self, texts=tuple(self.texts[i] for i in order), labels=tuple(self.labels[i] for i in order))

    def _refuse_unknown(self, names: Sequence[str]) -> None:
        for row, label in enumerate(self.labels, start=1):
            if self.label_names[label] not in names:
                raise InvalidInput(
                    f"{self.source} row {row} has the label {self.label_names[label]!r}, which is not among "
                    f"the known ones ({', '.join(names)}); correct the label, or train with it"
                )


def load_dataset(source: str, text_column: str = "text", label_column: str = "label") -> Dataset:
    """Read `source`: a .csv or .jsonl file, or `package:…` (its grammar stands in exporters/data/packages.py).

    Labels are strings or integers, kept as strings; `label_names` are sorted, as numbers where all are integers.
    Raises InvalidInput for the first row that cannot be used.
    """
    rows = read_source(source)
    texts = tuple(_text(row, text_column) for row in rows)
    names = [_label(row, label_column) for row in rows]
    label_names = _in_order(set(names))
    positions = {name: i for i, name in enumerate(label_names)}
    return Dataset(texts, tuple(positions[name] for name in names), label_names, source)


def load_texts(source: str, text_column: str = "text") -> tuple[str, ...]:
    """The texts of `source` alone, for tasks that need no label. Raises InvalidInput as `load_dataset` does."""
    return tuple(_text(row, text_column) for row in read_source(source))


def read_source(source: str) -> list[Row]:
    """The rows of a file or a package. Raises InvalidInput where there are none."""
    rows = read_package(source) if source.startswith(PREFIX) else list(read_rows(Path(source), source))
    if not rows:
        raise InvalidInput(f"{source} has no rows; it needs at least one with a text")
    return rows


def _text(row: Row, column: str) -> str:
    text = _value(row, column, "--text-column")
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"{row.place} has no text in {column!r}; write one, or remove the row")
    return text


def _label(row: Row, column: str) -> str:
    label = _value(row, column, "--label-column")
    if isinstance(label, bool) or not isinstance(label, (str, int)) or not str(label).strip():
        raise InvalidInput(f"{row.place} has {label!r} for a label; use a string or an integer")
    return str(label).strip()


def _value(row: Row, column: str, option: str) -> object:
    if column not in row.values:
        found = ", ".join(row.values) or "nothing"
        raise InvalidInput(f"{row.place} has no column {column!r} (found: {found}); name the right one with {option}")
    return row.values[column]


def _in_order(names: set[str]) -> tuple[str, ...]:
    if all(re.fullmatch("-?[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _are_indices(labels: Sequence[str], names: Sequence[str]) -> bool:
    if set(labels) & set(names):
        return False
    return all(re.fullmatch("[0-9]+", label) and int(label) < len(names) for label in labels)
