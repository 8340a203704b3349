"""The one loop that writes: logits, a constraint, the sampler, a token, and on.

Everything that makes a model write goes through here, so that an answer is the same whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from mobile_llm.errors import ContextFull, InvalidInput, InvalidSpec
from mobile_llm.generation.constraint import Constraint
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.sampler import Sampler

Finish = Literal["stop", "length", "context"]
Check = Callable[[], None]  # raises Cancelled where the work is not wanted any more
_PIECE = 256  # tokens of a prompt between two checks


@dataclass(frozen=True)
class Request:
    """What is to be written: after which ids, how tokens are chosen, and where the answer ends, which is at a stop
    token, a stop string, or after `max_tokens`. `lookup` is whether tokens are guessed from the text so far and read
    several at once (mobile_llm/generation/lookup.py); None where that is sure to leave the answer as it is."""

    ids: tuple[int, ...]
    sampler: Sampler
    seed: int
    max_tokens: int
    stop_tokens: tuple[int, ...]
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    lookup: bool | None = None

    def __post_init__(self) -> None:
        if not self.ids:
            raise InvalidInput("the prompt is empty; a model that writes needs at least one token to begin with")
        if self.max_tokens < 1:
            raise InvalidSpec(f"max_tokens is {self.max_tokens}; ask for at least one")
        if "" in self.stop:
            raise InvalidSpec("a stop string is empty, so that it would end every answer at once; leave it out")


class Reader(Protocol):
    """Reads what is written. `proposed` tokens were read before they were chosen, `accepted` of them were chosen."""

    proposed: int
    accepted: int

    def after(self, sequence: Sequence[int]) -> np.ndarray:
        """The logits (vocabulary,) after `sequence`, of which the last token is new. The engine may have read more."""


class OneByOne:
    """Reads what was chosen."""

    proposed = accepted = 0

    def __init__(self, engine: DecoderEngine) -> None:
        self._engine = engine

    def after(self, sequence: Sequence[int]) -> np.ndarray:
        return self._engine.append(sequence[-1:])


def write(engine: DecoderEngine, request: Request, check: Check, reader: Reader) -> Generator[int, None, Finish]:
    """The tokens of an answer, without the stop token; gives back why it ended. Raises ContextFull, and what `check`
    raises, which is called before anything is read."""
    choose = request.sampler.start(request.seed)
    constraint = request.constraint or _Free()
    sequence = list(request.ids)
    last = len(sequence) + request.max_tokens
    logits = read(engine, sequence, check)
    while True:
        constraint.apply(logits)
        token = choose(logits, sequence)
        if token in request.stop_tokens:
            return "stop"
        constraint.accept(token)
        sequence.append(token)
        yield token
        if constraint.finished():
            return "stop"
        if len(sequence) == last:
            return "length"
        if len(sequence) > engine.context:  # all but the last of it have been read
            return "context"
        check()
        logits = reader.after(sequence)


def read(engine: DecoderEngine, ids: Sequence[int], check: Check) -> np.ndarray:
    """Make `ids` the engine's whole sequence, piece by piece, and give the logits (vocabulary,) after it. What it
    begins with and was read before is not read again. Raises ContextFull before anything is forgotten."""
    if len(ids) > engine.context:
        raise ContextFull(
            f"the prompt has {len(ids)} tokens and the context {engine.context}; shorten the prompt, or export with a "
            "longer --context"
        )
    check()
    start = engine.shared(ids)
    engine.rewind(start)
    for end in range(start + _PIECE, len(ids), _PIECE):
        engine.append(ids[end - _PIECE : end])
        start = end
        check()
    return engine.append(ids[start:])


class _Free:
    """No constraint."""

    def apply(self, logits: np.ndarray) -> None:
        pass

    def accept(self, token: int) -> None:
        pass

    def finished(self) -> bool:
        return False
