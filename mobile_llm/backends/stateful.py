"""Decoding with an artifact that keeps its cache itself (`KvCache.kind` is `state`), whichever runtime holds it.

Two layouts, told apart by the logical inputs of their entry points. A flexible length: `input_ids` (1, S), and
`causal_mask` (1, 1, 1, T + 1), zeros, of which the artifact reads the length: T is how many tokens the cache holds once
the S new ones are in it. Fixed lengths: `input_ids` (1, S), `position` (1,), how many tokens the cache holds before,
and where S is above 1 `last_row` (1,), the row of the last token that is no padding.

Either way rows from the last token on are never seen, so forgetting tokens costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import BackendUnavailable, InvalidSpec

_KEPT = (
    "this artifact keeps its cache to itself, so that no prefix can be saved or restored; take an ONNX or TFLite one"
)
Run = Callable[[EntryPoint, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def stateful_decoder(artifact: Artifact, run: Run, close: Callable[[], None]) -> StatefulDecoder:
    """A decoder for the artifact's layout. `run` takes logical tensors to logical tensors and keeps the state. Raises
    InvalidSpec for an artifact that keeps none."""
    if artifact.cache is None or artifact.cache.kind != "state":
        raise InvalidSpec(f"{artifact.path} keeps no state; open it as a session, or export it as a decoder")
    flexible = "causal_mask" in artifact.entry_points["decode"][0].inputs
    return (FlexibleDecoder if flexible else FixedDecoder)(artifact.entry_points, artifact.cache.context, run, close)


class StatefulDecoder(ABC):
    """A `Decoder` of `mobile_llm.backends`, but for how tokens are fed."""

    def __init__(
        self,
        entries: Mapping[str, tuple[EntryPoint, ...]],
        context: int,
        run: Run,
        close: Callable[[], None],
    ) -> None:
        self._entries = entries
        self._context = context
        self._run = run
        self._close = close
        self._position = 0

    @property
    def context(self) -> int:
        return self._context

    @property
    def position(self) -> int:
        return self._position

    @abstractmethod
    def append(self, ids: Sequence[int]) -> np.ndarray:
        """Float32 logits (vocabulary,) after the last of `ids`. Where it raises, the position is that of the last call
        that did not."""

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """Float32 logits (len(ids), vocabulary) after each, one by one."""
        return np.stack([self.append([token]) for token in ids])

    def rewind(self, position: int) -> None:
        if not 0 <= position <= self._position:
            raise ValueError(f"the cache holds {self._position} tokens; it cannot go to {position}")
        self._position = position

    def save_cache(self, position: int) -> dict[str, np.ndarray]:
        raise BackendUnavailable(_KEPT)

    def load_cache(self, rows: Mapping[str, np.ndarray], position: int) -> None:
        raise BackendUnavailable(_KEPT)

    def close(self) -> None:
        self._close()


class FlexibleDecoder(StatefulDecoder):
    """Reads any number of tokens in one call."""

    def append(self, ids: Sequence[int]) -> np.ndarray:
        return self._read(ids, "decode" if len(ids) == 1 else "prefill").reshape(-1)

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """Float32 logits (len(ids), vocabulary) after each. Where it raises, the position stays."""
        return self._read(ids, "score")[0]

    def _read(self, ids: Sequence[int], role: str) -> np.ndarray:
        total = self._position + len(ids)
        feeds: dict[str, np.ndarray] = {
            "input_ids": np.array([ids], np.int32),
            "causal_mask": np.zeros((1, 1, 1, total + 1), np.float16),
        }
        (entry,) = self._entries[role]
        logits = self._run(entry, feeds)["logits"]
        self._position = total
        return np.asarray(logits, np.float32)


class FixedDecoder(StatefulDecoder):
    """Reads tokens in chunks of the prefill's length, the last of them padded; one by one where a single one is left,
    or where the padding would not fit into the cache."""

    def append(self, ids: Sequence[int]) -> np.ndarray:
        left = list(ids)
        while left:
            entry = self._entry(len(left))
            rows = int(entry.inputs["input_ids"].shape[1])
            logits = self._read(entry, left[:rows], rows)
            left = left[rows:]
        return np.asarray(logits, np.float32).reshape(-1)

    def _entry(self, count: int) -> EntryPoint:
        (prefill,), (decode,) = self._entries["prefill"], self._entries["decode"]
        fits = self._position + int(prefill.inputs["input_ids"].shape[1]) <= self._context
        return prefill if count > 1 and fits else decode

    def _read(self, entry: EntryPoint, ids: Sequence[int], rows: int) -> np.ndarray:
        feeds = {
            "input_ids": np.array([[*ids, *[0] * (rows - len(ids))]], np.int32),
            "position": np.array([self._position], np.int32),
            "last_row": np.array([len(ids) - 1], np.int32),
        }
        logits = self._run(entry, {role: feeds[role] for role in entry.inputs})["logits"]
        self._position += len(ids)
        return logits
