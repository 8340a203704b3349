"""The plan of an export: sizes that come true, and a refusal, before anything heavy, of what cannot fit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.export_memory import Measured
from benchmarks.plan_check import compare
from exporters import appetite, plan
from exporters.appetite import Shape
from exporters.plan import Plan, make_plan
from exporters.sources.headers import Sizes, count_sizes, read_shapes
from exporters.spec import ExportSpec
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main
from mobile_llm.errors import InvalidInput, NotEnoughMemory

BASE = Sizes(linear=85_000_000, words=23_000_000, rest=800_000, stored=109_400_000)
BERT = Shape(longest=512, heads=12, intermediate=3072)
ALL = [f"{name}/{recipe}" for recipe in ("fp32", "int8") for name in ("onnx", "tflite", "coreml")]


@pytest.fixture
def asked(classifier_model: Path, tmp_path: Path) -> ExportSpec:
    return ExportSpec(str(classifier_model), "text-classification", tmp_path / "out" / "bundle")


def test_the_artifacts_have_the_planned_sizes(asked: ExportSpec, classifier_bundle: Path) -> None:
    """To what a graph takes: a tiny model is little else."""
    planned = make_plan(asked)
    written = Bundle.open(classifier_bundle).manifest.artifacts
    assert list(planned.artifacts) == list(written)
    for artifact_id, artifact in written.items():
        assert planned.artifacts[artifact_id] == pytest.approx(artifact.size, abs=300_000)


def test_parameters_are_counted_by_the_headers_alone(classifier_model: Path, embedder_model: Path) -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(classifier_model)
    sizes = count_sizes(read_shapes(classifier_model), "text-classification")
    assert sizes.exported == sizes.stored == sum(p.numel() for p in model.parameters())
    assert sizes.words == model.bert.embeddings.word_embeddings.weight.numel()
    embedder = AutoModel.from_pretrained(embedder_model)
    unused = sum(p.numel() for p in embedder.pooler.parameters())
    sizes = count_sizes(read_shapes(embedder_model), "feature-extraction")
    assert (sizes.stored - sizes.exported, unused > 0) == (unused, True)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, b"\x05" + bytes(7) + b"[1,2]"])
def test_a_damaged_header_is_named(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(damage)
    with pytest.raises(InvalidInput, match=r"model\.safetensors is damaged or cut short"):
        read_shapes(tmp_path)


def test_the_peak_grows_with_the_model_and_with_what_is_asked() -> None:
    half = Sizes(*(n // 2 for n in (BASE.linear, BASE.words, BASE.rest, BASE.stored)))
    peaks = [appetite.peak_bytes(sizes, BERT, ALL, False)[0] for sizes in (half, BASE)]
    assert peaks[0] < peaks[1] < 2 * peaks[0]  # the imports stay
    onnx = appetite.peak_bytes(BASE, BERT, ["onnx/fp32"], False)[0]
    assert onnx < peaks[1] < appetite.peak_bytes(BASE, BERT, ALL, True)[0]  # TensorFlow where it is installed


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    asked: ExportSpec, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["export", asked.model, "--task", asked.task, "-o", str(asked.output), "--dry-run"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "million parameters -> onnx/fp32" in shown.err
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["plan"]["artifacts"]) == set(ALL)
    assert not asked.output.parent.exists()


def test_a_dry_run_imports_nothing_heavy(asked: ExportSpec) -> None:
    code = (
        "import sys; from mobile_llm.commands import main; main(sys.argv[1:])\n"
        "print({'torch', 'transformers', 'onnx', 'onnxruntime', 'coremltools', 'rich'} & set(sys.modules))"
    )
    words = ["export", asked.model, "--task", asked.task, "-o", str(asked.output), "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("available_memory", lambda: 1_000, "of memory at its peak"),
        ("free_disk", lambda _: 1_000, "of disk, and 0 MB are free where the bundle goes"),
    ],
)
def test_what_cannot_fit_is_refused_before_any_work(
    dry: bool, setting: str, value: Callable[..., int], sentence: str,
    asked: ExportSpec, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., tuple[int, str, str]],
) -> None:  # fmt: skip
    monkeypatch.setattr(plan, setting, value)
    monkeypatch.setattr(plan, "resident_memory", lambda: 0)
    words = ["export", asked.model, "--task", asked.task, "-o", str(asked.output), *(["--dry-run"] if dry else [])]
    code, kind, message = answer(*words)
    assert (code, kind) == (2, "NotEnoughMemory")
    assert sentence in message
    assert not asked.output.parent.exists()


def test_the_program_refuses_too(asked: ExportSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from exporters.pipeline import run_export

    monkeypatch.setattr(plan, "free_disk", lambda _: 0)
    with pytest.raises(NotEnoughMemory, match="free some room"):
        run_export(asked)


def test_unknown_memory_refuses_nothing_and_temporary_files_count_where_they_lie(asked: ExportSpec) -> None:
    roomy = Plan({}, 1, 10, 5, "x", 100, 100, 1.0, None, 150, 50, same_disk=True)
    with pytest.raises(NotEnoughMemory, match="of disk"):
        roomy.refuse_what_cannot_fit()
    with pytest.raises(NotEnoughMemory, match="set TMPDIR"):
        replace(roomy, same_disk=False).refuse_what_cannot_fit()
    replace(roomy, same_disk=False, scratch_free=100).refuse_what_cannot_fit()


def test_the_comparison_says_by_how_much_a_prediction_is_off() -> None:
    planned: dict[str, Any] = {"peak": 130_000_000, "above_imports": 20_000_000, "peak_step": "x"}
    found = compare(planned, Measured(weights=10_000_000, peak=100_000_000, imports=60_000_000))
    assert (found["peak_off"], found["above_imports_off"], found["times_the_weights"]) == (0.3, -0.5, 4.0)
