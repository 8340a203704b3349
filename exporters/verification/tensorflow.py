"""TensorFlow's own interpreter as a second, independent client of TFLite artifacts: its own kernels, without the
delegate that LiteRT has too, which would also pack the weights once for every signature."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.backends.native import native_stderr_silenced
from mobile_llm.backends.tflite import ONLY
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import BackendUnavailable, IntegrityFailed


class InterpreterSession:
    """Runs signatures of an interpreter."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._runners: dict[str, Any] = {}

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        signature = entry.signature or ONLY
        if signature not in self._runners:
            with native_stderr_silenced():
                self._runners[signature] = self._interpreter.get_signature_runner(signature)
        feeds = {b.name: np.ascontiguousarray(inputs[role], b.dtype) for role, b in entry.inputs.items()}
        results = self._runners[signature](**feeds)
        return {role: results[binding.name] for role, binding in entry.outputs.items()}

    def close(self) -> None:
        self._runners.clear()
        self._interpreter = None


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> InterpreterSession:
    """Raises IntegrityFailed for what is no TFLite file."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    path = inside(bundle, artifact.path)
    try:
        with native_stderr_silenced():
            import tensorflow as tf
    except ImportError:
        raise BackendUnavailable("TensorFlow is not installed: pip install tensorflow") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its own removal at every use
        try:
            with native_stderr_silenced():
                kernels = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                interpreter = tf.lite.Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=kernels)
                return InterpreterSession(interpreter)
        except (ValueError, RuntimeError) as error:
            raise IntegrityFailed(f"{path.name} is not a TFLite file that can be opened: {error}") from None
