"""The comparison with LiteRT-LM can fail: our own answers pass, and every way of being wrong is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import exporters
import mobile_llm
from benchmarks.interop_decoder import __main__ as command
from benchmarks.interop_decoder import client
from benchmarks.interop_decoder import compare as comparing
from benchmarks.interop_decoder.compare import Row, compare
from mobile_llm.bundle import Bundle
from mobile_llm.errors import BackendUnavailable
from mobile_llm.tasks.text_generation import chat_template
from mobile_llm.tasks.tokenization import TextTokenizer
from tests.exporters.conftest import decoder_folder  # noqa: F401 - a fixture

Answer = dict[str, Any]
ARTIFACT = "litertlm/fp32"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "CONVERSATIONS", (({"role": "user", "content": "a"},),))
    monkeypatch.setattr(comparing, "MORE", "b")
    monkeypatch.setattr(comparing, "MOST", 6)
    monkeypatch.setattr(comparing, "_NEAR", 0)


@pytest.fixture(scope="module")
def bundle(decoder_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:  # noqa: F811
    output = tmp_path_factory.mktemp("llama") / "bundle"
    made = exporters.export(
        decoder_folder("llama"), "text-generation", output, formats=("litertlm",), recipes=("fp32",)
    )
    return Bundle.open(made.bundle)


def test_our_own_answers_pass(bundle: Bundle) -> None:
    rows = compared(bundle)
    assert [(row.what, row.verdict, row.differ) for row in rows] == [
        ("ids of a text", "pass", 0),
        ("prompts", "pass", 0),
        ("greedy answers", "pass", 0),
    ]
    assert rows[0].compared > 5


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("ids of a text", lambda answer: answer["ids"][0].append(1)),
        ("prompts", lambda answer: answer["answers"][0].update(prompt="a")),
        ("greedy answers", lambda answer: answer["answers"][0].update(texts=["?", "?"])),
    ],
)
def test_what_differs_fails(what: str, spoil: Callable[[Answer], None], bundle: Bundle) -> None:
    rows = {row.what: row for row in compared(bundle, spoil)}
    assert {row.what for row in rows.values() if row.verdict == "FAIL"} == {what}
    assert rows[what].note


def test_a_text_may_differ_where_two_tokens_are_as_likely(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_NOISE", {"fp32": 100.0})
    row = compared(bundle, lambda answer: answer["answers"][0].update(texts=["?", "?"]))[-1]
    assert (row.verdict, row.differ) == ("pass", 2)
    assert "100 is noise" in row.note


def test_what_follows_on_an_answer_that_was_cut_is_not_compared(bundle: Bundle) -> None:
    row = compared(bundle, lambda answer: answer["answers"][0].update(texts=["?" * comparing.MOST, "?"]))[-1]
    assert (row.compared, row.differ) == (1, 1)


def test_a_client_that_cannot_be_installed_is_not_a_pass(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(folder: Path) -> Path:
        raise BackendUnavailable("no network")

    monkeypatch.setattr(command, "install", missing)
    (row,) = command._rows(bundle, Path("work"), threads=1)
    assert (row.artifact, row.verdict, row.note) == (ARTIFACT, "NOT CHECKED", "no network")


def test_a_client_that_fails_is_a_failure(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "client.py"
    broken.write_text("raise RuntimeError('error: it does not open')")
    monkeypatch.setattr(client, "_SCRIPT", broken)
    monkeypatch.setattr(command, "install", lambda folder: Path(command.sys.executable))
    (row,) = command._rows(bundle, Path("work"), threads=1)
    assert row.verdict == "FAIL"
    assert "it does not open" in row.note


def compared(bundle: Bundle, spoil: Callable[[Answer], None] = lambda answer: None) -> list[Row]:
    """With a client that answers as we do, but for what is spoiled."""

    def ask(request: Mapping[str, Any]) -> Answer:
        answer = ours(bundle, request)
        spoil(answer)
        return answer

    return list(compare(bundle, ARTIFACT, ask, threads=1))


def ours(bundle: Bundle, request: Mapping[str, Any]) -> Answer:
    tokenizer, template = TextTokenizer(bundle), chat_template(bundle)
    assert template is not None
    model = mobile_llm.load(bundle.folder, ARTIFACT, threads=1)
    answers = []
    for messages in request["conversations"]:
        first = model.generate(messages, max_tokens=request["most"]).text
        more = [*messages, {"role": "assistant", "content": first}, {"role": "user", "content": request["more"]}]
        second = model.generate(more, max_tokens=request["most"]).text
        answers.append({"prompt": template.render(messages), "texts": [first, second]})
    model.close()
    return {"ids": [list(tokenizer.encode(t, special=False).ids) for t in request["texts"]], "answers": answers}
