"""Scales and gains that are trained together, integers that stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.architectures.blocks import weights_of
from exporters.architectures.decoders import describe_decoder
from exporters.decoders.calibrated import recipes_for
from exporters.quantization.distillation import distilled
from exporters.quantization.divergence import divergence
from exporters.quantization.integers import to_int4, to_int4_throughout
from exporters.sources.huggingface import open_source
from exporters.spec import ExportSpec

from .conftest import DECODERS

Decoder = Callable[[str], Any]
TEXT = "The plot makes no sense, and the jokes fall flat. " * 60
_RANDOM = np.random.default_rng(0)
READ, OTHERS = _RANDOM.integers(3, 259, (640, 32)), _RANDOM.integers(3, 259, (24, 32))


@pytest.mark.parametrize("name", list(DECODERS))
def test_the_model_chooses_more_as_it_did_also_on_other_texts(name: str, decoder: Decoder) -> None:
    model, coarse = decoder(name), to_int4(describe_decoder(decoder(name)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = distilled(model, coarse, READ)
    assert divergence(model, found, OTHERS) < 0.98 * divergence(model, coarse, OTHERS)
    assert all((value == before[key]).all() for key, value in model.state_dict().items())
    for key, weight in weights_of(found).items():
        was = weights_of(coarse)[key]
        if weight.quantized and was.quantized:
            np.testing.assert_array_equal(weight.quantized.integers, was.quantized.integers)
            scale = weight.quantized.scale
            np.testing.assert_array_equal(scale, scale.astype(np.float16))
            assert (scale > 0).all()
            assert scale.dtype == np.float32
        else:
            assert np.abs(weight.float32() - was.float32()).max() < 0.02


def test_a_tied_table_stays_tied_and_in_4_bits(decoder: Decoder) -> None:
    model = decoder("llama")
    coarse = to_int4_throughout(describe_decoder(model))
    found = distilled(model, coarse, READ[:32])
    assert coarse.tied
    assert found.tied
    assert found.words.quantized is not None
    assert found.words.quantized.bits == 4
    np.testing.assert_array_equal(found.words.float32(), found.head.weight.float32())


def test_every_scale_and_gain_moves_and_none_goes_far(decoder: Decoder) -> None:
    model, coarse = decoder("llama"), to_int4(describe_decoder(decoder("llama")))
    found = weights_of(distilled(model, coarse, READ))
    for name, weight in weights_of(coarse).items():
        before, after = (w.quantized.scale if w.quantized else w.float32() for w in (weight, found[name]))
        assert 1e-4 < np.abs(after / before - 1).max() < 0.02, name


@pytest.mark.parametrize("free", [10**5, 10**12])
def test_scales_and_gains_are_trained_where_there_is_memory_for_it(
    free: int, decoder_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporters.decoders.calibrated.available_memory", lambda: free)
    source = open_source(str(decoder_folder("llama")), "text-generation")
    blocks, steps = describe_decoder(source.model), list[str]()
    spec = ExportSpec(str(tmp_path), "text-generation", tmp_path, recipes=("int4",))
    found = recipes_for(spec, source, blocks, TEXT, lambda _: {}, steps.append)["int4"](blocks)
    kept = blocks.final_norm.weight.float32() == found.final_norm.weight.float32()
    assert kept.all() == (free == 10**5)
    assert any("too little memory to train" in step for step in steps) == (free == 10**5)
    assert any("training scales" in step for step in steps) == (free == 10**12)
