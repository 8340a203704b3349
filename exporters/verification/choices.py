"""Multiple choice: which of several answers a model that writes finds the likeliest, and whether it is the right one.

A choice follows its prompt after a space, and is judged by the sum of its tokens' log-probabilities, as `acc` of
EleutherAI's lm-evaluation-harness is; `normalized` is by that sum for each of its characters (`acc_norm`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from exporters.data.choices import Question, load_questions
from exporters.decoders.reference import DecoderReference
from exporters.metrics import log_softmax, paired_difference
from exporters.progress import Watch, silent
from exporters.sources.huggingface import open_source
from exporters.spec import GENERATION
from exporters.verification.evaluation import Evaluation, Score, run_all
from mobile_llm.bundle import Bundle
from mobile_llm.errors import InvalidInput
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.tasks.tokenization import TextTokenizer

# Logits (len(ids) - start, vocabulary) after each of `ids` from place `start` on
Predict = Callable[[Sequence[int], int], np.ndarray]


@dataclass(frozen=True)
class Choice:
    """The ids of a prompt with a choice after it, which begins at place `start` and has so many `characters`."""

    ids: tuple[int, ...]
    start: int
    characters: int


@dataclass(frozen=True, eq=False)
class Chosen:
    """The place of the likeliest choice of each question, and of the likeliest by its length."""

    likeliest: np.ndarray
    normalized: np.ndarray


def evaluate_choices(
    bundle: Bundle, data: str, model: str | None, artifact_ids: Sequence[str], watch: Watch = silent
) -> Evaluation:
    """Accuracy of artifacts on the questions of `data`. Raises InvalidInput for one that cannot be asked."""
    questions = load_questions(data)
    asked = _tokenized(bundle, questions)
    _refuse_too_long(bundle, asked, data)
    right = np.array([question.right for question in questions])
    reference = _model(model, asked, watch) if model else None

    def score(engine: DecoderEngine) -> Score:
        return _score(choose(asked, _reading(engine)), reference, right)

    scores, missing = run_all(bundle, artifact_ids, score, watch, DecoderEngine.open)
    own = float((reference.likeliest == right).mean()) if reference else None
    return Evaluation("multiple_choice", len(questions), own, scores, missing)


def choose(asked: Sequence[Sequence[Choice]], run: Predict) -> Chosen:
    likeliest, normalized = [], []
    for choices in asked:
        sums = np.array([_log_likelihood(choice, run) for choice in choices])
        likeliest.append(sums.argmax())
        normalized.append((sums / [choice.characters for choice in choices]).argmax())
    return Chosen(np.array(likeliest), np.array(normalized))


def _log_likelihood(choice: Choice, run: Predict) -> float:
    chances = log_softmax(run(choice.ids[:-1], choice.start - 1))
    return float(np.take_along_axis(chances, np.array(choice.ids[choice.start :])[:, None], axis=-1).sum())


def _tokenized(bundle: Bundle, questions: Sequence[Question]) -> list[list[Choice]]:
    tokenizer = TextTokenizer(bundle)

    def choice(prompt: str, text: str) -> Choice:
        ids, alone = tokenizer.encode(f"{prompt} {text}").ids, tokenizer.encode(prompt).ids
        same = next((i for i, (a, b) in enumerate(zip(ids, alone)) if a != b), min(len(ids), len(alone)))
        return Choice(tuple(ids), max(1, min(same, len(ids) - 1)), len(text))

    return [[choice(question.prompt.rstrip(), text.strip()) for text in question.choices] for question in questions]


def _refuse_too_long(bundle: Bundle, asked: Sequence[Sequence[Choice]], data: str) -> None:
    room = min(a.cache.context for a in bundle.manifest.artifacts.values() if a.cache)
    for number, choices in enumerate(asked, 1):
        longest = max(len(choice.ids) for choice in choices)
        if longest > room:
            raise InvalidInput(
                f"{data} row {number} has {longest} tokens and the context {room}; shorten it, or export with a longer "
                "--context"
            )


def _reading(engine: DecoderEngine) -> Predict:
    """What choices of a question begin with alike is read once."""

    def run(ids: Sequence[int], start: int) -> np.ndarray:
        known = min(engine.shared(ids), start)
        engine.rewind(known)
        if known < start:
            engine.append(list(ids[known:start]))
        return engine.score(list(ids[start:]))

    return run


def _model(model: str, asked: Sequence[Sequence[Choice]], watch: Watch) -> Chosen:
    watch(f"loading {model}")
    reference = DecoderReference(open_source(model, GENERATION).model, ())
    watch("the PyTorch model")
    return choose(asked, lambda ids, start: reference.logits(ids)[start:])


def _score(found: Chosen, reference: Chosen | None, right: np.ndarray) -> Score:
    value, normalized = (float((chosen == right).mean()) for chosen in (found.likeliest, found.normalized))
    if reference is None:
        return Score(value, normalized=normalized)
    same = float((found.likeliest == reference.likeliest).mean())
    difference = paired_difference(found.likeliest == right, reference.likeliest == right)
    return Score(value, same, difference, normalized=normalized)
