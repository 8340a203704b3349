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

    def run(model: Path, artifacts: str) -> tuple[int, Any]:
        arguments = ["parity", str(bundle), str(model), "--text", str(text), "--artifact", artifacts, "--json", *SIZES]
        monkeypatch.setattr("sys.argv", arguments)
        code, printed = parity.main(), capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else printed.err

    return run


def test_float_artifacts_choose_as_the_model_does(
    ask: Callable[..., Any], decoder_folder: Callable[[str], Path]
) -> None:
    code, found = ask(decoder_folder("llama"), "onnx/fp32,coreml/fp16")
    assert [one["agreement"] for one in found] == [1, 1]
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


@pytest.mark.parametrize(("artifact", "problem"), [("onnx/int8", "is not in float"), ("tflite/fp32", "no artifact")])
def test_what_cannot_be_asked_is_named(
    artifact: str, problem: str, ask: Callable[..., Any], decoder_folder: Callable[[str], Path]
) -> None:
    code, said = ask(decoder_folder("llama"), artifact)
    assert code == 2
    assert problem in said
    assert artifact in said


@pytest.mark.parametrize(("agreement", "differing", "holds"), [(0.998, 0, True), (0.997, 0, False), (1.0, 1, False)])
def test_undecided_places_count_too(agreement: float, differing: int, holds: bool) -> None:
    found = parity.Found("coreml/fp16", 2048, agreement, 20, 20, 4000, 0.03, [("window 0", 1, 0.5)] * differing)
    assert found.holds == holds
