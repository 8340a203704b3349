"""Measures of difference, shared by quantization and verification. Arrays are float32 (rows, width)."""

from __future__ import annotations

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


def margin(logits: np.ndarray) -> np.ndarray:
    """How far the largest logit of each row is above the second, shape (rows,)."""
    top = np.sort(logits, axis=-1)
    return top[:, -1] - top[:, -2]


@dataclass(frozen=True)
class PairedDifference:
    """Mean of paired differences with its 95 % interval (normal approximation)."""

    mean: float
    low: float
    high: float


def paired_difference(a: np.ndarray, b: np.ndarray) -> PairedDifference:
    """The mean of a - b over rows measured both ways, such as correct (1) or not (0)."""
    difference = a.astype(np.float64) - b
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else float("nan")
    mean = float(difference.mean())
    return PairedDifference(mean, mean - float(half), mean + float(half))
