"""Running texts through an encoder, in batches that keep the order: tokenized here for its `encode` entry point, or as
they are for the `encode_text` of an artifact that holds its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobile_llm.engine import Engine
from mobile_llm.errors import IntegrityFailed, InvalidInput
from mobile_llm.tasks.tokenization import Encoded, Text, TextTokenizer, stack

# Entry points of an artifact that takes strings: text (1,) to the outputs of `encode`, and to input_ids (1, sequence).
ENCODE_TEXT = "encode_text"
TOKENIZE = "tokenize"


class TextEncoder:
    """Tokenizer and engine together. With `batch_size` 1, the default, no text is padded and an answer never
    depends on its neighbours (dynamic int8 takes one activation range per batch); more is faster for many
    short texts."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokenizer = TextTokenizer(engine.bundle)

    def encode(self, texts: Sequence[Text], output: str, batch_size: int = 1) -> np.ndarray:
        """One row of `output` per text or pair, float32 (texts, width). Raises InvalidInput for a pair where the
        model takes none."""
        if not texts:
            raise InvalidInput("no text was given; pass at least one")
        refuse_pairs_unless_made_for_them(self.engine, texts)
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

    def count_tokens(self, text: str) -> int:
        """How many tokens of a text are read."""
        return len(self.tokenizer.encode(text).ids)


class StringEncoder:
    """An engine whose artifact holds the tokenizer. Texts go one by one, whatever the batch size."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def encode(self, texts: Sequence[Text], output: str, batch_size: int = 1) -> np.ndarray:
        """One row of `output` per text, float32 (texts, width). Raises InvalidInput for what is no single text, or
        holds a NUL: strings end there in the operators."""
        if not texts:
            raise InvalidInput("no text was given; pass at least one")
        return np.concatenate([self.run(text, ENCODE_TEXT)[output] for text in texts]).astype(np.float32, copy=False)

    def count_tokens(self, text: str) -> int:
        """How many tokens of a text are read."""
        return int(self.run(text, TOKENIZE)["input_ids"].size)

    def run(self, text: Text, *roles: str) -> dict[str, np.ndarray]:
        """The outputs of these roles for one text."""
        if isinstance(text, tuple):
            raise InvalidInput(
                f"{self.engine.artifact_id} takes strings, one text each, and no pairs; choose an artifact without its "
                "tokenizer inside, of a model that takes pairs"
            )
        if not isinstance(text, str):
            raise InvalidInput(f"a text should be a str, not {type(text).__name__}")
        if "\0" in text:
            raise InvalidInput("a text holds the character NUL, at which this artifact would cut it; take it out first")
        return self.engine.run_text(text, *roles)


def text_encoder(engine: Engine) -> TextEncoder | StringEncoder:
    """The encoder for what the artifact takes."""
    return StringEncoder(engine) if ENCODE_TEXT in engine.artifact.entry_points else TextEncoder(engine)


def refuse_pairs_unless_made_for_them(engine: Engine, texts: Sequence[Text]) -> None:
    """Raises InvalidInput for a pair given to a model that was not compared on pairs."""
    if engine.manifest.task.text_pairs or not any(isinstance(text, tuple) for text in texts):
        return
    raise InvalidInput(
        f"{engine.bundle.folder.name} takes single texts, not pairs; put several texts in a list, or, if its model was "
        "trained on pairs, export it with --text-pairs"
    )


def logits_of(engine: Engine, encoded: Encoded) -> np.ndarray:
    """The logits of each token of one text, float32 (tokens, labels)."""
    return engine.run("encode", stack([encoded]))["logits"][0].astype(np.float32, copy=False)


def check_labels(engine: Engine) -> None:
    """Raises IntegrityFailed unless every logit has its label."""
    labels = engine.manifest.task.labels
    entries = engine.artifact.entry_points
    for entry in (*entries.get("encode", ()), *entries.get(ENCODE_TEXT, ())):
        if "logits" not in entry.outputs or entry.outputs["logits"].shape[-1:] != (len(labels),):
            raise IntegrityFailed(
                f"{engine.artifact_id} does not give one logit for each of the manifest's {len(labels)} labels; "
                "export the bundle again"
            )
