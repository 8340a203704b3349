"""BERT (Devlin et al., arXiv:1810.04805): post-norm encoder with learned absolute positions."""

from exporters.architectures.layout import EmbeddingsAt, HeadAt, PostNormEncoder

ARCHITECTURE = PostNormEncoder(
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    embeddings=EmbeddingsAt(token_types="embeddings.token_type_embeddings"),
    head=HeadAt(dense="pooler.dense", output="classifier"),
    covered={"is_decoder": False, "add_cross_attention": False},
)
