"""The answers a user is given, text in and label or number out, against those of the PyTorch model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporters.metrics import largest_difference, margin
from exporters.verification.limits import kind_of, limits_for
from exporters.verification.probes import token_places
from exporters.verification.rows import Row, Status
from mobile_llm.bundle.golden import Golden, GoldenText
from mobile_llm.engine import Engine
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION
from mobile_llm.tasks.text_classification import Classification, MultiLabel, Regression, TextClassifier, sigmoid
from mobile_llm.tasks.token_classification import TokenClassifier

# A label given, the one expected, and how sure the model was of it, in its logits.
Decision = tuple[str, str | None, float]
_SMALLEST_UNIT = 0.01
_ROUNDING = 1e-7


def answer_row(engine: Engine, golden: Golden, where: str) -> Row:
    """The one row about answers: labels that differ, or how far numbers do."""
    kinds = {REGRESSION: _number_row, MULTI_LABEL: _labels_row}
    return kinds.get(engine.manifest.task.problem_type or "", _label_row)(engine, golden, where)


def unit_of(kind: str, golden: Golden) -> float:
    """What differences are counted in: of numbers how far the model's own answers to the texts are apart (standard
    deviation), at least a hundredth of their size; logits are their own unit."""
    if kind != "number":
        return 1.0
    numbers = golden.outputs["reference/logits"][: len(golden.inputs.texts)].astype(np.float64)
    return max(float(numbers.std()), _SMALLEST_UNIT * float(np.abs(numbers).max())) or 1.0


def _number_row(engine: Engine, golden: Golden, where: str) -> Row:
    artifact, texts = engine.artifact, golden.inputs.texts
    answers = TextClassifier(engine).classify([text.given for text in texts])
    given = np.array([[answer.value] for answer in answers if isinstance(answer, Regression)])
    unit, expected = unit_of("number", golden), golden.outputs["reference/logits"][: len(texts)]
    (limit,) = limits_for("number", "reference", artifact.precision, artifact.format)
    value = largest_difference(given / unit, expected / unit)
    status: Status = "passed" if limit.holds(value) else "failed"
    entry = next(iter(artifact.entry_points))
    return Row(engine.artifact_id, entry, "numbers that differ", value, limit.limit, status, limit.reason, where)


def _labels_row(engine: Engine, golden: Golden, where: str) -> Row:
    """Of each text and label by its name: a score that the logit's limit does not allow, or a label that is given where
    the model is sure that it is none, and the other way round."""
    allowed = _allowed(engine)
    answers = TextClassifier(engine).classify([text.given for text in golden.inputs.texts])
    right = [
        _is_right(answer, label, float(logit), allowed)
        for answer, text, row in zip(answers, golden.inputs.texts, golden.outputs["reference/logits"])
        if isinstance(answer, MultiLabel)
        for label, logit in zip(text.labels, np.sort(row)[::-1])
    ]
    scores = len(answers) * len(engine.manifest.task.labels)
    reason = f"each of {scores} scores, by its label, must be the model's, whose logit may move by {allowed:g}"
    return _count(engine, scores - right.count(True), reason, where)


def _is_right(answer: MultiLabel, label: str, logit: float, allowed: float) -> bool:
    low, high = sigmoid(np.array([logit - allowed, logit + allowed]))
    within = low - _ROUNDING <= answer.scores.get(label, -1.0) <= high + _ROUNDING
    return within and (abs(logit) <= allowed or (label in answer.labels) == (logit > 0))


def _label_row(engine: Engine, golden: Golden, where: str) -> Row:
    """Labels that differ, of those whose margin is above the precision's noise: twice the logit error allowed, since
    two logits are compared. Below it, either may win."""
    noise = 2 * _allowed(engine)
    decisions = list(_decisions(engine, golden))
    clear = [given == expected for given, expected, sure in decisions if sure > noise]
    reason = f"those whose margin is above {noise:g} ({len(clear)} of {len(decisions)}) must stay what they are"
    return _count(engine, clear.count(False), reason, where)


def _count(engine: Engine, wrong: int, reason: str, where: str) -> Row:
    entry = next(iter(engine.artifact.entry_points))
    status: Status = "failed" if wrong else "passed"
    return Row(engine.artifact_id, entry, "labels that differ", float(wrong), 0.0, status, reason, where)


def _decisions(engine: Engine, golden: Golden) -> Iterator[Decision]:
    """Of each text, or of each of its tokens."""
    texts, labels = golden.inputs.texts, engine.manifest.task.labels
    logits = golden.outputs["reference/logits"][: len(texts)]
    if engine.manifest.task.name == "token-classification":
        yield from _of_tokens(TokenClassifier(engine), texts, logits.reshape(len(texts), -1, len(labels)))
        return
    answers = TextClassifier(engine).classify([text.given for text in texts])
    for answer, text, sure in zip(answers, texts, margin(logits)):
        if isinstance(answer, Classification):
            yield answer.label, text.label, float(sure)


def _of_tokens(classifier: TokenClassifier, texts: tuple[GoldenText, ...], logits: np.ndarray) -> Iterator[Decision]:
    for text, rows in zip(texts, logits):
        tags = classifier.tags(text.text)
        for place, expected, sure in zip(token_places("logits", len(text.ids)), text.tags, margin(rows)):
            yield tags[place] if place < len(tags) else "", expected, float(sure)


def _allowed(engine: Engine) -> float:
    """How far a logit may be off."""
    artifact, kind = engine.artifact, kind_of("logits", engine.manifest.task)
    limits = limits_for(kind, "reference", artifact.precision, artifact.format)
    return next((limit.limit for limit in limits if limit.metric == "largest_difference"), 0.0)
