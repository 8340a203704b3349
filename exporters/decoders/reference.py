"""What the PyTorch model expects next, and what it writes when nothing but the likeliest token is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from exporters.metrics import log_softmax
from mobile_llm.bundle.golden_decoder import Expected, Written

KEPT = 64  # of a position's likeliest tokens
_AT_ONCE = 32  # positions


class DecoderReference:
    """Asks a torch model, in eval mode, whose ids `stop` end what it writes."""

    def __init__(self, model: Any, stop: Sequence[int]) -> None:
        self._model = model
        self._stop = set(stop)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 (positions, vocabulary), all in one go."""
        import torch

        with torch.inference_mode():
            logits: np.ndarray = self._model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].numpy()
        return logits

    def expected(self, ids: Sequence[int]) -> Expected:
        return likeliest(self.logits(ids))

    def level(self, sequences: Sequence[Sequence[int]]) -> float:
        """The median of the likeliest tokens' logits after each token of `sequences`, a whole number."""
        return float(np.round(np.median(np.concatenate([self.logits(ids).max(-1) for ids in sequences]))))

    def write(self, prompt: Sequence[int], count: int) -> Written:
        """`count` tokens, fewer where a stop token comes first."""
        import torch

        tokens: list[int] = []
        margins: list[float] = []
        given, cache = torch.tensor([list(prompt)]), None
        with torch.inference_mode():
            while len(tokens) < count:
                result = self._model(input_ids=given, past_key_values=cache, use_cache=True)
                best = result.logits[0, -1].topk(2)
                if int(best.indices[0]) in self._stop:
                    break
                tokens.append(int(best.indices[0]))
                margins.append(round(float(best.values[0] - best.values[1]), 6))
                given, cache = best.indices[:1][None], result.past_key_values
        return Written(tuple(prompt), tuple(tokens), tuple(margins))


def likeliest(logits: np.ndarray) -> Expected:
    """Of logits (positions, vocabulary) what is kept as a reference. A large vocabulary is not sorted at all positions
    at once."""
    parts = [_likeliest(logits[start : start + _AT_ONCE]) for start in range(0, len(logits), _AT_ONCE)]
    return Expected(*(np.concatenate(part) for part in zip(*parts)))


def _likeliest(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    log_probabilities = log_softmax(logits)
    count = min(KEPT, logits.shape[-1])
    tokens = np.stack([_least(row, count) for row in -log_probabilities])
    values = np.take_along_axis(log_probabilities, tokens, axis=-1)
    return tokens.astype(np.int32), values.astype(np.float32)


def _least(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` least numbers, in order, equal ones as they stand: the beginning of a stable sort. The
    whole of it takes fifty times as long for a vocabulary."""
    last = np.partition(values, count - 1)[count - 1]
    candidates = np.flatnonzero(~(values > last))  # more where several are equal to the last, or none is a number
    least: np.ndarray = candidates[np.argsort(values[candidates], kind="stable")[:count]]
    return least
