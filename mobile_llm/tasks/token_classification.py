"""Entities: a text in, labelled spans out. Spans are counted in Unicode code points.

Tokens are joined into spans as transformers' token-classification pipeline does ("none", "simple", "first", "average",
"max"). Texts are cut at the model's longest length; not covered: windows over longer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mobile_llm.engine import Engine
from mobile_llm.errors import InvalidInput
from mobile_llm.tasks.encoding import check_labels, logits_of
from mobile_llm.tasks.text_classification import softmax
from mobile_llm.tasks.tokenization import TextTokenizer, Token

OUTSIDE = "O"


@dataclass(frozen=True)
class Entity:
    """`text` is `whole[start:end]`; `score` is the mean probability of its parts."""

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Part:
    """A token, or a word put together from several, with its tag (B-person, I-person, O, or a plain name)."""

    tag: str
    score: float
    start: int
    end: int


class TokenClassifier:
    """Labels the tokens of texts over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.labels = engine.manifest.task.labels
        check_labels(engine)
        self.tokenizer = TextTokenizer(engine.bundle)

    def label_tokens(self, texts: str | Sequence[str], aggregation: str = "simple") -> list[list[Entity]]:
        """The entities of each text, in their order. A single text gives a list of one.

        `aggregation` "none" gives every token that is not outside; "simple" joins neighbouring tokens of one entity;
        "first", "average" and "max" first let the tokens of a word agree, by the first, the mean or the surest one.
        """
        if aggregation not in _WORDS and aggregation not in ("none", "simple"):
            raise InvalidInput(f"unknown aggregation {aggregation!r}; choose from none, simple, {', '.join(_WORDS)}")
        rows = [texts] if isinstance(texts, str) else list(texts)
        if any(isinstance(row, tuple) for row in rows):
            raise InvalidInput("entities are found in a single text, not in a pair; pass each text by itself")
        return [self._entities(text, aggregation) for text in rows]

    def tags(self, text: str) -> tuple[str, ...]:
        """The likeliest label of every token, special ones included."""
        return tuple(self.labels[i] for i in self._logits(text).argmax(-1))

    def word_tags(self, words: Sequence[str]) -> list[str]:
        """One label per word of a text that is split already: that of its first token; outside where it was cut."""
        encoded, places = self.tokenizer.encode_words(words)
        found = logits_of(self.engine, encoded).argmax(-1)
        first = {word: self.labels[found[i]] for i, word in reversed(list(enumerate(places))) if word is not None}
        return [first.get(word, OUTSIDE) for word in range(len(words))]

    def close(self) -> None:
        self.engine.close()

    def _logits(self, text: str) -> np.ndarray:
        return logits_of(self.engine, self.tokenizer.encode(text))

    def _entities(self, text: str, aggregation: str) -> list[Entity]:
        tokens = self.tokenizer.tokens(text)
        scores = softmax(self._logits(text))
        kept = [(token, row) for token, row in zip(tokens, scores) if not token.special]
        if aggregation in _WORDS:
            parts = [self._word(word, _WORDS[aggregation]) for word in _words(kept)]
        else:
            parts = [self._part(row, token.start, token.end) for token, row in kept]
        if aggregation == "none":
            spans = [[part] for part in parts]
        else:
            spans = _joined(parts)
        found = [_entity(span, text, whole_tag=aggregation == "none") for span in spans]
        return [entity for entity in found if entity.label != OUTSIDE]

    def _word(self, word: list[tuple[Token, np.ndarray]], choose: Callable[[np.ndarray], np.ndarray]) -> _Part:
        return self._part(choose(np.stack([row for _, row in word])), word[0][0].start, word[-1][0].end)

    def _part(self, scores: np.ndarray, start: int, end: int) -> _Part:
        best = int(scores.argmax())
        return _Part(self.labels[best], float(scores[best]), start, end)


# How the probabilities of a word's tokens (tokens, labels) become the word's.
_WORDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first": lambda rows: rows[0],
    "average": lambda rows: rows.mean(0),
    "max": lambda rows: rows[rows.max(-1).argmax()],
}


def _words(tokens: Sequence[tuple[Token, np.ndarray]]) -> list[list[tuple[Token, np.ndarray]]]:
    words: list[list[tuple[Token, np.ndarray]]] = []
    for token, row in tokens:
        if token.continues and words:
            words[-1].append((token, row))
        else:
            words.append([(token, row)])
    return words


def _joined(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Neighbours with the same name are one entity, unless the second begins one."""
    spans: list[list[_Part]] = []
    for part in parts:
        begins, name = _split(part.tag)
        if spans and _split(spans[-1][-1].tag)[1] == name and not begins:
            spans[-1].append(part)
        else:
            spans.append([part])
    return spans


def _split(tag: str) -> tuple[bool, str]:
    """Whether a tag begins an entity, and the entity's name."""
    return (tag.startswith("B-"), tag[2:]) if tag.startswith(("B-", "I-")) else (False, tag)


def _entity(span: Sequence[_Part], text: str, whole_tag: bool) -> Entity:
    start, end = span[0].start, span[-1].end
    label = span[0].tag if whole_tag else _split(span[0].tag)[1]
    return Entity(label, float(np.mean([part.score for part in span])), start, end, text[start:end])


ENGINE = Engine


def open_task(engine: Engine) -> TokenClassifier:
    return TokenClassifier(engine)
