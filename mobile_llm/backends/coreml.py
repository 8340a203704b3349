"""Core ML artifacts on Apple systems, through coremltools. Nowhere else does Core ML exist: off a Mac these
artifacts are compared by our own evaluator of MIL programs (backend `coreml-evaluator`, part of the exporter).

Not run in our tests, which have no Mac: only the refusal elsewhere is.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.backends import Decoder
from mobile_llm.backends.stateful import stateful_decoder
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import BackendUnavailable


class CoreMlSession:
    """A compiled `MLModel`; `threads` do not apply, the system chooses the compute unit. `state` gives what a run of a
    model that keeps something reads and writes."""

    def __init__(self, model: Any, state: Callable[[], Any] | None = None) -> None:
        self._model = model
        self._state = state

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeds = {b.name: np.ascontiguousarray(inputs[role], b.dtype) for role, b in entry.inputs.items()}
        results = self._model.predict(feeds, state=self._state()) if self._state else self._model.predict(feeds)
        return {role: results[binding.name] for role, binding in entry.outputs.items()}

    def close(self) -> None:
        self._model = self._state = None


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> CoreMlSession:
    """Of a decoder this runs the default function, on a cache that is empty each time."""
    model = _loaded(bundle, artifact, None)
    return CoreMlSession(model, model.make_state if artifact.cache else None)


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> Decoder:
    """Every function that an entry point names, loaded once, over one state. Raises BackendUnavailable anywhere but on
    a Mac."""
    named = [entry.signature for entries in artifact.entry_points.values() for entry in entries]
    models = {name: _loaded(bundle, artifact, name) for name in dict.fromkeys(named)}
    kept = models[named[0]].make_state()
    sessions = {name: CoreMlSession(model, lambda: kept) for name, model in models.items()}
    return stateful_decoder(
        artifact, lambda entry, inputs: sessions[entry.signature].run(entry, inputs), sessions.clear
    )


def _loaded(bundle: Path, artifact: Artifact, function: str | None) -> Any:
    if platform.system() != "Darwin":
        raise BackendUnavailable(
            "Core ML runs on Apple systems only; choose an ONNX or TFLite artifact, or the backend coreml-evaluator"
        )
    try:
        import coremltools
    except ImportError:
        raise BackendUnavailable('Core ML needs coremltools: pip install "mobile-llm[coreml]"') from None
    return coremltools.models.MLModel(str(inside(bundle, artifact.path)), function_name=function)
