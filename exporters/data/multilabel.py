"""Texts, or pairs of texts, with any number of labels each.

In a CSV file the column `label` holds them with `|` between (`funny|warm`), an empty field none of them; a JSONL file
has a list of strings, or such a string.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporters.data.labels import in_order, label_string, new_names, places_among, unknown_label
from exporters.data.rows import Row
from exporters.data.texts import read_source, texts_of
from mobile_llm.errors import InvalidInput

if TYPE_CHECKING:
    from mobile_llm.tasks.tokenization import Text

SEPARATOR = "|"


@dataclass(frozen=True)
class MultiLabelDataset:
    """`texts[i]` has the labels `label_names[j]` for each j of `labels[i]`; `source` is what it was read from."""

    texts: tuple[Text, ...]
    labels: tuple[tuple[int, ...], ...]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def targets(self) -> tuple[tuple[float, ...], ...]:
        """What a model should answer: for each text and label 1 where the text has it, 0 elsewhere."""
        places = range(len(self.label_names))
        return tuple(tuple(float(place in labels) for place in places) for labels in self.labels)

    def with_label_names(self, names: Sequence[str]) -> MultiLabelDataset:
        """The same rows with labels as indices into `names`, as of a single label. Raises InvalidInput for a label
        that `names` lacks."""
        places = places_among(self.label_names, names)
        for row, labels in enumerate(self.labels, start=1):
            for label in labels:
                if label not in places:
                    raise unknown_label(self.source, row, self.label_names[label], names)
        moved = tuple(tuple(sorted(places[label] for label in labels)) for labels in self.labels)
        return replace(self, labels=moved, label_names=tuple(names))

    def renamed(self, names: Mapping[str, str]) -> MultiLabelDataset:
        """The same rows with other strings for labels. Raises InvalidInput unless `names` has one for each."""
        return replace(self, label_names=new_names(self.source, self.label_names, names))


def load_multilabel(
    source: str, text_column: str = "text", label_column: str = "label", pair_column: str | None = None
) -> MultiLabelDataset:
    """Read `source`: a .csv or .jsonl file, or `package:…`. Raises InvalidInput for the first row that cannot be used,
    and where no row has a label."""
    rows = read_source(source)
    texts = texts_of(rows, text_column, pair_column)
    named = [_labels(row, label_column) for row in rows]
    label_names = in_order({name for names in named for name in names})
    if not label_names:
        raise InvalidInput(f"{source} has no label in any row; write them into {label_column!r}, {SEPARATOR} between")
    places = {name: i for i, name in enumerate(label_names)}
    labels = tuple(tuple(sorted(places[name] for name in names)) for names in named)
    return MultiLabelDataset(texts, labels, label_names, source)


def _labels(row: Row, column: str) -> set[str]:
    value = row.value(column, "--label-column")
    if isinstance(value, str):
        value = value.split(SEPARATOR) if value.strip() else []
    values = value if isinstance(value, list) else [value]
    return {label_string(item, row.place) for item in values}
