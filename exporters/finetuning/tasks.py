"""What each task and kind of label adds to training: its model, its examples, and the figure that says how good it is.

Accuracy for one label, micro-F1 (every label of every row weighs the same) for several, Pearson's correlation for
numbers, exact F1 for entities. The loss is the one transformers has for the model's problem_type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.data import TextDataset, TokenDataset, are_pairs
from exporters.finetuning.spec import FinetuneSpec
from exporters.metrics import correlation, count_entities, count_labels
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

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


def _text_examples(data: TextDataset, tokenizer: Any, max_length: int) -> list[Example]:
    """Texts, or pairs with their token types; columns that the model does not take are dropped by the Trainer."""
    columns = zip(*data.texts) if are_pairs(data.texts) else [data.texts]
    encoded = tokenizer(*map(list, columns), truncation=True, max_length=max_length)
    return [
        {**{name: values[row] for name, values in encoded.items()}, "labels": target}
        for row, target in enumerate(data.targets)
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


def _micro_f1(label_names: Sequence[str]) -> Measure:
    def measure(predicted: Any) -> dict[str, float]:
        return {"micro_f1": count_labels(predicted.predictions, predicted.label_ids).f1()}

    return measure


def _pearson(label_names: Sequence[str]) -> Measure:
    def measure(predicted: Any) -> dict[str, float]:
        return {"pearson": correlation(predicted.predictions.reshape(-1), predicted.label_ids.reshape(-1))}

    return measure


def _entity_f1(label_names: Sequence[str]) -> Measure:
    def measure(predicted: Any) -> dict[str, float]:
        best, kept = predicted.predictions.argmax(-1), predicted.label_ids != _IGNORED
        found = [[label_names[i] for i in row[mask]] for row, mask in zip(best, kept)]
        wanted = [[label_names[i] for i in row[mask]] for row, mask in zip(predicted.label_ids, kept)]
        return {"f1": count_entities(found, wanted).f1()}

    return measure


def _of_texts(problem_type: str, metric: str, measure: Callable[[Sequence[str]], Measure]) -> TrainingTask:
    return TrainingTask(
        metric=metric,
        model="AutoModelForSequenceClassification",
        collator="DataCollatorWithPadding",
        adapter="SEQ_CLS",
        problem_type=problem_type,
        examples=_text_examples,
        measure=measure,
    )


# Text classification by its problem_type.
TASKS: Mapping[str, TrainingTask] = {
    SINGLE_LABEL: _of_texts(SINGLE_LABEL, "accuracy", _accuracy),
    MULTI_LABEL: _of_texts(MULTI_LABEL, "micro_f1", _micro_f1),
    REGRESSION: _of_texts(REGRESSION, "pearson", _pearson),
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
METRICS = tuple(task.metric for task in TASKS.values())


def task_of(spec: FinetuneSpec) -> TrainingTask:
    """What a spec is trained as."""
    if spec.task == "text-classification":
        return TASKS[spec.problem_type or SINGLE_LABEL]
    return TASKS[spec.task]
