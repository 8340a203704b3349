"""Running texts through an encoder's `encode` entry point, in batches that keep the order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobile_llm.engine import Engine
from mobile_llm.errors import IntegrityFailed, InvalidInput
from mobile_llm.tasks.tokenization import Encoded, TextTokenizer, stack


class TextEncoder:
    """Tokenizer and engine together. With `batch_size` 1, the default, no text is padded and an answer never
    depends on its neighbours (dynamic int8 takes one activation range per batch); more is faster for many
    short texts."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokenizer = TextTokenizer(engine.bundle)

    def encode(self, texts: Sequence[str], output: str, batch_size: int = 1) -> np.ndarray:
        """One row of `output` per text, float32 (texts, width)."""
        if not texts:
            raise InvalidInput("no text was given; pass at least one")
        encoded = [self.tokenizer.encode(text) for text in texts]
        by_length = sorted(range(len(texts)), key=lambda i: len(encoded[i].ids))
        rows: dict[int, np.ndarray] = {}
        for start in range(0, len(texts), batch_size):
            chunk = by_length[start : start + batch_size]
            results = self.engine.run("encode", stack([encoded[i] for i in chunk]))
            if output not in results:
                raise IntegrityFailed(f"{self.engine.artifact_id} gives {', '.join(results)}, and no {output!r}")
            rows.update(zip(chunk, results[output]))
        return np.stack([rows[i] for i in range(len(texts))]).astype(np.float32, copy=False)


def logits_of(engine: Engine, encoded: Encoded) -> np.ndarray:
    """The logits of each token of one text, float32 (tokens, labels)."""
    return engine.run("encode", stack([encoded]))["logits"][0].astype(np.float32, copy=False)


def check_labels(engine: Engine) -> None:
    """Raises IntegrityFailed unless every logit has its label."""
    labels = engine.manifest.task.labels
    for entry in engine.artifact.entry_points.get("encode", ()):
        if "logits" not in entry.outputs or entry.outputs["logits"].shape[-1:] != (len(labels),):
            raise IntegrityFailed(
                f"{engine.artifact_id} does not give one logit for each of the manifest's {len(labels)} labels; "
                "export the bundle again"
            )
