"""GPT-2: learned positions, layer normalization with biases, query, key and value in one layer. Its `Conv1D` layers
are `torch.nn.Linear` here: the source turns them into such."""

from __future__ import annotations

from typing import Any

from exporters.architectures.decoders.blocks import Rope
from exporters.architectures.decoders.layout import Decoder, LayerAt


def no_rope(model: Any, layer: int) -> Rope | None:
    return None


ARCHITECTURE = Decoder(
    layers="h",
    layer=LayerAt(
        attention="attn",
        output="c_proj",
        fused_attention="c_attn",
        attention_norm="ln_1",
        feed_forward_norm="ln_2",
        gate=None,
        up="mlp.c_fc",
        down="mlp.c_proj",
        activation="activation_function",
    ),
    words="wte",
    positions="wpe",
    final_norm="ln_f",
    ropes=no_rope,
    covered=(("add_cross_attention", False),),
)
