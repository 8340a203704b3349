"""The labelled data of a task, by its name."""

from __future__ import annotations

from exporters.data.dataset import Dataset, load_dataset
from exporters.data.tokens import TokenDataset, load_tokens


def load_labelled(
    task: str, source: str, text_column: str | None = None, label_column: str | None = None
) -> Dataset | TokenDataset:
    """Texts with a label each (columns `text` and `label`), for token-classification words with a tag each (`tokens`
    and `tags`); other columns can be named. Raises InvalidInput for the first row that cannot be used."""
    if task == "token-classification":
        return load_tokens(source, text_column or "tokens", label_column or "tags")
    return load_dataset(source, text_column or "text", label_column or "label")
