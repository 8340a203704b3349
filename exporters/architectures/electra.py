"""ELECTRA (Clark et al., arXiv:2003.10555): BERT whose embeddings may be narrower than its layers."""

from exporters.architectures.layout import EmbeddingsAt, HeadAt, PostNormEncoder

ARCHITECTURE = PostNormEncoder(
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    embeddings=EmbeddingsAt(token_types="embeddings.token_type_embeddings", projection="embeddings_project"),
    head=HeadAt(activation="gelu"),
    covered={"is_decoder": False, "add_cross_attention": False},
)
