"""Labelled texts for training and evaluation: a CSV, JSONL or CoNLL file, or a data set inside an installed package."""

from exporters.data.dataset import Dataset, load_dataset, load_texts
from exporters.data.labelled import load_labelled
from exporters.data.tokens import TokenDataset, load_tokens

__all__ = ["Dataset", "TokenDataset", "load_dataset", "load_labelled", "load_texts", "load_tokens"]
