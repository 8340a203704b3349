"""The label strings a user is given, against those of the PyTorch model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporters.metrics import margin
from exporters.verification.limits import limits_for
from exporters.verification.probes import token_places
from exporters.verification.rows import Row
from mobile_llm.bundle.golden import Golden, GoldenText
from mobile_llm.engine import Engine
from mobile_llm.tasks.text_classification import TextClassifier
from mobile_llm.tasks.token_classification import TokenClassifier


def label_row(engine: Engine, golden: Golden, where: str) -> Row:
    """Labels that differ, of those whose margin is above the precision's noise."""
    noise = _noise(engine)
    pairs = list(_pairs(engine, golden))
    clear = [given == expected for given, expected, sure in pairs if sure > noise]
    wrong = clear.count(False)
    return Row(
        engine.artifact_id,
        next(iter(engine.artifact.entry_points)),
        "labels that differ",
        float(wrong),
        0.0,
        "failed" if wrong else "passed",
        f"those whose margin is above {noise:g} ({len(clear)} of {len(pairs)}) must stay what they are",
        where,
    )


def _pairs(engine: Engine, golden: Golden) -> Iterator[tuple[str, str | None, float]]:
    """The artifact's label, the model's, and how sure the model was: of each text, or of its tokens."""
    texts, labels = golden.inputs.texts, engine.manifest.task.labels
    logits = golden.outputs["reference/logits"][: len(texts)]
    if engine.manifest.task.name == "token-classification":
        yield from _of_tokens(TokenClassifier(engine), texts, logits.reshape(len(texts), -1, len(labels)))
        return
    answers = TextClassifier(engine).classify([text.text for text in texts])
    for answer, text, sure in zip(answers, texts, margin(logits)):
        yield answer.label, text.label, float(sure)


def _of_tokens(
    classifier: TokenClassifier, texts: tuple[GoldenText, ...], logits: np.ndarray
) -> Iterator[tuple[str, str | None, float]]:
    for text, rows in zip(texts, logits):
        tags = classifier.tags(text.text)
        for place, expected, sure in zip(token_places("logits", len(text.ids)), text.tags, margin(rows)):
            yield tags[place] if place < len(tags) else "", expected, float(sure)


def _noise(engine: Engine) -> float:
    """Twice the logit error allowed: below it, either label may win."""
    artifact = engine.artifact
    limits = limits_for("logits", "reference", artifact.precision, artifact.format)
    allowed: float | None = next((x.limit for x in limits if x.metric == "largest_difference"), None)
    return 2 * allowed if allowed is not None else 0.0
