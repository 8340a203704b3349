"""Weights become integers once: the rule itself, and the same numbers read back from every format's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from exporters.architectures import describe
from exporters.architectures.blocks import EncoderModel, weights_of
from exporters.architectures.weights import Quantized
from exporters.quantization.integers import quantize_per_channel, to_float16, to_int8
from exporters.quantization.recipes import as_stored
from exporters.sources.huggingface import open_source
from mobile_llm.artifacts import read
from mobile_llm.bundle import Bundle

SUFFIXES = {"query": 0, "key": 1, "value": 2}
MATRICES = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-5e4, 5e4, width=32, allow_subnormal=False),
)


@pytest.fixture(scope="module")
def blocks(classifier_model: Path) -> EncoderModel:
    return describe(open_source(str(classifier_model), "text-classification").model, "text-classification")


@settings(deadline=None, max_examples=200)
@given(MATRICES)
def test_scales_are_exact_in_float16_and_nothing_clips(values: np.ndarray) -> None:
    quantized = quantize_per_channel(values)
    assert quantized.integers.dtype == np.int8
    assert quantized.scale.shape == (len(values), 1)
    np.testing.assert_array_equal(quantized.scale, quantized.scale.astype(np.float16).astype(np.float32))
    assert (quantized.scale > 0).all()
    exact = values.astype(np.float64) / quantized.scale
    assert (np.abs(exact) <= 127).all()
    assert (np.abs(quantized.integers - exact) <= 0.5 + 1e-4).all()


def test_each_row_uses_its_whole_range() -> None:
    values = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32) * np.logspace(-3, 3, 8)[:, None]
    quantized = quantize_per_channel(values.astype(np.float32))
    assert (np.abs(quantized.integers.astype(int)).max(1) >= 126).all()


def test_known_numbers_stay_known() -> None:
    """Rows of 127 steps of a scale that float16 holds, zeros, and a scale that must be rounded up."""
    values = np.array([[1.27, -0.64], [0, 0], [127 * 0.25, -0.25]], np.float32)
    quantized = quantize_per_channel(values)
    assert quantized.integers.tolist() == [[127, -64], [0, 0], [127, -1]]
    assert quantized.scale[2, 0] == 0.25
    assert np.float64(0.01) <= quantized.scale[0, 0] <= np.float64(0.01) * (1 + 2**-10)
    np.testing.assert_array_equal(quantized.dequantized(), quantized.integers * quantized.scale)


def test_blocks_share_a_scale() -> None:
    weight = Quantized(np.array([[1, 2, 3, 4]], np.int8), np.array([[0.5, 2]], np.float32), bits=4)
    assert (weight.block, weight.per_channel) == (2, False)
    assert weight.dequantized().tolist() == [[0.5, 1, 6, 8]]


def test_linear_layers_and_the_word_table_are_integers_and_nothing_else_is(blocks: EncoderModel) -> None:
    names = [name for name, weight in weights_of(to_int8(blocks)).items() if weight.quantized]
    assert len(names) == 1 + 2 * 6 + 2
    assert all(name.endswith(("dense.weight", "query.weight", "key.weight", "value.weight", "classifier.weight"))
               or "word_embeddings" in name for name in names)  # fmt: skip


def test_float16_leaves_integers_alone(blocks: EncoderModel) -> None:
    stored = weights_of(as_stored("coreml/int8", to_int8(blocks)))
    for name, weight in weights_of(to_int8(blocks)).items():
        if weight.quantized:
            np.testing.assert_array_equal(stored[name].float32(), weight.float32())
        else:
            assert stored[name].floats.dtype == np.float16
    assert weights_of(to_float16(blocks)).keys() == weights_of(blocks).keys()


@pytest.mark.parametrize("format_name", ["onnx", "tflite", "coreml"])
def test_every_format_holds_the_same_integers_and_scales(
    format_name: str, classifier_bundle: Path, blocks: EncoderModel
) -> None:
    stored = _constants(classifier_bundle, f"{format_name}/int8")
    checked = 0
    for name, weight in weights_of(blocks).items():
        if weights_of(to_int8(blocks))[name].quantized is None:
            continue
        expected = quantize_per_channel(weight.float32())
        integers, scale = {"onnx": _onnx, "tflite": _tflite, "coreml": _coreml}[format_name](stored, name)
        assert integers.dtype == np.int8
        np.testing.assert_array_equal(integers, expected.integers, err_msg=name)
        np.testing.assert_array_equal(scale.astype(np.float32).reshape(-1, 1), expected.scale, err_msg=name)
        dequantized = integers.astype(np.float32) * scale.astype(np.float32).reshape(-1, 1)
        np.testing.assert_array_equal(dequantized, expected.dequantized(), err_msg=name)
        checked += 1
    assert checked == 15


@pytest.mark.parametrize("format_name", ["onnx", "tflite", "coreml"])
def test_every_format_holds_the_float32_weights_to_the_last_bit(
    format_name: str, classifier_bundle: Path, blocks: EncoderModel
) -> None:
    stored = _constants(classifier_bundle, f"{format_name}/fp32")
    for name, weight in weights_of(blocks).items():
        np.testing.assert_array_equal(_float(format_name, stored, name), weight.float32(), err_msg=name)


Constants = dict[str, tuple[np.ndarray, np.ndarray | None]]


def _constants(bundle: Path, artifact_id: str) -> Constants:
    """Every constant of an artifact with the scales beside it, by name; TFLite's without their index."""
    graph = read(artifact_id.split("/")[0], bundle / Bundle.open(bundle).manifest.artifacts[artifact_id].path)
    return {
        tensor.name.split(":", 1)[-1]: (tensor.read(), tensor.quantization.get("scale"))
        for function in graph.functions.values()
        for tensor in function.constants()
    }


def _packed(name: str) -> tuple[str, int | None]:
    """ONNX keeps query, key and value as one matrix, in this order."""
    for part, place in SUFFIXES.items():
        if f".self.{part}." in name:
            return name.replace(f".{part}.", ".query_key_value."), place
    return name, None


def _onnx(stored: Constants, name: str) -> tuple[np.ndarray, np.ndarray]:
    packed, place = _packed(name)
    integers = stored[packed][0] if packed in stored else stored[f"{packed}.T"][0].T
    return _third(integers, place), _third(stored[f"{packed}.scale"][0], place)


def _tflite(stored: Constants, name: str) -> tuple[np.ndarray, np.ndarray]:
    integers, scale = stored[name]
    assert scale is not None
    return integers, scale


def _coreml(stored: Constants, name: str) -> tuple[np.ndarray, np.ndarray]:
    label = name.replace(".", "_")
    assert int(stored[f"{label}.zero_point"][0]) == 0
    return stored[f"{label}.quantized_data"][0], stored[f"{label}.scale"][0]


def _float(format_name: str, stored: Constants, name: str) -> np.ndarray:
    if format_name == "coreml":
        return stored[name.replace(".", "_")][0]
    if format_name == "tflite" or name in stored:
        return stored[name][0]
    packed, place = _packed(name)
    return _third(stored[packed][0] if packed in stored else stored[f"{packed}.T"][0].T, place)


def _third(values: np.ndarray, place: int | None) -> np.ndarray:
    return values if place is None else np.split(values, 3)[place]
