"""The evaluator of MIL programs: rounding, what it refuses, and how loudly it says what it could not check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.formats.coreml.quiet import load_coremltools
from exporters.verification.mil import MilSession
from exporters.verification.mil import ops as mil_ops
from mobile_llm.bundle import EntryPoint, TensorBinding
from mobile_llm.commands import main
from mobile_llm.errors import InvalidInput, VerificationFailed

load_coremltools()

import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import Function, Program, types  # noqa: E402

Build = Callable[[Any], Any]
ENTRY = EntryPoint({"x": TensorBinding("x", "float32", (1, 3))}, {"y": TensorBinding("y", "float32", (1, 3))})


@pytest.fixture
def package(tmp_path: Path) -> Callable[[Build], Path]:
    """Saves a program of one input `x` (1, 3) and one output `y`, float32 outside and float16 inside."""

    def save(build: Build) -> Path:
        from exporters.formats.coreml.package import save_package

        with Function({"x": mb.placeholder((1, 3), types.fp32)}, opset_version=ct.target.iOS16) as function:
            narrow = mb.cast(x=function.inputs["x"], dtype="fp16")
            function.set_outputs([mb.cast(x=build(narrow), dtype="fp32", name="y")])
        program = Program()
        program.add_function("main", function)
        path = tmp_path / "program.mlpackage"
        save_package(program, ct.target.iOS16, path)
        return path

    return save


def _run(session: MilSession, *numbers: float) -> list[float]:
    return session.run(ENTRY, {"x": np.array([numbers], np.float32)})["y"][0].tolist()


def test_every_result_declared_float16_is_rounded_to_it(package: Callable[[Build], Path]) -> None:
    path = package(lambda x: mb.add(x=x, y=np.float16(1)))
    assert _run(MilSession(path), 2048, 2050, 0.1) == [2048, 2052, float(np.float16(np.float16(0.1) + np.float16(1)))]
    assert _run(MilSession(path, float32=True), 2048, 2050, 0) == [2049, 2051, 1]


def test_a_float16_overflow_is_named(package: Callable[[Build], Path]) -> None:
    path = package(lambda x: mb.mul(x=x, y=np.float16(300), name="grown"))
    with pytest.raises(VerificationFailed, match=r"mul 'grown' gives a value that is not finite in float16"):
        _run(MilSession(path), 1, 300, 2)
    assert _run(MilSession(path, float32=True), 1, 300, 2) == [300, 90000, 600]


def test_finite_numbers_whose_sum_is_not_are_let_pass(package: Callable[[Build], Path]) -> None:
    path = package(lambda x: mb.mul(x=x, y=np.float16(2)))
    large = float(np.float32(1.5e38))
    assert _run(MilSession(path, float32=True), large, large, 0) == [2 * large, 2 * large, 0]


def test_wrong_inputs_are_refused(package: Callable[[Build], Path]) -> None:
    session = MilSession(package(lambda x: mb.relu(x=x)))
    entry = EntryPoint({"z": TensorBinding("z", "float32", (1, 3))}, ENTRY.outputs)
    with pytest.raises(InvalidInput, match="the program takes x, not z"):
        session.run(entry, {"z": np.zeros((1, 3), np.float32)})


@pytest.fixture
def without_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mil_ops, "OPS", {name: op for name, op in mil_ops.OPS.items() if name != "gelu"})


@pytest.mark.usefixtures("without_gelu")
@pytest.mark.parametrize("artifact_id", ["coreml/fp32", "coreml/int8"])
def test_an_unknown_operator_is_not_checked_and_said_loudly(
    artifact_id: str,
    classifier_bundle: Path,
    keep_only: Callable[[Path, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep_only(classifier_bundle, artifact_id)
    assert main(["verify", str(classifier_bundle), "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["artifact"] == artifact_id]
    assert rows
    assert {row["status"] for row in rows} == {"not_checked"}
    assert all("does not know the MIL operator 'gelu'" in row["reason"] for row in rows)
    assert main(["verify", str(classifier_bundle), "--strict"]) == 1
    assert "was not checked" in capsys.readouterr().out


@pytest.mark.usefixtures("without_gelu")
def test_an_unknown_operator_forbids_a_bundle_only_when_strict(
    classifier_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", str(classifier_model), "--task", "text-classification", "--formats", "coreml"]
    export += ["--recipe", "fp32", "-o", str(tmp_path / "bundle")]
    assert main([*export, "--strict"]) == 1
    assert "gelu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(export) == 0
    assert (tmp_path / "bundle" / "manifest.json").is_file()
