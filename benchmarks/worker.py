"""One artifact in one fresh process: loaded once, run at every length, one JSON line on stdout.

    python -m benchmarks.worker BUNDLE ARTIFACT --lengths 16,64 --threads 2 --seconds 0.3

Load time leaves out the import of the runtime, which an app pays once. Memory is the peak of the process over loading
and all lengths; null on Windows, which has no such counter here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.memory import peak_bytes
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.engine import Engine
from mobile_llm.errors import BackendUnavailable, MobileLlmError, RuntimeTooOld
from mobile_llm.tasks.tokenization import TextTokenizer

# What a backend imports when it opens its first artifact.
_RUNTIMES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert.interpreter", "coreml": "coremltools"}
_TEXT = "The ending is not what I had expected, yet every scene before it prepares the ground with care. "
# A runtime packs weights and plans memory in its first run of a shape.
_WARM_UP, _LEAST_RUNS, _MOST_RUNS = 2, 5, 100


@dataclass(frozen=True)
class _TimedBundle(Bundle):
    """Notes how long the check of the hashes took, inside the load of which it is a part."""

    checks_ms: list[float] = field(default_factory=list)

    def check_artifact(self, artifact: Artifact) -> None:
        self.checks_ms.append(_timed(lambda: super(_TimedBundle, self).check_artifact(artifact))[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("artifact")
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3, help="time spent on each length")
    args = parser.parse_args()
    lengths = [int(length) for length in args.lengths.split(",")]
    try:
        document = observe(args.bundle, args.artifact, lengths, args.threads, args.seconds)
    except (BackendUnavailable, RuntimeTooOld) as error:
        document = {"not_checked": str(error)}
    except MobileLlmError as error:
        document = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(document))
    return 0


def observe(folder: str, artifact_id: str, lengths: list[int], threads: int, seconds: float) -> dict[str, Any]:
    """Times in milliseconds, memory in bytes, `samples` by length."""
    opened = Bundle.open(folder)
    bundle = _TimedBundle(opened.folder, opened.manifest)
    artifact = bundle.choose(artifact_id)[1]
    tokenizer = TextTokenizer(bundle)
    version = _import_runtime(artifact.format)
    before = peak_bytes()
    load_ms, engine = _timed(lambda: Engine.open(bundle, artifact_id, threads))
    with engine:
        role = next(iter(artifact.entry_points))
        ids = tokenizer.encode(_TEXT).ids
        samples = {str(length): _samples(engine, role, _inputs(ids, length), seconds) for length in lengths}
    return {
        "runtime": version,
        "load_ms": load_ms,
        "check_ms": sum(bundle.checks_ms),
        "samples": samples,
        "peak_bytes": peak_bytes(),
        "imports_bytes": before,
    }


def _import_runtime(format_name: str) -> str | None:
    """Its name and version; None where it is missing, which the backend will say in its own words."""
    from importlib.metadata import PackageNotFoundError, version

    module = _RUNTIMES.get(format_name, "")
    if format_name == "coreml" and sys.platform != "darwin":
        return None
    try:
        import_module(module)
        package = module.split(".")[0].replace("_", "-")
        return f"{package} {version(package)}"
    except (ImportError, ValueError, PackageNotFoundError):
        return None


def _inputs(ids: tuple[int, ...], length: int) -> dict[str, np.ndarray]:
    """One row of `length` real token ids, the text repeated as often as it takes."""
    row = np.resize(np.array(ids, np.int64), (1, length))
    return {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}


def _samples(engine: Engine, role: str, inputs: dict[str, np.ndarray], seconds: float) -> list[float]:
    for _ in range(_WARM_UP):
        engine.run(role, inputs)
    samples: list[float] = []
    while len(samples) < _LEAST_RUNS or (sum(samples) < 1000 * seconds and len(samples) < _MOST_RUNS):
        samples.append(round(_timed(lambda: engine.run(role, inputs))[0], 4))
    return samples


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return 1000 * (time.perf_counter() - start), result


if __name__ == "__main__":
    sys.exit(main())
