"""What is asked of a fine-tuning: typed, frozen, refused where it contradicts itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporters.data import Columns
from mobile_llm.errors import InvalidSpec
from mobile_llm.problem_types import PROBLEM_TYPES, REGRESSION

TASKS = ("text-classification", "token-classification")
METHODS = ("full", "lora")
# Adapters are small and start at zero, so they take larger steps.
_LEARNING_RATES = {"full": 1e-4, "lora": 1e-3}


@dataclass(frozen=True)
class FinetuneSpec:
    """One fine-tuning. The defaults suit a small encoder and a few thousand sentences.

    Attributes:
        eval_data: rows to measure after each epoch; the best epoch is kept, and training stops once `patience`
            epochs bring nothing better. Without it every epoch is trained and the last one kept.
        problem_type: of text-classification, what a label is: one of several (the default), any number of them, or a
            number to regress.
        rename: other strings for the data's labels, such as {"0": "negative", "1": "positive"}.
        accumulation: batches whose gradients are summed for one step.
        merge: fold a LoRA adapter into the weights, so that the result can be exported.
        max_length: texts are cut to this many tokens while training.
        log: a file for the loss of every step, one JSON line each.
    """

    model: str
    task: str
    data: str
    output: Path
    problem_type: str | None = None
    eval_data: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    text_pair_column: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    method: str = "full"
    merge: bool = False
    epochs: int = 3
    batch_size: int = 32
    accumulation: int = 1
    learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    patience: int = 2
    max_length: int = 256
    rank: int = 16
    seed: int = 0
    resume: bool = False
    force: bool = False
    log: Path | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InvalidSpec(f"fine-tuning for {self.task!r} is not covered; covered: {', '.join(TASKS)}")
        if self.task != "text-classification" and (self.problem_type or self.text_pair_column):
            raise InvalidSpec(
                f"a problem type and pairs of texts are for text-classification, not for {self.task}; leave them out"
            )
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise InvalidSpec(f"unknown problem type {self.problem_type!r}; choose from {', '.join(PROBLEM_TYPES)}")
        if self.rename and self.problem_type == REGRESSION:
            raise InvalidSpec("label names are for labels, and a regression has numbers; leave them out")
        if self.method not in METHODS:
            raise InvalidSpec(f"unknown method {self.method!r}; choose from {', '.join(METHODS)}")
        if self.merge and self.method != "lora":
            raise InvalidSpec("merging is for adapters: use it with the method lora, or leave it out")
        for name in ("epochs", "batch_size", "accumulation", "patience", "max_length", "rank"):
            if getattr(self, name) < 1:
                raise InvalidSpec(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if not 0 <= self.warmup < 1:
            raise InvalidSpec(f"warmup is {self.warmup:g}; it is a share of the steps, from 0 up to but not 1")
        if self.weight_decay < 0 or (self.learning_rate is not None and self.learning_rate <= 0):
            raise InvalidSpec("the learning rate has to be above 0 and the weight decay not below it")

    @property
    def columns(self) -> Columns:
        """Those of both data sets."""
        return Columns(self.text_column, self.label_column, self.text_pair_column)

    @property
    def rate(self) -> float:
        """The peak learning rate: as asked, or what suits the method."""
        return self.learning_rate or _LEARNING_RATES[self.method]

    @property
    def checkpoints(self) -> Path:
        """Where the state after each epoch is kept until the work is done."""
        return self.output.with_name(f"{self.output.name}.checkpoints")
