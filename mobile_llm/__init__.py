"""Run a verified bundle on this machine.

    classifier = mobile_llm.load("sentiment-bundle")
    classifier.classify("A warm, funny film.")[0].label

Needs numpy, onnxruntime, tokenizers and jinja2; `pip install "mobile-llm[tflite]"` adds LiteRT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def load(
    bundle: str | Path,
    artifact: str | None = None,
    threads: int | None = None,
    backend: str | None = None,
    context: int | None = None,
) -> Any:
    """Open a bundle for its task: a `TextClassifier`, an `Embedder`, a `ChatModel`, …

    Args:
        bundle: the bundle's folder.
        artifact: such as "onnx/int8" or "tflite/fp32"; by default the one the bundle names.
        threads: threads of the runtime; by default the runtime's own choice.
        backend: another runtime than the format's own, such as "coreml-evaluator".
        context: of a model that writes, the most tokens of a prompt and its answer; by default what it was exported
            with. Less takes less memory.

    Raises: ModelNotFound, InvalidInput, InvalidSpec, IntegrityFailed, RuntimeTooOld, BackendUnavailable,
        NotEnoughMemory before anything is loaded.
    """
    from mobile_llm.bundle import Bundle
    from mobile_llm.tasks import open_task

    return open_task(Bundle.open(bundle), artifact, threads, backend, context)


__all__ = ["__version__", "load"]
