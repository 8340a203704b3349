"""Models that write: a transformers model for text generation in, a compared bundle out."""
