"""Tiny random decoders, one of each architecture, with its own features on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

VOCABULARY = 264
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2Config", {**_SMALL, "head_dim": 8, "sliding_window": 8}),
    "gemma3_text": ("Gemma3TextConfig", {**_SMALL, "num_hidden_layers": 7, "head_dim": 8, "sliding_window": 8}),
    "gpt2": ("GPT2Config", {**_GPT2, "bos_token_id": 1, "eos_token_id": 2}),
    "llama": ("LlamaConfig", {**_SMALL, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {**_SMALL, "sliding_window": 8}),
    "opt": ("OPTConfig", {**_SMALL, "num_key_value_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "phi3": ("Phi3Config", {**_SMALL, "sliding_window": None}),
    "qwen2": ("Qwen2Config", _SMALL),
    "qwen3": ("Qwen3Config", {**_SMALL, "head_dim": 16}),
    "smollm3": ("SmolLM3Config", {**_SMALL, "num_hidden_layers": 4}),
}


@pytest.fixture(scope="session")
def decoder() -> Callable[[str], Any]:
    """The torch model of an architecture, in eval mode, made once; nobody changes it."""
    return cache(_decoder)


def _decoder(name: str) -> Any:
    import torch

    from exporters.sources.conv1d import as_linear_layers

    with torch.inference_mode(False):  # whoever asks first may be in it, and later ones take gradients
        return as_linear_layers(_checkpoint(name))


@pytest.fixture(scope="session")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same model as a Hugging Face folder, with a tokenizer of bytes and a chat template."""

    @cache
    def save(name: str) -> Path:
        folder = tmp_path_factory.mktemp(f"tiny-{name}")
        _checkpoint(name).save_pretrained(folder)
        _save_tokenizer(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def writing_bundle(decoder_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama in ONNX, float32 and int8, for 32 tokens; nobody changes it."""
    import exporters

    output = tmp_path_factory.mktemp("writing") / "bundle"
    return exporters.export(decoder_folder("llama"), "text-generation", output, formats=("onnx",), context=32).bundle


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<bos>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(names)}, merges=[]))
    # transformers has these for every Qwen2, whatever tokenizer.json says.
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos")}
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)
    saved.chat_template = _TEMPLATE
    saved.save_pretrained(folder)


def _checkpoint(name: str) -> Any:
    import torch
    import transformers

    kind, settings = DECODERS[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    counts_from_one = name.startswith("gemma")
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if "norm" in path or "ln_" in path:
                bias = path.endswith("bias") or counts_from_one
                parameter.copy_(0.2 * noise if bias else 1 + 0.2 * noise)
            else:
                parameter.copy_((0.1 if path.endswith("bias") else 0.2) * noise)
    return model.eval()
