"""Texts, or pairs of texts, with one label each, in memory and checked: every text has words in it, every label is
known. Several labels are in exporters/data/multilabel.py, numbers in exporters/data/numbers.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporters.data.labels import in_order, label_string, new_names, places_among, unknown_label
from exporters.data.order import shuffled
from exporters.data.texts import read_source, texts_of
from mobile_llm.errors import InvalidInput

if TYPE_CHECKING:
    from mobile_llm.tasks.tokenization import Text


@dataclass(frozen=True)
class Dataset:
    """`texts[i]` has the label `label_names[labels[i]]`; `source` is what it was read from."""

    texts: tuple[Text, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def targets(self) -> tuple[int, ...]:
        """What a model should answer: the place of each text's label."""
        return self.labels

    def with_label_names(self, names: Sequence[str]) -> Dataset:
        """The same rows with labels as indices into `names`, the labels of a model or of the training data.

        Where none of the data's labels is among `names` but all are integers in range, they are taken as
        indices. Raises InvalidInput for a label that `names` lacks.
        """
        places = places_among(self.label_names, names)
        for row, label in enumerate(self.labels, start=1):
            if label not in places:
                raise unknown_label(self.source, row, self.label_names[label], names)
        return replace(self, labels=tuple(places[label] for label in self.labels), label_names=tuple(names))

    def renamed(self, names: Mapping[str, str]) -> Dataset:
        """The same rows with other strings for labels. Raises InvalidInput unless `names` has one for each."""
        return replace(self, label_names=new_names(self.source, self.label_names, names))

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


def load_dataset(
    source: str, text_column: str = "text", label_column: str = "label", pair_column: str | None = None
) -> Dataset:
    """Read `source`: a .csv or .jsonl file, or `package:…` (its grammar stands in exporters/data/packages.py).

    Labels are strings or integers, kept as strings; `label_names` are sorted, as numbers where all are integers.
    Raises InvalidInput for the first row that cannot be used.
    """
    rows = read_source(source)
    texts = texts_of(rows, text_column, pair_column)
    names = [label_string(row.value(label_column, "--label-column"), row.place) for row in rows]
    label_names = in_order(set(names))
    positions = {name: i for i, name in enumerate(label_names)}
    return Dataset(texts, tuple(positions[name] for name in names), label_names, source)
