"""Each client in turn on the bundle: asked in a process of its own, its answer judged, the bundle left as it was."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.interop.clients import find_tensorflow, install_optimum, install_transformers_js
from benchmarks.interop.judge import Row, judge_artifact
from benchmarks.interop.reference import Reference, read_reference
from benchmarks.processes import last_line, process, reason, say
from mobile_llm.bundle import Bundle
from mobile_llm.errors import BackendUnavailable

_ONNX = ("onnx/model.onnx", "onnx/model_quantized.onnx")
ARTIFACTS = {"transformers.js": _ONNX, "optimum": _ONNX, "tensorflow": ("tflite/fp32.tflite", "tflite/int8.tflite")}


@dataclass(frozen=True)
class Report:
    """The rows, and each client that ran with its versions."""

    clients: Mapping[str, str]
    rows: tuple[Row, ...]


def compare(args: argparse.Namespace) -> Report:
    """Each client in turn on the bundle."""
    bundle = Bundle.open(args.bundle)
    reference = read_reference(args.model, bundle)
    task, folder, work = bundle.manifest.task, Path(args.bundle).resolve(), args.work.absolute()
    request: dict[str, Any] = {"bundle": str(folder), "task": task.name, "pooling": task.pooling}
    request |= {"normalize": bool(task.normalize), "labels": reference.names, "texts": reference.texts}
    install: dict[str, Callable[[], list[str]]] = {
        "transformers.js": lambda: install_transformers_js(work / "node"),
        "optimum": lambda: install_optimum(work / "optimum", args.optimum_python),
        "tensorflow": find_tensorflow,
    }
    before, clients, rows = _state(folder), {}, []
    for name in args.clients:
        versions, found = ask(name, install[name], folder, request, reference)
        clients[name] = versions
        rows += found
        if _state(folder) != before:
            rows.append(Row(name, "", "", "FAIL", note="the client changed files in the bundle"))
            before = _state(folder)
    return Report(clients, tuple(rows))


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in files}


def ask(
    name: str, install: Callable[[], list[str]], bundle: Path, request: Mapping[str, Any], reference: Reference
) -> tuple[str, list[Row]]:
    """The client with its versions, and a row or more for each artifact it should read."""
    present = [artifact for artifact in ARTIFACTS[name] if (bundle / artifact).exists()]
    missing = [artifact for artifact in ARTIFACTS[name] if artifact not in present]
    rows = [Row(name, artifact, "", "NOT CHECKED", note="it is not in the bundle") for artifact in missing]
    try:
        command = install()
    except BackendUnavailable as error:
        return "not installed", rows + [Row(name, artifact, "", "NOT CHECKED", note=str(error)) for artifact in present]
    say(f"asking {name}")
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = process(command, json.dumps({**request, "artifacts": present}), offline)
    try:
        answer = json.loads(last_line(done.stdout))
    except ValueError:
        note = f"it ended with code {done.returncode} and no answer: {reason(done.stderr)}"
        return name, rows + [Row(name, artifact, "", "FAIL", note=note) for artifact in present]
    for artifact in present:
        rows += judge_artifact(name, artifact, answer, reference)
    return answer["client"], rows
