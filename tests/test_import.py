"""`import mobile_llm` needs its base dependencies and nothing heavier, here and in an environment of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS = ("torch", "transformers", "rich", "onnx", "coremltools", "safetensors", "tensorflow", "ai_edge_litert")


def _run(python: Path | str, code: str, *arguments: str | Path) -> str:
    done = subprocess.run([str(python), "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_pulls_in_no_package_at_all() -> None:
    code = "import sys; before = set(sys.modules); import mobile_llm; print({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names))"  # noqa: E501 - a program in a line
    assert _run(sys.executable, code) == "{'mobile_llm'}"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the project and its base dependencies."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([python, *quiet, "-c", ROOT / "constraints.txt", "-e", ROOT], check=True)
    return python


@pytest.mark.slow
def test_a_classifier_runs_with_the_base_dependencies_alone(bare_python: Path, classifier_bundle: Path) -> None:
    code = """
import importlib.util, json, sys, mobile_llm
answers = mobile_llm.load(sys.argv[1], "onnx/int8").classify(["a good film", "bad"])
there = [name for name in sys.argv[2:] if importlib.util.find_spec(name)]
print(json.dumps([[answer.label for answer in answers], there]))
"""
    labels, there = json.loads(_run(bare_python, code, classifier_bundle, *EXTRAS))
    assert len(labels) == 2
    assert not there


@pytest.mark.slow
def test_what_an_extra_brings_is_asked_for_by_name(bare_python: Path, classifier_bundle: Path) -> None:
    program = bare_python.with_name("mobile-llm")
    for command, extra in (
        (["run", classifier_bundle, "good", "--artifact", "tflite/int8"], "mobile-llm[tflite]"),
        (["verify", classifier_bundle], "mobile-llm[export-coreml,tflite]"),
        (["export", "model", "--task", "text-classification", "-o", "b"], "mobile-llm[export-onnx,"),
    ):
        done = subprocess.run([program, *command], capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert f'pip install "{extra}' in done.stderr
        assert "Traceback" not in done.stderr


def test_the_runtime_imports_neither_of_its_users() -> None:
    files = list((ROOT / "mobile_llm").rglob("*.py"))
    users = re.compile(r"^\s*(from|import) (exporters|benchmarks)\b", re.MULTILINE)
    assert len(files) > 50
    assert not [file for file in files if users.search(file.read_text(encoding="utf-8"))]
