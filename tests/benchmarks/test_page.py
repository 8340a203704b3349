"""The page: well formed, loud about what nobody checked, deaf to markup from a bundle, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks import devices
from benchmarks.measure import Measurement
from benchmarks.page.markup import Bar, Span, bars, spans
from benchmarks.report import read_evaluation, render, write
from benchmarks.result import Result
from exporters.metrics import PairedDifference
from exporters.verification import evaluation as exported
from mobile_llm.bundle import Bundle

MakeResult = Callable[..., Result]
EditManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]
HOSTILE = "<script>alert(1)</script>\"'&$title"
VOID = {"meta", "line", "rect", "circle"}


class Outline(HTMLParser):
    """Tags must close in the order they opened; collects the text and the kinds of elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(make_result: MakeResult) -> Callable[..., Outline]:
    def rendered(folder: Path, evaluation: dict[str, Any] | None = None, **more: Any) -> Outline:
        bundle = Bundle.open(folder)
        read = None
        if evaluation is not None:
            path = folder.parent / "evaluation.json"
            path.write_text(json.dumps(evaluation))
            read = read_evaluation(str(path), bundle)
        return Outline(render(bundle, make_result(folder, **more), read))

    return rendered


def _evaluation(**changes: Any) -> dict[str, Any]:
    difference = {"mean": -0.0024, "low": -0.0097, "high": 0.0049}
    unlike = {"row": 17, "margin": 0.031, "reference": "positive", "artifact": "neutral"}
    details = {"value": 0.8687, "agreement": 0.9892, "difference": difference, "disagreements": [unlike]}
    return {
        "metric": "accuracy",
        "examples": 830,
        "reference": 0.8711,
        "artifacts": {"onnx/int8": 0.8687},
        "not_checked": {"coreml/int8": "no operator einsum"},
        "details": {"onnx/int8": details},
    } | changes


def test_what_evaluate_saves_is_what_the_page_reads(classifier_bundle: Path, tmp_path: Path) -> None:
    unlike = exported.Disagreement(3, 0.5, "negative", "neutral")
    score = exported.Score(0.75, 0.5, PairedDifference(-0.25, -0.5, 0.25), (unlike,))
    saved = exported.Evaluation("accuracy", 4, 1.0, {"onnx/int8": score}, {"coreml/int8": "no operator einsum"})
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(saved.as_json()))
    found = read_evaluation(str(path), Bundle.open(classifier_bundle))
    assert json.loads(json.dumps(asdict(found))) == json.loads(path.read_text())


def _edit_rows(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "verification.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document["rows"][-1])
    path.write_text(json.dumps(document), encoding="utf-8")


def test_it_says_what_the_bundle_is_and_what_was_found(classifier_bundle: Path, page: Callable[..., Outline]) -> None:
    found = page(classifier_bundle, _evaluation(), phones=("all",))
    rows = json.loads((classifier_bundle / "verification.json").read_text(encoding="utf-8"))["rows"]
    passed = sum(row["status"] == "passed" for row in rows)
    for words in (
        "text-classification (negative, neutral, positive)",
        f"{passed} of {len(rows)}",
        f"All {len(rows)} comparisons",
        "87.11% PyTorch model",
        "86.87% -0.24 -0.97 to +0.49 98.92% 1",
        "1 rows labelled unlike the model",
        "onnx/fp32 1.60 ms 6.40 ms",
        "20.0 GB/s",
        "a <fast> processor",
        "spec-only",
        *devices.names(),
    ):
        assert words in found.text
    assert {"svg", "table", "details"} <= found.tags


def test_what_nobody_checked_stands_before_everything_else(
    classifier_bundle: Path, page: Callable[..., Outline]
) -> None:
    text = page(classifier_bundle, _evaluation()).text
    box = text[text.index("Not checked") : text.index("Compared with the model")]
    assert "latency of coreml/fp32, coreml/int8: Core ML runs on Apple systems only" in box
    assert "accuracy of coreml/int8: no operator einsum" in box
    assert "points of accuracy lost of onnx/fp32, tflite/fp32" in box
    assert "a phone: none was measured" in box
    assert "Failed" not in text[: text.index("Compared with the model")]


def test_an_evaluation_that_was_not_given_is_not_checked(classifier_bundle: Path, page: Callable[..., Outline]) -> None:
    text = page(classifier_bundle).text
    assert "the task on rows of your own: no --evaluation was given" in text
    assert "The task" not in text


@pytest.mark.parametrize("status", ["failed", "exploded"])
def test_failures_are_loud_also_of_a_kind_it_does_not_know(
    classifier_bundle: Path, page: Callable[..., Outline], status: str
) -> None:
    _edit_rows(classifier_bundle, lambda row: row.update(status=status, metric="cosine", value=0.5, limit=0.9))
    failed = {"onnx/fp32": Measurement("failed", "its process ended with 9")}
    text = page(classifier_bundle, **failed).text
    box = text[text.index("Failed") : text.index("Not checked")]
    assert "cosine is 0.5, the limit is 0.9" in box
    assert "onnx/fp32 failed here: its process ended with 9" in box


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "the bundle has no verification.json"),
        ("{", "verification.json cannot be read"),
        ('{"rows": [{"artifact": 1}]}', "verification.json cannot be read"),
        ('{"rows": 3}', "verification.json cannot be read"),
    ],
)
def test_a_bundle_without_attestation_is_said_to_be_so(
    classifier_bundle: Path, page: Callable[..., Outline], content: str | None, words: str
) -> None:
    path = classifier_bundle / "verification.json"
    path.unlink() if content is None else path.write_text(content)
    text = page(classifier_bundle).text
    assert words in text[text.index("Not checked") : text.index("Latency on this machine")]
    assert "0 of 0" in text


def test_texts_of_a_bundle_are_never_markup(
    classifier_bundle: Path, page: Callable[..., Outline], edit_manifest: EditManifest
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["task"]["labels"][0] = HOSTILE
        manifest["origin"] |= {"id": HOSTILE, "licence": HOSTILE, "architecture": HOSTILE}

    edit_manifest(classifier_bundle, change)
    strings = ("artifact", "entry_point", "metric", "reason", "where")
    _edit_rows(classifier_bundle, lambda row: row.update(dict.fromkeys(strings, HOSTILE), status=HOSTILE))
    unlike = {"row": 1, "margin": 1.0, "reference": HOSTILE, "artifact": HOSTILE}
    details = {"onnx/int8": {"value": 1.0, "disagreements": [unlike]}}
    folder = classifier_bundle.rename(classifier_bundle.parent / "a<i>b")
    evaluation = _evaluation(metric=HOSTILE, not_checked={"onnx/fp32": HOSTILE}, details=details)
    found = page(folder, evaluation, **{"tflite/fp32": Measurement("failed", HOSTILE)})
    assert not {"script", "i"} & found.tags
    assert found.text.count(HOSTILE) >= 12
    assert "a<i>b" in found.text


def test_nothing_is_fetched_from_elsewhere(classifier_bundle: Path, make_result: MakeResult) -> None:
    text = render(Bundle.open(classifier_bundle), make_result(classifier_bundle), None)
    assert "http" not in text
    assert "src=" not in text


def test_an_interrupted_page_leaves_the_old_one(
    classifier_bundle: Path, tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(str(target), Bundle.open(classifier_bundle), make_result(classifier_bundle), None, force=True)
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classifier", "page.html"]


def test_embeddings_have_a_page_too(embedder_bundle: Path, page: Callable[..., Outline]) -> None:
    evaluation = {"metric": "mean cosine", "examples": 9, "reference": 1.0, "artifacts": {"tflite/int8": 0.99123}}
    text = page(embedder_bundle, evaluation).text
    assert "Mean cosine on 9 rows." in text
    assert "tflite/int8 0.99123" in text
    assert "95 % interval" not in text


def test_a_bar_is_as_long_as_its_value() -> None:
    chart = bars("c", [Bar("a", 10.0, 20.0), Bar("b", 5.0), Bar("none", note="not checked")], "ms")
    widths = [float(part.split('"')[0]) for part in chart.split('width="')[1:]]
    tail, a, _, b = widths
    assert (a / tail, b / a) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01))
    assert "not checked" in chart


def test_an_interval_stands_on_a_logarithmic_scale() -> None:
    chart = spans("c", [Span("a", 10.0, 1.0, 100.0)], "ms", 1.0, 100.0)
    (left,) = (float(part.split('"')[0]) for part in chart.split('class="tail" x="')[1:])
    (wide,) = (float(part.split('"')[0]) for part in chart.split(' width="')[1:])
    (middle,) = (float(part.split('"')[0]) for part in chart.split('cx="')[1:])
    assert middle == pytest.approx(left + wide / 2, abs=0.2)
    assert [f">{tick}</text>" in chart for tick in (1, 10, 100, 1000)] == [True, True, True, False]
