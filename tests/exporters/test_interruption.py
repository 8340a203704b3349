"""Ctrl-C and a full disk, for real: a process that gets SIGINT, and a file system of two megabytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporters.plan import Plan
from mobile_llm.commands import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="exporting is for Linux and macOS")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    lines = [f"film {word} {i},{word}" for i in range(400) for word in ("good", "bad")]
    path.write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")
    return path


def interrupted(command: list[str], ready: Callable[[], bool]) -> tuple[int, str]:
    """Runs a command and presses Ctrl-C as soon as `ready()`: its exit code and what it said."""
    code = "import sys; from mobile_llm.commands import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    return process.returncode, said


def test_ctrl_c_during_an_export_leaves_nothing(classifier_model: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    command = ["export", str(classifier_model), "--task", "text-classification", "-o", str(place / "bundle")]
    code, said = interrupted(command, lambda: any(place.glob(".bundle.*/onnx/*")))
    assert code == 130
    assert "mobile-llm: cancelled; nothing half-written was left behind" in said
    assert "Traceback" not in said
    assert not list(place.iterdir())


def test_ctrl_c_during_fine_tuning_keeps_finished_epochs_to_resume(
    classifier_model: Path, rows: Path, tmp_path: Path
) -> None:
    place = tmp_path / "out"
    place.mkdir()
    command = ["finetune", str(classifier_model), "--task", "text-classification", "--data", str(rows)]
    command += ["--epochs", "40", "--batch-size", "8", "-o", str(place / "model")]
    checkpoints = place / "model.checkpoints"
    code, said = interrupted(command, lambda: any(checkpoints.glob("checkpoint-*/trainer_state.json")))
    assert code == 130
    assert "go on with --resume" in said
    assert "Traceback" not in said
    assert [p.name for p in place.iterdir()] == ["model.checkpoints"]
    assert all((p / "trainer_state.json").is_file() for p in checkpoints.glob("checkpoint-*"))
    kept = {p.name for p in checkpoints.glob("checkpoint-*")}
    code, said = interrupted(
        [*command, "--resume"],
        lambda: any(p.parent.name not in kept for p in checkpoints.glob("checkpoint-*/trainer_state.json")),
    )
    assert code == 130
    assert {p.name for p in checkpoints.glob("checkpoint-*")} - kept  # it went on


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, smaller than what is written; skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["onnx", "tflite", "coreml"])
def test_a_disk_that_is_full_is_named_and_left_as_it_was(
    format_name: str,
    make_model: Callable[..., Path],
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First by the plan; then, as if the room had been taken after it, half-way."""
    model = make_model(hidden_size=64, intermediate_size=256)
    command = ["export", str(model), "--task", "text-classification", "--formats", format_name, "--recipe", "fp32"]
    command += ["-o", str(small_disk / "bundle")]
    assert main(command) == 2
    assert "free some room, or choose another output" in capsys.readouterr().err
    monkeypatch.setattr(Plan, "refuse_what_cannot_fit", lambda _: None)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "is full" in said
    assert "free some room and repeat" in said
    assert not list(small_disk.iterdir())


@pytest.mark.slow
def test_a_full_disk_during_fine_tuning_is_named(
    classifier_model: Path, rows: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", str(classifier_model), "--task", "text-classification", "--data", str(rows)]
    assert main([*command, "--epochs", "1", "-o", str(small_disk / "model")]) == 2
    assert "is full" in capsys.readouterr().err
    assert not list(small_disk.iterdir())
