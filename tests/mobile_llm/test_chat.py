"""`mobile-llm chat` and `run`: by lines, at a terminal, as JSON."""

from __future__ import annotations

import io
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobile_llm.commands import main

from .conftest import Chat

Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `chat` on lines of stdin: its exit code, stdout and stderr."""

    def ran(*lines: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = main(["chat", str(chat.bundle), *options])
        return code, *capsys.readouterr()

    return ran


@pytest.fixture
def type_in(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs `chat` at a terminal where these lines are typed; what stdout then shows."""
    monkeypatch.setenv("MOBILE_LLM_HISTORY", str(tmp_path / "history"))

    def typed(
        *lines: str | BaseException, options: tuple[str, ...] = (), while_typing: Callable[[], object] = str
    ) -> str:
        left: Iterator[str | BaseException] = iter([*lines, EOFError()])

        def read(prompt: str) -> str:
            while_typing()
            line = next(left)
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr("builtins.input", read)
        assert main(["chat", str(chat.bundle), *options]) == 0
        return capsys.readouterr().out

    return typed


def test_lines_in_answers_out(run: Run) -> None:
    assert run("hello", "", "你好 👋🏽", "//not a command") == (0, "hello\n你好 👋🏽\n/not a command\n", "")


def test_one_document(run: Run) -> None:
    code, out, err = run("hello", "again", options=("--json", "--system", "be nice", "--seed", "7", "--top-k", "3"))
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert (document["artifact"], document["system"], document["seed"]) == ("onnx/fp32", "be nice", 7)
    assert document["sampler"]["top_k"] == 3
    assert [(turn["message"], turn["answer"], turn["finish"]) for turn in document["turns"]] == [
        ("hello", "hello", "stop"),
        ("again", "again", "stop"),
    ]
    assert document["turns"][1]["cached_tokens"] > 0


def test_commands(run: Run, tmp_path: Path) -> None:
    lines = (
        "one",
        "two",
        "/retry",
        "/undo",
        f"/save {tmp_path / 'talk.json'}",
        "/stats",
        "/system be nice",
        "/exit",
        "x",
    )
    code, out, _ = run(*lines)
    assert code == 0
    assert out.startswith("one\ntwo\ntwo\n")
    assert out.count("first after") == 1, "one turn is left"
    assert [turn["message"] for turn in json.loads((tmp_path / "talk.json").read_text())["turns"]] == ["one"]
    assert "/undo    forgets the last turn" in run("/help")[1]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/nothing", "there is no /nothing; /help lists"),
        ("/undo", "no turn to undo"),
        ("/save", "say where to"),
        ("z" * 5000, "the conversation has"),
    ],
)
def test_an_error_ends_a_program_but_not_a_conversation(
    line: str, sentence: str, run: Run, type_in: Callable[..., str]
) -> None:
    code, out, err = run(line, "hello")
    assert (code, out) == (2, "")
    assert sentence in err
    shown = type_in(line, "hello")
    assert sentence in shown
    assert "\nhello\n" in shown


def test_a_person_sees_figures_and_keeps_a_history(type_in: Callable[..., str], tmp_path: Path) -> None:
    shown = type_in("hello", KeyboardInterrupt(), "again", "/undo")
    assert "onnx/fp32: /help lists commands" in shown
    assert shown.count(" read before; stop") == 2, "one line for each answer, none for a command"
    assert (tmp_path / "history").exists()


def test_ctrl_c_ends_the_answer_only(type_in: Callable[..., str], chat: Chat) -> None:
    before = signal.getsignal(signal.SIGINT)
    chat.decoder.before_append = lambda: signal.raise_signal(signal.SIGINT) if chat.decoder.taken[-1:] == [1] else None
    shown = type_in("something long to say", "/stats", "/undo")
    assert "tokens/s" not in shown
    assert "no turn to undo" in shown
    assert signal.getsignal(signal.SIGINT) is before


def test_the_model_reads_ahead_while_a_message_is_typed(
    type_in: Callable[..., str], chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()
    monkeypatch.setattr(chat.decoder, "before_append", done.set)
    type_in("hello", options=("--system", "be nice"), while_typing=lambda: done.wait(5))
    sure = len(chat.ids("<|system|>be nice<eos><|user|>")) - 2
    assert chat.decoder.taken[0] == sure


def test_other_tasks_are_refused(answer: Callable[..., tuple[int, str, str]], classifier_bundle: Path) -> None:
    assert answer("chat", str(classifier_bundle)) == (
        2,
        "WrongTask",
        "this bundle does text-classification, and only text-generation chats; use `mobile-llm run`",
    )


def test_run_streams_to_a_terminal(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    pieces: list[str] = []
    monkeypatch.setattr(out, "write", pieces.append)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["run", str(chat.bundle), "the quick brown fox"]) == 0
    assert "".join(pieces) == "the quick brown fox\n"
    assert len(pieces) > 4


def test_run_gives_figures(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(chat.bundle), "hello", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["answers"]
    assert found["answer"] == "hello"
    assert found["answer_tokens"] == len(chat.ids("hello"))
