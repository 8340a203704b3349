"""From a model to a bundle, top to bottom: load, describe, quantize, write, compare, and only then keep.

Covered: encoders for text classification (of single texts and of pairs), entities and embeddings. A bundle exists only
when no comparison has failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import groupby
from pathlib import Path

from exporters.architectures import describe
from exporters.architectures.blocks import EncoderModel
from exporters.card import keep_origin, write_card
from exporters.data import TokenDataset, load_labelled
from exporters.data.texts import check_pairs
from exporters.formats.onnx.text import TextFront, add_text_input, text_front
from exporters.memory import new_garbage_only, release
from exporters.packaging import copy_source_files, describe_artifact, is_ours, write_manifest, write_verification
from exporters.plan import make_plan
from exporters.progress import Watch, silent
from exporters.quantization.recipes import RECIPES, as_stored
from exporters.result import ExportResult
from exporters.sources.huggingface import HuggingFaceSource, open_source
from exporters.spec import GENERATION, ExportSpec
from exporters.staging import staged_folder
from exporters.verification.accuracy import check_accuracy
from exporters.verification.bundles import check_bundle, gate, read_golden
from exporters.verification.golden import make_golden
from mobile_llm.backends.onnx import extensions_library
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.errors import InvalidSpec


@new_garbage_only()
def run_export(spec: ExportSpec, watch: Watch = silent) -> ExportResult:
    """Export as `spec` asks. `watch` is told each step.

    Raises OutputExists, ModelNotFound, UnsupportedModel, InvalidSpec, NotEnoughMemory; VerificationFailed where
    an artifact differs from the model, in which case no bundle is left.
    """
    make_plan(spec).refuse_what_cannot_fit()
    if spec.task == GENERATION:
        from exporters.decoders.pipeline import run_decoder_export

        return run_decoder_export(spec, watch)
    if spec.text_input:
        extensions_library()  # it compares what is written here, so its absence is said before any work
    with staged_folder(spec.output, spec.force, ours=is_ours) as folder:
        artifacts = _write(spec, folder, watch)
        release()
        bundle = Bundle.open(folder)
        rows = check_bundle(bundle, read_golden(bundle), lambda what: watch(f"comparing {what}"))
        rows += check_accuracy(bundle, spec, lambda what: watch(f"accuracy of {what}"))
        write_verification(rows, folder)
        write_card(bundle, rows)
        gate(rows, spec.strict)
    return ExportResult(spec.output, artifacts, tuple(rows))


def _write(spec: ExportSpec, folder: Path, watch: Watch) -> dict[str, Artifact]:
    """Everything but what is attested. The PyTorch model is in memory no longer than this."""
    watch(f"loading {spec.model}")
    source = open_source(spec.model, spec.task, spec.pooling, spec.text_pairs, spec.adapters, watch)
    _refuse_strings_for_pairs(spec, source)
    _check_data(spec, source)
    model = describe(source.model, spec.task, source.pooling)
    artifact_ids = spec.artifact_ids
    front = text_front(source.folder, source.max_length) if spec.text_input else None
    copy_source_files(source, folder)
    keep_origin(source.folder, folder)
    watch("asking the PyTorch model for reference answers")
    make_golden(source, model, artifact_ids).write(folder)
    release()
    artifacts = dict(_write_artifacts(model, artifact_ids, folder, watch))
    if front:
        artifacts |= _with_text_input(artifacts, front, folder, watch)
    write_manifest(source, artifacts, folder)
    return artifacts


def _with_text_input(
    artifacts: Mapping[str, Artifact], front: TextFront, folder: Path, watch: Watch
) -> dict[str, Artifact]:
    """Beside each ONNX artifact the one that takes strings."""
    added = {}
    for artifact_id, artifact in artifacts.items():
        if artifact.format == "onnx":
            watch(f"writing {artifact_id} for text")
            text_id, lowered = add_text_input(artifact_id, artifact, front, folder)
            added[text_id] = describe_artifact(folder, text_id, lowered)
    return added


def _refuse_strings_for_pairs(spec: ExportSpec, source: HuggingFaceSource) -> None:
    """An artifact that takes a string could not be given what the model takes."""
    if spec.text_input and source.text_pairs:
        raise InvalidSpec(f"text input is for single texts, and {spec.model} takes pairs; leave out the text input")


def _check_data(spec: ExportSpec, source: HuggingFaceSource) -> None:
    """Rows that cannot be used are refused before any work is done."""
    if spec.eval_data is None:
        return
    data = load_labelled(spec.task, source.problem_type, spec.eval_data, spec.columns).with_label_names(source.labels)
    if not isinstance(data, TokenDataset):
        check_pairs(data.texts, spec.eval_data, source.text_pairs)


def _write_artifacts(
    model: EncoderModel, artifact_ids: list[str], folder: Path, watch: Watch
) -> Iterator[tuple[str, Artifact]]:
    """One artifact after the other; the weights of a recipe are computed once for all its formats."""
    for recipe, ids in groupby(artifact_ids, key=lambda artifact_id: artifact_id.split("/")[1]):
        quantized = RECIPES[recipe](model)
        for artifact_id in ids:
            watch(f"writing {artifact_id}")
            writer = import_module(f"exporters.formats.{artifact_id.split('/')[0]}")
            lowered = writer.lower(as_stored(artifact_id, quantized), recipe, folder)
            release()
            yield artifact_id, describe_artifact(folder, artifact_id, lowered)
