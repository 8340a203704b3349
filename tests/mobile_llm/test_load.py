"""`mobile_llm.load` and the command `run`: light imports, answers in order, one sentence for bad input."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mobile_llm
from mobile_llm.commands import main
from mobile_llm.errors import BackendUnavailable, InvalidInput

HEAVY = (
    "torch", "transformers", "tensorflow", "onnx", "rich", "coremltools", "ai_edge_litert", "flatbuffers", "optimum",
    "safetensors", "huggingface_hub", "exporters", "benchmarks",
)  # fmt: skip
TEXTS = ["A good film", "bad", "it repeats and repeats, again and again", "warm, funny!"]


def test_importing_is_light() -> None:
    code = f"import sys, mobile_llm; print(sorted({set(HEAVY) | {'numpy', 'onnxruntime'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("task", ["classify", "embed"])
def test_an_onnx_bundle_needs_nothing_heavier(task: str, classifier_bundle: Path, embedder_bundle: Path) -> None:
    bundle = classifier_bundle if task == "classify" else embedder_bundle
    code = (
        f"import sys, mobile_llm; task = mobile_llm.load({str(bundle)!r}); print(len(task.{task}({TEXTS!r})))\n"
        f"print(sorted({set(HEAVY)} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "4\n[]\n"


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "onnx/int8", "tflite/fp32", "tflite/int8"])
def test_a_batch_gives_each_text_the_answer_it_has_alone(artifact_id: str, embedder_bundle: Path) -> None:
    """To the last bit, since by default no text is padded; in the order of the texts, not of their lengths."""
    embedder = mobile_llm.load(embedder_bundle, artifact_id, threads=1)
    together = embedder.embed(TEXTS)
    assert together.shape == (4, 32)
    assert together.dtype == np.float32
    for text, row in zip(TEXTS, together):
        np.testing.assert_array_equal(embedder.embed(text)[0], row)
    np.testing.assert_allclose(np.linalg.norm(together, axis=-1), 1, atol=1e-5)


def test_a_padded_batch_equals_single_answers(embedder_bundle: Path) -> None:
    embedder = mobile_llm.load(embedder_bundle, "onnx/fp32")
    np.testing.assert_allclose(embedder.embed(TEXTS, batch_size=3), embedder.embed(TEXTS), atol=1e-6)


def test_a_classifier_gives_labels_and_probabilities(classifier_bundle: Path) -> None:
    classifier = mobile_llm.load(classifier_bundle, "onnx/fp32")
    answers = classifier.classify(TEXTS)
    assert len(answers) == len(TEXTS)
    for answer, logits in zip(answers, classifier.logits(TEXTS)):
        assert tuple(answer.scores) == ("negative", "neutral", "positive")
        assert answer.label == tuple(answer.scores)[int(logits.argmax())]
        assert answer.score == max(answer.scores.values())
        assert sum(answer.scores.values()) == pytest.approx(1)
    assert len({answer.score for answer in answers}) == len(TEXTS)


def test_texts_are_cut_at_the_models_limit(classifier_bundle: Path) -> None:
    classifier = mobile_llm.load(classifier_bundle, "onnx/fp32")
    long = "good " * 61
    assert classifier.classify(long + "good film film")[0] == classifier.classify(long + "good bad bad bad")[0]
    assert classifier.classify(long + "film")[0] != classifier.classify(long + "bad")[0]


@pytest.mark.parametrize("texts", [[], [None], [b"bytes"]])
def test_what_is_no_text_is_refused(texts: list[object], classifier_bundle: Path) -> None:
    with pytest.raises(InvalidInput, match="text"):
        mobile_llm.load(classifier_bundle).classify(texts)


def test_an_unknown_prompt_is_refused(embedder_bundle: Path) -> None:
    with pytest.raises(InvalidInput, match="this model has no prompt 'query'; it has none"):
        mobile_llm.load(embedder_bundle).embed("good", prompt="query")


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML exists there")
def test_core_ml_says_where_it_runs(classifier_bundle: Path) -> None:
    with pytest.raises(BackendUnavailable, match="Core ML runs on Apple systems only; choose an ONNX or TFLite"):
        mobile_llm.load(classifier_bundle, "coreml/fp32")


def test_run_prints_one_line_per_text(classifier_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(classifier_bundle), "good film", "bad film"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2] for line in lines] == ["good film", "bad film"]
    assert all(line.split("\t")[0] in ("negative", "neutral", "positive") for line in lines)


def test_run_reads_stdin_and_prints_one_json_document(
    embedder_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("good film\nbad film\n"))
    assert main(["run", str(embedder_bundle), "--json", "--artifact", "tflite/fp32"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["artifact"] == "tflite/fp32"
    assert [answer["text"] for answer in document["answers"]] == ["good film", "bad film"]
    assert len(document["answers"][0]["embedding"]) == 32


def test_inspect_shows_labels_sizes_and_verdicts(classifier_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(classifier_bundle)]) == 0
    printed = capsys.readouterr().out
    assert "labels: negative, neutral, positive" in printed
    assert "tflite/int8" in printed
    assert "FAILED" not in printed
    assert main(["inspect", str(classifier_bundle), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"manifest", "verification"}


def test_an_error_with_json_is_one_document_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path), "good", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["type"] == "ModelNotFound"
    assert printed.err.startswith("mobile-llm: ")
