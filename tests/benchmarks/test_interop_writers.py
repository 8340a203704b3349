"""Clients that write are held to what our runtime writes: other tokens fail, ties and ends are told apart."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.interop import writers, writing
from benchmarks.interop.writing import QUANTIZED_TIE, WritingJudge, Written, write_all
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.manifest import Artifact, Generation, KvCache

FLOAT, QUANTIZED = "onnx/model.onnx", "onnx/model_q4.onnx"
STOP = 2
WANTED = (
    Written([7], [4, 5, 6], [{4: 0.0}, {5: 0.0, 8: QUANTIZED_TIE / 2}, {6: 0.0}, {STOP: 0.0}]),
    Written([7, 7], [4, 4], [{4: 0.0}, {4: 0.0, 9: 3.0}, {STOP: 0.0, 3: 1.0}]),
)


def _bundle(tmp_path: Path = Path(), artifacts: Any = None) -> Bundle:
    task = SimpleNamespace(generation=Generation(stop=(STOP,)))
    manifest: Any = SimpleNamespace(task=task, artifacts=artifacts or {})
    return Bundle(tmp_path, manifest)


def _judged(written: Sequence[Sequence[int]], artifact: str = QUANTIZED, **more: Any) -> Any:
    reading = {"artifact": artifact, "way": "generate", "prompts": [[7], [7, 7]], "written": written, **more}
    judge = WritingJudge(_bundle(), {artifact: WANTED})
    (row,) = judge("a client", artifact, {"readings": [reading], "errors": {}})
    return row


@pytest.mark.parametrize("ends", [[], [STOP], [STOP, 0, 0]])
def test_the_same_tokens_pass_with_or_without_their_end(ends: list[int]) -> None:
    row = _judged([[4, 5, 6, *ends], [4, 4, *ends]])
    assert (row.verdict, row.same_texts, row.note) == ("pass", "2/2", "")


@pytest.mark.parametrize(
    ("written", "more", "words"),
    [
        ([[4, 5, 9], [4, 4]], {}, "prompt 0: another token at 2, inf below the best"),
        ([[4, 5, 6], [4, 9]], {}, "prompt 1: another token at 1, 3 below the best"),
        ([[4, 5], [4, 4]], {}, "prompt 0: 2 tokens instead of 3"),
        ([[4, 5, 6], [4, 4, 3]], {}, "prompt 1: another token at 2, 1 below the best"),
        ([[4, 5, 6]], {}, "1 answers to 2 prompts"),
        ([[4, 5, 6], [4, 4]], {"prompts": [[7], [8, 8]]}, "prompt 1: other tokens"),
    ],
)
def test_other_tokens_fail_with_the_place(written: list[list[int]], more: dict[str, Any], words: str) -> None:
    row = _judged(written, **more)
    assert row.verdict == "FAIL"
    assert words in row.note


def test_a_tie_is_said_and_no_failure_but_in_float32() -> None:
    tied = [[4, 8, 1, 1], [4, 4]]
    row = _judged(tied)
    assert (row.verdict, row.same_texts) == ("pass", "1/2")
    assert "another token at 1" in row.note
    assert _judged(tied, FLOAT).verdict == "FAIL"


@pytest.mark.parametrize(("second", "same"), [("dd", "2/2"), ("de", "1/2")])
def test_a_text_is_the_same_however_it_would_be_cut(second: str, same: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens 4 to 6 are letters; a tokenizer would cut their text into others."""
    cut = SimpleNamespace(
        decode=lambda ids: "".join(chr(96 + token) for token in ids),
        encode=lambda text, special: SimpleNamespace(ids=[9] * len(text)),
    )
    monkeypatch.setattr(writing, "TextTokenizer", lambda bundle: cut)
    row = _judged([], texts=["def", second])
    assert (row.same_texts, row.verdict) == (same, "pass" if same == "2/2" else "FAIL")


def test_a_client_without_a_reading_has_failed() -> None:
    judge = WritingJudge(_bundle(), {FLOAT: WANTED})
    (row,) = judge("a client", FLOAT, {"readings": [], "errors": {FLOAT: "it does not open"}})
    assert (row.verdict, row.note) == ("FAIL", "it does not open")


class _Model:
    """Writes 4 and 5, then ends."""

    def __init__(self, engine: Any) -> None:
        self.engine = SimpleNamespace(continue_with=lambda ids: self._logits(4), append=self._append)
        self._next = [5, STOP]

    def encode(self, prompt: Any) -> list[int]:
        return [7]

    def close(self) -> None:
        self.closed = True

    def _append(self, ids: list[int]) -> np.ndarray:
        return self._logits(self._next.pop(0))

    def _logits(self, best: int) -> np.ndarray:
        return np.where(np.arange(10) == best, 2.0, 0.5).astype(np.float32)


def test_ours_is_written_with_how_far_others_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ChatModel", _Model)
    monkeypatch.setattr(writing, "DecoderEngine", SimpleNamespace(open=lambda *_, **__: None))
    (found,) = write_all(_bundle(), FLOAT, [{"text": "begun"}])
    assert (found.prompt, found.tokens, len(found.below)) == ([7], [4, 5], 3)
    assert (found.below[0][4], found.below[2][STOP], found.below[1][0]) == (0.0, 0.0, 1.5)


def test_each_client_is_asked_for_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KvCache("grown", 1, 1, 8, "float32", 64)
    one = Artifact("onnx", "fp32", FLOAT, (), {}, cache=cache)
    artifacts = {"onnx/fp32": one, "onnx/int4": replace(one, path=QUANTIZED)}
    config = {"model": {"decoder": {"filename": QUANTIZED}}}
    (tmp_path / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(writers, "write_all", lambda *_: WANTED)
    args = argparse.Namespace(work=tmp_path, optimum_python=None)
    clients = writers.compare_writer(_bundle(tmp_path, artifacts), args).clients
    assert {name: list(client.artifacts) for name, client in clients.items()} == {
        "transformers.js": [FLOAT, QUANTIZED],
        "optimum": [FLOAT, QUANTIZED],
        "genai": [QUANTIZED],
        "litert-lm": [],
    }
    assert clients["genai"].not_asked == {FLOAT: "genai_config.json names another artifact"}
    assert clients["litert-lm"].not_asked == {"*.litertlm": "none is in the bundle"}
