"""The gate can fail: with every hash made right, an artifact that is wrong in one thing is refused by comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporters.architectures import describe
from exporters.architectures.blocks import Classifier, EncoderModel, Linear, Norm, Pooling, map_blocks
from exporters.architectures.weights import Weight
from exporters.quantization.recipes import RECIPES, as_stored
from exporters.sources.huggingface import open_source
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main

ARTIFACTS = [f"{name}/{recipe}" for recipe in ("fp32", "int8") for name in ("onnx", "tflite", "coreml")]
SCALED = "encoder.layer.0.output.dense.weight"

Change = Callable[[EncoderModel], EncoderModel]
Failed = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def classifier_blocks(classifier_model: Path) -> EncoderModel:
    return describe(open_source(str(classifier_model), "text-classification").model, "text-classification")


@pytest.fixture(scope="session")
def embedder_blocks(embedder_model: Path) -> EncoderModel:
    source = open_source(str(embedder_model), "feature-extraction")
    return describe(source.model, "feature-extraction", source.pooling)


@pytest.fixture
def rewrite(
    keep_only: Callable[[Path, str], None], rehash: Callable[[Path], None]
) -> Callable[[Path, str, EncoderModel], None]:
    """Writes an artifact of a bundle anew from other blocks, drops the bundle's others, makes the hashes right."""

    def rewritten(bundle: Path, artifact_id: str, model: EncoderModel) -> None:
        format_name, recipe = artifact_id.split("/")
        stored = as_stored(artifact_id, RECIPES[recipe](model))
        path = bundle / Bundle.open(bundle).manifest.artifacts[artifact_id].path
        if path.is_dir():
            path.rename(bundle.parent / "replaced")
        import_module(f"exporters.formats.{format_name}").lower(stored, recipe, bundle)
        keep_only(bundle, artifact_id)
        rehash(bundle)

    return rewritten


def one_weight_scaled(model: EncoderModel) -> EncoderModel:
    def change(block: Any) -> Any:
        if isinstance(block, Linear) and block.weight.name.endswith(SCALED):
            return Linear(Weight(block.weight.name, block.weight.float32() * np.float32(1.05)), block.bias)
        return block

    return map_blocks(model, change)


def another_epsilon(model: EncoderModel) -> EncoderModel:
    assert model.embeddings.norm.eps == 1e-12
    return map_blocks(model, lambda block: replace(block, eps=1e-3) if isinstance(block, Norm) else block)


def cls_instead_of_mean(model: EncoderModel) -> EncoderModel:
    assert model.head == Pooling("mean", True)
    return replace(model, head=Pooling("cls", True))


@pytest.fixture
def failed(capsys: pytest.CaptureFixture[str]) -> Failed:
    """The failed rows that `mobile-llm verify` prints; its exit code must go with them."""

    def failed_rows(bundle: Path) -> list[dict[str, Any]]:
        code = main(["verify", str(bundle), "--json"])
        rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["status"] == "failed"]
        assert code == (1 if rows else 0)
        return rows

    return failed_rows


@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_an_artifact_written_anew_passes(
    artifact_id: str,
    classifier_bundle: Path,
    classifier_blocks: EncoderModel,
    rewrite: Callable[..., None],
    failed: Failed,
) -> None:
    rewrite(classifier_bundle, artifact_id, classifier_blocks)
    assert not failed(classifier_bundle)


@pytest.mark.parametrize("change", [one_weight_scaled, another_epsilon])
@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_a_classifier_is_refused_for(
    change: Change,
    artifact_id: str,
    classifier_bundle: Path,
    classifier_blocks: EncoderModel,
    rewrite: Callable[..., None],
    failed: Failed,
) -> None:
    rewrite(classifier_bundle, artifact_id, change(classifier_blocks))
    assert {row["artifact"] for row in failed(classifier_bundle)} == {artifact_id}


@pytest.mark.parametrize("change", [one_weight_scaled, another_epsilon, cls_instead_of_mean])
@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_an_embedder_is_refused_for(
    change: Change,
    artifact_id: str,
    embedder_bundle: Path,
    embedder_blocks: EncoderModel,
    rewrite: Callable[..., None],
    failed: Failed,
) -> None:
    rewrite(embedder_bundle, artifact_id, change(embedder_blocks))
    assert {row["artifact"] for row in failed(embedder_bundle)} == {artifact_id}


def head_scaled(model: EncoderModel) -> EncoderModel:
    assert isinstance(model.head, Classifier)
    output = model.head.output
    scaled = Weight(output.weight.name, output.weight.float32() * np.float32(1.05))
    return replace(model, head=replace(model.head, output=Linear(scaled, output.bias)))


@pytest.mark.parametrize("head", ["multilabel", "regression"])
@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "onnx/int8", "tflite/int8", "coreml/int8"])
def test_a_scaled_head_is_refused(
    artifact_id: str, head: str, rewrite: Callable[..., None], failed: Failed, request: pytest.FixtureRequest
) -> None:
    model, bundle = (request.getfixturevalue(f"{head}_{kind}") for kind in ("model", "bundle"))
    blocks = describe(open_source(str(model), "text-classification").model, "text-classification")
    rewrite(bundle, artifact_id, head_scaled(blocks))
    assert {row["artifact"] for row in failed(bundle)} == {artifact_id}


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "tflite/int8"])
def test_swapped_labels_of_a_multi_label_head_are_refused(
    artifact_id: str,
    multilabel_bundle: Path,
    keep_only: Callable[..., None],
    edit_manifest: Callable[..., None],
    rehash: Callable[[Path], None],
    failed: Failed,
) -> None:
    keep_only(multilabel_bundle, artifact_id)
    config = json.loads((multilabel_bundle / "config.json").read_text(encoding="utf-8"))
    swapped = list(config["id2label"].values())[::-1]
    config["id2label"] = dict(zip("012", swapped))
    (multilabel_bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")
    edit_manifest(multilabel_bundle, lambda data: data["task"].update(labels=swapped))
    rehash(multilabel_bundle)
    assert [(row["artifact"], row["metric"]) for row in failed(multilabel_bundle)] == [
        (artifact_id, "labels that differ")
    ]


def test_another_kind_of_head_than_the_models_is_refused(
    multilabel_bundle: Path, keep_only: Callable[..., None], edit_manifest: Callable[..., None], failed: Failed
) -> None:
    """One label is given where the model gives several; config.json says the same."""
    keep_only(multilabel_bundle, "onnx/fp32")
    edit_manifest(multilabel_bundle, lambda data: data["task"].update(problem_type="single_label_classification"))
    metrics = [row["metric"] for row in failed(multilabel_bundle)]
    assert metrics == ["problem_type that differs from config.json", "labels that differ"]


def test_labels_where_the_model_gives_one_are_refused(
    classifier_bundle: Path, keep_only: Callable[..., None], edit_manifest: Callable[..., None], failed: Failed
) -> None:
    """Also where config.json leaves the kind unsaid."""
    keep_only(classifier_bundle, "onnx/fp32")
    edit_manifest(classifier_bundle, lambda data: data["task"].update(problem_type="multi_label_classification"))
    assert [row["metric"] for row in failed(classifier_bundle)] == ["labels that differ"]


def test_pairs_without_their_token_types_are_refused(
    regression_bundle: Path, keep_only: Callable[..., None], edit_manifest: Callable[..., None], failed: Failed
) -> None:
    keep_only(regression_bundle, "onnx/fp32")
    edit_manifest(regression_bundle, lambda data: data["tokenizer"].update(token_types=False))
    assert "texts whose ids differ" in {row["metric"] for row in failed(regression_bundle)}


def test_swapped_labels_are_refused_in_every_artifact(
    classifier_bundle: Path, edit_manifest: Callable[..., None], rehash: Callable[[Path], None], failed: Failed
) -> None:
    def swapped(labels: list[str]) -> list[str]:
        return [labels[2], labels[1], labels[0]]

    config = json.loads((classifier_bundle / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = dict(zip("012", swapped(list(config["id2label"].values()))))
    (classifier_bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")
    edit_manifest(classifier_bundle, lambda data: data["task"].update(labels=swapped(data["task"]["labels"])))
    rehash(classifier_bundle)
    rows = failed(classifier_bundle)
    assert [(row["artifact"], row["metric"]) for row in rows] == [(name, "labels that differ") for name in ARTIFACTS]


def test_labels_of_config_json_that_are_not_the_manifests_are_refused(
    classifier_bundle: Path, keep_only: Callable[..., None], rehash: Callable[[Path], None], failed: Failed
) -> None:
    keep_only(classifier_bundle, "onnx/fp32")
    config = json.loads((classifier_bundle / "config.json").read_text(encoding="utf-8"))
    config["id2label"]["0"] = "awful"
    (classifier_bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rehash(classifier_bundle)
    assert [row["metric"] for row in failed(classifier_bundle)] == ["labels that differ from config.json"]


@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_another_normalizer_is_refused(
    artifact_id: str,
    embedder_bundle: Path,
    keep_only: Callable[..., None],
    rehash: Callable[[Path], None],
    failed: Failed,
) -> None:
    keep_only(embedder_bundle, artifact_id)
    path = embedder_bundle / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    rehash(embedder_bundle)
    assert [row["metric"] for row in failed(embedder_bundle)] == ["texts whose ids differ"]


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_a_tensor_scaled_in_the_bytes_of_an_onnx_file_is_refused(
    name: str, classifier_bundle: Path, keep_only: Callable[..., None], rehash: Callable[[Path], None], failed: Failed
) -> None:
    keep_only(classifier_bundle, f"onnx/{name}")
    path = classifier_bundle / Bundle.open(classifier_bundle).manifest.artifacts[f"onnx/{name}"].path
    model = onnx.load(path)
    wanted = f"{SCALED}.T" if name == "fp32" else f"{SCALED}.scale"
    (tensor,) = (t for t in model.graph.initializer if t.name.endswith(wanted))
    values = numpy_helper.to_array(tensor) * np.float32(1.05)
    tensor.raw_data = values.astype("<f4").tobytes()
    path.write_bytes(model.SerializeToString())
    rehash(classifier_bundle)
    assert {row["artifact"] for row in failed(classifier_bundle)} == {f"onnx/{name}"}


def test_golden_references_of_another_model_are_refused(
    classifier_bundle: Path, make_model: Callable[..., Path]
) -> None:
    """A bundle must not attest to another model than the one it is said to come from."""
    other = make_model("text-classification", hidden_act="relu")
    assert main(["verify", str(classifier_bundle), "--model", str(other), "--json"]) == 1


def test_the_model_it_came_from_confirms_a_bundle(classifier_bundle: Path, classifier_model: Path) -> None:
    assert main(["verify", str(classifier_bundle), "--model", str(classifier_model), "--json"]) == 0
