"""Sentences as words with a tag each, for entities and the like.

From the lists `tokens` and `tags` of a .jsonl file (others can be named), or a CoNLL file (exporters/data/rows.py).
Tags are IOB2 (B-person, I-person, O), or plain names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exporters.data.rows import Row
from exporters.data.texts import read_source
from mobile_llm.errors import InvalidInput

OUTSIDE = "O"


@dataclass(frozen=True)
class TokenDataset:
    """`words[i][j]` has the tag `label_names[tags[i][j]]`; `source` is what it was read from."""

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[int, ...], ...]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.words)

    def with_label_names(self, names: Sequence[str]) -> TokenDataset:
        """The same sentences with tags as indices into `names`. Raises InvalidInput for a tag that `names` lacks."""
        for name in self.label_names:
            if name not in names:
                raise InvalidInput(
                    f"{self.source} has the tag {name!r}, which is not among the known ones ({', '.join(names)}); "
                    "correct it, or train with it"
                )
        positions = [names.index(name) for name in self.label_names]
        tags = tuple(tuple(positions[tag] for tag in row) for row in self.tags)
        return replace(self, tags=tags, label_names=tuple(names))

    def renamed(self, names: Mapping[str, str]) -> TokenDataset:
        """The same sentences with other strings for tags. Raises InvalidInput for a name that is no tag here."""
        unknown = sorted(set(names) - set(self.label_names))
        if unknown:
            raise InvalidInput(f"{self.source} has no tag {unknown[0]!r}; it has {', '.join(self.label_names)}")
        return replace(self, label_names=tuple(names.get(name, name) for name in self.label_names))

    @property
    def named_tags(self) -> list[list[str]]:
        """The tags as strings."""
        return [[self.label_names[tag] for tag in row] for row in self.tags]


def load_tokens(source: str, words_column: str = "tokens", tags_column: str = "tags") -> TokenDataset:
    """Read `source`: a .jsonl or CoNLL file, or `package:…`. The tag O comes first among `label_names`, the rest
    sorted. Raises InvalidInput for the first sentence that cannot be used."""
    sentences = [_sentence(row, words_column, tags_column) for row in read_source(source)]
    names = sorted({tag for _, tags in sentences for tag in tags}, key=lambda name: (name != OUTSIDE, name))
    places = {name: i for i, name in enumerate(names)}
    return TokenDataset(
        tuple(words for words, _ in sentences),
        tuple(tuple(places[tag] for tag in tags) for _, tags in sentences),
        tuple(names),
        source,
    )


def _sentence(row: Row, words_column: str, tags_column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    words = _strings(row, words_column, "--text-column")
    tags = _strings(row, tags_column, "--label-column")
    if len(words) != len(tags):
        raise InvalidInput(f"{row.place} has {len(words)} words and {len(tags)} tags; give each word one tag")
    return words, tags


def _strings(row: Row, column: str, option: str) -> tuple[str, ...]:
    values = row.value(column, option)
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.strip() for v in values):
        raise InvalidInput(f"{row.place} should have a list of words in {column!r}; write one, or remove the row")
    return tuple(values)
