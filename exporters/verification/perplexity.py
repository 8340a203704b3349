"""Perplexity of every artifact on a user's text, beside the PyTorch model's, window by window.

A text is cut into windows of equal length that do not overlap; in each, every token but the first is predicted from
those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from exporters.data.plain import read_text
from exporters.decoders.reference import DecoderReference
from exporters.metrics import PairedDifference, log_softmax, paired_difference
from exporters.progress import Watch, silent
from exporters.sources.huggingface import open_source
from exporters.spec import GENERATION
from exporters.verification.evaluation import Evaluation, Score, run_all
from mobile_llm.bundle import Bundle
from mobile_llm.errors import InvalidInput
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.tasks.tokenization import TextTokenizer

WINDOW = 256  # tokens
Predict = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Predicted:
    """Of each window: the mean negative log-likelihood in nats (windows,), and the likeliest tokens (windows, n)."""

    losses: np.ndarray
    likeliest: np.ndarray

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.losses.mean()))

    @property
    def standard_error(self) -> float | None:
        """Of the perplexity, from how its windows differ (delta method); None for a single one."""
        if len(self.losses) < 2:
            return None
        return float(self.perplexity * self.losses.std(ddof=1) / np.sqrt(len(self.losses)))


def evaluate_perplexity(
    bundle: Bundle, data: str, model: str | None, artifact_ids: Sequence[str], watch: Watch = silent
) -> Evaluation:
    """Measure artifacts on the text file `data`. Raises InvalidInput for one that holds less than a window."""
    contexts = [a.cache.context for a in bundle.manifest.artifacts.values() if a.cache]
    length = min([WINDOW, *contexts])
    windows = windows_of(_tokenized(bundle, data), length)
    if not len(windows):
        raise InvalidInput(f"{data} has fewer than {length} tokens; give a longer text")
    reference = _model(model, windows, watch) if model else None

    def score(engine: DecoderEngine) -> Score:
        return _score(predict(windows, _reading(engine)), reference)

    scores, missing = run_all(bundle, artifact_ids, score, watch, DecoderEngine.open)
    own = reference.perplexity if reference else None
    return Evaluation("perplexity", windows[:, 1:].size, own, scores, missing)


def windows_of(ids: Sequence[int], length: int) -> np.ndarray:
    """int64 (windows, length); what is left over is not used."""
    count = len(ids) // length
    return np.array(ids[: count * length], np.int64).reshape(count, length)


def predict(windows: np.ndarray, run: Predict) -> Predicted:
    """`run` gives the logits (positions, vocabulary) after each token but the last of a window."""
    losses, likeliest = [], []
    for window in windows:
        logits = run(window[:-1].tolist())
        chances = log_softmax(logits)
        losses.append(-float(np.take_along_axis(chances, window[1:, None], axis=-1).mean()))
        likeliest.append(logits.argmax(-1))
    return Predicted(np.array(losses), np.stack(likeliest))


def _reading(engine: DecoderEngine) -> Predict:
    def run(ids: Sequence[int]) -> np.ndarray:
        engine.rewind(0)
        return engine.score(ids)

    return run


def _model(model: str, windows: np.ndarray, watch: Watch) -> Predicted:
    watch(f"loading {model}")
    source = open_source(model, GENERATION)
    watch("the PyTorch model")
    return predict(windows, DecoderReference(source.model, ()).logits)


def _score(found: Predicted, reference: Predicted | None) -> Score:
    if reference is None:
        return Score(found.perplexity, standard_error=found.standard_error)
    same = float((found.likeliest == reference.likeliest).mean())
    return Score(found.perplexity, same, _ratio(found, reference), standard_error=found.standard_error)


def _ratio(found: Predicted, reference: Predicted) -> PairedDifference:
    """Of perplexities, artifact over model, less 1, window by window."""
    of_logs = paired_difference(found.losses, reference.losses)
    return PairedDifference(*(float(np.expm1(value)) for value in (of_logs.mean, of_logs.low, of_logs.high)))


def _tokenized(bundle: Bundle, data: str) -> list[int]:
    return list(TextTokenizer(bundle).encode(read_text(data), special=False).ids)
