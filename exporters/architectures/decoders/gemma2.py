"""Gemma 2 (arXiv:2408.00118): norms after the blocks too, soft caps, every other layer sees a window."""

from exporters.architectures.decoders.layout import Decoder, LayerAt, windowed_by_type

LAYER = LayerAt(
    after_attention="post_attention_layernorm",
    feed_forward_norm="pre_feedforward_layernorm",
    after_feed_forward="post_feedforward_layernorm",
    activation="hidden_activation",
)
ARCHITECTURE = Decoder(layer=LAYER, norm_offset=1.0, windows=windowed_by_type)
