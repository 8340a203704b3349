"""ALBERT (Lan et al., arXiv:1909.11942): the same layers used again and again, narrow embeddings. Formats store a
weight once by its name, so that artifacts stay as small as the checkpoint."""

from __future__ import annotations

from typing import Any

from exporters.architectures.layout import EmbeddingsAt, HeadAt, LayerAt, PostNormEncoder


def _layers(config: Any) -> list[str]:
    share = config.num_hidden_layers / config.num_hidden_groups
    return [
        f"encoder.albert_layer_groups.{int(index / share)}.albert_layers.{inner}"
        for index in range(config.num_hidden_layers)
        for inner in range(config.inner_group_num)
    ]


ARCHITECTURE = PostNormEncoder(
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    embeddings=EmbeddingsAt(
        token_types="embeddings.token_type_embeddings", projection="encoder.embedding_hidden_mapping_in"
    ),
    layer=LayerAt(
        query="attention.query",
        key="attention.key",
        value="attention.value",
        output="attention.dense",
        attention_norm="attention.LayerNorm",
        up="ffn",
        down="ffn_output",
        feed_forward_norm="full_layer_layer_norm",
    ),
    head=HeadAt(dense="pooler", output="classifier"),
    layers=_layers,
)
