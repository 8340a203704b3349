"""Labelled texts for training and evaluation: a CSV or JSONL file, or a data set inside an installed package."""

from exporters.data.dataset import Dataset, load_dataset, load_texts

__all__ = ["Dataset", "load_dataset", "load_texts"]
