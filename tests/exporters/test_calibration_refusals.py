"""What calibration refuses: texts, sizes and combinations that cannot be; and Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import exporters
from exporters.commands.values import megabytes
from mobile_llm.commands import main
from mobile_llm.errors import InvalidSpec

Folder = Callable[[str], Path]
Answer = Callable[..., tuple[int, str, str]]
INT4 = ("--task", "text-generation", "--recipe", "int4", "--formats", "onnx")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("The plot makes no sense, and the jokes fall flat. " * 40, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (b"short", "has 5 tokens, and at least 64 are needed; give a longer one"),
        (b"\xff\xfe" * 300, "is not UTF-8 (invalid start byte at byte 0); convert it"),
        (None, "cannot be read (No such file or directory); give a text file in UTF-8"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused(
    contents: bytes | None, sentence: str, decoder_folder: Folder, tmp_path: Path, answer: Answer
) -> None:
    path = tmp_path / "text.txt"
    if contents is not None:
        path.write_bytes(contents)
    left = list(tmp_path.iterdir())
    arguments = (*INT4, "--calibration", str(path), "-o", str(tmp_path / "bundle"))
    code, kind, message = answer("export", str(decoder_folder("llama")), *arguments)
    assert (code, kind) == (2, "InvalidInput")
    assert sentence in message
    assert list(tmp_path.iterdir()) == left


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--task", "text-generation", "--recipe", "fp32", "--calibration", "TEXT"), "add a recipe, or leave"),
        (("--task", "text-classification", "--calibration", "TEXT"), "is for text-generation in int4 or int8"),
        (
            ("--task", "text-generation", "--recipe", "int8", "--calibration", "TEXT", "--max-size", "90"),
            "a largest size is for int4",
        ),
        ((*INT4, "--max-size", "90"), "give a calibration text, or no size"),
        ((*INT4, "--max-kl", ".05"), "give a calibration text, or no divergence"),
        ((*INT4, "--calibration", "TEXT", "--max-kl", "nan"), "nan nats are no divergence; give a number above 0"),
        ((*INT4, "--calibration", "TEXT", "--max-kl", ".1", "--max-size", "9"), "give one of the two"),
        ((*INT4, "--calibration", "TEXT", "--max-kl", "1e-9"), "above 1e-09; allow as much"),
        ((*INT4, "--calibration", "TEXT", "--max-size", "0"), "0 MB is no size; give a number above 0"),
        (
            (*INT4, "--calibration", "TEXT", "--max-size", "0.01"),
            "onnx/int4 takes 0.1 MB at least, which is above 0.01; allow",
        ),
    ],
)
def test_what_cannot_be_asked_for(
    arguments: tuple[str, ...], sentence: str, decoder_folder: Folder, text: Path, tmp_path: Path, answer: Answer
) -> None:
    given = [str(text) if argument == "TEXT" else argument for argument in arguments]
    code, kind, message = answer("export", str(decoder_folder("llama")), *given, "-o", str(tmp_path / "bundle"))
    assert (code, kind) == (2, "InvalidSpec")
    assert sentence in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "expected"), [("80", 80), ("80MB", 80), ("80 mb", 80), (".5GB", 500), ("1GiB", 1073.741824), ("80M", 80)]
)
def test_sizes_have_units(size: str, expected: float) -> None:
    assert megabytes(size) == expected


@pytest.mark.parametrize("size", ["eighty", "80kB", "-5", "MB", "8e1"])
def test_what_is_no_size_is_named(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "model", "--task", "text-generation", f"--max-size={size}", "-o", "bundle"])
    assert ended.value.code == 2
    assert f"{size} is no size; give MB, such as 80 or 80MB, or GB" in capsys.readouterr().err


def test_a_model_in_memory_has_no_text(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidSpec, match="leave out task, pooling, eval_data, text_pairs, calibration, max_size, max_kl and adapter"
    ):
        exporters.export(torch.nn.Linear(2, 2), output=tmp_path / "bundle", calibration="text.txt")


def test_ctrl_c_leaves_nothing(
    decoder_folder: Folder, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exporters.quantization.calibrated.quantize_group", interrupted)
    arguments = (*INT4, "--calibration", str(text), "-o", str(tmp_path / "bundle"))
    assert answer("export", str(decoder_folder("llama")), *arguments)[0] == 130
    assert not list(tmp_path.iterdir())
