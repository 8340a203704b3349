"""Encoders: a transformers model for classification, entities or embeddings in, a compared bundle out."""
