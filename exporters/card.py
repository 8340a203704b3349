"""The bundle's README.md: a model card that a person can publish.

It is made from the bundle alone (manifest, what the model's own card said, how it was fine-tuned) and from what was
compared, so it is written last. Like verification.json it has no hash in the manifest: whoever publishes it will add
words of their own. It holds no time, so the same inputs give the same card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters.card_usage import usage
from exporters.data.packages import PREFIX
from exporters.finetuning.tasks import METRICS
from exporters.sources.folder import read_optional
from exporters.verification.accuracy import LOST
from exporters.verification.rows import Row, summary
from exporters.verification.tables import nearness, shown_number, with_short_name
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.bundle.manifest import TaskInfo
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION

CARD, SOURCE_CARD, FINETUNING = "README.md", "SOURCE_README.md", "finetuning.json"
# What the model's own header says of it holds for its artifacts too.
_TAKEN_OVER = ("license", "license_name", "license_link", "language", "datasets", "base_model")
_UNSTATED = "**not stated: find out before you publish**"


def keep_origin(source: Path, folder: Path) -> None:
    """Copy what tells of the model's origin into the bundle, before its manifest is written: the model's own card
    whole, and the record of a fine-tuning without the places on this machine."""
    if (source / CARD).is_file():
        shutil.copyfile(source / CARD, folder / SOURCE_CARD)
    record = read_optional(source / "finetune.json")
    if isinstance(record, dict) and record:
        text = json.dumps({key: _without_place(key, value) for key, value in record.items()}, indent=2)
        (folder / FINETUNING).write_text(text + "\n", encoding="utf-8")


def write_card(bundle: Bundle, rows: Sequence[Row]) -> None:
    """Write README.md over a bundle that has been compared."""
    header = source_header(bundle.folder / SOURCE_CARD)
    record = read_optional(bundle.folder / FINETUNING)
    sections = [
        _front_matter(bundle, header),
        *_origin(bundle, header, record),
        *_artifacts(bundle, rows),
        *usage(bundle.manifest),
        *_unchecked(rows),
        *_limits(bundle),
    ]
    (bundle.folder / CARD).write_text("\n".join(sections) + "\n", encoding="utf-8")


def source_header(card: Path) -> dict[str, Any]:
    """The YAML header of a model's own card; {} where there is none or it cannot be read."""
    from huggingface_hub import metadata_load

    if not card.is_file():
        return {}
    try:
        return metadata_load(card) or {}
    except Exception:  # the parser's own errors, of a file that is only read for what it may add
        return {}


def _without_place(key: str, value: Any) -> Any:
    """A path reduced to its name: a folder of this machine is nobody else's business."""
    is_place = key in ("model", "data", "eval_data") and isinstance(value, str) and not value.startswith(PREFIX)
    return Path(value).name if is_place else value


def _front_matter(bundle: Bundle, header: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    manifest = bundle.manifest
    taken: dict[str, Any] = {key: header[key] for key in _TAKEN_OVER if header.get(key)}
    if "/" in manifest.origin.id or "base_model" not in taken:
        taken["base_model"] = manifest.origin.id
    formats = sorted({artifact.format for artifact in manifest.artifacts.values()})
    more: dict[str, Any] = {"library_name": "mobile-llm", "tags": ["mobile-llm", *formats]}
    if manifest.tokenizer:  # the hub has no tag for tensors alone
        more["pipeline_tag"] = manifest.task.name
    return f"---\n{ModelCardData(**taken, **more).to_yaml()}\n---\n"


def _origin(bundle: Bundle, header: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    manifest = bundle.manifest
    origin, task = manifest.origin, manifest.task
    formats = ", ".join(dict.fromkeys(artifact.format for artifact in manifest.artifacts.values()))
    yield f"# {origin.id} for phones\n"
    yield (
        f"`{origin.id}` ({origin.architecture}, {origin.parameters:,} parameters) for {task.name}, exported to "
        f"{formats} by {manifest.created_by} and compared with the model it came from.\n"
    )
    yield from _answers(task)
    if task.pooling:
        yield f"Pooling: {task.pooling}{', scaled to length 1' if task.normalize else ''}.\n"
    yield "## Where it comes from\n"
    over = "of the GGUF file" if origin.weights_format == "gguf" else "over the weight files, by name"
    yield f"- Weights that came in: sha256 `{origin.weights_sha256}` ({over})"
    for adapter in origin.adapters:
        yield f"- With the adapter `{adapter.id}` merged into them: sha256 `{adapter.weights_sha256}` (of its weights)"
    if record:
        yield f"- {_finetuning(record)}"
    if header or (bundle.folder / SOURCE_CARD).is_file():
        yield f"- The model's own card is kept whole in [{SOURCE_CARD}]({SOURCE_CARD})"
    yield f"- Licence of the model: {origin.licence or header.get('license') or _UNSTATED}"
    yield f"- Licence of the data it was trained on: {origin.data_licence or _UNSTATED}\n"


def _answers(task: TaskInfo) -> Iterator[str]:
    """What goes in and comes out, where it is about labels."""
    if task.text_pairs:
        yield "Takes pairs of texts.\n"
    if task.problem_type == REGRESSION:
        yield "Answers with a number, in the unit of its training data.\n"
    elif task.labels:
        several = " (any number of them at once)" if task.problem_type == MULTI_LABEL else ""
        yield f"Labels{several}: {', '.join(f'`{label}`' for label in task.labels)}.\n"


def _finetuning(record: Mapping[str, Any]) -> str:
    metric = next((name for name in METRICS if name in record), "accuracy")
    score = record.get(metric)
    measured = f"{metric} {score:.4f} on `{record.get('eval_data')}`" if score is not None else "not measured"
    return (
        f"Fine-tuned from `{record.get('model')}` on {record.get('examples')} rows of `{record.get('data')}` "
        f"({record.get('method')}, {record.get('epochs')} epochs, seed {record.get('seed')}); {measured}. "
        f"All settings: [{FINETUNING}]({FINETUNING})"
    )


def _artifacts(bundle: Bundle, rows: Sequence[Row]) -> Iterator[str]:
    accuracy = any(row.metric in LOST and row.value is not None for row in rows)
    yield "## Artifacts\n"
    yield "| artifact | precision | MB | needs | nearest to its limit | checks |" + (
        " points lost |" if accuracy else ""
    )
    yield "|---|---|---:|---|---|---|" + ("---|" if accuracy else "")
    for artifact_id, artifact in bundle.manifest.artifacts.items():
        own = [row for row in rows if row.artifact == artifact_id]
        yield _line(bundle, artifact_id, artifact, own) + (f" {_points(own)} |" if accuracy else "")
    yield "\nEvery comparison, with its limit and the reason for it: [verification.json](verification.json).\n"


def _line(bundle: Bundle, artifact_id: str, artifact: Artifact, rows: Sequence[Row]) -> str:
    default = " (default)" if artifact_id in bundle.manifest.defaults.values() else ""
    needs = ", ".join(f"{name} {version}" for name, version in artifact.minimum.items())
    counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in summary(rows).items() if n)
    start = f"| [{artifact_id}]({artifact.path}){default} | {artifact.precision} | {artifact.size / 1e6:.1f} | {needs} "
    return f"{start}| {_nearest(rows)} | {counts or 'none'} |"


def _nearest(rows: Sequence[Row]) -> str:
    """The comparison with the model that came closest to failing."""
    checked = [row for row in rows if row.value is not None and row.limit is not None and row.metric not in LOST]
    if not checked:
        return "**nothing was checked**"
    worst = max(checked, key=nearness)
    return f"{with_short_name(worst.metric)} {shown_number(worst.value)} (limit {shown_number(worst.limit)})"


def _points(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row.metric in LOST and row.value is not None]
    return "; ".join(f"{row.value:+.2f} ({row.reason.split(';')[0]})" for row in found) or "not measured"


def _unchecked(rows: Sequence[Row]) -> Iterator[str]:
    """As loud as a failure would be."""
    yield "## What was not checked\n"
    left = dict.fromkeys((row.metric, row.reason) for row in rows if row.status == "not_checked")
    for metric, reason in left:
        artifacts = dict.fromkeys(row.artifact for row in rows if (row.metric, row.reason) == (metric, reason))
        yield f"- **NOT CHECKED: {metric}** of {', '.join(artifacts)}: {reason}"
    yield "- **NOT CHECKED: on a phone.** Every figure above is of the machine that exported it"
    if any(row.artifact.startswith("coreml/") for row in rows):
        yield "- **NOT CHECKED: in Core ML itself.** Its artifacts ran in mobile-llm's evaluator of MIL programs"
    yield ""


def _limits(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    yield "## Limits\n"
    context = {artifact.cache.context for artifact in manifest.artifacts.values() if artifact.cache}
    if context:
        yield f"- Prompt and answer have {min(context)} tokens together; a longer prompt is refused"
    elif manifest.tokenizer:
        yield f"- Texts are cut after {manifest.tokenizer.max_length} tokens, special ones included"
    yield "- What the model itself gets wrong, its artifacts get wrong too: exporting adds no knowledge and no safety"
    if any(artifact.precision == "int8" for artifact in manifest.artifacts.values()):
        yield "- int8 answers differ a little from CPU to CPU, since kernels round activations in their own ways"
