"""LiteRT-LM on a .litertlm file: {model, threads, context, count, cache}.

It takes texts, not ids: how many tokens its own tokenizer made of one is asked for, and rates are by that. It gives no
logits, and stops where the model ends its text: the tokens written may be fewer than `count`, and are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import litert_lm
import numpy as np

from benchmarks.peers.runners.serve import Reader, serve


class LitertLm(Reader):
    version = f"litert-lm {version('litert-lm')}"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        backend = litert_lm.Backend.CPU(thread_count=settings["threads"])
        lengths = {"max_num_tokens": settings["context"], "enable_benchmark": True, "cache_dir": settings["cache"]}
        self._engine = litert_lm.Engine(settings["model"], backend, **lengths)
        self._count = settings["count"]
        self._session: Any = None

    def read(self, ids: Sequence[int], text: str) -> int:
        if self._session is not None:
            self._session.close()  # an engine has one at a time
        greedy = litert_lm.SamplerConfig(top_k=1, temperature=0.0)
        self._session = self._engine.create_session(
            apply_prompt_template=False, sampler_config=greedy, max_output_tokens=self._count
        )
        self._session.run_prefill([text])
        return int(self._session.get_benchmark_info().last_prefill_token_count)

    def write(self, count: int) -> int:
        if count != self._count:
            raise ValueError(f"a session was set up to write {self._count} tokens, not {count}")
        self._session.run_decode()
        return int(self._session.get_benchmark_info().last_decode_token_count)

    def predict(self, ids: Sequence[int]) -> np.ndarray:
        raise NotImplementedError("LiteRT-LM gives no logits, so neither perplexity nor KL")

    def step(self, token: int) -> None:
        raise NotImplementedError("LiteRT-LM reads texts, not single tokens")

    def logits(self) -> np.ndarray:
        raise NotImplementedError("LiteRT-LM gives no logits")

    @property
    def kv_bytes(self) -> int | None:
        return None  # as its file has it, which does not say


if __name__ == "__main__":
    serve(LitertLm)
