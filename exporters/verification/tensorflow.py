"""TensorFlow's own interpreter as a second, independent client of TFLite artifacts."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from mobile_llm.backends.native import native_stderr_silenced
from mobile_llm.backends.tflite import TfliteSession, open_with
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import BackendUnavailable


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteSession:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with native_stderr_silenced():
            import tensorflow as tf
    except ImportError:
        raise BackendUnavailable("TensorFlow is not installed: pip install tensorflow") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its own removal at every use
        return open_with(tf.lite.Interpreter, bundle, artifact, threads)
