"""Qwen2 and Qwen2.5 (arXiv:2407.10671): query, key and value have biases."""

from exporters.architectures.decoders.layout import Decoder, windowed_by_type

ARCHITECTURE = Decoder(windows=windowed_by_type)
