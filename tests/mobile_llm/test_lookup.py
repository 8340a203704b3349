"""Prompt lookup over a model whose logits depend on its last tokens: the same tokens, in fewer calls."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mobile_llm.bundle.manifest import Artifact, EntryPoint, TensorBinding
from mobile_llm.errors import InvalidSpec
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.lookup import Places, reader_for
from mobile_llm.generation.loop import Request, write
from mobile_llm.generation.sampler import Sampler

VOCABULARY = 12
PROMPT = (3, 1, 4, 1, 5, 9, 2, 6)
REPEATING = [7, 8, 2, 11, 5, 6, 3, 0]


class Words:
    """A `Decoder` that repeats itself, but for near ties, won by another word. With rows in the cache that were read at
    once, the usual word's logit is `off` by a little."""

    def __init__(self, ties_every: int = 97, off: float = 0.0) -> None:
        self.context = 256
        self.calls: list[int] = []
        self.ties_every = ties_every
        self.off = off
        self._read: list[tuple[int, bool]] = []

    @property
    def position(self) -> int:
        return len(self._read)

    def append(self, ids: Sequence[int]) -> np.ndarray:
        self.calls.append(len(ids))
        self._read += [(token, False) for token in ids]
        return self._logits()

    def score(self, ids: Sequence[int]) -> np.ndarray:
        self.calls.append(len(ids))
        rows = []
        for token in ids:
            self._read.append((token, True))
            rows.append(self._logits())
        return np.stack(rows)

    def rewind(self, position: int) -> None:
        del self._read[position:]

    def _logits(self) -> np.ndarray:
        logits = np.zeros(VOCABULARY, np.float32)
        place = len(self._read)
        usual = REPEATING[place % len(REPEATING)]
        logits[usual] = 1.0
        if place % self.ties_every == 0:
            logits[(usual + 1 + sum(token for token, _ in self._read) % 3) % VOCABULARY] = 1.0001
        logits[usual] += self.off * any(at_once for _, at_once in self._read)
        return logits


class OnlyEven:
    """A constraint that counts."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def apply(self, logits: np.ndarray) -> None:
        logits[1::2] = -np.inf
        logits[(2 * len(self.seen)) % VOCABULARY] += 2

    def accept(self, token: int) -> None:
        self.seen.append(token)

    def finished(self) -> bool:
        return len(self.seen) > 90


def engine(
    decoder: Words, precision: str = "fp32", entries: tuple[str, ...] = ("decode", "score"), at_once: int | str = "rows"
) -> DecoderEngine:
    points = {role: (EntryPoint({"input_ids": TensorBinding("ids", "int32", (1, at_once))}, {}),) for role in entries}
    bundle: Any = SimpleNamespace()
    return DecoderEngine(bundle, f"onnx/{precision}", Artifact("onnx", precision, "", (), points), decoder)


def written(
    decoder: Words, lookup: bool | None, precision: str = "fp32", at_once: int | str = "rows", **asked: Any
) -> tuple[list[int], Any]:
    request = Request(PROMPT, asked.pop("sampler", Sampler()), 7, asked.pop("most", 120), (99,), lookup=lookup, **asked)
    opened = engine(decoder, precision, at_once=at_once)
    reader = reader_for(opened, request)
    tokens = list(write(opened, request, lambda: None, reader))
    opened.rewind(len(PROMPT) + len(tokens))
    assert opened.tokens[: len(PROMPT) + len(tokens) - 1] == (*PROMPT, *tokens)[:-1]
    return tokens, reader


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize(
    "sampler", [Sampler(), Sampler(temperature=0.3), Sampler(1.0, 4, 0.9), Sampler(repetition_penalty=1.3)]
)
def test_the_same_logits_give_the_same_tokens(sampler: Sampler, precision: str) -> None:
    expected, _ = written(Words(), False, sampler=sampler)
    assert written(Words(), True, precision, sampler=sampler)[0] == expected


def test_a_text_that_repeats_itself_takes_few_calls() -> None:
    decoder = Words(ties_every=1000)
    tokens, reader = written(decoder, None)
    assert len(tokens) == 120
    assert len(decoder.calls) < 60
    assert 0 < reader.accepted <= reader.proposed
    assert max(decoder.calls) == 12


def test_no_more_is_guessed_than_one_call_of_the_artifact_takes() -> None:
    decoder = Words(ties_every=1000)
    assert written(decoder, None, at_once=8)[0] == written(Words(ties_every=1000), False)[0]
    assert max(decoder.calls) == 8


def test_a_constraint_takes_the_same_steps() -> None:
    plain, looked = OnlyEven(), OnlyEven()
    expected, _ = written(Words(), False, constraint=plain)
    found, reader = written(Words(), True, constraint=looked)
    assert found == expected
    assert looked.seen == plain.seen
    assert reader.accepted > 20


@pytest.mark.parametrize("ties_every", [97, 29])
def test_near_ties_are_read_again_one_by_one(ties_every: int) -> None:
    """Read at once, they would go the other way."""
    expected, _ = written(Words(ties_every), False)
    assert written(Words(ties_every, 0.0003), None)[0] == expected
    assert written(Words(ties_every, 0.0003), True, "int4")[0] != expected


@pytest.mark.parametrize("most", [1, 2, 9, 40, 247, 248, 249, 400])
def test_nothing_is_read_beyond_the_answer_or_the_context(most: int) -> None:
    decoder = Words()
    expected, _ = written(Words(), False, most=most)
    assert written(decoder, None, most=most)[0] == expected
    assert decoder.position <= min(decoder.context, len(PROMPT) + most)


@pytest.mark.parametrize(
    ("precision", "asked"),
    [("int4", {}), ("int8", {}), ("fp32", {"sampler": Sampler(1.0)}), ("fp32", {"constraint": OnlyEven()})],
)
def test_it_is_off_where_the_answer_might_change(precision: str, asked: dict[str, Any]) -> None:
    decoder = Words()
    _, reader = written(decoder, None, precision, **asked)
    assert reader.proposed == 0
    assert set(decoder.calls[1:]) == {1}


def test_an_artifact_that_scores_nothing_is_refused() -> None:
    request = Request(PROMPT, Sampler(), 0, 4, (), lookup=True)
    with pytest.raises(InvalidSpec, match="onnx/fp32 has no entry point that scores"):
        reader_for(engine(Words(), entries=("decode",)), request)


@pytest.mark.parametrize(
    ("tokens", "following"),
    [
        ([1, 2, 3], []),
        ([1, 2, 3, 4, 5, 1, 2, 3], [4, 5, 1, 2]),
        ([9, 2, 3, 4, 1, 2, 3, 5, 9, 2, 3], [4, 1, 2, 3]),  # three words before two, although that is longer ago
        ([8, 2, 3, 4, 7, 2, 3], [4, 7, 2, 3]),
        ([5, 6, 5, 6, 5, 6], [5, 6, 5, 6]),
        ([1, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_what_followed_last_is_guessed(tokens: list[int], following: list[int]) -> None:
    assert Places(tokens).following(4) == following
