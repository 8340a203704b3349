"""onnxruntime-genai on the folder its builder wrote: {model, threads, context, kv_row}.

Its cache has room for the context.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime_genai as genai

from benchmarks.peers.runners.serve import Reader, serve


class Genai(Reader):
    version = f"onnxruntime-genai {version('onnxruntime-genai')}"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        config = genai.Config(settings["model"])
        options = {"intra_op_num_threads": settings["threads"], "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = genai.Model(config)
        self._params = genai.GeneratorParams(self._model)
        # A text that may not end before it is full: what stops is no part of speed.
        lengths = {"max_length": settings["context"], "min_length": settings["context"]}
        self._params.set_search_options(do_sample=False, **lengths)
        self._kv = settings["kv_row"] * settings["context"]

    def read(self, ids: Sequence[int], text: str) -> int:
        self._generator = genai.Generator(self._model, self._params)
        self._generator.append_tokens(np.array([ids], np.int32))
        return len(ids)

    def step(self, token: int) -> None:
        self._generator.append_tokens(np.array([[token]], np.int32))

    def logits(self) -> np.ndarray:
        logits: np.ndarray = self._generator.get_logits().reshape(-1).astype(np.float32)
        return logits

    def write(self, count: int) -> int:
        for _ in range(count):
            self._generator.generate_next_token()
        return count

    @property
    def kv_bytes(self) -> int | None:
        return int(self._kv)


if __name__ == "__main__":
    serve(Genai)
