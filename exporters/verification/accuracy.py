"""The task itself as a gate: what an artifact may lose of the PyTorch model's accuracy on the user's rows."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from exporters.progress import Watch
from exporters.spec import ExportSpec
from exporters.verification.artifacts import CHECKERS
from exporters.verification.evaluation import Score, evaluate
from exporters.verification.limits import limits_for
from exporters.verification.rows import Row, Status, here, not_checked
from mobile_llm.bundle import Artifact, Bundle

_METRICS = {"text-classification": "points of accuracy lost", "token-classification": "points of F1 lost"}


def check_accuracy(bundle: Bundle, spec: ExportSpec, watch: Watch) -> Iterator[Row]:
    """One row per artifact of a classifier; without data each is `not_checked`."""
    if not bundle.manifest.task.labels:
        return
    artifacts, metric = bundle.manifest.artifacts, _METRICS[bundle.manifest.task.name]
    if spec.eval_data is None:
        for artifact_id in artifacts:
            yield not_checked(artifact_id, "encode", metric, "no labelled rows were given; pass --eval-data SOURCE")
        return
    columns = (spec.text_column, spec.label_column)
    result = evaluate(bundle, spec.eval_data, spec.model, (), watch, *columns)
    for artifact_id, score in result.scores.items():
        artifact = artifacts[artifact_id]
        yield _row(artifact_id, artifact, metric, score, result.examples)
    for artifact_id, reason in result.not_checked.items():
        yield not_checked(artifact_id, "encode", metric, reason)


def _row(artifact_id: str, artifact: Artifact, metric: str, score: Score, rows: int) -> Row:
    """Failed where the loss is above the limit beyond chance: the whole of its 95 % interval is."""
    (limit,) = limits_for("accuracy", "reference", artifact.precision, artifact.format)
    if score.difference is None or score.agreement is None:
        return not_checked(artifact_id, "encode", metric, "the PyTorch model was not measured beside it")
    gained = score.difference
    lost, low, high = (0.0 - 100 * value for value in (gained.mean, gained.high, gained.low))
    status: Status = "failed" if low > limit.limit else "passed"
    reason = (
        f"{rows} rows, 95 % interval {low:+.2f} to {high:+.2f}, same label on {score.agreement:.2%}; {limit.reason}"
    )
    backend, package = CHECKERS[artifact.format][0]
    where = here(f"{backend} ({package} {version(package)})")
    return Row(artifact_id, "encode", metric, lost, limit.limit, status, reason, where)
