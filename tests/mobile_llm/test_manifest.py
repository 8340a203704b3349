"""manifest.json: its schema, its versions, and what does not add up: one sentence and the right exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import mobile_llm
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.schema import SCHEMA_FILE, manifest_schema
from mobile_llm.errors import IntegrityFailed, InvalidInput, RuntimeTooOld

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Answer = Callable[..., tuple[int, str, str]]


def test_the_schema_file_is_what_the_dataclasses_give() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == manifest_schema()


def test_a_real_manifest_validates(classifier_bundle: Path, embedder_bundle: Path) -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    for bundle in (classifier_bundle, embedder_bundle):
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        jsonschema.validate(manifest, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(manifest | {"surprise": 1}, schema)


def test_every_file_of_a_bundle_is_listed_with_its_hash(classifier_bundle: Path) -> None:
    manifest = Bundle.open(classifier_bundle).manifest
    listed = [file.path for file in manifest.files]
    listed += [file.path for artifact in manifest.artifacts.values() for file in artifact.files]
    there = [p.relative_to(classifier_bundle).as_posix() for p in classifier_bundle.rglob("*") if p.is_file()]
    assert sorted(listed) == sorted(set(there) - {"manifest.json", "verification.json", "README.md"})


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path, answer: Answer) -> None:
    code, kind, sentence = answer("inspect", str(tmp_path))
    assert (code, kind) == (2, "ModelNotFound")
    assert "is not a bundle: it has no manifest.json" in sentence


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 1}', "\x00\x01"])
def test_what_is_not_a_manifest_fails_integrity(content: str, tmp_path: Path, answer: Answer) -> None:
    (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
    assert answer("inspect", str(tmp_path))[:2] == (1, "IntegrityFailed")


def test_a_manifest_nested_too_deeply_fails_integrity(tmp_path: Path, answer: Answer) -> None:
    (tmp_path / "manifest.json").write_text("[" * 100_000, encoding="utf-8")
    assert answer("inspect", str(tmp_path))[:2] == (1, "IntegrityFailed")


def test_a_newer_major_schema_needs_a_newer_runtime(classifier_bundle: Path, edit_manifest: Edit) -> None:
    edit_manifest(classifier_bundle, lambda data: data.update(schema_version="3.0", artifacts="quite another thing"))
    with pytest.raises(RuntimeTooOld, match=r"has schema 3\.0, this runtime reads up to 2\.x; upgrade mobile-llm"):
        Bundle.open(classifier_bundle)


@pytest.mark.parametrize("place", ["", "task", "origin", "tokenizer"])
def test_an_unknown_key_is_an_error_at_our_minor_and_ignored_at_a_newer(
    place: str, classifier_bundle: Path, edit_manifest: Edit
) -> None:
    def add(data: dict[str, Any]) -> None:
        (data[place] if place else data)["surprise"] = 1

    edit_manifest(classifier_bundle, add)
    with pytest.raises(IntegrityFailed, match="has an unknown key 'surprise'"):
        Bundle.open(classifier_bundle)
    edit_manifest(classifier_bundle, lambda data: data.update(schema_version="2.9"))
    assert mobile_llm.load(classifier_bundle).classify("good")[0].label


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data.pop("task"), "manifest.json lacks the key 'task'"),
        (lambda data: data["task"].update(labels="good"), "manifest.json.task.labels should be a list, not str"),
        (lambda data: data["tokenizer"].update(max_length="64"), "tokenizer.max_length should be int, not str '64'"),
        (lambda data: data["origin"].update(parameters=True), "origin.parameters should be int, not bool"),
        (lambda data: data["files"][0].update(bytes=None), "manifest.json.files[0].bytes should be int, not NoneType"),
        (lambda data: data.update(artifacts={}), "makes 'onnx/int8' the default of onnx, but has no such artifact"),
        (lambda data: data.update(artifacts={}, defaults={}), "lists no artifact or no default"),
        (lambda data: data["defaults"].update(onnx="onnx/int3"), "has no such artifact"),
        (lambda data: data["artifacts"]["onnx/fp32"].update(files=[]), "lists no file for onnx/fp32's path"),
    ],
)
def test_a_manifest_that_does_not_add_up_names_the_place(
    change: Callable[[dict[str, Any]], object],
    sentence: str,
    classifier_bundle: Path,
    edit_manifest: Edit,
    answer: Answer,
) -> None:
    edit_manifest(classifier_bundle, change)
    code, kind, message = answer("inspect", str(classifier_bundle))
    assert (code, kind) == (1, "IntegrityFailed")
    assert sentence in message


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry["outputs"]["logits"].update(name="nowhere"),
        lambda entry: entry.update(inputs={}),
        lambda entry: entry["inputs"]["input_ids"].update(shape=[1]),
    ],
    ids=["no such output", "no inputs", "no sequence"],
)
@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "tflite/fp32", "coreml/fp32"])
def test_bindings_that_do_not_fit_the_artifact_fail_integrity(
    artifact_id: str,
    change: Callable[[dict[str, Any]], object],
    classifier_bundle: Path,
    edit_manifest: Edit,
    answer: Answer,
) -> None:
    def rebind(data: dict[str, Any]) -> None:
        for entry in data["artifacts"][artifact_id]["entry_points"]["encode"]:
            change(entry)

    edit_manifest(classifier_bundle, rebind)
    backend = ["--backend", "coreml-evaluator"] if artifact_id.startswith("coreml") else []
    command = ["run", str(classifier_bundle), "good", "--artifact", artifact_id, *backend]
    assert answer(*command)[:2] == (1, "IntegrityFailed")


def test_a_bundle_without_a_default_for_our_formats_is_refused(classifier_bundle: Path, edit_manifest: Edit) -> None:
    edit_manifest(classifier_bundle, lambda data: data.update(defaults={"executorch": "onnx/fp32"}))
    with pytest.raises(InvalidInput):
        mobile_llm.load(classifier_bundle)


def test_fewer_labels_than_logits_fail_integrity(classifier_bundle: Path, edit_manifest: Edit) -> None:
    edit_manifest(classifier_bundle, lambda data: data["task"].update(labels=["only", "two"]))
    with pytest.raises(IntegrityFailed):
        mobile_llm.load(classifier_bundle).classify("a bad film")
