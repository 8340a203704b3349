"""Qwen3 (arXiv:2505.09388): queries and keys are normalized per head."""

from exporters.architectures.decoders.layout import Decoder, LayerAt, windowed_by_type

ARCHITECTURE = Decoder(layer=LayerAt(query_norm="q_norm", key_norm="k_norm"), windows=windowed_by_type)
