"""Tiny GGUF files, written by gguf's own writer in llama.cpp's names, orders and quantizations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
_MERGES = ["t h", "th e", "Ġ the"]
_KEYS = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "sliding_window": "attention.sliding_window",
}


def write_gguf(path: Path, model: Any, architecture: str, kind: Kind, **changes: Any) -> dict[str, np.ndarray]:
    """`changes` are settings of the architecture, by their names with `_` for `.`; None leaves one out. What is given
    back are the model's weights as the file holds them, by transformers' names."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.license", "apache-2.0")
    for name, value in {**_settings(model.config), **changes}.items():
        _add(writer, f"{architecture}.{name}", value)
    _add_tokenizer(writer, model.config.vocab_size)
    held = _add_tensors(writer, model, architecture, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def _settings(config: Any) -> dict[str, Any]:
    settings = {key: getattr(config, name, None) for name, key in _KEYS.items()}
    ropes = getattr(config, "rope_parameters", None) or {}
    settings["rope.freq_base"] = ropes.get("rope_theta") or ropes.get("full_attention", {}).get("rope_theta")
    if config.model_type in ("qwen3", "gemma2", "gemma3_text"):
        settings |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    if config.model_type == "gpt2":
        del settings["attention.head_count_kv"]
        settings["feed_forward_length"] = 4 * config.n_embd
    return settings


def _add(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif value is not None:
        writer.add_uint32(name, value)


def _add_tokenizer(writer: Any, size: int) -> None:
    from tokenizers import pre_tokenizers

    merged = [merge.replace(" ", "") for merge in _MERGES]
    tokens = ["<pad>", "<bos>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *merged]
    tokens += [f"<unused{i}>" for i in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * 259 + [5] * (size - 262))
    writer.add_token_merges(_MERGES)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)


def _add_tensors(writer: Any, model: Any, architecture: str, kind: Kind) -> dict[str, np.ndarray]:
    number = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    held = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        weights, chosen = value.numpy().copy(), _kind(value, kind)
        offset = np.float32(architecture.startswith("gemma") and "norm" in name)
        raw = gguf.quantize(weights + offset, chosen)
        held[name] = gguf.dequantize(raw, chosen) - offset
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(theirs, _ordered(raw, name, model.config, architecture), raw_dtype=chosen)
    return held


def _kind(value: Any, kind: Kind) -> Kind:
    """Vectors stay as they are, and rows that blocks of 32 do not fill have half the bits."""
    if value.ndim == 1 or kind == Kind.F32:
        return Kind.F32
    return kind if value.shape[-1] % 32 == 0 else Kind.F16


def _ordered(raw: np.ndarray, name: str, config: Any, architecture: str) -> np.ndarray:
    """Of Llama the two halves that rotate together lie side by side in each head of queries and keys."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": getattr(config, "num_key_value_heads", None)}
    found = next((count for part, count in heads.items() if part in name), None)
    if architecture != "llama" or found is None:
        return raw
    return raw.reshape(found, 2, -1, *raw.shape[1:]).swapaxes(1, 2).reshape(raw.shape)
