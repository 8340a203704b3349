"""Gemma 3 for text (arXiv:2503.19786): Gemma 2 with normalized queries and keys instead of soft caps, and positions
that turn faster in the layers that see a window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exporters.architectures.decoders.blocks import Rope
from exporters.architectures.decoders.gemma2 import LAYER
from exporters.architectures.decoders.layout import Decoder, rope_of, windowed_by_type


def _ropes(model: Any, layer: int) -> Rope | None:
    return rope_of(model.base_model.rotary_emb, f"{model.config.layer_types[layer]}_")


ARCHITECTURE = Decoder(
    layer=replace(LAYER, query_norm="q_norm", key_norm="k_norm"),
    norm_offset=1.0,
    windows=windowed_by_type,
    ropes=_ropes,
    covered=(("use_bidirectional_attention", False),),
)
