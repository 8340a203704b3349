"""Sentiment, topics, intent, similarity: a text or a pair of texts in, an answer of the head's kind out.

By the manifest's `problem_type` one label of several, any number of them, or a number. Scores are those of
transformers' text-classification pipeline, but that a head of one output without a problem_type is a regression, as
transformers trains it: its number comes as it is, where the pipeline would put it through a sigmoid. Not covered:
regressions to several numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mobile_llm.engine import Engine
from mobile_llm.errors import IntegrityFailed, RuntimeTooOld
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from mobile_llm.tasks.encoding import check_labels, text_encoder
from mobile_llm.tasks.tokenization import Text

THRESHOLD = 0.5


@dataclass(frozen=True)
class Classification:
    """The likeliest label, its probability, and the probability of every label."""

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class MultiLabel:
    """The labels whose probability is above 0.5, and the probability of every label, which do not add up to 1; both the
    likeliest first, as transformers' pipeline gives them with top_k=None."""

    labels: tuple[str, ...]
    scores: dict[str, float]


@dataclass(frozen=True)
class Regression:
    """The number itself, in the unit of the training data."""

    value: float


Answer = Classification | MultiLabel | Regression


class TextClassifier:
    """A text classifier over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.labels = engine.manifest.task.labels
        self.problem_type = engine.manifest.task.problem_type or SINGLE_LABEL
        if self.problem_type not in _ANSWERS:
            raise RuntimeTooOld(f"problem_type {self.problem_type!r} is unknown to this runtime; upgrade mobile-llm")
        check_labels(engine)
        _check_width(self.problem_type, len(self.labels))
        self._encoder = text_encoder(engine)

    def logits(self, texts: Sequence[Text], batch_size: int = 1) -> np.ndarray:
        """Raw scores, float32 (texts, labels)."""
        return self._encoder.encode(texts, "logits", batch_size)

    def classify(self, texts: Text | Sequence[Text], batch_size: int = 1) -> list[Answer]:
        """One answer per text or pair, in their order; all of the one kind that the bundle's `problem_type` says.

        A tuple is a pair, `(premise, hypothesis)`, a list holds texts or pairs. A single one gives a list of one.
        Raises InvalidInput for what is no text, and for pairs where the model takes none.
        """
        rows: list[Text] = [texts] if isinstance(texts, (str, tuple)) else list(texts)
        answer = _ANSWERS[self.problem_type]
        return [answer(self.labels, row) for row in self.logits(rows, batch_size)]

    def close(self) -> None:
        self.engine.close()


def _check_width(problem_type: str, labels: int) -> None:
    """One label is nothing to choose from, and a number is a single one."""
    if (labels == 1) != (problem_type == REGRESSION) and problem_type != MULTI_LABEL:
        raise IntegrityFailed(f"{problem_type} does not go with {labels} labels; export the bundle again")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, computed in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The probability of each label by itself, computed in float64, without overflow."""
    return np.exp(-np.logaddexp(0, -logits.astype(np.float64)))


def _likeliest(labels: Sequence[str], logits: np.ndarray) -> Classification:
    probabilities = softmax(logits)
    best = int(probabilities.argmax())
    scores = {label: float(p) for label, p in zip(labels, probabilities)}
    return Classification(labels[best], float(probabilities[best]), scores)


def _above_threshold(labels: Sequence[str], logits: np.ndarray) -> MultiLabel:
    probabilities = sigmoid(logits)
    scores = {labels[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}
    return MultiLabel(tuple(label for label, p in scores.items() if p > THRESHOLD), scores)


def _number(labels: Sequence[str], logits: np.ndarray) -> Regression:
    return Regression(float(logits[0]))


_ANSWERS: Mapping[str, Callable[[Sequence[str], np.ndarray], Answer]] = {
    SINGLE_LABEL: _likeliest,
    MULTI_LABEL: _above_threshold,
    REGRESSION: _number,
}


ENGINE = Engine


def open_task(engine: Engine) -> TextClassifier:
    return TextClassifier(engine)
