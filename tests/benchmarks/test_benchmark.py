"""`mobile-llm benchmark` from the outside: one real run, what it prints, what it refuses before it measures."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import devices, measure, tables
from benchmarks.ceiling import Ceiling
from benchmarks.measure import Measurement
from benchmarks.result import Result
from mobile_llm.commands import main

Answer = Callable[..., tuple[int, str, str]]
MakeResult = Callable[..., Result]
EVALUATION = {"metric": "accuracy", "examples": 2, "reference": 1.0, "artifacts": {"onnx/fp32": 1.0}}


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever starts to measure fails the test."""

    def start(*_: Any) -> None:
        pytest.fail("it began to measure")

    monkeypatch.setattr("benchmarks.ceiling.measure_ceiling", start)
    monkeypatch.setattr(measure, "observer", start)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started: every run takes a millisecond, Core ML refuses."""

    def observer(_: Any, lengths: tuple[int, ...], __: int) -> measure.Observe:
        def observe(artifact_id: str) -> dict[str, Any]:
            if artifact_id.startswith("coreml"):
                return {"not_checked": "no Mac"}
            samples = {str(length): [1.0] * 5 for length in lengths}
            memory = {"peak_bytes": 2_000_000, "imports_bytes": 1_000_000}
            return {"runtime": "r 1", "load_ms": 2.0, "check_ms": 1.0, "samples": samples, **memory}

        return observe

    monkeypatch.setattr(measure, "observer", observer)
    monkeypatch.setattr("benchmarks.ceiling.measure_ceiling", lambda threads: Ceiling(threads, 10.0, 100.0))


def test_a_real_run_prints_one_document_and_writes_the_page(
    classifier_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    options = ["--artifact", "onnx/int8,coreml/int8", "--lengths", "8", "--rounds", "1", "--threads", "1"]
    code = main(["benchmark", str(classifier_bundle), *options, "--device", "all", "--html", str(page), "--json"])
    found = json.loads(capfd.readouterr().out)
    assert code == 0
    assert (found["threads"], found["lengths"], list(found["artifacts"])) == (1, [8], ["onnx/int8", "coreml/int8"])
    assert found["ceiling"]["read_gbps"] > 0.1
    assert found["ceiling"]["float32_gflops"] > 0.1
    measured = found["artifacts"]["onnx/int8"]
    latency = measured["latency"]["8"]
    assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
    assert measured["size_bytes"] == measured["cost"]["file_bytes"] > 10_000
    assert {p["device"] for p in found["predictions"]} == set(devices.names())
    if sys.platform != "darwin":
        assert found["artifacts"]["coreml/int8"]["status"] == "not_checked"
        assert found["artifacts"]["coreml/int8"]["latency"] == {"8": None}
    assert "redmi-9a" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick")
def test_tables_fit_a_terminal_and_are_loud_about_what_was_not_measured(
    classifier_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["benchmark", str(classifier_bundle), "--device", "all"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("reads 10.0 GB/s") < printed.index("Latency in ms")
    assert "NOT MEASURED: coreml/fp32, coreml/int8. no Mac" in printed
    assert [name for name in devices.names() if name not in printed] == []


def test_no_cell_is_cut_off_at_80_columns(classifier_bundle: Path, make_result: MakeResult) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    tables.print_result(console, make_result(classifier_bundle, phones=("all",)))
    lines = console.export_text().splitlines()
    assert [line for line in lines if re.search(r"\S…|…\S", line) or len(line) > 80] == []


def test_names_of_a_bundle_are_no_markup_of_the_terminal(classifier_bundle: Path, make_result: MakeResult) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    result = make_result(classifier_bundle)
    hostile = {"[/x]": result.costs["onnx/fp32"]}
    tables.print_ceiling(console, result.ceiling, hostile, 64, {})
    assert "[/x]" in console.export_text()


@pytest.mark.usefixtures("quick")
def test_a_failed_artifact_is_printed_and_exits_with_1(
    classifier_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {"onnx/fp32": Measurement("failed", "its process ended with 9: [/oops]")}
    monkeypatch.setattr(measure, "measure", lambda *_: failed)
    assert main(["benchmark", str(classifier_bundle), "--artifact", "onnx/fp32"]) == 1
    assert "onnx/fp32 failed: its process ended with 9: [/oops]" in capsys.readouterr().out


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        (["--device", "nokia-3310"], "InvalidInput", "no device 'nokia-3310'; known are redmi-9a"),
        (
            ["--lengths", "128,256"],
            "InvalidInput",
            "none of the lengths 128, 256 fits this bundle, which takes 1 to 64",
        ),
        (["--lengths", "8,many"], "InvalidInput", "--lengths should be numbers such as 16,64,128, not '8,many'"),
        (["--artifact", "onnx/int3"], "InvalidInput", "no artifact 'onnx/int3'"),
        (["--threads", "0"], "InvalidInput", "--threads should be at least 1, not 0"),
        (["--rounds", "-1"], "InvalidInput", "--rounds should be at least 1, not -1"),
        (["--evaluation", "no.json"], "InvalidInput", "no.json cannot be read"),
    ],
)
def test_bad_options_are_refused_before_measuring(
    classifier_bundle: Path, answer: Answer, options: list[str], kind: str, sentence: str
) -> None:
    code, found, message = answer("benchmark", str(classifier_bundle), *options)
    assert (code, found) == (2, kind)
    assert sentence in message
    assert "\n" not in message


@pytest.mark.usefixtures("unmeasured")
def test_a_page_that_exists_is_not_overwritten(classifier_bundle: Path, tmp_path: Path, answer: Answer) -> None:
    page = tmp_path / "mine.html"
    page.write_text("mine")
    code, kind, message = answer("benchmark", str(classifier_bundle), "--html", str(page))
    assert (code, kind) == (2, "OutputExists")
    assert "--force" in message
    assert page.read_text() == "mine"
    assert answer("benchmark", str(classifier_bundle), "--html", str(tmp_path), "--force")[1] == "OutputExists"


@pytest.mark.usefixtures("quick")
def test_with_force_it_is(classifier_bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "mine.html"
    page.write_text("mine")
    assert main(["benchmark", str(classifier_bundle), "--html", str(page), "--force"]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classifier", "mine.html"]


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("not json", "is not JSON"),
        ("[]", "is not an evaluation: it should be an object"),
        ('{"error": {"type": "InvalidInput", "message": "no"}}', "is not an evaluation: it lacks the key 'metric'"),
        (json.dumps(EVALUATION | {"artifacts": {"onnx/fp32": "high"}}), "it.artifacts.onnx/fp32 should be float"),
        (
            json.dumps(EVALUATION | {"artifacts": {"onnx/int2": 1.0}}),
            "is of another bundle: classifier has no onnx/int2",
        ),
    ],
)
def test_a_foreign_evaluation_is_refused(
    classifier_bundle: Path, tmp_path: Path, answer: Answer, document: str, sentence: str
) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(document)
    code, kind, message = answer("benchmark", str(classifier_bundle), "--evaluation", str(path))
    assert (code, kind) == (2, "InvalidInput")
    assert sentence in message
    assert "mobile-llm evaluate" in message


@pytest.mark.usefixtures("unmeasured")
def test_a_tampered_bundle_is_refused(classifier_bundle: Path, answer: Answer) -> None:
    path = classifier_bundle / "tflite" / "fp32.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    code, kind, message = answer("benchmark", str(classifier_bundle))
    assert (code, kind) == (1, "IntegrityFailed")
    assert "tflite/fp32.tflite differs" in message


def test_what_is_not_a_bundle_is_refused(tmp_path: Path, answer: Answer) -> None:
    assert answer("benchmark", str(tmp_path))[:2] == (2, "ModelNotFound")
