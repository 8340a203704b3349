"""llama.cpp through its C interface, on a GGUF file: {model, threads, context, kv_row}.

The cache for the whole context is set up at the load.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.peers.runners.serve import Reader, serve

_BATCH = 512  # llama.cpp's own default of tokens read at once


class Llama(Reader):
    version = f"llama-cpp-python {version('llama-cpp-python')}"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        model_settings = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(settings["model"].encode(), model_settings)
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {settings['model']}")
        wanted = llama_cpp.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = settings["context"], _BATCH, _BATCH
        wanted.n_threads = wanted.n_threads_batch = settings["threads"]
        wanted.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, wanted)
        if not self._context:
            raise RuntimeError("llama.cpp sets up no context")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._kv = settings["kv_row"] * settings["context"]

    def read(self, ids: Sequence[int], text: str) -> int:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        for first in range(0, len(ids), _BATCH):
            self._append(ids[first : first + _BATCH])
        return len(ids)

    def step(self, token: int) -> None:
        self._append([token])

    def logits(self) -> np.ndarray:
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._size,))

    @property
    def kv_bytes(self) -> int | None:
        return int(self._kv)

    def _append(self, ids: Sequence[int]) -> None:
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        failed = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(tokens, len(ids)))
        if failed:
            raise RuntimeError(f"llama_decode gives {failed} for {len(ids)} tokens")


@llama_cpp.llama_log_callback
def _quiet(level: int, text: bytes, data: Any) -> None:
    """llama.cpp says a page about every model it loads."""


if __name__ == "__main__":
    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    serve(Llama)
