"""The task itself, on a user's rows: its metric (exporters/verification/heads.py, for entities F1) for every artifact
beside the PyTorch model's, paired row by row.

For embeddings there is no label to be right about: their figure is the mean cosine to the PyTorch model's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from exporters.architectures.blocks import Pooling
from exporters.data import USUAL, Columns, TextDataset, TokenDataset, load_labelled, load_texts
from exporters.data.texts import check_pairs
from exporters.metrics import PairedDifference, count_entities, f1_difference
from exporters.progress import Watch, silent
from exporters.sources.huggingface import HuggingFaceSource, open_source
from exporters.spec import GENERATION, pooling_mode
from exporters.verification.artifacts import CHECKERS
from exporters.verification.heads import HEADS, Disagreement
from exporters.verification.probes import encode
from exporters.verification.reference import Reference, model_word_tags
from mobile_llm.bundle import Bundle
from mobile_llm.engine import Engine
from mobile_llm.errors import BackendUnavailable, InvalidSpec, UnsupportedModel, VerificationFailed
from mobile_llm.problem_types import SINGLE_LABEL
from mobile_llm.tasks.encoding import text_encoder
from mobile_llm.tasks.token_classification import TokenClassifier
from mobile_llm.tasks.tokenization import Text

Opened = TypeVar("Opened")


@dataclass(frozen=True)
class Score:
    """One artifact on the data. Beside the model: how far they agree, and the paired difference of the metric (artifact
    minus model) with its 95 % interval. `normalized` is of multiple choice: accuracy by length-normalized
    likelihoods."""

    value: float
    agreement: float | None = None
    difference: PairedDifference | None = None
    disagreements: tuple[Disagreement, ...] = ()
    standard_error: float | None = None
    normalized: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """`reference` is the PyTorch model's own figure, None where no model was given. An artifact that could not
    be run here has a sentence in `not_checked` instead of a score."""

    metric: str
    examples: int
    reference: float | None
    scores: dict[str, Score]
    not_checked: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "examples": self.examples,
            "reference": self.reference,
            "artifacts": {name: score.value for name, score in self.scores.items()},
            "not_checked": self.not_checked,
            "details": {name: asdict(score) for name, score in self.scores.items()},
        }


def evaluate(
    bundle: Bundle,
    data: str,
    model: str | None = None,
    artifact_ids: Sequence[str] = (),
    watch: Watch = silent,
    columns: Columns = USUAL,
) -> Evaluation:
    """Measure artifacts (all of them, where none is named) on `data`, a file or a `package:` source.

    Raises InvalidInput for rows that cannot be used and for artifacts the bundle lacks, InvalidSpec where
    embeddings are to be compared and no model is given.
    """
    chosen = [bundle.choose(name)[0] for name in artifact_ids] or list(bundle.manifest.artifacts)
    for artifact_id in chosen:
        bundle.check_artifact(bundle.manifest.artifacts[artifact_id])
    task = bundle.manifest.task
    if columns.text_pair and task.name != "text-classification":
        raise InvalidSpec(f"pairs of texts are for text-classification, and this is {task.name}; leave them out")
    if task.name == GENERATION:
        from exporters.verification.choices import evaluate_choices
        from exporters.verification.perplexity import evaluate_perplexity

        return (evaluate_choices if data.endswith(".jsonl") else evaluate_perplexity)(
            bundle, data, model, chosen, watch
        )
    if task.labels:
        rows = load_labelled(task.name, task.problem_type, data, columns).with_label_names(task.labels)
        if not isinstance(rows, TokenDataset):
            check_pairs(rows.texts, data, task.text_pairs)
        source = _open(bundle, model, watch) if model else None
        if isinstance(rows, TokenDataset):
            return evaluate_entities(bundle, chosen, rows, source, watch)
        return evaluate_texts(bundle, chosen, rows, source, watch)
    if model is None:
        raise InvalidSpec("embeddings have no label to be right about; pass --model DIR to compare them with it")
    texts = load_texts(data, columns.text or "text")
    return evaluate_embeddings(bundle, chosen, texts, _open(bundle, model, watch), watch)


def _open(bundle: Bundle, model: str, watch: Watch) -> HuggingFaceSource:
    watch(f"loading {model}")
    task = bundle.manifest.task
    pooling = Pooling(pooling_mode(task.pooling), bool(task.normalize)) if task.pooling else None
    return open_source(model, task.name, pooling, task.text_pairs)


def evaluate_texts(
    bundle: Bundle,
    artifact_ids: Sequence[str],
    data: TextDataset,
    source: HuggingFaceSource | None,
    watch: Watch = silent,
) -> Evaluation:
    """The metric of the bundle's head over texts or pairs whose labels, by their places, are the bundle's."""
    if source:
        watch("the PyTorch model")
    reference = _model_outputs(source, data.texts)["logits"] if source else None
    task = bundle.manifest.task
    head, targets = HEADS[task.problem_type or SINGLE_LABEL], np.array(data.targets)

    def score(logits: np.ndarray) -> Score:
        value = head.score(logits, targets)
        if reference is None:
            return Score(value)
        difference = head.difference(logits, reference, targets)
        return Score(value, head.agreement(logits, reference), difference, head.unlike(logits, reference, task.labels))

    scores, missing = run_all(bundle, artifact_ids, _over(data.texts, "logits", score), watch, Engine.open)
    own = head.score(reference, targets) if reference is not None else None
    return Evaluation(head.metric, len(data), own, scores, missing)


def evaluate_embeddings(
    bundle: Bundle,
    artifact_ids: Sequence[str],
    texts: Sequence[str],
    source: HuggingFaceSource,
    watch: Watch = silent,
) -> Evaluation:
    """Mean cosine of every text's embedding to the PyTorch model's."""
    watch("the PyTorch model")
    expected = _model_outputs(source, texts)["sentence_embedding"]
    norms = np.linalg.norm(expected, axis=-1)

    def score(vectors: np.ndarray) -> Score:
        return Score(float(((vectors * expected).sum(-1) / (np.linalg.norm(vectors, axis=-1) * norms)).mean()))

    scores, missing = run_all(bundle, artifact_ids, _over(texts, "sentence_embedding", score), watch, Engine.open)
    return Evaluation("mean cosine", len(texts), 1.0, scores, missing)


def evaluate_entities(
    bundle: Bundle,
    artifact_ids: Sequence[str],
    data: TokenDataset,
    source: HuggingFaceSource | None,
    watch: Watch = silent,
) -> Evaluation:
    """Entity F1 over sentences whose words are tagged; agreement is over words."""
    if source:
        watch("the PyTorch model")
    reference = model_word_tags(source, data.words) if source else None
    own = count_entities(reference, data.named_tags) if reference else None

    def run(engine: Engine) -> Score:
        classifier = TokenClassifier(engine)
        tags = [classifier.word_tags(words) for words in data.words]
        counts = count_entities(tags, data.named_tags)
        if reference is None or own is None:
            return Score(counts.f1())
        same = [a == b for row, other in zip(tags, reference) for a, b in zip(row, other)]
        return Score(counts.f1(), float(np.mean(same)), f1_difference(counts, own))

    scores, missing = run_all(bundle, artifact_ids, run, watch, Engine.open)
    return Evaluation("entity F1", len(data), own.f1() if own else None, scores, missing)


def _over(texts: Sequence[Text], output: str, score: Callable[[np.ndarray], Score]) -> Callable[[Engine], Score]:
    """Scores an output over all texts."""

    def run(engine: Engine) -> Score:
        return score(text_encoder(engine).encode(texts, output))

    return run


def run_all(
    bundle: Bundle,
    artifact_ids: Sequence[str],
    run: Callable[[Opened], Score],
    watch: Watch,
    opening: Callable[..., AbstractContextManager[Opened]],
) -> tuple[dict[str, Score], dict[str, str]]:
    """The score of every artifact, or why it has none; `opening` is `open` of the kind of engine that runs them."""
    scores: dict[str, Score] = {}
    missing: dict[str, str] = {}
    for artifact_id in artifact_ids:
        watch(artifact_id)
        backend = CHECKERS[bundle.manifest.artifacts[artifact_id].format][0][0]
        try:
            with opening(bundle, artifact_id, threads=2, backend=backend) as engine:
                scores[artifact_id] = run(engine)
        except (UnsupportedModel, BackendUnavailable, VerificationFailed) as error:
            missing[artifact_id] = str(error)
    return scores, missing


def _model_outputs(source: HuggingFaceSource, texts: Sequence[Text]) -> dict[str, np.ndarray]:
    return Reference(source).outputs([encode(source.tokenizer, text, source.max_length) for text in texts])
