"""Counted costs against sums made by hand for the tiny BERT: width 32, 2 layers, feed-forward 64, 3 labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cost import Cost, artifact_cost
from mobile_llm.bundle import Bundle
from mobile_llm.errors import InvalidInput

ARTIFACTS = [f"{name}/{recipe}" for recipe in ("fp32", "int8") for name in ("onnx", "tflite", "coreml")]
LAYER = 4 * 32 * 32 + 2 * 32 * 64  # query, key, value, output; both ways of the feed-forward block
HEAD = 32 * 32 + 3 * 32  # pooler and classifier
MATRICES = 2 * LAYER + HEAD


@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_operations_are_those_of_the_formula(classifier_bundle: Path, artifact_id: str) -> None:
    cost = artifact_cost(Bundle.open(classifier_bundle), artifact_id, 64)
    assert cost.linear == 2 * 64 * MATRICES
    assert cost.attention == 2 * (2 * 2 * 64 * 64 * 32)  # layers x (two products, two operations each)
    assert cost.operations == cost.linear + cost.attention
    assert cost.uncounted == ()


def test_a_shorter_text_costs_less_where_shapes_are_dynamic_and_its_padding_where_not(classifier_bundle: Path) -> None:
    bundle = Bundle.open(classifier_bundle)
    tokens = {name: artifact_cost(bundle, f"{name}/fp32", 40).tokens for name in ("onnx", "tflite", "coreml")}
    assert tokens == {"onnx": 40, "tflite": 64, "coreml": 40}
    assert artifact_cost(bundle, "onnx/fp32", 40).linear == 2 * 40 * MATRICES
    assert artifact_cost(bundle, "tflite/fp32", 40) == artifact_cost(bundle, "tflite/fp32", 64)


@pytest.mark.parametrize("artifact_id", ARTIFACTS[:3])
def test_bytes_read_are_the_matrices_and_the_rows_used(classifier_bundle: Path, artifact_id: str) -> None:
    cost = artifact_cost(Bundle.open(classifier_bundle), artifact_id, 32)
    words, types = 32 * 32, 2 * 32  # a row per token, both rows of the token types
    assert cost.weight_bytes == 4 * (MATRICES + words + types)


@pytest.mark.parametrize("artifact_id", ARTIFACTS[3:])
def test_int8_weights_are_read_as_bytes_with_their_scales(classifier_bundle: Path, artifact_id: str) -> None:
    cost = artifact_cost(Bundle.open(classifier_bundle), artifact_id, 64)
    assert MATRICES < cost.weight_bytes < 1.25 * MATRICES


def test_what_products_multiply_in(classifier_bundle: Path) -> None:
    bundle = Bundle.open(classifier_bundle)
    found = {name: artifact_cost(bundle, name, 32).arithmetic for name in ARTIFACTS}
    assert found == dict.fromkeys(ARTIFACTS[:3], "float32") | {
        "onnx/int8": "int8",
        "tflite/int8": "int8",
        "coreml/int8": "float16",  # integers are unpacked before the product
    }


def test_the_size_is_that_of_the_files(classifier_bundle: Path) -> None:
    cost = artifact_cost(Bundle.open(classifier_bundle), "onnx/fp32", 16)
    assert cost.file_bytes == (classifier_bundle / "onnx" / "model.onnx").stat().st_size


def test_more_tokens_than_an_artifact_takes_are_refused(classifier_bundle: Path) -> None:
    with pytest.raises(InvalidInput, match="tflite/fp32 takes up to 64 tokens, not 65"):
        artifact_cost(Bundle.open(classifier_bundle), "tflite/fp32", 65)


def test_operations_are_both_kinds_together() -> None:
    assert Cost(1, 5, 7, 0, 0, "float32").operations == 12
