"""A twin is the same function in other weights; what no rule covers is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmarks.peers.twin import Shape, permuted, save_twin
from mobile_llm.errors import ModelNotFound, OutputExists, UnsupportedModel

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
}
KINDS = {"LlamaConfig": {"tie_word_embeddings": True}, "Qwen2Config": {}, "Qwen3Config": {}, "Gemma2Config": {}}


def _model(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**SMALL, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _model("LlamaConfig", tie_word_embeddings=True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_is_the_same_function_in_other_weights(kind: str, tmp_path: Path) -> None:
    model = _model(kind, **KINDS[kind])
    model.save_pretrained(tmp_path / "model")
    save_twin(tmp_path / "model", tmp_path / "twin", seed=1)
    twin = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "twin").eval()
    ids = torch.randint(0, 64, (1, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (model(ids).logits - twin(ids).logits).abs().max()
    assert difference < 1e-4
    same = [name for name, weight in model.named_parameters() if torch.equal(weight, twin.get_parameter(name))]
    unpermuted = {"q_norm.weight", "k_norm.weight", "q_proj.bias", "k_proj.bias"}
    assert all(name.endswith(tuple(unpermuted)) for name in same)


def test_the_seed_decides(folder: Path) -> None:
    weights = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    del weights["lm_head.weight"]
    shape = Shape.of(SMALL)
    name = "model.layers.1.mlp.down_proj.weight"
    first, again, other = (permuted(weights, shape, seed)[name] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_cannot_be_permuted_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="c_attn"):
        permuted({"transformer.h.0.attn.c_attn.weight": torch.zeros(2, 2)}, Shape.of(SMALL), 0)
    with pytest.raises(UnsupportedModel, match="num_attention_heads"):
        Shape.of({"hidden_size": 2})
    with pytest.raises(OutputExists, match="remove it"):
        save_twin(folder, tmp_path, 0)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match="safetensors"):
        save_twin(folder, tmp_path / "twin", 0)
