"""Phi-3 (Abdin et al., arXiv:2404.14219): query, key and value are one layer, and so are gate and up."""

from exporters.architectures.decoders.layout import Decoder, LayerAt, windowed_everywhere

ARCHITECTURE = Decoder(
    layer=LayerAt(fused_attention="qkv_proj", fused_feed_forward="mlp.gate_up_proj"), windows=windowed_everywhere
)
