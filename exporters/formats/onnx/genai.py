"""genai_config.json, by which onnxruntime-genai opens a bundle's folder: https://onnxruntime.ai/docs/genai/reference

It names one ONNX artifact, the tensors of it, and how to sample. Types of models that onnxruntime-genai does not know
by name are its plain `decoder`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats.lowered import Lowered
from mobile_llm.bundle import Artifact
from mobile_llm.errors import InvalidSpec

_KNOWN = ("gemma2", "gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3")
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# How onnxruntime-genai samples where generation_config.json says nothing: greedily.
_SEARCH = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}


def write_genai_config(
    model: DecoderModel, model_type: str, artifact: Artifact | Lowered, generation: Mapping[str, Any], bundle: Path
) -> None:
    """Write genai_config.json into `bundle` for one of its artifacts."""
    config = genai_config(model, model_type, artifact, generation)
    (bundle / "genai_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def genai_config(
    model: DecoderModel, model_type: str, artifact: Artifact | Lowered, generation: Mapping[str, Any]
) -> dict[str, Any]:
    """The configuration as plain data; `generation` is what generation_config.json holds. Raises InvalidSpec where no
    token ends a text."""
    tokens = {name: generation[name] for name in _TOKENS if generation.get(name) is not None}
    if "eos_token_id" not in tokens:
        raise InvalidSpec("onnxruntime-genai needs eos_token_id in generation_config.json: add it, or leave genai out")
    ends = tokens["eos_token_id"]
    tokens.setdefault("pad_token_id", ends[0] if isinstance(ends, list) else ends)
    assert artifact.cache is not None  # of a decoder
    context = artifact.cache.context
    search = {name: generation.get(name, default) for name, default in _SEARCH.items()}
    return {
        "model": {
            **tokens,
            "type": model_type if model_type in _KNOWN else "decoder",
            "vocab_size": model.vocabulary,
            "context_length": context,
            "decoder": _decoder(model, artifact.path),
        },
        # Past and present are one buffer, of max_length tokens.
        "search": {**search, "max_length": context, "past_present_share_buffer": True},
    }


def _decoder(model: DecoderModel, path: str) -> dict[str, Any]:
    attention = model.layers[0].attention
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": path,
        "hidden_size": model.hidden,
        "head_size": attention.head_dim,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "num_hidden_layers": len(model.layers),
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
