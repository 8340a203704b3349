"""Fine-tuning in two processes, for real: the same losses as one process with the doubled batch, and one voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.finetuning import processes
from mobile_llm.errors import InvalidInput

_NOUNS = ("film", "the plot of it", "reviews", "a long and warm call", "it", "funny text")
ROWS = [f"{noun} {word}{end},{word}" for noun in _NOUNS for word in ("good", "bad") for end in ("", " again", " not at all", " !")]  # fmt: skip  # noqa: E501
_IN_FLOAT32 = str(Path(__file__).with_name("in_float32.py"))
_ALONE = [sys.executable, _IN_FLOAT32]
_LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
_TWO = [*_LAUNCHER, "-m", "mobile_llm"]
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def words(make_model: Callable[..., Path], tmp_path: Path) -> list[str]:
    """A fine-tuning of a model without dropout: each process would draw its own."""
    model = make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *ROWS, ""]), encoding="utf-8")
    return ["finetune", str(model), "--task", "text-classification", "--data", str(tmp_path / "train.csv"),
            "--epochs", "3", "--learning-rate", "1e-3", "--json"]  # fmt: skip


def _losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one_with_the_doubled_batch(words: list[str], tmp_path: Path) -> None:
    curves, weights = {}, {}
    for name, launcher, batch in (("one", _ALONE, "8"), ("two", [*_LAUNCHER, _IN_FLOAT32], "4"), ("half", _ALONE, "4")):
        log, out = tmp_path / f"{name}.jsonl", tmp_path / "out" / name
        command = [*launcher, *words, "--batch-size", batch, "--loss-log", str(log), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT)
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout)["examples"] == len(ROWS)  # one document: one process prints
        curves[name], weights[name] = _losses(log), (out / "model.safetensors").stat().st_size
    assert len(curves["one"]) == 3 * len(ROWS) // 8
    assert curves["two"] == pytest.approx(curves["one"], rel=1e-4)
    assert curves["half"][: len(curves["one"])] != pytest.approx(curves["one"], rel=1e-2)  # the comparison can fail
    assert weights["two"] == weights["one"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["half", "one", "two"]


@pytest.mark.slow
def test_a_fault_of_the_input_is_told_once_and_leaves_nothing(words: list[str], tmp_path: Path) -> None:
    late = Path(__file__).with_name("first_is_late.py")
    command = [*_LAUNCHER, str(late), *words, "--text-column", "review", "-o", str(tmp_path / "out" / "model")]
    done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT)
    assert done.returncode != 0
    assert done.stderr.count("has no column 'review'") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_interrupted_launcher_leaves_finished_epochs_that_can_be_resumed(words: list[str], tmp_path: Path) -> None:
    out, log = tmp_path / "out" / "model", tmp_path / "log.jsonl"
    command = [*_TWO, *words, "--batch-size", "4", "--loss-log", str(log), "-o", str(out)]
    command[command.index("--epochs") + 1] = "200"
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_ENVIRONMENT)
    while started.poll() is None and not (log.exists() and len(_losses(log)) > 2 * len(ROWS) // 8):
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    assert started.wait(120) != 0
    assert [path.name for path in out.parent.iterdir()] == ["model.checkpoints"]
    states = list(out.with_name("model.checkpoints").glob("checkpoint-*/trainer_state.json"))
    assert len(states) == len(list(out.with_name("model.checkpoints").glob("checkpoint-*"))) >= 1


def test_the_others_leave_a_fault_to_the_first_and_tell_it_if_it_is_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(processes.time, "sleep", waited.append)

    def fails() -> None:
        raise InvalidInput("no such column")

    with pytest.raises(InvalidInput):
        processes.told_once(fails)
    assert not waited
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InvalidInput):
        processes.told_once(fails)
    assert waited == [processes.FIRST_SPEAKS_WITHIN]


def test_an_interrupted_process_that_is_not_the_first_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.told_once(interrupted)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as left:
        processes.told_once(interrupted)
    assert left.value.code == 130


def test_each_epoch_has_an_order_of_its_own_that_dropout_cannot_move() -> None:
    import torch

    from exporters.finetuning.sampling import LengthBuckets

    lengths = [1 + (7 * i) % 23 for i in range(96)]
    first, second = (LengthBuckets(lengths, 8, seed=0) for _ in range(2))
    order = list(first)
    torch.rand(5)  # what dropout does to the global generator
    assert list(second) == order
    assert sorted(order) == list(range(96))
    first.set_epoch(1)
    assert list(first) != order
    assert list(LengthBuckets(lengths, 8, seed=1)) != order
    spread = [max(batch) - min(batch) for batch in ([lengths[i] for i in order[at : at + 8]] for at in range(0, 96, 8))]
    assert sum(spread) / len(spread) < 12  # rows of like length; at random it is about 20
