"""BERT (Devlin et al., arXiv:1810.04805): post-norm encoder with learned absolute positions."""

from __future__ import annotations

from typing import Any

from exporters.architectures.blocks import (
    Attention,
    Classifier,
    Embeddings,
    EncoderLayer,
    EncoderModel,
    FeedForward,
    Pooling,
)
from exporters.architectures.modules import Reader, activation, require


def describe(model: Any, pooling: Pooling | None) -> EncoderModel:
    config = model.config
    require(not config.is_decoder, "bert", "is_decoder=true")
    require(not config.add_cross_attention, "bert", "add_cross_attention=true")
    read = Reader(model)
    base = f"{model.base_model_prefix}." if read.has(model.base_model_prefix) else ""
    return EncoderModel(
        inputs=("input_ids", "attention_mask", "token_type_ids"),
        embeddings=Embeddings(
            words=read.weight(f"{base}embeddings.word_embeddings.weight"),
            positions=read.weight(f"{base}embeddings.position_embeddings.weight"),
            token_types=read.weight(f"{base}embeddings.token_type_embeddings.weight"),
            norm=read.norm(f"{base}embeddings.LayerNorm"),
        ),
        layers=tuple(_layer(read, f"{base}encoder.layer.{index}", config) for index in range(config.num_hidden_layers)),
        head=pooling or _classifier(read, base),
        max_length=config.max_position_embeddings,
    )


def _layer(read: Reader, path: str, config: Any) -> EncoderLayer:
    return EncoderLayer(
        attention=Attention(
            query=read.linear(f"{path}.attention.self.query"),
            key=read.linear(f"{path}.attention.self.key"),
            value=read.linear(f"{path}.attention.self.value"),
            output=read.linear(f"{path}.attention.output.dense"),
            heads=config.num_attention_heads,
            head_dim=config.hidden_size // config.num_attention_heads,
        ),
        attention_norm=read.norm(f"{path}.attention.output.LayerNorm"),
        feed_forward=FeedForward(
            up=read.linear(f"{path}.intermediate.dense"),
            activation=activation(config.hidden_act),
            down=read.linear(f"{path}.output.dense"),
        ),
        feed_forward_norm=read.norm(f"{path}.output.LayerNorm"),
    )


def _classifier(read: Reader, base: str) -> Classifier:
    return Classifier(
        dense=read.linear(f"{base}pooler.dense"),
        activation="tanh",
        output=read.linear("classifier"),
    )
