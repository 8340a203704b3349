"""An artifact of a bundle, hashes checked, in its own backend: {model: the bundle's folder, artifact: its id}."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.peers.runners.serve import Reader, serve
from mobile_llm.bundle import Bundle
from mobile_llm.generation.engine import DecoderEngine

# By format: the distribution, and what a backend imports when it opens its first artifact
RUNTIMES = {
    "onnx": ("onnxruntime", "mobile_llm.backends.onnx"),
    "tflite": ("ai-edge-litert", "ai_edge_litert.compiled_model"),
}


class Ours(Reader):
    def __init__(self, engine: DecoderEngine) -> None:
        self._engine = engine
        self._logits = np.empty(0, np.float32)
        runtime = RUNTIMES[engine.artifact.format][0]
        self.version = f"{runtime} {version(runtime)}"

    def read(self, ids: Sequence[int], text: str) -> int:
        self._engine.rewind(0)
        self._logits = self._engine.append(ids)
        return len(ids)

    def step(self, token: int) -> None:
        self._logits = self._engine.append([token])

    def logits(self) -> np.ndarray:
        return self._logits

    @property
    def kv_bytes(self) -> int | None:
        """Of the rows in use: what the backend holds ready beside them counts as its own memory."""
        cache = self._engine.artifact.cache
        if cache is None:
            return None
        row = 2 * cache.layers * cache.kv_heads * cache.head_dim * np.dtype(cache.dtype).itemsize
        return row * len(self._engine.tokens)


def load(settings: Mapping[str, Any]) -> Reader:
    return Ours(DecoderEngine.open(Bundle.open(settings["model"]), settings["artifact"], settings["threads"]))


if __name__ == "__main__":
    import_module(RUNTIMES[json.loads(sys.argv[1])["artifact"].split("/")[0]][1])
    serve(load)
