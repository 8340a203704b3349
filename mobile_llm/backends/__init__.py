"""Runtimes behind one protocol. A backend module offers `NAME` and `open_session`; it is found through the
entry-point group `mobile_llm.backends`, so that a runtime that is not installed is only missed when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class Backend(Protocol):
    """A module with this function is a backend."""

    def open_session(self, bundle: Path, artifact: Artifact, threads: int | None) -> Session:
        """Open `artifact` of the folder `bundle`. Raises BackendUnavailable, IntegrityFailed."""
