"""XLM-RoBERTa (Conneau et al., arXiv:1911.02116): RoBERTa over a hundred languages."""

from exporters.architectures.roberta import ARCHITECTURE

__all__ = ["ARCHITECTURE"]
