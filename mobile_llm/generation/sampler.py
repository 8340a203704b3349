"""From logits to a token: penalty, temperature, top-k, top-p, min-p, and one random number, always in this order.

Ties go to the smaller id. The same logits, seed and settings give the same token in every language: candidates are
sorted by logit, then by id, and weights are summed in that order in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mobile_llm.errors import InvalidSpec
from mobile_llm.generation.random import Pcg32

Choose = Callable[[np.ndarray, Sequence[int]], int]


@dataclass(frozen=True)
class Sampler:
    """How the next token is chosen. `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 leave all candidates in;
    `min_p` drops those less likely than so large a share of the likeliest. `repetition_penalty` divides positive
    logits of tokens that were there before, and multiplies negative ones (Keskar et al., arXiv:1909.05858)."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, 2**31)
        _within("top_p", self.top_p, 1e-9, 1.0)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("repetition_penalty", self.repetition_penalty, 1e-3, 1e3)

    def start(self, seed: int = 0) -> Choose:
        """A function of logits (vocabulary,) and the tokens so far that gives the next one; it keeps the state of one
        text's random numbers."""
        random = Pcg32(seed)
        return lambda logits, before: self._choose(logits, before, random)

    def _choose(self, logits: np.ndarray, before: Sequence[int], random: Pcg32) -> int:
        scores = self._penalized(logits, before)
        if self.temperature == 0:
            return int(scores.argmax())  # the first of equal ones
        ids, weights = self._candidates(scores.astype(np.float64) / self.temperature)
        reached = np.cumsum(weights)
        drawn = random.next_float() * reached[-1]
        return int(ids[min(int(np.searchsorted(reached, drawn, side="right")), len(ids) - 1)])

    def _penalized(self, logits: np.ndarray, before: Sequence[int]) -> np.ndarray:
        if self.repetition_penalty == 1 or not len(before):
            return logits
        scores, seen = logits.copy(), np.unique(np.asarray(before, np.int64))
        penalty = np.float32(self.repetition_penalty)
        scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
        return scores

    def _candidates(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids from the likeliest down, with weights relative to the likeliest's."""
        ids = np.lexsort((np.arange(len(scores)), -scores))
        if self.top_k:
            ids = ids[: self.top_k]
        weights = np.exp(scores[ids] - scores[ids[0]])
        if self.top_p < 1:
            reached = np.cumsum(weights)  # in this order: sum() would add in pairs
            kept = reached - weights < self.top_p * reached[-1]
            ids, weights = ids[kept], weights[kept]
        kept = weights >= self.min_p
        return ids[kept], weights[kept]


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidSpec(f"{name} is {value}; it lies between {low:g} and {high:g}")
