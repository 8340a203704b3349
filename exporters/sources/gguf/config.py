"""The settings of a GGUF file as a transformers config: one table row per architecture.

Every setting of the architecture is used, held against what the others say, or refused by name: one that is passed over
would be another model. What GGUF says in tensors (the frequencies of Llama 3.1, the factors of long Phi-3) or in
several ways (scaled positions) is not read; a config.json beside the file says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporters.sources.gguf.header import Header
from mobile_llm.errors import InvalidInput, UnsupportedModel

BESIDE = "put it into a folder of its own beside the model's config.json, and export the folder"
# Tensors that belong to positions, not to layers: a config.json says the same.
SAID_BY_CONFIG = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_SHARED = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_WITH_HEADS = {**_SHARED, "attention.key_length": "head_dim"}
_GPT2 = {
    "context_length": "n_positions",
    "block_count": "n_layer",
    "embedding_length": "n_embd",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_WINDOW = {"attention.sliding_window": "sliding_window"}
_CAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
# Settings that must have this value where they are there: with another one they would change the model.
_NEUTRAL: Mapping[str, Any] = {
    "rope.scaling.type": "none",
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
}
_REQUIRED = ("context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count")


@dataclass(frozen=True)
class Family:
    """What transformers calls an architecture (the first of `model_types`; a config.json may say any), its settings by
    the names of both, and what follows from them."""

    model_types: tuple[str, ...]
    names: Mapping[str, str]
    derived: Callable[[Header], Mapping[str, Any]] = field(default=lambda header: {})


def _gemma_scale(layers_of_largest: int) -> Callable[[Header], Mapping[str, Any]]:
    """Queries are scaled by the size of a head; in the 27B model by another one, which the file does not say."""

    def derived(header: Header) -> Mapping[str, Any]:
        if header.setting("block_count") == layers_of_largest:
            scale = header.setting("embedding_length") // header.setting("attention.head_count")
        else:
            scale = _head_size(header)
        return {"query_pre_attn_scalar": scale}

    return derived


FAMILIES = {
    "gemma2": Family(("gemma2",), {**_WITH_HEADS, **_WINDOW, **_CAPS}, _gemma_scale(46)),
    "gemma3": Family(("gemma3_text",), {**_WITH_HEADS, **_WINDOW}, _gemma_scale(62)),
    "gpt2": Family(("gpt2",), _GPT2),
    "llama": Family(("llama", "mistral"), _WITH_HEADS),
    "phi3": Family(
        ("phi3",),
        {**_SHARED, **_WINDOW, "rope.scaling.original_context_length": "original_max_position_embeddings"},
    ),
    "qwen2": Family(("qwen2",), _SHARED),
    "qwen3": Family(("qwen3",), _WITH_HEADS),
}


def family_of(header: Header) -> Family:
    """Raises UnsupportedModel for an architecture that is not covered."""
    if header.architecture not in FAMILIES:
        raise UnsupportedModel(
            f"{header.path} has the architecture {header.architecture!r}; of GGUF files {', '.join(FAMILIES)} are "
            "covered: pass the model as a Hugging Face folder"
        )
    return FAMILIES[header.architecture]


def check_settings(header: Header) -> None:
    """Raises InvalidInput for settings that contradict the tensors, UnsupportedModel for an unknown architecture.
    Nothing is built before: a number of layers out of thin air would be built for ever."""
    family_of(header)
    for name in _REQUIRED:
        value = header.setting(name)
        if type(value) is not int or value < 1:
            raise InvalidInput(f"{header.path} gives {value!r} for {header.architecture}.{name}; fetch the file again")
    words = header.tensors.get("token_embd.weight")
    if words is None or len(words.shape) != 2:
        raise InvalidInput(f"{header.path} has no table of words (token_embd.weight); fetch the file again")
    layers = {found.group(1) for name in header.tensors if (found := re.match(r"blk\.(\d+)\.", name))}
    _same(header, "block_count", len(layers))
    _same(header, "embedding_length", words.shape[1])


def config_settings(header: Header) -> dict[str, Any]:
    """What `AutoConfig.for_model` takes. Raises UnsupportedModel for a setting that it could not say."""
    family = family_of(header)
    scaled = next((name for name in SAID_BY_CONFIG if name in header.tensors), None)
    if scaled:
        raise UnsupportedModel(f"{header.path} scales its positions by a tensor ({scaled}); {BESIDE}")
    for name in _own_settings(header):
        _refuse_unread(header, family, name)
    settings = {ours: header.setting(name) for name, ours in family.names.items() if header.setting(name) is not None}
    return {
        "model_type": family.model_types[0],
        **settings,
        **family.derived(header),
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **token_ids(header),
    }


def token_ids(header: Header) -> dict[str, Any]:
    """The ids of special tokens; an answer ends with the text or with the turn."""
    settings = header.settings
    names = {"bos_token_id": "bos_token_id", "pad_token_id": "padding_token_id"}
    ids = {ours: settings.get(f"tokenizer.ggml.{name}") for ours, name in names.items()}
    ends = [settings.get(f"tokenizer.ggml.{name}") for name in ("eos_token_id", "eot_token_id")]
    unique = [end for end in dict.fromkeys(ends) if end is not None]
    return {**ids, "eos_token_id": unique[0] if len(unique) == 1 else unique or None}


def _own_settings(header: Header) -> Iterator[str]:
    prefix = f"{header.architecture}."
    return (name.removeprefix(prefix) for name in header.settings if name.startswith(prefix))


def _refuse_unread(header: Header, family: Family, name: str) -> None:
    value, head = header.setting(name), _head_size(header)
    if name in family.names:
        if isinstance(value, (int, float)):
            return
    elif name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        if value == head == _width_of_heads(header, family):
            return
    elif name == "vocab_size" or _NEUTRAL.get(name) == value:
        return
    raise UnsupportedModel(
        f"{header.path} has {header.architecture}.{name} = {value!r}, which is not covered without a config.json; "
        f"{BESIDE}"
    )


def _head_size(header: Header) -> Any:
    stated = header.setting("attention.key_length")
    return stated or header.setting("embedding_length") // header.setting("attention.head_count")


def _width_of_heads(header: Header, family: Family) -> Any:
    """What the config will have: where it has no name for it, the hidden size shared out."""
    if "attention.key_length" in family.names:
        return _head_size(header)
    return header.setting("embedding_length") // header.setting("attention.head_count")


def _same(header: Header, name: str, found: int) -> None:
    if header.setting(name) != found:
        raise InvalidInput(
            f"{header.path} states {header.architecture}.{name} = {header.setting(name)}, and its tensors have "
            f"{found}; fetch the file again"
        )
