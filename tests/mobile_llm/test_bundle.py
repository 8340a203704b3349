"""Bundles that were tampered with, damaged, or made by another version: one sentence and the right exit code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mobile_llm
from mobile_llm.bundle.golden import Golden
from mobile_llm.errors import IntegrityFailed, InvalidInput, ModelNotFound, RuntimeTooOld

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Answer = Callable[..., tuple[int, str, str]]

ARTIFACT_FILES = [
    ("onnx/fp32", "onnx/model.onnx"),
    ("onnx/int8", "onnx/model_quantized.onnx"),
    ("tflite/fp32", "tflite/fp32.tflite"),
    ("tflite/int8", "tflite/int8.tflite"),
    ("coreml/fp32", "coreml/fp32.mlpackage/Manifest.json"),
    ("coreml/fp32", "coreml/fp32.mlpackage/Data/com.apple.CoreML/model.mlmodel"),
    ("coreml/int8", "coreml/int8.mlpackage/Data/com.apple.CoreML/weights/weight.bin"),
]


def _open(bundle: Path, artifact_id: str) -> Any:
    """An artifact's task; Core ML's in the evaluator, the one runtime it has on every system."""
    return mobile_llm.load(
        bundle, artifact_id, backend="coreml-evaluator" if artifact_id.startswith("coreml") else None
    )


ESCAPES = ["../secret", "/etc/hostname", "onnx/../../secret", "..\\secret", "C:/secret", "", "."]


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize("which", ["own", "artifact's"])
def test_a_path_that_leaves_the_bundle_is_refused(
    which: str, path: str, classifier_bundle: Path, edit_manifest: Edit, answer: Answer
) -> None:
    (classifier_bundle.parent / "secret").write_text("secret", encoding="utf-8")

    def escape(data: dict[str, Any]) -> None:
        files = data["files"] if which == "own" else data["artifacts"]["onnx/fp32"]["files"]
        files.append(files[0] | {"path": path})

    edit_manifest(classifier_bundle, escape)
    code, kind, sentence = answer("run", str(classifier_bundle), "good", "--artifact", "onnx/fp32")
    assert (code, kind) == (1, "IntegrityFailed")
    assert "secret" not in sentence.replace(repr(path), "")


def test_a_link_that_leaves_the_bundle_is_refused(
    classifier_bundle: Path, rehash: Callable[[Path], None], answer: Answer
) -> None:
    outside = classifier_bundle.parent / "outside.json"
    shutil.move(classifier_bundle / "tokenizer.json", outside)
    (classifier_bundle / "tokenizer.json").symlink_to(outside)
    rehash(classifier_bundle)
    code, kind, sentence = answer("run", str(classifier_bundle), "good")
    assert (code, kind) == (1, "IntegrityFailed")
    assert "names 'tokenizer.json', which lies outside the bundle; do not use it" in sentence


@pytest.mark.parametrize(("artifact_id", "path"), [*ARTIFACT_FILES, ("onnx/int8", "tokenizer.json")])
def test_an_altered_byte_is_refused(artifact_id: str, path: str, classifier_bundle: Path) -> None:
    content = bytearray((classifier_bundle / path).read_bytes())
    content[len(content) // 2] ^= 1
    (classifier_bundle / path).write_bytes(content)
    with pytest.raises(IntegrityFailed, match=f"{path} differs from the manifest's sha256; fetch the bundle again"):
        _open(classifier_bundle, artifact_id)


@pytest.mark.parametrize(("artifact_id", "path"), ARTIFACT_FILES)
def test_a_missing_or_shorter_file_is_refused(artifact_id: str, path: str, classifier_bundle: Path) -> None:
    file = classifier_bundle / path
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IntegrityFailed, match=r"has \d+ bytes, the manifest says \d+"):
        _open(classifier_bundle, artifact_id)
    file.unlink()
    with pytest.raises(IntegrityFailed, match="is missing from the bundle"):
        _open(classifier_bundle, artifact_id)


def test_only_the_artifact_that_is_loaded_is_checked(classifier_bundle: Path) -> None:
    (classifier_bundle / "onnx/model.onnx").unlink()
    assert len(mobile_llm.load(classifier_bundle, "onnx/int8").classify(["good", "bad"])) == 2


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.98])
@pytest.mark.parametrize(("artifact_id", "path"), ARTIFACT_FILES)
def test_a_truncated_artifact_with_the_right_hash_is_refused(
    artifact_id: str, path: str, part: float, classifier_bundle: Path, rehash: Callable[[Path], None]
) -> None:
    content = (classifier_bundle / path).read_bytes()
    (classifier_bundle / path).write_bytes(content[: int(len(content) * part)])
    rehash(classifier_bundle)
    with pytest.raises(IntegrityFailed):
        _open(classifier_bundle, artifact_id)


@pytest.mark.parametrize("path", ["onnx/model.onnx", "coreml/int8.mlpackage/Data/com.apple.CoreML/weights/weight.bin"])
def test_verify_refuses_a_truncated_artifact(
    path: str,
    classifier_bundle: Path,
    rehash: Callable[[Path], None],
    keep_only: Callable[[Path, str], None],
    answer: Answer,
) -> None:
    keep_only(classifier_bundle, "onnx/fp32" if path.startswith("onnx") else "coreml/int8")
    content = (classifier_bundle / path).read_bytes()
    (classifier_bundle / path).write_bytes(content[: len(content) // 2])
    rehash(classifier_bundle)
    assert answer("verify", str(classifier_bundle))[:2] == (1, "IntegrityFailed")


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "tflite/fp32", "coreml/fp32"])
def test_an_artifact_of_another_format_is_refused(
    artifact_id: str, classifier_bundle: Path, edit_manifest: Edit
) -> None:
    others = {"onnx/fp32": "tflite/fp32", "tflite/fp32": "onnx/fp32", "coreml/fp32": "onnx/fp32"}

    def swap(data: dict[str, Any]) -> None:
        other = data["artifacts"][others[artifact_id]]
        data["artifacts"][artifact_id].update(path=other["path"], files=other["files"])

    edit_manifest(classifier_bundle, swap)
    with pytest.raises(IntegrityFailed):
        _open(classifier_bundle, artifact_id)


@pytest.mark.parametrize("location", ["../../secret", "/etc/hostname", "inside/../../../secret", "..\\secret", ""])
def test_external_data_outside_the_folder_is_refused(
    location: str, classifier_bundle: Path, rehash: Callable[[Path], None]
) -> None:
    (classifier_bundle.parent / "secret").write_bytes(np.ones(4, np.float32).tobytes())
    (classifier_bundle / "onnx/model.onnx").write_bytes(_with_external_data(location))
    rehash(classifier_bundle)
    with pytest.raises(IntegrityFailed, match="lies outside its folder; do not use it"):
        _open(classifier_bundle, "onnx/fp32")


def test_external_data_behind_a_link_is_refused(classifier_bundle: Path, rehash: Callable[[Path], None]) -> None:
    secret = classifier_bundle.parent / "secret"
    secret.write_bytes(np.ones(4, np.float32).tobytes())
    (classifier_bundle / "onnx/model.onnx_data").symlink_to(secret)
    (classifier_bundle / "onnx/model.onnx").write_bytes(_with_external_data("model.onnx_data"))
    rehash(classifier_bundle)
    with pytest.raises(IntegrityFailed, match="lies outside its folder; do not use it"):
        _open(classifier_bundle, "onnx/fp32")


def test_external_data_without_a_hash_is_refused(classifier_bundle: Path, rehash: Callable[[Path], None]) -> None:
    (classifier_bundle / "onnx/weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (classifier_bundle / "onnx/model.onnx").write_bytes(_with_external_data("weights.bin"))
    rehash(classifier_bundle)
    with pytest.raises(IntegrityFailed, match=r"keeps data in weights\.bin, for which the manifest has no hash"):
        _open(classifier_bundle, "onnx/fp32")


def _with_external_data(location: str) -> bytes:
    """A small ONNX file with its one tensor kept elsewhere."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [result], [tensor])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def test_a_tokenizer_without_a_hash_is_refused(classifier_bundle: Path, edit_manifest: Edit) -> None:
    def forget(data: dict[str, Any]) -> None:
        data["files"] = [file for file in data["files"] if file["path"] != "tokenizer.json"]

    edit_manifest(classifier_bundle, forget)
    with pytest.raises(IntegrityFailed):
        mobile_llm.load(classifier_bundle)


def test_a_part_of_a_package_without_a_hash_is_refused(classifier_bundle: Path, edit_manifest: Edit) -> None:
    def forget(data: dict[str, Any]) -> None:
        artifact = data["artifacts"]["coreml/fp32"]
        artifact["files"] = [file for file in artifact["files"] if not file["path"].endswith("weight.bin")]

    edit_manifest(classifier_bundle, forget)
    with pytest.raises(IntegrityFailed):
        _open(classifier_bundle, "coreml/fp32")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("golden.json", "{"),
        ("golden.json", '{"texts": [], "sequences": [], "more": 1}'),
        ("golden.safetensors", ""),
        ("golden.safetensors", "\x02\x00\x00\x00\x00\x00\x00\x00{"),
        ("golden.json", '{"texts": [], "sequences": []}'),
        ("golden.safetensors", "\x02\x00\x00\x00\x00\x00\x00\x00{}"),
        ("config.json", "{"),
    ],
)
def test_verify_refuses_damaged_references(
    name: str, content: str, classifier_bundle: Path, rehash: Callable[[Path], None], answer: Answer
) -> None:
    (classifier_bundle / name).write_text(content, encoding="utf-8")
    rehash(classifier_bundle)
    assert answer("verify", str(classifier_bundle))[:2] == (1, "IntegrityFailed")


def test_golden_references_survive_writing(tmp_path: Path, classifier_bundle: Path) -> None:
    golden = Golden.read(classifier_bundle)
    golden.write(tmp_path)
    again = Golden.read(tmp_path)
    assert again.inputs == golden.inputs
    assert golden.outputs
    assert {name: t.tolist() for name, t in again.outputs.items()} == {n: t.tolist() for n, t in golden.outputs.items()}
    assert (tmp_path / "golden.safetensors").read_bytes() == (classifier_bundle / "golden.safetensors").read_bytes()


def test_an_unknown_artifact_backend_or_task_is_answered_with_the_known_ones(
    classifier_bundle: Path, edit_manifest: Edit, answer: Answer
) -> None:
    with pytest.raises(InvalidInput, match="no artifact 'onnx/int3' in classifier; it has onnx/fp32, tflite/fp32"):
        mobile_llm.load(classifier_bundle, "onnx/int3")
    code, kind, sentence = answer("run", str(classifier_bundle), "good", "--backend", "magic")
    assert (code, kind) == (2, "BackendUnavailable")
    assert "no backend 'magic'; installed are coreml" in sentence
    edit_manifest(classifier_bundle, lambda data: data["task"].update(name="clairvoyance"))
    with pytest.raises(RuntimeTooOld, match="task 'clairvoyance' is unknown to this runtime"):
        mobile_llm.load(classifier_bundle)


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="gone is not a bundle"):
        mobile_llm.load(tmp_path / "gone")
