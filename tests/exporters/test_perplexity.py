"""Perplexity on a text file: of a tiny decoder and its artifacts, and of what cannot be measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters.verification.perplexity import WINDOW, predict, windows_of
from mobile_llm.commands import main

TEXT = "The plot makes no sense, and the jokes fall flat. Żółć 😍 " * 20


Answer = Callable[..., tuple[int, str, str]]


def test_artifacts_are_measured_beside_the_model(
    writing_bundle: Path,
    decoder: Callable[[str], Any],
    decoder_folder: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    arguments = ["--data", str(tmp_path / "text.txt"), "--model", str(decoder_folder("llama")), "--json"]
    assert main(["evaluate", str(writing_bundle), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "perplexity"
    assert found["reference"] == pytest.approx(_by_torch(decoder("llama"), writing_bundle), rel=1e-4)
    assert found["artifacts"]["onnx/fp32"] == pytest.approx(found["reference"], rel=1e-4)
    assert found["artifacts"]["onnx/int8"] == pytest.approx(found["reference"], rel=0.1)
    details = found["details"]["onnx/int8"]
    assert 0 < details["standard_error"] < found["reference"]
    assert details["difference"]["low"] < details["difference"]["mean"] < details["difference"]["high"]


def _by_torch(model: Any, bundle: Path) -> float:
    """transformers' own loss, window by window."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(bundle / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    windows = torch.tensor(windows_of(ids, 32))
    with torch.inference_mode():
        losses = [float(model(window[None], labels=window[None]).loss) for window in windows]
    return float(np.exp(np.mean(losses)))


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    windows = windows_of(list(range(50)) * 2, 10)
    found = predict(windows, lambda ids: np.zeros((len(ids), 50), np.float32))
    assert found.perplexity == pytest.approx(50)
    assert found.standard_error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [(b"short", f"fewer than {WINDOW} tokens"), (b"\xff\xfe" * 300, "is not UTF-8"), (None, "cannot be read")],
)
def test_a_text_that_cannot_be_used_is_refused(
    contents: bytes | None,
    sentence: str,
    writing_bundle: Path,
    tmp_path: Path,
    answer: Callable[..., tuple[int, str, str]],
) -> None:
    path = tmp_path / "text.txt"
    if contents is not None:
        path.write_bytes(contents)
    code, kind, message = answer("evaluate", str(writing_bundle), "--data", str(path))
    assert (code, kind) == (2, "InvalidInput")
    assert sentence.replace(str(WINDOW), "32") in message
