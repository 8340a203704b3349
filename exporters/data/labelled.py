"""The labelled data of a task, by its name and the kind of its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exporters.data.dataset import Dataset, load_dataset
from exporters.data.multilabel import MultiLabelDataset, load_multilabel
from exporters.data.numbers import NumberDataset, load_numbers
from exporters.data.tokens import TokenDataset, load_tokens
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

TextDataset = Dataset | MultiLabelDataset | NumberDataset
Labelled = TextDataset | TokenDataset


@dataclass(frozen=True)
class Columns:
    """Names of columns; None for the usual one: `text`, `text_pair` where there is one, `label`; of words `tokens` and
    `tags`."""

    text: str | None = None
    label: str | None = None
    text_pair: str | None = None


USUAL = Columns()

_LOADERS: Mapping[str, Callable[[str, str, str, str | None], TextDataset]] = {
    SINGLE_LABEL: load_dataset,
    MULTI_LABEL: load_multilabel,
    REGRESSION: load_numbers,
}


def load_labelled(task: str, problem_type: str | None, source: str, columns: Columns) -> Labelled:
    """Texts or pairs with labels of a kind, for token-classification words with a tag each. Raises InvalidInput for the
    first row that cannot be used."""
    if task == "token-classification":
        return load_tokens(source, columns.text or "tokens", columns.label or "tags")
    load = _LOADERS[problem_type or SINGLE_LABEL]
    return load(source, columns.text or "text", columns.label or "label", columns.text_pair)
