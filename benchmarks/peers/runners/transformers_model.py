"""transformers in float32, the reference of all: {model, threads, kv_row}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.peers.runners.serve import Reader, serve


class Transformers(Reader):
    version = f"transformers {transformers.__version__}, torch {torch.__version__}"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        torch.set_num_threads(settings["threads"])
        transformers.utils.logging.disable_progress_bar()
        load = transformers.AutoModelForCausalLM.from_pretrained
        self._model = load(settings["model"], local_files_only=True, dtype=torch.float32).eval()
        self._kv_row = settings["kv_row"]

    def read(self, ids: Sequence[int], text: str) -> int:
        self._cache = transformers.DynamicCache(config=self._model.config)
        self._append(ids)
        return len(ids)

    def step(self, token: int) -> None:
        self._append([token])

    def logits(self) -> np.ndarray:
        logits: np.ndarray = self._logits[0, -1].numpy()
        return logits

    def predict(self, ids: Sequence[int]) -> np.ndarray:
        """All in one go: its arithmetic is the same."""
        with torch.inference_mode():
            logits: np.ndarray = self._model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].numpy()
        return logits

    @property
    def kv_bytes(self) -> int | None:
        return int(self._kv_row * self._cache.get_seq_length())

    def _append(self, ids: Sequence[int]) -> None:
        with torch.inference_mode():
            answer = self._model(
                input_ids=torch.tensor([list(ids)]), past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
        self._logits = answer.logits


if __name__ == "__main__":
    serve(Transformers)
