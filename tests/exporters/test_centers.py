"""Inputs without their means, where a kernel rounds them: the same product, and less of it lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import AnyNorm, DecoderModel
from exporters.architectures.weights import Weight
from exporters.formats.onnx import lower_decoder as lower_onnx
from exporters.formats.tflite import lower_decoder as lower_tflite
from exporters.held import holding
from exporters.quantization.centers import as_if_centered, centered
from exporters.quantization.hessians import gather_hessians
from exporters.quantization.integers import quantize_in_blocks, quantize_per_channel, to_int4, to_int8
from exporters.verification.exact import onnx as exact_onnx
from exporters.verification.exact import tflite as exact_tflite
from mobile_llm.backends import onnx, tflite
from mobile_llm.bundle.manifest import Artifact

from .conftest import DECODERS

Decoder = Callable[[str], Any]
IDS = np.random.default_rng(0).integers(3, 259, (8, 40))
SAME = 5e-5  # of logits that reach 6; float32 sums in another order
Open = Callable[[Path, Artifact, int], Any]
LOWERED: dict[str, Any] = {"onnx": lower_onnx, "tflite": lower_tflite}
EXACT: dict[str, Open] = {"onnx": exact_onnx.open_decoder, "tflite": exact_tflite.open_decoder}
ROUNDING: dict[str, Open] = {"onnx": onnx.open_decoder, "tflite": tflite.open_decoder}


def logits(model: Any, blocks: DecoderModel) -> np.ndarray:
    """Of the first text, (40, vocabulary), by the torch model with these weights."""
    with torch.no_grad(), holding(model, blocks):
        return model(torch.from_numpy(IDS[:1])).logits[0].numpy()


def read(format_name: str, how: dict[str, Open], blocks: DecoderModel, folder: Path) -> np.ndarray:
    """The same by an artifact in int8."""
    lowered = LOWERED[format_name](blocks, "int8", folder, 40)
    artifact = Artifact(format_name, "int8", lowered.path, (), lowered.entry_points, lowered.minimum, lowered.cache)
    opened = how[format_name](folder, artifact, 1)
    try:
        return opened.score(IDS[0].tolist())
    finally:
        opened.close()


@pytest.mark.parametrize("format_name", list(LOWERED))
@pytest.mark.parametrize("name", list(DECODERS))
def test_the_function_stays_the_same(name: str, format_name: str, decoder: Decoder, tmp_path: Path) -> None:
    model, blocks = decoder(name), describe_decoder(decoder(name))
    known = to_int8(centered(blocks, gather_hessians(model, blocks, IDS, IDS).means))
    assert np.abs(read(format_name, EXACT, known, tmp_path) - logits(model, known)).max() < SAME


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_file_is_as_large_before_means_are_known(name: str, decoder: Decoder, tmp_path: Path) -> None:
    """Its size is what a budget is compared with before anything is calibrated."""
    blocks = describe_decoder(decoder(name))
    means = gather_hessians(decoder(name), blocks, IDS, IDS).means

    def size(model: DecoderModel) -> int:
        return (tmp_path / lower_tflite(to_int4(model), "int4", tmp_path, 40).path).stat().st_size

    assert size(blocks) < size(as_if_centered(blocks)) == size(centered(blocks, means))


@pytest.mark.parametrize("format_name", list(LOWERED))
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_what_is_far_from_zero_is_rounded_finer(name: str, format_name: str, decoder: Decoder, tmp_path: Path) -> None:
    model, blocks = decoder(name), _far_from_zero(describe_decoder(decoder(name)))
    with holding(model, blocks):
        known = centered(blocks, gather_hessians(model, blocks, IDS, IDS).means)
    errors = []
    for one in (to_int8(blocks), to_int8(known)):
        errors.append(np.std(read(format_name, ROUNDING, one, tmp_path) - logits(model, one)))
    assert 0 < errors[1] < errors[0] / 2


def _far_from_zero(blocks: DecoderModel) -> DecoderModel:
    def moved(norm: AnyNorm) -> AnyNorm:
        return replace(norm, bias=replace(norm.bias, value=norm.bias.float32() + 20))

    layers = tuple(replace(layer, feed_forward_norm=moved(layer.feed_forward_norm)) for layer in blocks.layers)
    return replace(blocks, layers=layers, final_norm=moved(blocks.final_norm))


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_means_are_those_of_what_layers_take(name: str, decoder: Decoder) -> None:
    model, blocks = decoder(name), describe_decoder(decoder(name))
    seen: list[torch.Tensor] = []
    head = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(torch.from_numpy(IDS))
    head.remove()
    known = centered(blocks, gather_hessians(model, blocks, IDS, IDS).means)
    np.testing.assert_allclose(known.head.center, seen[0].reshape(-1, blocks.hidden).mean(0), atol=1e-5)
    for recipe in (to_int8, to_int4):
        quantized = recipe(known)
        assert quantized.head.center is known.head.center
        expected = quantized.head.weight.float32() @ known.head.center
        np.testing.assert_allclose(quantized.head.at_center, expected, atol=1e-5)


def test_a_matrix_in_integers_times_a_vector() -> None:
    random = np.random.default_rng(0)
    values, vector = random.normal(size=(24, 96)).astype(np.float32), random.normal(size=96).astype(np.float32)
    for stored in (values, quantize_per_channel(values), quantize_in_blocks(values)):
        weight = Weight("w", stored)
        np.testing.assert_allclose(weight.times(vector), weight.float32() @ vector, atol=1e-4)
