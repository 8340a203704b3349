"""The table of limits (limits.toml), and what each metric means."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from exporters import metrics
from mobile_llm.bundle.manifest import TaskInfo
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Against = Literal["reference", "twin"]
Metric = Callable[[np.ndarray, np.ndarray], float]

METRICS: Mapping[str, Metric] = {
    "largest_difference": metrics.largest_difference,
    "scaled_difference": metrics.largest_difference,  # of answers given as shares of the largest one
    "share_of_spread": metrics.largest_difference,  # of numbers given as shares of how far they are apart
    "relative_error": metrics.relative_error,
    "smallest_cosine": metrics.smallest_cosine,
    "agreement": metrics.agreement,
}
_OF_TOKENS = "token_logits"
_LIKE = {_OF_TOKENS: "logits"}  # whose limits are those of another output where the table has none
# Logits are judged by what is done with them: the largest wins, each decides alone, or they are the answer.
_KINDS = {MULTI_LABEL: "label_logits", REGRESSION: "number", "token-classification": _OF_TOKENS}
_MORE_IS_BETTER = {"smallest_cosine", "agreement", "top_1"}


@dataclass(frozen=True)
class Limit:
    """One row of the table."""

    output: str
    against: Against
    precision: str
    metric: str
    limit: float
    reason: str
    format: str | None = None

    def holds(self, value: float) -> bool:
        """Whether a measured value is within the limit; never for what is not a number."""
        return value >= self.limit if self.metric in _MORE_IS_BETTER else value <= self.limit

    def measure(self, answer: np.ndarray, expected: np.ndarray) -> float:
        return METRICS[self.metric](answer, expected)


@cache
def table() -> tuple[Limit, ...]:
    """All limits, read once."""
    text = Path(__file__).with_name("limits.toml").read_text(encoding="utf-8")
    return tuple(Limit(**row) for row in tomllib.loads(text)["limit"])


def kind_of(output: str, task: TaskInfo) -> str:
    """The name under which the table has an output's limits."""
    return _KINDS.get(task.problem_type or task.name, output) if output == "logits" else output


def limits_for(output: str, against: Against, precision: str, format_name: str) -> list[Limit]:
    """The limits on one output, one per metric; a row for it goes before that of one like it, and a row for the format
    before the general one."""
    fitting = [
        row
        for row in table()
        if row.output in (output, _LIKE.get(output))
        and (row.against, row.precision) == (against, precision)
        and row.format in (None, format_name)
    ]
    chosen: dict[str, Limit] = {}
    for row in sorted(fitting, key=lambda row: (row.output != output, row.format is None)):
        chosen.setdefault(row.metric, row)
    return list(chosen.values())
