"""Layers that are rounded one after the other, each making up for those before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from exporters.architectures.blocks import weights_of
from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.held import holding
from exporters.quantization.calibrated import by_calibration
from exporters.quantization.compensation import compensated
from exporters.quantization.gptq import quantize_calibrated
from exporters.quantization.hessians import gather_hessians, inputs_of
from exporters.quantization.integers import to_int4, to_int8

from .conftest import DECODERS

Decoder = Callable[[str], Any]
IDS = np.random.default_rng(0).integers(3, 259, (24, 40))


def last_values(model: Any, blocks: DecoderModel | None = None) -> np.ndarray:
    """What the head takes, (24, 40, hidden); of the model as these blocks hold it."""
    with torch.no_grad():
        if blocks is None:
            return model.base_model(torch.from_numpy(IDS)).last_hidden_state.numpy()
        with holding(model, blocks):
            return last_values(model)


@pytest.mark.parametrize("name", list(DECODERS))
def test_the_model_is_nearer_to_what_it_was(name: str, decoder: Decoder) -> None:
    model, blocks = decoder(name), describe_decoder(decoder(name))
    apart = by_calibration(blocks, to_int4(blocks), gather_hessians(model, blocks, IDS, IDS))
    exact = last_values(model)
    found = compensated(model, blocks, apart, IDS)
    errors = [np.square(last_values(model, one) - exact).mean() for one in (apart, found)]
    assert errors[1] < 0.95 * errors[0]
    np.testing.assert_array_equal(last_values(model), exact)  # it is left as it was
    assert _kinds(found) == _kinds(apart)


def _kinds(blocks: DecoderModel) -> dict[str, object]:
    stored = {name: weight.quantized for name, weight in weights_of(blocks).items()}
    return {name: held and (held.bits, held.block, held.shape) for name, held in stored.items()}


def test_where_nothing_is_lost_nothing_is_made_up_for(decoder: Decoder) -> None:
    """The inputs of the first layers are exact, if the table is: their rounding is calibration's own."""
    model, blocks = decoder("llama"), describe_decoder(decoder("llama"))
    coarse = by_calibration(blocks, to_int4(blocks), gather_hessians(model, blocks, IDS, IDS))
    coarse = DecoderModel(**{**vars(coarse), "words": blocks.words})
    found = weights_of(compensated(model, blocks, coarse, IDS))
    for weight in next(inputs_of(blocks)):
        alone = quantize_calibrated(weight.float32(), _moments_of_first(model))
        assert np.mean(found[weight.name].quantized.integers != alone.integers) < 0.01  # sums in another order


def _moments_of_first(model: Any) -> np.ndarray:
    seen: list[torch.Tensor] = []
    query = model.model.layers[0].self_attn.q_proj
    handle = query.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    last_values(model)
    handle.remove()
    rows = seen[0].reshape(-1, seen[0].shape[-1]).numpy()
    moments: np.ndarray = rows.T @ rows / len(rows)
    return moments


def test_layers_in_8_bits_make_up_for_others_too(decoder: Decoder) -> None:
    model, blocks = decoder("llama"), describe_decoder(decoder("llama"))
    coarse = to_int8(blocks)
    found = compensated(model, blocks, coarse, IDS)
    assert _kinds(found) == _kinds(coarse)
    changed = [n for n, w in weights_of(found).items() if (w.float32() != weights_of(coarse)[n].float32()).any()]
    assert len(changed) > len(blocks.layers)
