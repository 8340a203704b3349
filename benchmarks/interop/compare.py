"""Each client in turn on the bundle: asked in a process of its own, its answer judged, the bundle left as it was."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.interop.judge import Row
from benchmarks.processes import last_line, process, reason, say
from mobile_llm.bundle import Bundle
from mobile_llm.errors import BackendUnavailable, InvalidInput

Judge = Callable[[str, str, Mapping[str, Any]], list[Row]]


@dataclass(frozen=True)
class Client:
    """How a client is installed (see `clients.py`), which of the bundle's files it should read, and why it is not asked
    to read others."""

    install: Callable[[], list[str]]
    artifacts: Sequence[str]
    not_asked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """What clients of one kind of task are asked, and `judge(client, artifact, answer)`, how their answers are."""

    clients: Mapping[str, Client]
    request: Mapping[str, Any]
    judge: Judge


@dataclass(frozen=True)
class Report:
    """The rows, and each client that ran with its versions."""

    clients: Mapping[str, str]
    rows: tuple[Row, ...]


def compare(args: argparse.Namespace) -> Report:
    """Each client in turn on the bundle. Raises InvalidInput for a client that its task has none of."""
    from benchmarks.interop.encoders import compare_encoder
    from benchmarks.interop.writers import compare_writer

    bundle, folder = Bundle.open(args.bundle), Path(args.bundle).resolve()
    kind = compare_writer if bundle.manifest.task.name == "text-generation" else compare_encoder
    comparison = kind(bundle, args)
    unknown = [name for name in args.clients if name not in comparison.clients]
    if unknown:
        raise InvalidInput(f"{', '.join(unknown)} is none of this task's clients: {', '.join(comparison.clients)}")
    before, clients, rows = _state(folder), {}, []
    for name in args.clients or comparison.clients:
        versions, found = ask(name, comparison, folder)
        clients[name] = versions
        rows += found
        if _state(folder) != before:
            rows.append(Row(name, "", "", "FAIL", note="the client changed files in the bundle"))
            before = _state(folder)
    return Report(clients, tuple(rows))


def ask(name: str, comparison: Comparison, bundle: Path) -> tuple[str, list[Row]]:
    """The client with its versions, and a row or more for each artifact it should read."""
    client = comparison.clients[name]
    present = [artifact for artifact in client.artifacts if (bundle / artifact).exists()]
    reasons = {artifact: "it is not in the bundle" for artifact in client.artifacts if artifact not in present}
    rows = [Row(name, file, "", "NOT CHECKED", note=note) for file, note in {**reasons, **client.not_asked}.items()]
    try:
        command = client.install()
    except BackendUnavailable as error:
        return "not installed", rows + [Row(name, artifact, "", "NOT CHECKED", note=str(error)) for artifact in present]
    say(f"asking {name}")
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    request = {"bundle": str(bundle), **comparison.request, "artifacts": present}
    done = process(command, json.dumps(request), offline)
    try:
        answer = json.loads(last_line(done.stdout))
    except ValueError:
        note = f"it ended with code {done.returncode} and no answer: {reason(done.stderr)}"
        return name, rows + [Row(name, artifact, "", "FAIL", note=note) for artifact in present]
    for artifact in present:
        rows += comparison.judge(name, artifact, answer)
    return answer["client"], rows


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in files}
