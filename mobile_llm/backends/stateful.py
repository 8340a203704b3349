"""Decoding with an artifact that keeps its cache itself (`KvCache.kind` is `state`), whichever runtime holds it.

Logical inputs: `input_ids` (1, S), and `causal_mask` (1, 1, 1, T + 1), zeros, of which the artifact reads the length:
T is how many tokens the cache holds once the S new ones are in it. Rows from T on are never read, so forgetting
tokens costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import BackendUnavailable, InvalidSpec

_KEPT = (
    "this artifact keeps its cache to itself, so that no prefix can be saved or restored; take an ONNX or TFLite one"
)
Run = Callable[[EntryPoint, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class StatefulDecoder:
    """A `Decoder` of `mobile_llm.backends`. `run` takes logical tensors to logical tensors and keeps the state."""

    def __init__(self, artifact: Artifact, run: Run, close: Callable[[], None]) -> None:
        if artifact.cache is None or artifact.cache.kind != "state":
            raise InvalidSpec(f"{artifact.path} keeps no state; open it as a session, or export it as a decoder")
        self._context = artifact.cache.context
        self._entries = artifact.entry_points
        self._run = run
        self._close = close
        self._position = 0

    @property
    def context(self) -> int:
        return self._context

    @property
    def position(self) -> int:
        return self._position

    def append(self, ids: Sequence[int]) -> np.ndarray:
        """Float32 logits (vocabulary,) after the last of `ids`. Where it raises, the position stays."""
        total = self._position + len(ids)
        feeds: dict[str, np.ndarray] = {
            "input_ids": np.array([ids], np.int32),
            "causal_mask": np.zeros((1, 1, 1, total + 1), np.float16),
        }
        (entry,) = self._entries["decode" if len(ids) == 1 else "prefill"]
        logits = self._run(entry, feeds)["logits"]
        self._position = total
        return np.asarray(logits, np.float32).reshape(-1)

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
