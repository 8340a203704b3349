"""DeBERTa-v2 and v3 (He et al., arXiv:2006.03654, arXiv:2111.09543): disentangled attention, no absolute positions.

Not covered: the convolution of v2-xlarge, absolute positions added to the input, projections apart for distances.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.architectures.blocks import Disentangled
from exporters.architectures.layout import EmbeddingsAt, HeadAt, LayerAt, PostNormEncoder
from exporters.architectures.modules import Reader, require


def _distances(read: Reader, config: Any, layer: str) -> Disentangled:
    require(read.has("encoder.rel_embeddings"), "deberta-v2", "relative_attention=false")
    kinds = config.pos_att_type or []
    return Disentangled(
        table=read.weight("encoder.rel_embeddings.weight"),
        norm=read.norm("encoder.LayerNorm") if read.has("encoder.LayerNorm") else None,
        key=read.linear(f"{layer}.attention.self.key_proj") if "c2p" in kinds else None,
        query=read.linear(f"{layer}.attention.self.query_proj") if "p2c" in kinds else None,
        rows=_rows(config),
    )


def _rows(config: Any) -> np.ndarray:
    """The row of each distance: near ones have their own, far ones share by the logarithm."""
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    limit = config.max_position_embeddings
    farthest = config.max_relative_positions if config.max_relative_positions > 0 else limit
    distances, span = torch.arange(-limit, limit + 1), farthest
    if config.position_buckets > 0:
        span = config.position_buckets
        distances = make_log_bucket_position(distances, span, farthest).long()
    return np.asarray((distances + span).clamp(0, 2 * span - 1))


def _scale(config: Any, head_dim: int) -> float:
    terms = 1 + sum(kind in (config.pos_att_type or []) for kind in ("c2p", "p2c"))
    return float((head_dim * terms) ** -0.5)


ARCHITECTURE = PostNormEncoder(
    embeddings=EmbeddingsAt(positions=None),
    layer=LayerAt(query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj"),
    head=HeadAt(dense="pooler.dense", activation="gelu", output="classifier"),
    positions=_distances,
    scale=_scale,
    covered={
        "position_biased_input": False,
        "share_att_key": True,
        "type_vocab_size": 0,
        "conv_kernel_size": 0,
        "pooler_hidden_act": "gelu",
    },
)
