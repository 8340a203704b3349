"""A runner's side of the conversation: timing, scoring, and lines of JSON. What it reads with is a `Reader`."""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np

from benchmarks.memory import peak_bytes

Answer = dict[str, Any]


class Reader(ABC):
    """A loaded model, and one sequence of tokens."""

    version: str

    @abstractmethod
    def read(self, ids: Sequence[int], text: str) -> int:
        """Forget all, and read a prompt to its end, logits included. Gives how many tokens that were."""

    @abstractmethod
    def step(self, token: int) -> None:
        """Read one more token."""

    @abstractmethod
    def logits(self) -> np.ndarray:
        """Float32 (vocabulary,), after the last token."""

    @property
    @abstractmethod
    def kv_bytes(self) -> int | None:
        """What the cache takes; None where it cannot be known."""

    def write(self, count: int) -> int:
        """Take the likeliest token `count` times. Gives how many were written."""
        for _ in range(count):
            self.step(int(self.logits().argmax()))
        return count

    def predict(self, ids: Sequence[int]) -> np.ndarray:
        """Logits (tokens, vocabulary) after each of `ids`, read one by one as they would be written."""
        rows = np.empty((len(ids), self._begin(ids[0]).size), np.float32)
        rows[0] = self.logits()
        for place, token in enumerate(ids[1:], 1):
            self.step(token)
            rows[place] = self.logits()
        return rows

    def _begin(self, token: int) -> np.ndarray:
        self.read([token], "")
        return self.logits()


def serve(load: Callable[[Mapping[str, Any]], Reader]) -> None:
    """Load the model that the argument names, once imports are done, and answer until stdin ends."""
    out = _own_stdout()
    settings = json.loads(sys.argv[1])
    imports = peak_bytes()
    start = time.perf_counter()
    try:
        reader = load(settings)
    except Exception as error:  # whatever goes wrong in the runtime is its answer
        _say(out, _failure(error))
        return
    load_ms = 1000 * (time.perf_counter() - start)
    _say(out, {"version": reader.version, "load_ms": load_ms, "imports_bytes": imports})
    for line in sys.stdin:
        try:
            _say(out, _answer(reader, json.loads(line)))
        except NotImplementedError as error:
            _say(out, {"not_checked": str(error)})
        except Exception as error:
            _say(out, _failure(error))


def _answer(reader: Reader, asked: Mapping[str, Any]) -> Answer:
    return {"prefill": _prefill, "decode": _decode, "quality": _quality, "memory": _memory}[asked["do"]](reader, asked)


def _prefill(reader: Reader, asked: Mapping[str, Any]) -> Answer:
    start = time.perf_counter()
    tokens = reader.read(asked["ids"], asked["text"])
    return {"tokens": tokens, "ms": 1000 * (time.perf_counter() - start)}


def _decode(reader: Reader, asked: Mapping[str, Any]) -> Answer:
    reader.read(asked["ids"], asked["text"])
    start = time.perf_counter()
    tokens = reader.write(asked["count"])
    return {"tokens": tokens, "ms": 1000 * (time.perf_counter() - start)}


def _memory(reader: Reader, asked: Mapping[str, Any]) -> Answer:
    return {"peak_bytes": peak_bytes(), "kv_bytes": reader.kv_bytes}


def _quality(reader: Reader, asked: Mapping[str, Any]) -> Answer:
    """Of a window's tokens but the first: the mean loss in nats and, where the log-probabilities in the file
    `expected` are given, the mean divergence from them and the share of equal likeliest tokens. `save` writes such a
    file."""
    ids = asked["ids"]
    found = log_softmax(reader.predict(ids[:-1]))
    loss = -float(np.take_along_axis(found, np.array(ids[1:])[:, None], axis=-1).mean())
    if asked.get("save"):
        np.save(asked["save"], found)
    if not asked.get("expected"):
        return {"loss": loss, "divergence": None, "same": None}
    return {"loss": loss, **_against(np.load(asked["expected"], mmap_mode="r"), found)}


def _against(expected: np.ndarray, found: np.ndarray) -> Answer:
    """Row by row, so that the float64 of one row is all that is held."""
    rows = [float((np.exp(p, dtype=np.float64) * (p - q.astype(np.float64))).sum()) for p, q in zip(expected, found)]
    same = float((expected.argmax(-1) == found.argmax(-1)).mean())
    return {"divergence": float(np.mean(rows)), "same": same}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Float32 log-probabilities of logits (rows, vocabulary)."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def _own_stdout() -> IO[str]:
    """Stdout for answers alone: what runtimes print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _failure(error: Exception) -> Answer:
    return {"error": f"{type(error).__name__}: {error}"}


def _say(out: IO[str], answer: Answer) -> None:
    print(json.dumps(answer), file=out, flush=True)
