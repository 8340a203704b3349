"""Our own evaluator of MIL programs: off a Mac nobody else can say whether a Core ML artifact is right.

The package is read from its bytes, compressed weights included, and each operator is evaluated in torch in float32;
what the program declares as float16 is rounded to float16 after every operator. That models float16 storage, not the
accumulators, the speed or the placement of the Neural Engine. An operator or parameter that is not known is refused
when the artifact is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporters.verification.mil.program import Program
from mobile_llm.artifacts import coreml
from mobile_llm.backends.stateful import StatefulDecoder
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import BackendUnavailable

_MAIN = "main"
_ROLES = ("prefill", "decode")


class MilSession:
    """A session of `mobile_llm.backends`: one program per function, constants widened once."""

    def __init__(self, path: Path, float32: bool = False) -> None:
        functions = coreml.read(path).functions
        self._programs = {name: Program(function, float32) for name, function in functions.items()}

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeds = {b.name: np.array(inputs[role], b.dtype) for role, b in entry.inputs.items()}
        results = self._programs[entry.signature or _MAIN].run(feeds)
        return {role: results[binding.name] for role, binding in entry.outputs.items()}

    def close(self) -> None:
        self._programs.clear()


class MilDecoder(StatefulDecoder):
    """A decoder of `mobile_llm.backends`: the function its entry points name, and its states."""

    def __init__(self, path: Path, artifact: Artifact, float32: bool = False) -> None:
        functions = coreml.read(path).functions
        names = {e.signature or _MAIN for role in _ROLES for e in artifact.entry_points[role]}
        programs = {name: Program(functions[name], float32) for name in names}
        states = next(iter(programs.values())).new_states()

        def run(entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            feeds = {b.name: np.array(inputs[role], b.dtype) for role, b in entry.inputs.items()}
            results = programs[entry.signature or _MAIN].run(feeds, states)
            return {role: results[binding.name] for role, binding in entry.outputs.items()}

        super().__init__(artifact, run, programs.clear)


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> MilSession:
    """`threads` do not apply: torch's own setting holds. Raises UnsupportedModel naming an unknown operator."""
    _require_torch()
    return MilSession(inside(bundle, artifact.path))


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> MilDecoder:
    """The same for an artifact that keeps a KV cache in states."""
    _require_torch()
    return MilDecoder(inside(bundle, artifact.path), artifact)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401 - asked for here, so that the answer is a sentence
    except ImportError:
        raise BackendUnavailable('the evaluator of Core ML needs torch: pip install "mobile-llm[export]"') from None
