"""Encoders: text classification (of single texts and of pairs), entities, embeddings; as `exporters.pipeline` asks."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from exporters.architectures import describe
from exporters.architectures.blocks import EncoderModel
from exporters.card import keep_origin
from exporters.data import TokenDataset, load_labelled
from exporters.data.texts import check_pairs
from exporters.formats.lowered import Lowered
from exporters.formats.onnx.text import TextFront, add_text_input, text_front
from exporters.memory import release
from exporters.packaging import copy_source_files, describe_artifact, write_manifest
from exporters.progress import Watch
from exporters.quantization.recipes import RECIPES, as_stored
from exporters.sources.huggingface import HuggingFaceSource, open_source
from exporters.spec import ExportSpec, recipe_of
from exporters.verification.accuracy import check_accuracy
from exporters.verification.bundles import check_bundle, read_golden
from exporters.verification.golden import make_golden
from exporters.verification.rows import Row
from exporters.writing import write_artifacts
from mobile_llm.backends.onnx import extensions_library
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.errors import InvalidSpec


def write(spec: ExportSpec, folder: Path, watch: Watch) -> dict[str, Artifact]:
    """Everything but what is attested. The PyTorch model is in memory no longer than this."""
    if spec.text_input:
        extensions_library()  # it compares what is written here, so its absence is said before any work
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

    def lower(artifact_id: str, quantized: EncoderModel) -> Lowered:
        writer = import_module(f"exporters.formats.{artifact_id.split('/')[0]}")
        lowered: Lowered = writer.lower(as_stored(artifact_id, quantized), recipe_of(artifact_id), folder)
        return lowered

    artifacts = dict(write_artifacts(artifact_ids, lambda recipe: RECIPES[recipe](model), lower, folder, watch))
    if front:
        artifacts |= _with_text_input(artifacts, front, folder, watch)
    write_manifest(source, artifacts, folder)
    return artifacts


def check(spec: ExportSpec, bundle: Bundle, watch: Watch) -> list[Row]:
    """Every artifact beside the golden references, and on labelled rows where there are some."""
    rows = check_bundle(bundle, read_golden(bundle), lambda what: watch(f"comparing {what}"))
    return [*rows, *check_accuracy(bundle, spec, lambda what: watch(f"accuracy of {what}"))]


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
