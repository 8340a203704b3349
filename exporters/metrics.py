"""Measures of difference, shared by quantization and verification. Arrays are float32 (rows, width)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b|; infinite where a value is not finite."""
    difference = np.abs(a.astype(np.float64) - b).max()
    return float(difference) if np.isfinite(difference) else float("inf")


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """The largest over rows of ||a - b|| / ||b||; infinite where a value is not finite."""
    error = np.linalg.norm(a.astype(np.float64) - b, axis=-1) / np.linalg.norm(b, axis=-1)
    worst = error.max()
    return float(worst) if np.isfinite(worst) else float("inf")


def smallest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The smallest cosine of paired rows; -1 where a value is not finite."""
    product = (a.astype(np.float64) * b).sum(-1)
    cosine = product / (np.linalg.norm(a.astype(np.float64), axis=-1) * np.linalg.norm(b, axis=-1))
    return float(cosine.min()) if np.isfinite(cosine).all() else -1.0


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Share of rows with the same largest column."""
    return float((a.argmax(-1) == b.argmax(-1)).mean())


def same_labels(a: np.ndarray, b: np.ndarray) -> float:
    """Share of rows of which the same columns are above 0, where a probability is one half."""
    return float(((a > 0) == (b > 0)).all(-1).mean())


def margin(logits: np.ndarray) -> np.ndarray:
    """How far the largest logit of each row is above the second, shape (rows,)."""
    top = np.sort(logits, axis=-1)
    return top[:, -1] - top[:, -2]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last dimension, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def divergence(tokens: np.ndarray, log_probabilities: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence, in nats per position (P,), of an answer's `logits` (P, vocabulary) from what was
    expected: the `log_probabilities` (P, N) of the likeliest `tokens` (P, N), and of all others as one."""
    expected = log_probabilities.astype(np.float64)
    found = np.take_along_axis(log_softmax(logits), tokens.astype(np.int64), axis=-1)
    p, q = np.exp(expected), np.exp(found)
    rest_p, rest_q = (np.maximum(1 - part.sum(-1), 1e-12) for part in (p, q))
    return (p * (expected - found)).sum(-1) + rest_p * np.log(rest_p / rest_q)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of paired differences with its 95 % interval (normal approximation)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class F1Counts:
    """Of each row: labels or entities that were found, that are there, and that are both, exactly (rows,)."""

    found: np.ndarray
    wanted: np.ndarray
    right: np.ndarray

    def f1(self, rows: np.ndarray | None = None) -> float:
        """Micro-F1 over all, or those in `rows`; 1 where there is nothing to find and nothing was."""
        found, wanted, right = (counts if rows is None else counts[rows] for counts in vars(self).values())
        total = int(found.sum() + wanted.sum())
        return 2 * int(right.sum()) / total if total else 1.0


def count_entities(found: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> F1Counts:
    """Compare IOB2 tags sentence by sentence. An entity is right where its name and both its ends are."""
    pairs = [(set(entities(a)), set(entities(b))) for a, b in zip(found, wanted)]
    columns = ([len(a) for a, _ in pairs], [len(b) for _, b in pairs], [len(a & b) for a, b in pairs])
    return F1Counts(*(np.array(column, np.int64) for column in columns))


def count_labels(logits: np.ndarray, targets: np.ndarray) -> F1Counts:
    """Labels whose logit is above 0 beside those that are there, 1 in `targets`; both (rows, labels)."""
    found, wanted = logits > 0, targets > 0.5
    return F1Counts(found.sum(-1), wanted.sum(-1), (found & wanted).sum(-1))


def entities(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """The spans (first word, word after the last, name) of IOB2 tags; an I- that nothing begins begins one, as in
    conlleval (Tjong Kim Sang and Buchholz, 2000)."""
    spans: list[tuple[int, int, str]] = []
    for place, tag in enumerate(tags):
        kind, _, name = tag.partition("-") if tag.startswith(("B-", "I-")) else ("B" if tag != "O" else "O", "", tag)
        if kind == "O":
            continue
        if kind == "I" and spans and spans[-1][1] == place and spans[-1][2] == name:
            spans[-1] = (spans[-1][0], place + 1, name)
        else:
            spans.append((place, place + 1, name))
    return spans


def f1_difference(a: F1Counts, b: F1Counts) -> PairedDifference:
    """F1 of a minus F1 of b on the same rows."""
    return _drawn_anew(a.f1, b.f1, len(a.found))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of (rows,); 0 where either is constant or not finite, since nothing follows from it."""
    x, y = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (a, b))
    lengths = np.linalg.norm(x) * np.linalg.norm(y)
    found = float(x @ y / lengths) if lengths > 0 else 0.0
    return found if np.isfinite(found) else 0.0


def concordance(a: np.ndarray, b: np.ndarray) -> float:
    """How nearly a is b, 1 where it is (Lin, 1989); unlike a correlation it falls for values shifted or scaled."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    apart = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return 1.0 if apart == 0 else float(2 * ((x - x.mean()) * (y - y.mean())).mean() / apart)


def correlation_difference(a: np.ndarray, b: np.ndarray, targets: np.ndarray) -> PairedDifference:
    """The correlation of a with the targets minus that of b, on the same rows."""

    def of(values: np.ndarray) -> Callable[[np.ndarray | None], float]:
        return lambda rows: correlation(*(side if rows is None else side[rows] for side in (values, targets)))

    return _drawn_anew(of(a), of(b), len(targets))


def _drawn_anew(
    a: Callable[[np.ndarray | None], float], b: Callable[[np.ndarray | None], float], count: int, draws: int = 1000
) -> PairedDifference:
    """A figure of a minus that of b, with a 95 % interval by drawing their rows anew (Efron, 1979)."""
    random = np.random.default_rng(0)
    rows = [random.integers(0, count, count) for _ in range(draws)]
    drawn = np.array([a(chosen) - b(chosen) for chosen in rows])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return PairedDifference(a(None) - b(None), float(low), float(high))


def paired_difference(a: np.ndarray, b: np.ndarray) -> PairedDifference:
    """The mean of a - b over rows measured both ways, such as correct (1) or not (0)."""
    difference = a.astype(np.float64) - b
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else float("nan")
    mean = float(difference.mean())
    return PairedDifference(mean, mean - float(half), mean + float(half))
