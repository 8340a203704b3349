"""ModernBERT (Warner et al., arXiv:2412.13663): pre-norm, rotary positions, gated feed-forward, layers that see a
window in turn with layers that see all."""

from __future__ import annotations

from typing import Any

from exporters.architectures.blocks import (
    Attention,
    Classifier,
    Embeddings,
    EncoderModel,
    GatedFeedForward,
    Pooling,
    PreNormLayer,
    Rotary,
)
from exporters.architectures.modules import Reader, activation, require


class _ModernBert:
    def describe(self, model: Any, task: str, pooling: Pooling | None) -> EncoderModel:
        read, config = Reader(model), model.config
        return EncoderModel(
            inputs=("input_ids", "attention_mask"),
            embeddings=Embeddings(
                words=read.weight("embeddings.tok_embeddings.weight"),
                positions=None,
                token_types=None,
                norm=read.norm("embeddings.norm"),
            ),
            layers=tuple(_layer(read, index, config) for index in range(config.num_hidden_layers)),
            head=pooling or _classifier(read, config, task),
            max_length=config.max_position_embeddings,
            final_norm=read.norm("final_norm"),
        )


def _layer(read: Reader, index: int, config: Any) -> PreNormLayer:
    path, kind = f"layers.{index}", config.layer_types[index]
    rotary = config.rope_parameters[kind]
    require(rotary["rope_type"] == "default", "modernbert", f"rope_type={rotary['rope_type']}")
    query, key, value = read.split(f"{path}.attn.Wqkv", "query", "key", "value")
    gate, up = read.split(f"{path}.mlp.Wi", "gate", "up")
    head_dim = config.hidden_size // config.num_attention_heads
    return PreNormLayer(
        attention_norm=read.norm(f"{path}.attn_norm") if index else None,
        attention=Attention(
            query=query,
            key=key,
            value=value,
            output=read.linear(f"{path}.attn.Wo"),
            heads=config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            positions=Rotary(rotary["rope_theta"]),
            window=config.sliding_window if kind == "sliding_attention" else None,
        ),
        feed_forward_norm=read.norm(f"{path}.mlp_norm"),
        feed_forward=GatedFeedForward(gate, up, activation(config.hidden_activation), read.linear(f"{path}.mlp.Wo")),
    )


def _classifier(read: Reader, config: Any, task: str) -> Classifier:
    of = "each" if task == "token-classification" else "first" if config.classifier_pooling == "cls" else "mean"
    return Classifier(
        of=of,  # type: ignore[arg-type]
        output=read.linear("classifier"),
        dense=read.linear("head.dense"),
        activation=activation(config.classifier_activation),
        norm=read.norm("head.norm"),
    )


ARCHITECTURE = _ModernBert()
