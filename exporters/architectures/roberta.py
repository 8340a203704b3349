"""RoBERTa (Liu et al., arXiv:1907.11692): BERT whose positions begin after the padding's row, with one token type."""

from exporters.architectures.layout import EmbeddingsAt, PostNormEncoder

ARCHITECTURE = PostNormEncoder(
    embeddings=EmbeddingsAt(token_types="embeddings.token_type_embeddings", offset=2),
    covered={"is_decoder": False, "add_cross_attention": False, "type_vocab_size": 1, "pad_token_id": 1},
)
