"""Measuring: percentiles, turns, what a refusal does, and one real process."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.ceiling import Ceiling
from benchmarks.cost import Cost
from mobile_llm.bundle import Bundle
from mobile_llm.errors import IntegrityFailed, InvalidInput

TENS = [float(n) for n in range(10, 101, 10)]


@pytest.mark.parametrize(("percent", "expected"), [(50, 50.0), (90, 90.0), (91, 100.0), (99, 100.0), (1, 10.0)])
def test_a_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert measure.percentile(TENS[::-1], percent) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert measure.percentile([7.0], 50) == measure.percentile([7.0], 99) == 7.0


def test_lengths_that_do_not_fit_are_left_out_and_refused_where_none_does() -> None:
    assert measure.usable_lengths([64, 16, 16, 128, 0], 64) == (16, 64)
    with pytest.raises(InvalidInput, match="none of the lengths 128, 256 fits this bundle, which takes 1 to 64"):
        measure.usable_lengths([128, 256], 64)


def test_artifacts_take_turns_and_the_median_is_over_rounds(classifier_bundle: Path) -> None:
    rounds = {"onnx/fp32": iter([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])}
    rounds["tflite/fp32"] = iter([[1.0] * 3] * 3)
    asked = []

    def observe(artifact_id: str) -> dict[str, Any]:
        asked.append(artifact_id)
        samples = {"16": next(rounds[artifact_id])}
        memory = {"peak_bytes": 100, "imports_bytes": 60}
        return {"runtime": "r", "load_ms": 5.0, "check_ms": 1.0, "samples": samples, **memory}

    artifacts = {name: Bundle.open(classifier_bundle).manifest.artifacts[name] for name in rounds}
    found = measure.measure(artifacts, observe, rounds=3)
    assert asked == ["onnx/fp32", "tflite/fp32"] * 3
    latency = found["onnx/fp32"].latency[16]
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.runs) == (4.0, 9.0, 9.0, 9)
    assert latency.tokens_per_second == 1000 * 16 / 4.0
    assert latency.padded_to is None
    assert found["tflite/fp32"].latency[16].padded_to == 32
    assert found["onnx/fp32"].above_imports_bytes == 40


def test_an_artifact_that_refuses_is_not_asked_again(classifier_bundle: Path) -> None:
    asked = []

    def observe(artifact_id: str) -> dict[str, Any]:
        asked.append(artifact_id)
        return {"failed": "it fell over"}

    artifacts = {"onnx/fp32": Bundle.open(classifier_bundle).manifest.artifacts["onnx/fp32"]}
    found = measure.measure(artifacts, observe, rounds=3)["onnx/fp32"]
    assert (found.status, found.reason, asked) == ("failed", "it fell over", ["onnx/fp32"])


def test_one_real_process(classifier_bundle: Path) -> None:
    observe = measure.observer(Bundle.open(classifier_bundle), lengths=(8, 16), threads=1, seconds=0.01)
    seen = observe("onnx/int8")
    assert seen["runtime"].startswith("onnxruntime ")
    assert sorted(seen["samples"]) == ["16", "8"]
    assert all(len(samples) >= 5 and min(samples) > 0 for samples in seen["samples"].values())
    assert 0 < seen["check_ms"] < seen["load_ms"]
    if sys.platform == "linux":
        assert 0 < seen["imports_bytes"] < seen["peak_bytes"] < 10**9


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac measures Core ML")
def test_core_ml_is_not_checked_off_a_mac(classifier_bundle: Path) -> None:
    seen = measure.observer(Bundle.open(classifier_bundle), (8,), 1, 0.01)("coreml/fp32")
    assert "Apple" in seen["not_checked"]


def test_a_process_that_dies_is_a_failure_of_its_artifact(
    classifier_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    seen = measure.observer(Bundle.open(classifier_bundle), (8,), 1)("onnx/fp32")
    assert seen == {"failed": "its process ended with 1: nothing on stderr"}


def test_a_bundle_altered_while_it_is_measured_is_refused(classifier_bundle: Path) -> None:
    bundle = Bundle.open(classifier_bundle)
    path = classifier_bundle / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityFailed, match="sha256"):
        measure.observer(bundle, (8,), 1)("onnx/fp32")


def test_the_ceiling_is_the_slower_of_computing_and_reading() -> None:
    ceiling = Ceiling(2, read_gbps=10.0, float32_gflops=100.0)
    computing = Cost(1, linear=10**9, attention=10**9, weight_bytes=0, file_bytes=0, arithmetic="float32")
    assert ceiling.best_ms(computing) == pytest.approx(20)
    assert ceiling.best_ms(Cost(1, 10**9, 10**9, 10**9, 0, "float32")) == pytest.approx(100)
    assert ceiling.best_ms(Cost(1, 10**9, 10**9, 0, 0, "int8")) == pytest.approx(10)
    assert Ceiling(2, None, 100.0).best_ms(computing) is None
