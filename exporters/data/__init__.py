"""Labelled texts for training and evaluation: a CSV, JSONL or CoNLL file, or a data set inside an installed package."""

from exporters.data.dataset import Dataset, load_dataset
from exporters.data.labelled import USUAL, Columns, Labelled, TextDataset, load_labelled
from exporters.data.multilabel import MultiLabelDataset, load_multilabel
from exporters.data.numbers import NumberDataset, load_numbers
from exporters.data.texts import are_pairs, load_texts
from exporters.data.tokens import TokenDataset, load_tokens

__all__ = [
    "USUAL",
    "Columns",
    "Dataset",
    "Labelled",
    "MultiLabelDataset",
    "NumberDataset",
    "TextDataset",
    "TokenDataset",
    "are_pairs",
    "load_dataset",
    "load_labelled",
    "load_multilabel",
    "load_numbers",
    "load_texts",
    "load_tokens",
]
