"""Outliers rounded apart from the other inputs: the same product, and far less of it lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.architectures.blocks import Linear, map_blocks
from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats.tflite import lower_decoder as lower_tflite
from exporters.quantization.centers import centered
from exporters.quantization.hessians import gather_hessians
from exporters.quantization.integers import to_int8
from exporters.quantization.outliers import outliers_apart
from mobile_llm.backends import tflite
from mobile_llm.bundle.manifest import Artifact

from .conftest import DECODERS
from .test_centers import EXACT, IDS, LOWERED, ROUNDING, SAME, logits, read

Decoder = Callable[[str], Any]
LARGER = 100  # than the other channels of what attention takes, two are


@pytest.mark.parametrize("format_name", list(LOWERED))
@pytest.mark.parametrize("name", list(DECODERS))
def test_the_function_stays_the_same(name: str, format_name: str, decoder: Decoder, tmp_path: Path) -> None:
    model, blocks = decoder(name), describe_decoder(decoder(name))
    hessians = gather_hessians(model, blocks, IDS, IDS)
    known = to_int8(outliers_apart(centered(blocks, hessians.means), hessians))
    assert np.abs(read(format_name, EXACT, known, tmp_path) - logits(model, known)).max() < SAME


@pytest.mark.parametrize("format_name", list(LOWERED))
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_what_lies_beside_outliers_is_rounded_finer(
    name: str, format_name: str, decoder: Decoder, tmp_path: Path
) -> None:
    model, blocks = decoder(name), describe_decoder(decoder(name))
    known = to_int8(outliers_apart(blocks, gather_hessians(model, blocks, IDS, IDS)))
    errors = []
    for one in (_with_outliers(_nowhere_apart(known)), _with_outliers(known)):
        errors.append(np.std(read(format_name, ROUNDING, one, tmp_path) - logits(model, one)))
    assert 0 < errors[1] < errors[0] / 2


@pytest.mark.parametrize("name", list(DECODERS))
def test_tokens_are_verified_as_steps_would_read_them(name: str, decoder: Decoder, tmp_path: Path) -> None:
    model, blocks = decoder(name), describe_decoder(decoder(name))
    hessians = gather_hessians(model, blocks, IDS, IDS)
    lowered = lower_tflite(to_int8(outliers_apart(centered(blocks, hessians.means), hessians)), "int8", tmp_path, 40)
    artifact = Artifact("tflite", "int8", lowered.path, (), lowered.entry_points, lowered.minimum, lowered.cache)
    opened = tflite.open_decoder(tmp_path, artifact, 1)
    ids = IDS[0, :20].tolist()
    steps = np.stack([opened.append([token]) for token in ids])
    opened.rewind(0)
    np.testing.assert_array_equal(opened.score(ids), steps)
    opened.close()


def _with_outliers(blocks: DecoderModel) -> DecoderModel:
    """Two channels of what attention takes are far larger, and its weights have zeros for them."""

    def of(linear: Linear) -> Linear:
        integers = linear.weight.value.integers.copy()
        integers[:, :2] = 0
        return replace(linear, weight=replace(linear.weight, value=replace(linear.weight.value, integers=integers)))

    layers = []
    for layer in blocks.layers:
        attention, gain = layer.attention, layer.attention_norm.weight.float32().copy()
        gain[:2] = LARGER
        three = {part: of(getattr(attention, part)) for part in ("query", "key", "value")}
        norm = replace(layer.attention_norm, weight=replace(layer.attention_norm.weight, value=gain))
        layers.append(replace(layer, attention_norm=norm, attention=replace(attention, **three)))
    return replace(blocks, layers=tuple(layers))


def _nowhere_apart(blocks: DecoderModel) -> DecoderModel:
    def change(block: Any) -> Any:
        return replace(block, outliers_beyond=None) if isinstance(block, Linear) else block

    return map_blocks(blocks, change)
