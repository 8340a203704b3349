"""DistilBERT (Sanh et al., arXiv:1910.01108): half of BERT's layers, no token types."""

from exporters.architectures.layout import HeadAt, LayerAt, PostNormEncoder

ARCHITECTURE = PostNormEncoder(
    layer=LayerAt(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        feed_forward_norm="output_layer_norm",
        activation="activation",
    ),
    head=HeadAt(dense="pre_classifier", activation="relu", output="classifier"),
    layers=lambda config: [f"transformer.layer.{index}" for index in range(config.num_hidden_layers)],
)
