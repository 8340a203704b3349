"""Describing decoders: every parameter of a checkpoint is in its blocks, and what they would get wrong is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from exporters.architectures.blocks import weights_of
from exporters.architectures.decoders import describe_decoder, known
from mobile_llm.errors import UnsupportedModel

from .conftest import DECODERS


def test_every_architecture_is_tested() -> None:
    assert list(DECODERS) == known()


@pytest.mark.parametrize("name", list(DECODERS))
def test_blocks_hold_every_parameter(name: str, decoder: Callable[[str], Any]) -> None:
    model = decoder(name)
    described = describe_decoder(model)
    found = sum(weight.floats.size for weight in weights_of(described).values())
    assert found == sum(parameter.numel() for parameter in model.parameters())
    assert described.tied == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)


def test_positions_are_turned_as_transformers_turns_them(decoder: Callable[[str], Any]) -> None:
    model = decoder("gemma3_text")
    described = describe_decoder(model)
    kinds = {kind: place for place, kind in enumerate(model.config.layer_types)}
    for kind, place in kinds.items():
        rope = described.layers[place].attention.rope
        cosines, _ = model.model.rotary_emb(torch.zeros(1), torch.arange(64)[None], kind)
        assert np.abs(rope.tables(64)[0] - cosines[0, :, : rope.turned // 2].numpy()).max() < 1e-6


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pretraining_tp": 2}, "pretraining_tp=2"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rope_type=dynamic"),
        ({"hidden_act": "relu6"}, "activation 'relu6'"),
    ],
)
def test_settings_the_blocks_would_get_wrong_are_refused(settings: dict[str, Any], sentence: str) -> None:
    config = transformers.LlamaConfig(**{**DECODERS["llama"][1], **settings})
    with pytest.raises(UnsupportedModel, match=sentence):
        describe_decoder(transformers.AutoModelForCausalLM.from_config(config))


def test_another_architecture_is_refused_by_name() -> None:
    config = transformers.GPTNeoXConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(UnsupportedModel, match="decoder 'gpt_neox' is not covered; covered are gemma2"):
        describe_decoder(transformers.AutoModelForCausalLM.from_config(config))
