"""OPT (Zhang et al., arXiv:2205.01068): learned positions whose first two rows are not used, layer normalization with
biases. Not covered: the 350M model, which normalizes after its blocks and projects its embeddings."""

from exporters.architectures.decoders.gpt2 import no_rope
from exporters.architectures.decoders.layout import Decoder, LayerAt

ARCHITECTURE = Decoder(
    layers="decoder.layers",
    layer=LayerAt(
        output="out_proj",
        attention_norm="self_attn_layer_norm",
        feed_forward_norm="final_layer_norm",
        gate=None,
        up="fc1",
        down="fc2",
        activation="activation_function",
    ),
    words="decoder.embed_tokens",
    positions="decoder.embed_positions",
    position_offset=2,
    final_norm="decoder.final_layer_norm",
    ropes=no_rope,
    covered=(("do_layer_norm_before", True), ("layer_norm_elementwise_affine", True)),
)
