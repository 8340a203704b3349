"""Our own evaluator of MIL programs: off a Mac nobody else can say whether a Core ML artifact is right.

The package is read from its bytes, compressed weights included, and each operator is evaluated in torch in float32;
what the program declares as float16 is rounded to float16 after every operator. That models float16 storage, not the
accumulators, the speed or the placement of the Neural Engine. An operator or parameter that is not known is refused
when the artifact is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters.verification.mil.program import Program, require_known
from mobile_llm.artifacts import coreml
from mobile_llm.backends import Decoder
from mobile_llm.backends.stateful import stateful_decoder
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import BackendUnavailable

_MAIN = "main"


class Programs:
    """The functions of a package, refused at once where one cannot be run, and each made ready when it is first
    asked for: functions share weights in the file, but not here."""

    def __init__(self, path: Path, float32: bool) -> None:
        self._functions = coreml.read(path).functions
        self._float32 = float32
        self._ready: dict[str, Program] = {}
        for function in self._functions.values():
            require_known(function)

    def of(self, entry: EntryPoint) -> Program:
        name = entry.signature or _MAIN
        if name not in self._ready:
            self._ready[name] = Program(self._functions[name], self._float32)
        return self._ready[name]

    def run(
        self, entry: EntryPoint, inputs: Mapping[str, np.ndarray], states: Mapping[str, Any] | None
    ) -> dict[str, np.ndarray]:
        """Logical tensors in, logical tensors out."""
        feeds = {b.name: np.array(inputs[role], b.dtype) for role, b in entry.inputs.items()}
        results = self.of(entry).run(feeds, states)
        return {role: results[binding.name] for role, binding in entry.outputs.items()}

    def prepare(self) -> None:
        """Make every function ready. Raises IntegrityFailed for weights that are not all there."""
        for name, function in self._functions.items():
            self._ready[name] = Program(function, self._float32)

    def clear(self) -> None:
        self._ready.clear()


class MilSession:
    """A session of `mobile_llm.backends`: one program per function, constants widened once. States begin anew with
    every run."""

    def __init__(self, path: Path, float32: bool = False) -> None:
        self._programs = Programs(path, float32)
        self._programs.prepare()

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._programs.run(entry, inputs, None)

    def close(self) -> None:
        self._programs.clear()


def decoder(path: Path, artifact: Artifact, float32: bool = False) -> Decoder:
    """A decoder of `mobile_llm.backends`, with the states of one sequence, which its functions share."""
    programs = Programs(path, float32)
    states = programs.of(artifact.entry_points["decode"][0]).new_states()
    return stateful_decoder(artifact, lambda entry, inputs: programs.run(entry, inputs, states), programs.clear)


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> MilSession:
    """`threads` do not apply: torch's own setting holds. Raises UnsupportedModel naming an unknown operator."""
    _require_torch()
    return MilSession(inside(bundle, artifact.path))


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> Decoder:
    """The same for an artifact that keeps a KV cache in states."""
    _require_torch()
    return decoder(inside(bundle, artifact.path), artifact)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401 - asked for here, so that the answer is a sentence
    except ImportError:
        raise BackendUnavailable('the evaluator of Core ML needs torch: pip install "mobile-llm[export]"') from None
