"""MPNet (Song et al., arXiv:2004.09297): a bias by distance in every layer, shared by all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.architectures.blocks import RelativeBias
from exporters.architectures.layout import EmbeddingsAt, LayerAt, PostNormEncoder
from exporters.architectures.modules import Reader

_OFFSET = 2


def _bias(read: Reader, config: Any, layer: str) -> RelativeBias:
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    limit = config.max_position_embeddings - _OFFSET
    rows = MPNetEncoder.relative_position_bucket(torch.arange(-limit, limit + 1), num_buckets=32)
    return RelativeBias(read.weight("encoder.relative_attention_bias.weight"), np.asarray(rows))


ARCHITECTURE = PostNormEncoder(
    embeddings=EmbeddingsAt(offset=_OFFSET),
    layer=LayerAt(
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        output="attention.attn.o",
        attention_norm="attention.LayerNorm",
    ),
    positions=_bias,
    covered={"relative_attention_num_buckets": 32},
)
