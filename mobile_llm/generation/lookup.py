"""Prompt lookup: tokens that followed the same words earlier in the text are guessed to follow them again, and read
several at once; the model's own choice decides (Saxena, "Prompt Lookup Decoding", 2023; after Leviathan et al.,
arXiv:2211.17192, with a guess of probability one).

Nothing is chosen here. The loop asks for the logits after each token it has written, as it does without: where the
token is the one that was guessed, they are there already; where it is not, what was read after it is forgotten. So
constraints, samplers and random numbers take the same steps in the same order, and the same logits give the same
tokens.

That holds where an artifact has an entry `verify`, which reads several tokens as it reads one. An entry `score` takes
sums in another order. Of float artifacts that is a matter of the last bits, below a bound (`_NOISE`); where the best
two tokens are nearer than that, the text is read again one by one, so that a greedy answer is the one without lookup.
Artifacts that round activations to integers carry such a bit on to the next rounding: measured on SmolLM2, one choice
in ten changes. There lookup is off unless it is asked for.

Not covered: guesses by a second model, several guesses for one place, and by default answers that are sampled or
constrained. A later turn of a conversation finds the cache as an earlier one left it, lookup's last bits included.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import InvalidSpec
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.loop import OneByOne, Reader, Request
from mobile_llm.generation.sampler import Sampler

_MOST = 11  # tokens guessed at once: with the one before them 12, what a TFLite file verifies in one go
_WORDS = (3, 2)  # so many tokens have to be the same, the longer first
_TRUST = 0.6  # so large a share of the latest guesses has to be right before the model reads any
_LATEST = 0.4  # what one of them counts
# How far the difference of two logits may move where several tokens are read at once: ten times what was measured on
# SmolLM2 in float32 (1.1e-4 over 384 places). Formats and precisions that compute in float32.
_NOISE = 1e-3
_FLOAT = {(form, precision) for form in ("onnx", "tflite") for precision in ("fp32", "fp16")}


def reader_for(engine: DecoderEngine, request: Request) -> Reader:
    """As the request asks for; where it does not say, with lookup if a greedy answer is sure to stay as it is. Raises
    InvalidSpec where lookup is asked of an artifact that reads no tokens at once."""
    if request.lookup and not engine.artifact.scoring:
        raise InvalidSpec(
            f"{engine.artifact_id} has no entry point that scores several tokens at once, so lookup would gain "
            "nothing; leave lookup out, or export the model again"
        )
    noise = noise_of(engine.artifact)
    greedy = request.sampler == Sampler() and request.constraint is None
    wanted = greedy and noise is not None if request.lookup is None else request.lookup
    if not wanted:
        return OneByOne(engine)
    end = len(request.ids) + request.max_tokens
    return Lookup(engine, request.ids, end, noise or 0.0 if greedy else 0.0)


def noise_of(artifact: Artifact) -> float | None:
    """How far logits of tokens that are read at once may be apart from those one by one, 0 where they are the same;
    None where no bound is known, or none are read at once."""
    if "verify" in artifact.entry_points:
        return 0.0
    bounded = (artifact.format, artifact.precision) in _FLOAT and artifact.scoring
    return _NOISE if bounded else None


def rows_at_once(artifact: Artifact) -> int:
    """How many tokens one call scores at most; more take several calls, which guesses are not worth."""
    lengths = [entry.inputs["input_ids"].shape[1] for entry in artifact.scoring]
    return max((length for length in lengths if isinstance(length, int)), default=_MOST + 1)


class Lookup:
    """Guesses from the text so far, up to `end` tokens of it. Logits of tokens that were read at once are given where
    the best is ahead by more than `noise`, and computed one by one otherwise."""

    def __init__(self, engine: DecoderEngine, prompt: Sequence[int], end: int, noise: float) -> None:
        self.proposed = self.accepted = 0
        self._engine = engine
        self._end = min(end - 1, engine.context)
        self._noise = noise
        self._most = min(_MOST, rows_at_once(engine.artifact) - 1)
        self._one_by_one = len(prompt)  # so much of the text was read as without lookup
        self._guesses: deque[tuple[int, np.ndarray]] = deque()  # tokens that were read, and the logits after each
        self._places = Places(prompt)
        self._trust = 0.0

    def after(self, sequence: Sequence[int]) -> np.ndarray:
        self._learn(sequence[-1])
        logits = self._known(sequence[-1])
        if logits is None:
            self._engine.rewind(len(sequence) - 1)
            logits = self._read(sequence)
        return logits if self._sure(logits, sequence) else self._read_again(sequence)

    def _learn(self, token: int) -> None:
        """Whether guesses are right is followed at every token, also where the model reads none: it costs nothing."""
        for guess in self._places.following(1):
            self._trust += _LATEST * ((guess == token) - self._trust)
        self._places.add(token)

    def _known(self, token: int) -> np.ndarray | None:
        """The logits after `token`, where it was guessed."""
        if self._guesses:
            guess, logits = self._guesses.popleft()
            if guess == token:
                self.accepted += 1
                return logits
            self._guesses.clear()
        return None

    def _read(self, sequence: Sequence[int]) -> np.ndarray:
        token, room = sequence[-1], self._end - len(sequence)
        guesses = self._places.following(min(self._most, room)) if self._trust >= _TRUST and room > 0 else []
        if not guesses:
            self._one_by_one += self._one_by_one == len(sequence) - 1
            return self._engine.append([token])
        logits = self._engine.score([token, *guesses])
        self.proposed += len(guesses)
        self._guesses.extend(zip(guesses, logits[1:]))
        return logits[0]

    def _sure(self, logits: np.ndarray, sequence: Sequence[int]) -> bool:
        if not self._noise or self._one_by_one == len(sequence):
            return True
        second, best = np.partition(logits, -2)[-2:]
        return bool(best - second > self._noise)

    def _read_again(self, sequence: Sequence[int]) -> np.ndarray:
        """What was read at once, as without lookup, whose gain is lost with that: it has to earn trust anew."""
        self._guesses.clear()
        self._trust = 0.0
        self._engine.rewind(self._one_by_one)
        for token in sequence[self._one_by_one :]:
            logits = self._engine.append([token])
        self._one_by_one = len(sequence)
        return logits


class Places:
    """A text's tokens, and where the same few tokens stood last."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # what comes after these tokens is here
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        for words in _WORDS:
            if len(self._tokens) >= words:
                self._after[tuple(self._tokens[-words:])] = len(self._tokens)
        self._tokens.append(token)

    def following(self, count: int) -> list[int]:
        """`count` tokens that may follow, as they did the last time; none where the latest tokens are new. What repeats
        itself up to now is taken to go on so."""
        for words in _WORDS:
            place = self._after.get(tuple(self._tokens[-words:]))
            if place is not None:
                period = len(self._tokens) - place
                return [self._tokens[place + i % period] for i in range(count)]
        return []
