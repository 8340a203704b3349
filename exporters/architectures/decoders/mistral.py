"""Mistral (Jiang et al., arXiv:2310.06825): every layer sees a window."""

from exporters.architectures.decoders.layout import Decoder, windowed_everywhere

ARCHITECTURE = Decoder(windows=windowed_everywhere)
