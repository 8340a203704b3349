"""Llama (Touvron et al., arXiv:2302.13971), and what is built like it: SmolLM2, TinyLlama."""

from exporters.architectures.decoders.layout import Decoder

ARCHITECTURE = Decoder(covered=(("pretraining_tp", 1),))
