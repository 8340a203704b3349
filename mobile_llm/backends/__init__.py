"""Runtimes behind one protocol. A backend module offers `NAME` and `open_session`; it is found through the
entry-point group `mobile_llm.backends`, so that a runtime that is not installed is only missed when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mobile_llm.bundle.manifest import Artifact, EntryPoint


class Session(Protocol):
    """An opened artifact. Not for two threads at once: the engine above keeps watch."""

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one physical entry point on logical tensors: names of the manifest in, names of it out."""

    def close(self) -> None:
        """Free native memory; the session is not used again."""


class Decoder(Protocol):
    """An opened artifact that predicts tokens, with the KV cache of one sequence. Not for two threads at once."""

    @property
    def context(self) -> int:
        """The most tokens its cache holds."""

    @property
    def position(self) -> int:
        """How many tokens the cache holds now."""

    def append(self, ids: Sequence[int]) -> np.ndarray:
        """Read tokens into the cache, in one go (prefill) or one alone (decode): float32 logits (vocabulary,) of what
        comes after the last. There is room for them, and there is at least one: the caller sees to it."""

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """The same in one go whatever their number, with logits after each: (len(ids), vocabulary). Only of an artifact
        that has an entry point `verify` or `score`."""

    def rewind(self, position: int) -> None:
        """Forget all tokens from `position` on; 0 forgets all."""

    def save_cache(self, position: int) -> dict[str, np.ndarray]:
        """Copies of the cache's tensors by role, with the first `position` tokens. Raises BackendUnavailable where it
        cannot be reached."""

    def load_cache(self, rows: Mapping[str, np.ndarray], position: int) -> None:
        """Take over what `save_cache` gave. Raises BackendUnavailable, and IntegrityFailed, before anything is changed,
        for tensors of other names or shapes."""

    def close(self) -> None:
        """Free native memory; the decoder is not used again."""


class Backend(Protocol):
    """A module with these functions is a backend; the second is of those that run decoders."""

    def open_session(self, bundle: Path, artifact: Artifact, threads: int | None) -> Session:
        """Open `artifact` of the folder `bundle`. Raises BackendUnavailable, IntegrityFailed."""

    def open_decoder(self, bundle: Path, artifact: Artifact, threads: int | None) -> Decoder:
        """The same for an artifact with a KV cache."""
