"""`benchmarks.parity`: float artifacts choose the model's tokens, and another model's are told apart from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import exporters
from benchmarks import parity
from mobile_llm.errors import InvalidInput

SIZES = ["--positions", "100", "--prompts", "2", "--tokens", "24", "--threads", "1"]


@pytest.fixture(scope="module")
def bundle(decoder_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("llama") / "bundle"
    return exporters.export(
        decoder_folder("llama"), "text-generation", output, formats=("onnx", "coreml"), recipes=("fp32", "fp16", "int8")
    ).bundle


@pytest.fixture
def ask(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., Any]:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"line {number} of a text" for number in range(200)), encoding="utf-8")
    monkeypatch.setattr(parity, "_WINDOW", 40)

    def run(model: Path, artifacts: str) -> tuple[int, list[dict[str, Any]]]:
        arguments = ["parity", str(bundle), str(model), "--text", str(text), "--artifact", artifacts, "--json", *SIZES]
        monkeypatch.setattr("sys.argv", arguments)
        return parity.main(), json.loads(capsys.readouterr().out or "[]")

    return run


def test_float_artifacts_choose_as_the_model_does(
    ask: Callable[..., Any], decoder_folder: Callable[[str], Path]
) -> None:
    code, found = ask(decoder_folder("llama"), "onnx/fp32,coreml/fp16")
    assert code == 0
    for one in found:
        assert (one["positions"], one["answers"], one["tokens"]) == (120, 2, 48)
        assert one["differing"] == []
        assert one["agreement"] >= 1 - len(one["undecided"]) / 120
        assert one["identical"] == 2 or one["undecided"]


def test_another_model_is_told_apart(
    ask: Callable[..., Any], decoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(decoder_folder("llama"))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "other")
    for path in decoder_folder("llama").glob("tokenizer*"):
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    code, (found,) = ask(tmp_path / "other", "onnx/fp32")
    assert code == 1
    assert found["agreement"] < 1
    assert found["differing"]
    assert all(margin > found["bound"] == 1e-3 for _, _, margin in found["differing"])


def test_integers_are_not_asked(ask: Callable[..., Any], decoder_folder: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInput, match="onnx/int8 is not in float"):
        ask(decoder_folder("llama"), "onnx/int8")
