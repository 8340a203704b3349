"""The comparison with other clients can fail: right values pass, and every way of being wrong is told."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobile_llm
from benchmarks.interop import __main__ as command
from benchmarks.interop import encoders
from benchmarks.interop.compare import Client, Comparison, Report, ask, compare
from benchmarks.interop.judge import Row, judge, judge_artifact
from benchmarks.interop.printing import finite, print_report
from benchmarks.interop.reference import Expected, Reference, read_reference
from benchmarks.processes import process, reason
from mobile_llm.bundle import Bundle
from mobile_llm.errors import BackendUnavailable, ModelNotFound
from mobile_llm.tasks.text_classification import TextClassifier

EXACT, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"
Reading = dict[str, Any]


def _expected(ids: list[int], logits: tuple[float, float], label: str) -> Expected:
    values = {"logits": np.array(logits), "embedding": np.array([*logits, 1.0])}
    return Expected(ids, values, label, abs(logits[0] - logits[1]))


REFERENCE = Reference(
    texts=("sure", "unsure", "cut"),
    answers=(
        _expected([1, 5, 2], (3.0, -3.0), "yes"),
        _expected([1, 6, 2], (0.1, 0.2), "no"),
        _expected([1, 7, 2], (1.0, 4.0), "no"),
    ),
    blunt={2: _expected([1, 7, 8], (0.0, 5.0), "no")},
    names=("yes", "no"),
)


def _reading(artifact: str = EXACT, kind: str = "logits", **changes: Any) -> Reading:
    """What a client without fault would answer."""
    right = REFERENCE.answers
    values = [answer.values[kind].tolist() for answer in right]
    reading = {"artifact": artifact, "way": "model", "kind": kind, "values": values, "ids": [a.ids for a in right]}
    return reading | ({"labels": [a.label for a in right]} if kind == "logits" else {}) | changes


def _off(reading: Reading, text: int, by: float) -> Reading:
    values = [list(row) for row in reading["values"]]
    values[text][0] += by
    return reading | {"values": values}


@pytest.mark.parametrize("kind", ["logits", "embedding"])
@pytest.mark.parametrize("artifact", [EXACT, QUANTIZED])
def test_right_values_pass(artifact: str, kind: str) -> None:
    row = judge("client", _reading(artifact, kind), REFERENCE)
    assert (row.verdict, row.tokens_differ, row.note) == ("pass", 0, "")


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (_off(_reading(), 0, 2e-4), "a difference of 0.0002, the limit is 0.0001"),
        (_off(_reading(), 1, float("nan")), "a difference of nan"),
        (_off(_reading(kind="embedding"), 0, 0.1), "the limit is 0.99999"),
        (_off(_reading(QUANTIZED, "embedding"), 0, -4.0), "the limit is 0.95"),
        (_reading(kind="embedding", values=[[0.0] * 3] * 3), "a cosine of nan"),
        (_reading(labels=["yes", "yes", "no"]), "1 labels differ that should not"),
        (_reading(QUANTIZED, labels=["no", "no", "no"]), "1 labels differ that should not"),
        (_reading(ids=[[1, 5, 2], [1, 9, 2], [1, 7, 2]]), "other tokens for 'unsure'"),
        (_reading(values=[[1.0, 2.0]]), "1 answers to 3 texts"),
        (_reading(values=[[1.0, 2.0, 3.0]] * 3), "(3,) numbers for each text instead of (2,)"),
    ],
)
def test_wrong_values_fail_with_the_reason(reading: Reading, words: str) -> None:
    row = judge("client", reading, REFERENCE)
    assert row.verdict == "FAIL"
    assert words in row.note


def test_int8_may_move_logits_and_turn_a_label_that_was_not_sure() -> None:
    row = judge("client", _off(_reading(QUANTIZED, labels=["yes", "yes", "no"]), 1, 0.3), REFERENCE)
    assert (row.verdict, row.labels_differ) == ("pass", 1)
    assert row.note == "labels differ at margins of 0.10"


def test_a_text_cut_without_its_end_is_compared_at_the_tokens_left() -> None:
    cut = _reading(ids=[[1, 5, 2], [1, 6, 2], [1, 7, 8]])
    assert judge("client", cut, REFERENCE).verdict == "FAIL"  # the numbers are those of other tokens
    blunt = cut | {"values": [*cut["values"][:2], [0.0, 5.0]]}
    row = judge("client", blunt, REFERENCE)
    assert (row.verdict, row.tokens_differ) == ("pass", 1)


def test_a_text_without_room_is_left_out_and_said() -> None:
    values = _reading()["values"]
    row = judge("client", _reading(values=[*values[:2], None]), REFERENCE)
    assert (row.verdict, row.note) == ("pass", "texts longer than every signature, and not compared: 1")
    assert judge("client", _reading(values=[None] * 3), REFERENCE).verdict == "NOT CHECKED"


def test_an_artifact_without_a_reading_has_failed() -> None:
    answer = {"readings": [], "errors": {EXACT: "it does not open"}}
    assert [r.note for r in judge_artifact("client", EXACT, answer, REFERENCE)] == ["it does not open"]
    (row,) = judge_artifact("client", QUANTIZED, answer, REFERENCE)
    assert (row.verdict, row.note) == ("FAIL", "the client gave no reading")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder in which only the fp32 ONNX file is present."""
    (tmp_path / "onnx").mkdir()
    (tmp_path / EXACT).write_bytes(b"")
    return tmp_path


def _client(code: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-c", code]


def _asked(install: Callable[[], list[str]], bundle: Path) -> tuple[str, list[Row]]:
    clients = {"optimum": Client(install, (EXACT, QUANTIZED))}
    return ask("optimum", Comparison(clients, {}, partial(judge_artifact, reference=REFERENCE)), bundle)


def test_a_client_is_asked_for_what_is_there(bundle: Path) -> None:
    answer = json.dumps({"client": "a client 1", "readings": [_reading()], "errors": {}})
    code = f"import sys; assert '{EXACT}' in sys.stdin.read(); print('noise'); print({answer!r})"
    versions, rows = _asked(_client(code), bundle)
    assert versions == "a client 1"
    assert [(row.artifact, row.verdict) for row in rows] == [(QUANTIZED, "NOT CHECKED"), (EXACT, "pass")]


def test_a_client_that_dies_has_failed(bundle: Path) -> None:
    rows = _asked(_client("raise ValueError('broken')"), bundle)[1]
    assert (rows[-1].verdict, rows[-1].note) == ("FAIL", "it ended with code 1 and no answer: ValueError: broken")


def test_a_client_that_cannot_be_installed_is_not_checked(bundle: Path) -> None:
    def install() -> list[str]:
        raise BackendUnavailable("Node is not installed")

    versions, rows = _asked(install, bundle)
    assert versions == "not installed"
    assert {(row.verdict, row.artifact) for row in rows} == {("NOT CHECKED", EXACT), ("NOT CHECKED", QUANTIZED)}
    assert rows[-1].note == "Node is not installed"


def test_a_command_that_is_not_there_is_no_exception(tmp_path: Path) -> None:
    done = process([str(tmp_path / "nothing")])
    assert (done.returncode, reason(done.stderr)) == (1, "nothing: No such file or directory")


def test_a_client_that_changes_the_bundle_has_failed(
    classifier_bundle: Path, classifier_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave = f"open({str(classifier_bundle / 'cache.json')!r}, 'w').close()"
    code = f"""{leave}; print('{{"client": "a client", "readings": [], "errors": {{}}}}')"""
    monkeypatch.setattr(encoders, "find_tensorflow", _client(code))
    monkeypatch.setattr(encoders, "read_reference", lambda *_: REFERENCE)
    monkeypatch.setattr(encoders, "_TFLITE", ())
    where = {"bundle": classifier_bundle, "model": classifier_model, "work": classifier_bundle.parent}
    args = argparse.Namespace(**where, clients=["tensorflow"], optimum_python=None)
    (row,) = compare(args).rows
    assert (row.verdict, row.note) == ("FAIL", "the client changed files in the bundle")


def test_the_reference_is_the_models_own_answer(classifier_bundle: Path, classifier_model: Path) -> None:
    """Read from the model, and judged against the bundle's own runtime, which must pass and, one logit off, fail."""
    bundle = Bundle.open(classifier_bundle)
    reference = read_reference(classifier_model, bundle)
    assert reference.names == bundle.manifest.task.labels
    assert reference.blunt  # some texts are longer than the model
    classifier = mobile_llm.load(classifier_bundle, artifact="onnx/fp32")
    assert isinstance(classifier, TextClassifier)
    answers = classifier.classify(list(reference.texts))
    classifier.close()
    scores = [[answer.scores[name] for name in reference.names] for answer in answers]
    ids = [answer.ids for answer in reference.answers]
    reading = {"artifact": EXACT, "way": "ours", "kind": "scores", "values": scores, "ids": ids}
    reading["labels"] = [answer.label for answer in answers]
    assert judge("ours", reading, reference).verdict == "pass"
    assert judge("ours", _off(reading, 3, 0.01), reference).verdict == "FAIL"


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("NOT CHECKED", 0), ("FAIL", 1)])
def test_the_exit_code_is_that_of_the_verdicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: str, code: int
) -> None:
    row = Row("c", EXACT, "model", verdict, float("nan"), 1.0, 0, 0, "a [note]")
    monkeypatch.setattr(command, "compare", lambda _: Report({"c": "c 1"}, (row,)))
    monkeypatch.setattr(sys, "argv", ["interop", "bundle", "model", "--json"])
    assert command.main() == code
    (found,) = json.loads(capsys.readouterr().out)["rows"]
    assert (found["verdict"], found["difference"]) == (verdict, None)


def test_an_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: argparse.Namespace) -> Report:
        raise ModelNotFound("no bundle there")

    monkeypatch.setattr(command, "compare", refuse)
    monkeypatch.setattr(sys, "argv", ["interop", "bundle", "model"])
    assert command.main() == 2
    assert capsys.readouterr().err == "error: no bundle there\n"


def test_the_table_shows_every_row_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("c", EXACT, "model", "FAIL", 0.5, None, 1, 2, "a [note]")
    print_report(Report({"c": "c 1"}, (row, replace(row, verdict="pass", note=""))))
    printed = capsys.readouterr().out
    assert f"FAIL c {EXACT} model: a [note]" in printed
    assert finite(row)["difference"] == 0.5
