"""Embeddings for search and recommendation: a text in, a vector out. Pooling and normalization are inside the
artifact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobile_llm.engine import Engine
from mobile_llm.errors import InvalidInput
from mobile_llm.tasks.encoding import text_encoder


class Embedder:
    """A text embedder over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.prompts = engine.manifest.task.prompts
        self._encoder = text_encoder(engine)

    def embed(self, texts: str | Sequence[str], prompt: str | None = None, batch_size: int = 1) -> np.ndarray:
        """Vectors, float32 (texts, hidden), in the order of the texts.

        `prompt` names one of the model's prompts ("query", "passage"), which is put before each text. Raises
        InvalidInput for a pair.
        """
        rows = [texts] if isinstance(texts, str) else list(texts)
        if any(isinstance(row, tuple) for row in rows):
            raise InvalidInput("an embedding is of a single text, not of a pair; embed each text by itself")
        prefix = self._prefix(prompt)
        return self._encoder.encode([prefix + row for row in rows], "sentence_embedding", batch_size)

    def count_tokens(self, text: str, prompt: str | None = None) -> int:
        """How many tokens `embed` reads of a text, what is cut off not among them. Raises InvalidInput."""
        return self._encoder.count_tokens(self._prefix(prompt) + text)

    def close(self) -> None:
        self.engine.close()

    def _prefix(self, prompt: str | None) -> str:
        if prompt is None:
            return ""
        if prompt not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise InvalidInput(f"this model has no prompt {prompt!r}; it has {known}")
        return self.prompts[prompt]


ENGINE = Engine


def open_task(engine: Engine) -> Embedder:
    return Embedder(engine)
