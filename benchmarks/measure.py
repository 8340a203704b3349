"""Artifacts on this host: load time, latency and throughput by sequence length, peak memory, size.

Every observation is a fresh process, and the artifacts take turns over several rounds, so that a slow minute of the
machine falls on all of them. Covered: batch 1, CPU, warm file cache, passes of encoders, prompts and single steps of
models that write. Not covered: cold starts from disk, energy, heat; a phone (figures of this host say which artifact is
lighter, not how fast a phone is).
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.cost import smallest
from mobile_llm import errors
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.engine import longest, static_length
from mobile_llm.errors import InvalidInput, MobileLlmError
from mobile_llm.tasks.encoding import ENCODE_TEXT

Observation = dict[str, Any]
Observe = Callable[[str], Observation]
_SECONDS = 0.3
_PATIENCE = 600


@dataclass(frozen=True)
class Latency:
    """At one sequence length. p50 is the median of the rounds' medians; p90 and p99 are over all runs together:
    with fewer than 100 of them p99 is the slowest. `padded_to`: the static shape in which the tokens ran."""

    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    tokens_per_second: float
    padded_to: int | None = None


@dataclass(frozen=True)
class Measurement:
    """One artifact, medians over the rounds; None where it was not measured. Of an artifact that writes `latency` is of
    reading a prompt (the time to first token), `steps` of one token more after it. `load_ms` contains `check_ms`, the
    comparison of hashes; `above_imports_bytes` is the peak less that of the interpreter with its imports."""

    status: Literal["measured", "not_checked", "failed"]
    reason: str = ""
    runtime: str | None = None
    load_ms: float | None = None
    check_ms: float | None = None
    latency: Mapping[int, Latency] = field(default_factory=dict)
    steps: Mapping[int, Latency] = field(default_factory=dict)
    peak_bytes: int | None = None
    above_imports_bytes: int | None = None


def measure(artifacts: Mapping[str, Artifact], observe: Observe, rounds: int) -> dict[str, Measurement]:
    """`observe(id)` is one fresh process; after a refusal an artifact is not asked again."""
    seen: dict[str, list[Observation]] = {artifact_id: [] for artifact_id in artifacts}
    for _ in range(rounds):
        for artifact_id, observations in seen.items():
            if not observations or "samples" in observations[-1]:
                observations.append(observe(artifact_id))
    return {artifact_id: _summary(artifact_id, artifacts[artifact_id], rows) for artifact_id, rows in seen.items()}


def observer(bundle: Bundle, lengths: Sequence[int], threads: int, seconds: float = _SECONDS) -> Observe:
    """Observes artifacts of a bundle in worker processes. What is wrong with the bundle is raised."""

    def observe(artifact_id: str) -> Observation:
        words = ["--lengths", ",".join(map(str, lengths)), "--threads", str(threads), "--seconds", str(seconds)]
        command = [sys.executable, "-m", "benchmarks.worker", str(bundle.folder), artifact_id, *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            return {"failed": f"no end after {_PATIENCE} s; ask for shorter lengths"}
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
            return {"failed": f"its process ended with {done.returncode}: {last[:300]}"}
        document: Observation = json.loads(done.stdout.strip().splitlines()[-1])
        if "error" in document:
            kind = getattr(errors, document["error"], MobileLlmError)
            raise kind(document["message"])
        return document

    return observe


def measurable(bundle: Bundle) -> list[str]:
    """The artifacts that take token ids: latency is by length, which a string does not have before it is tokenized."""
    return [name for name, artifact in bundle.manifest.artifacts.items() if ENCODE_TEXT not in artifact.entry_points]


def longest_of(bundle: Bundle, artifact_ids: Iterable[str]) -> int:
    """The most tokens that the model and every one of the artifacts take, and leave room to write one."""
    artifacts = [bundle.choose(artifact_id)[1] for artifact_id in _with_ids(bundle, artifact_ids)]
    return min(bundle.manifest.text_policy.max_length, *(_reach(artifact) for artifact in artifacts))


def _reach(artifact: Artifact) -> int:
    if artifact.cache is not None:
        return artifact.cache.context - 1
    return max(longest(entry) for entries in artifact.entry_points.values() for entry in entries)


def _with_ids(bundle: Bundle, artifact_ids: Iterable[str]) -> list[str]:
    """Raises InvalidInput for an artifact that takes strings."""
    chosen, known = list(artifact_ids), measurable(bundle)
    for artifact_id in chosen:
        if artifact_id in bundle.manifest.artifacts and artifact_id not in known:
            raise InvalidInput(f"{artifact_id} takes text and is not timed by length; choose from {', '.join(known)}")
    return chosen


def usable_lengths(lengths: Sequence[int], most: int) -> tuple[int, ...]:
    """The lengths up to `most`, in order. Raises InvalidInput where none is left."""
    usable = tuple(sorted({length for length in lengths if 0 < length <= most}))
    if not usable:
        asked = ", ".join(map(str, lengths)) or "given"
        raise InvalidInput(f"none of the lengths {asked} fits this bundle, which takes 1 to {most} tokens")
    return usable


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest value that at least `percent` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def host() -> dict[str, Any]:
    """The machine in words, as it says itself."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _summary(artifact_id: str, artifact: Artifact, rows: list[Observation]) -> Measurement:
    for row in rows:
        if "not_checked" in row:
            return Measurement("not_checked", row["not_checked"])
        if "failed" in row:
            return Measurement("failed", row["failed"])
    latency = {
        int(length): _latency(
            int(length), [row["samples"][length] for row in rows], _padded(artifact, artifact_id, int(length))
        )
        for length in rows[0]["samples"]
    }
    steps = {int(length): _latency(1, [row["steps"][length] for row in rows]) for length in rows[0].get("steps", {})}
    peak = _median(row["peak_bytes"] for row in rows)
    above = _median(
        row["peak_bytes"] - row["imports_bytes"] if row["peak_bytes"] and row["imports_bytes"] else None for row in rows
    )
    return Measurement(
        "measured",
        runtime=rows[0]["runtime"],
        load_ms=_median(row["load_ms"] for row in rows),
        check_ms=_median(row["check_ms"] for row in rows),
        latency=latency,
        steps=steps,
        peak_bytes=None if peak is None else int(peak),
        above_imports_bytes=None if above is None else int(above),
    )


def _latency(tokens: int, rounds: list[list[float]], padded: int | None = None) -> Latency:
    together = [sample for samples in rounds for sample in samples]
    p50 = statistics.median(percentile(samples, 50) for samples in rounds)
    return Latency(len(together), p50, percentile(together, 90), percentile(together, 99), 1000 * tokens / p50, padded)


def _padded(artifact: Artifact, artifact_id: str, length: int) -> int | None:
    """The static length in which so many tokens run, where it is another; prompts are read in chunks."""
    static = None if artifact.cache else static_length(smallest(artifact, artifact_id, length))
    return static if static != length else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
