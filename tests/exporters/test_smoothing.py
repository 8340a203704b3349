"""Inputs evened out before they are rounded: the same function in float, and channels that are nearer to each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters.architectures.blocks import GatedFeedForward, weights_of
from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats.onnx import lower_decoder
from exporters.quantization.hessians import Hessians, gather_hessians, inputs_of
from exporters.quantization.smoothing import smoothed, smoothed_behind_gates
from mobile_llm.backends import onnx
from mobile_llm.bundle.manifest import Artifact

from .conftest import DECODERS

Decoder = Callable[[str], Any]
IDS = np.random.default_rng(0).integers(3, 259, (8, 40))
SAME = 5e-5  # of logits that reach 6


def scores(blocks: DecoderModel, folder: Path) -> np.ndarray:
    """Logits of the first text, (40, vocabulary)."""
    lowered = lower_decoder(blocks, "fp32", folder, 40)
    artifact = Artifact("onnx", "fp32", lowered.path, (), lowered.entry_points, lowered.minimum, lowered.cache)
    return onnx.open_decoder(folder, artifact, 1).score(IDS[0].tolist())


@pytest.mark.parametrize("name", list(DECODERS))
def test_the_function_stays_the_same(name: str, decoder: Decoder, tmp_path: Path) -> None:
    model, blocks = decoder(name), describe_decoder(decoder(name))
    hessians = gather_hessians(model, blocks, IDS, IDS)
    (even, _), (for_4_bits, _) = smoothed(blocks, hessians), smoothed_behind_gates(blocks, hessians)
    with torch.no_grad():
        expected = model(torch.from_numpy(IDS[:1])).logits[0].numpy()
    for changed in (even, for_4_bits):
        assert np.abs(scores(changed, tmp_path) - expected).max() < SAME
    after, before = weights_of(even), weights_of(blocks)
    moved = {name for name in before if not np.array_equal(before[name].float32(), after[name].float32())}
    assert {group[0].name for group in inputs_of(blocks)} - moved == _left_alone(blocks)


def _left_alone(blocks: DecoderModel) -> set[str]:
    """Attention's output layers, and what is behind an activation without a gate."""
    outputs = {layer.attention.output.weight.name for layer in blocks.layers}
    forwards = [layer.feed_forward for layer in blocks.layers]
    return outputs | {f.down.weight.name for f in forwards if not isinstance(f, GatedFeedForward)}


@pytest.mark.parametrize("change", [smoothed, smoothed_behind_gates])
def test_calibration_knows_the_new_layers(change: Callable[..., Any], decoder: Decoder) -> None:
    """Moments gathered anew, from a model that holds the smoothed weights, are those that were worked out."""
    model, blocks = decoder("llama"), describe_decoder(decoder("llama"))
    even, worked_out = change(blocks, gather_hessians(model, blocks, IDS, IDS))
    found = _of(even, model)
    for name in worked_out.outputs:
        scale = np.abs(found.inputs[name]).max()
        np.testing.assert_allclose(worked_out.inputs[name], found.inputs[name], atol=1e-4 * scale)
        np.testing.assert_allclose(worked_out.means[name], found.means[name], atol=1e-5 * np.sqrt(scale))
        np.testing.assert_allclose(worked_out.outputs[name], found.outputs[name], rtol=2e-3, atol=1e-9)


def test_channels_are_nearer_to_each_other(decoder: Decoder) -> None:
    """By moments gathered anew, from a model that holds the smoothed weights."""
    model, blocks = decoder("llama"), describe_decoder(decoder("llama"))
    before = gather_hessians(model, blocks, IDS, IDS)
    after = _of(smoothed(blocks, before)[0], model)
    for layer in blocks.layers:
        for linear in (layer.attention.query, layer.feed_forward.up, layer.feed_forward.down):
            apart = [np.log(np.diag(of.inputs[linear.weight.name])).std() for of in (before, after)]
            assert apart[1] < apart[0]


def _of(even: DecoderModel, model: Any) -> Hessians:
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    try:
        with torch.no_grad():
            for name, weight in weights_of(even).items():
                model.state_dict()[name].copy_(torch.from_numpy(weight.float32()))
        return gather_hessians(model, even, IDS, IDS)
    finally:
        model.load_state_dict(before)
