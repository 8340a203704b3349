"""TFLite artifacts in LiteRT, on the CPU through XNNPACK. One interpreter serves all signatures: they share
the repacked weights, and a signature that is never used allocates no activations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.backends.native import native_stderr_silenced
from mobile_llm.backends.tflite_decoder import TfliteDecoder, open_file
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import BackendUnavailable, IntegrityFailed


class TfliteSession:
    """Runs signatures of an interpreter (LiteRT's, or TensorFlow's, whose interface is the same)."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._runners: dict[str, Any] = {}

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        signature = entry.signature or "serving_default"
        if signature not in self._runners:
            with native_stderr_silenced():
                self._runners[signature] = self._interpreter.get_signature_runner(signature)
        feeds = {b.name: np.ascontiguousarray(inputs[role], b.dtype) for role, b in entry.inputs.items()}
        results = self._runners[signature](**feeds)
        return {role: results[binding.name] for role, binding in entry.outputs.items()}

    def close(self) -> None:
        self._runners.clear()
        self._interpreter = None


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteSession:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise BackendUnavailable(
            'TFLite artifacts need LiteRT: pip install "mobile-llm[tflite]", or choose an ONNX artifact'
        ) from None
    return open_with(Interpreter, bundle, artifact, threads)


def open_with(interpreter: Any, bundle: Path, artifact: Artifact, threads: int | None) -> TfliteSession:
    """Open with a class of the TFLite Python interface. Raises IntegrityFailed for what is no TFLite file."""
    path = inside(bundle, artifact.path)
    try:
        with native_stderr_silenced():
            return TfliteSession(interpreter(model_path=str(path), num_threads=threads))
    except (ValueError, RuntimeError) as error:
        raise IntegrityFailed(f"{path.name} is not a TFLite file that can be opened: {error}") from None


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteDecoder:
    return open_file(inside(bundle, artifact.path), artifact, threads)
