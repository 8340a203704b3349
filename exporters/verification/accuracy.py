"""The task itself as a gate: what an artifact may lose of the PyTorch model's accuracy on the user's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from exporters.progress import Watch
from exporters.spec import ExportSpec
from exporters.verification.artifacts import CHECKERS
from exporters.verification.evaluation import Score, evaluate
from exporters.verification.heads import HEADS
from exporters.verification.limits import limits_for
from exporters.verification.rows import Row, Status, here, not_checked
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.bundle.manifest import TaskInfo
from mobile_llm.problem_types import SINGLE_LABEL


@dataclass(frozen=True)
class _Loss:
    """A loss of one metric: what its row is called, where the table has its limit, how agreement is put in words."""

    metric: str
    limit: str
    agreement: str


_LOSSES: Mapping[str, _Loss] = {
    "accuracy": _Loss("points of accuracy lost", "accuracy", "same label on {:.2%}"),
    "micro F1": _Loss("points of F1 lost", "accuracy", "same labels on {:.2%}"),
    "entity F1": _Loss("points of F1 lost", "accuracy", "same label on {:.2%}"),
    "Pearson correlation": _Loss("points of correlation lost", "correlation", "concordance {:.4f}"),
}
LOST = tuple(dict.fromkeys(loss.metric for loss in _LOSSES.values()))


def check_accuracy(bundle: Bundle, spec: ExportSpec, watch: Watch) -> Iterator[Row]:
    """One row per artifact of a classifier; without data each is `not_checked`."""
    if not bundle.manifest.task.labels:
        return
    artifacts, loss = bundle.manifest.artifacts, _LOSSES[_metric(bundle.manifest.task)]
    if spec.eval_data is None:
        for artifact_id in artifacts:
            yield not_checked(
                artifact_id, "encode", loss.metric, "no labelled rows were given; pass --eval-data SOURCE"
            )
        return
    result = evaluate(bundle, spec.eval_data, spec.model, (), watch, spec.columns)
    for artifact_id, score in result.scores.items():
        artifact = artifacts[artifact_id]
        yield _row(artifact_id, artifact, loss, score, result.examples)
    for artifact_id, reason in result.not_checked.items():
        yield not_checked(artifact_id, "encode", loss.metric, reason)


def _metric(task: TaskInfo) -> str:
    return "entity F1" if task.name == "token-classification" else HEADS[task.problem_type or SINGLE_LABEL].metric


def _row(artifact_id: str, artifact: Artifact, loss: _Loss, score: Score, rows: int) -> Row:
    """Failed where the loss is above the limit beyond chance: the whole of its 95 % interval is."""
    (limit,) = limits_for(loss.limit, "reference", artifact.precision, artifact.format)
    if score.difference is None or score.agreement is None:
        return not_checked(artifact_id, "encode", loss.metric, "the PyTorch model was not measured beside it")
    gained = score.difference
    lost, low, high = (0.0 - 100 * value for value in (gained.mean, gained.high, gained.low))
    status: Status = "failed" if low > limit.limit else "passed"
    agreed = loss.agreement.format(score.agreement)
    reason = f"{rows} rows, 95 % interval {low:+.2f} to {high:+.2f}, {agreed}; {limit.reason}"
    backend, package = CHECKERS[artifact.format][0]
    where = here(f"{backend} ({package} {version(package)})")
    return Row(artifact_id, "encode", loss.metric, lost, limit.limit, status, reason, where)
