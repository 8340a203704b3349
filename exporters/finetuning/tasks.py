"""What each task adds to training: its model, its examples, and the figure that says how good it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.data import Dataset, TokenDataset
from exporters.metrics import count_entities

Example = dict[str, Any]
Measure = Callable[[Any], dict[str, float]]
_IGNORED = -100  # the label that torch's loss leaves out


@dataclass(frozen=True)
class TrainingTask:
    """`model` and `collator` are transformers' classes by name, `adapter` is peft's task type. `examples(data,
    tokenizer, max_length)` are what the Trainer batches; `measure(label_names)` takes its predictions."""

    metric: str
    model: str
    collator: str
    adapter: str
    problem_type: str | None
    examples: Callable[[Any, Any, int], list[Example]]
    measure: Callable[[Sequence[str]], Measure]


def _text_examples(data: Dataset, tokenizer: Any, max_length: int) -> list[Example]:
    encoded = tokenizer(list(data.texts), truncation=True, max_length=max_length)
    return [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
        for ids, label in zip(encoded["input_ids"], data.labels)
    ]


def _token_examples(data: TokenDataset, tokenizer: Any, max_length: int) -> list[Example]:
    """A word's first token carries its tag; the others, and special ones, are left out of the loss."""
    words = [list(row) for row in data.words]
    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
    examples = []
    for row, tags in enumerate(data.tags):
        places = encoded.word_ids(row)
        firsts = [word if word is not None and word not in places[:i] else None for i, word in enumerate(places)]
        labels = [_IGNORED if word is None else tags[word] for word in firsts]
        ids = encoded["input_ids"][row]
        examples.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return examples


def _accuracy(label_names: Sequence[str]) -> Measure:
    def measure(predicted: Any) -> dict[str, float]:
        return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}

    return measure


def _entity_f1(label_names: Sequence[str]) -> Measure:
    def measure(predicted: Any) -> dict[str, float]:
        best, kept = predicted.predictions.argmax(-1), predicted.label_ids != _IGNORED
        found = [[label_names[i] for i in row[mask]] for row, mask in zip(best, kept)]
        wanted = [[label_names[i] for i in row[mask]] for row, mask in zip(predicted.label_ids, kept)]
        return {"f1": count_entities(found, wanted).f1()}

    return measure


TASKS: Mapping[str, TrainingTask] = {
    "text-classification": TrainingTask(
        metric="accuracy",
        model="AutoModelForSequenceClassification",
        collator="DataCollatorWithPadding",
        adapter="SEQ_CLS",
        problem_type="single_label_classification",
        examples=_text_examples,
        measure=_accuracy,
    ),
    "token-classification": TrainingTask(
        metric="f1",
        model="AutoModelForTokenClassification",
        collator="DataCollatorForTokenClassification",
        adapter="TOKEN_CLS",
        problem_type=None,
        examples=_token_examples,
        measure=_entity_f1,
    ),
}
