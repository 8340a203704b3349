"""Sentiment, topic, intent: a text in, a label and its score out. Single-label heads; not yet multi-label,
regression or pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobile_llm.engine import Engine
from mobile_llm.tasks.encoding import check_labels, text_encoder


@dataclass(frozen=True)
class Classification:
    """The likeliest label, its probability, and the probability of every label."""

    label: str
    score: float
    scores: dict[str, float]


class TextClassifier:
    """A text classifier over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.labels = engine.manifest.task.labels
        check_labels(engine)
        self._encoder = text_encoder(engine)

    def logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Raw scores, float32 (texts, labels)."""
        return self._encoder.encode(texts, "logits", batch_size)

    def classify(self, texts: str | Sequence[str], batch_size: int = 1) -> list[Classification]:
        """One answer per text, in their order. A single text gives a list of one."""
        rows = [texts] if isinstance(texts, str) else list(texts)
        return [self._answer(row) for row in softmax(self.logits(rows, batch_size))]

    def close(self) -> None:
        self.engine.close()

    def _answer(self, probabilities: np.ndarray) -> Classification:
        best = int(probabilities.argmax())
        scores = {label: float(p) for label, p in zip(self.labels, probabilities)}
        return Classification(self.labels[best], float(probabilities[best]), scores)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, computed in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


ENGINE = Engine


def open_task(engine: Engine) -> TextClassifier:
    return TextClassifier(engine)
