"""How the answers of each kind of head are judged: on a user's rows, and against the PyTorch model.

One label is right or wrong; several are counted together (micro-F1: every label of every row weighs the same); a number
is judged by its correlation (Pearson) with the true ones. Beside the model, agreement is the share of rows with the
same label, the share with the same set of labels, or the concordance of the numbers (Lin, 1989).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporters import metrics
from exporters.metrics import PairedDifference
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL


@dataclass(frozen=True)
class Disagreement:
    """A row that an artifact labels unlike the PyTorch model, and how sure the model was."""

    row: int
    margin: float
    reference: str
    artifact: str


@dataclass(frozen=True)
class HeadMeasure:
    """Logits are (rows, labels). `targets` are what is right: a label's place for each row (rows,), 0 or 1 for each
    label (rows, labels), a number (rows,)."""

    metric: str
    score: Callable[[np.ndarray, np.ndarray], float]
    difference: Callable[[np.ndarray, np.ndarray, np.ndarray], PairedDifference]
    agreement: Callable[[np.ndarray, np.ndarray], float]
    unlike: Callable[[np.ndarray, np.ndarray, Sequence[str]], tuple[Disagreement, ...]]


def _accuracy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float((logits.argmax(-1) == targets).mean())


def _accuracy_difference(logits: np.ndarray, reference: np.ndarray, targets: np.ndarray) -> PairedDifference:
    return metrics.paired_difference(logits.argmax(-1) == targets, reference.argmax(-1) == targets)


def _other_label(logits: np.ndarray, reference: np.ndarray, labels: Sequence[str]) -> tuple[Disagreement, ...]:
    own, other = logits.argmax(-1), reference.argmax(-1)
    margins = metrics.margin(reference)
    return tuple(
        Disagreement(int(i), float(margins[i]), labels[other[i]], labels[own[i]]) for i in np.flatnonzero(own != other)
    )


def _micro_f1(logits: np.ndarray, targets: np.ndarray) -> float:
    return metrics.count_labels(logits, targets).f1()


def _micro_f1_difference(logits: np.ndarray, reference: np.ndarray, targets: np.ndarray) -> PairedDifference:
    return metrics.f1_difference(metrics.count_labels(logits, targets), metrics.count_labels(reference, targets))


def _other_labels(logits: np.ndarray, reference: np.ndarray, labels: Sequence[str]) -> tuple[Disagreement, ...]:
    """The model was as sure as of the surest label that turned."""
    turned = (logits > 0) != (reference > 0)
    margins = np.where(turned, np.abs(reference), 0).max(-1)
    return tuple(
        Disagreement(int(i), float(margins[i]), _named(reference[i], labels), _named(logits[i], labels))
        for i in np.flatnonzero(turned.any(-1))
    )


def _named(logits: np.ndarray, labels: Sequence[str]) -> str:
    return ", ".join(label for label, logit in zip(labels, logits) if logit > 0) or "no label"


HEADS: Mapping[str, HeadMeasure] = {
    SINGLE_LABEL: HeadMeasure("accuracy", _accuracy, _accuracy_difference, metrics.agreement, _other_label),
    MULTI_LABEL: HeadMeasure("micro F1", _micro_f1, _micro_f1_difference, metrics.same_labels, _other_labels),
    REGRESSION: HeadMeasure(
        "Pearson correlation",
        score=lambda logits, targets: metrics.correlation(logits[:, 0], targets),
        difference=lambda a, b, targets: metrics.correlation_difference(a[:, 0], b[:, 0], targets),
        agreement=lambda a, b: metrics.concordance(a[:, 0], b[:, 0]),
        unlike=lambda a, b, labels: (),
    ),
}
