"""SmolLM3: every fourth layer is told no positions."""

from __future__ import annotations

from typing import Any

from exporters.architectures.decoders.blocks import Rope
from exporters.architectures.decoders.layout import Decoder, one_rope


def _ropes(model: Any, layer: int) -> Rope | None:
    return one_rope(model, layer) if model.config.no_rope_layers[layer] else None


def _windows(config: Any, layer: int) -> int | None:
    windowed = config.use_sliding_window and config.layer_types[layer] == "sliding_attention"
    window: int | None = config.sliding_window if windowed else None
    return window


ARCHITECTURE = Decoder(ropes=_ropes, windows=_windows)
