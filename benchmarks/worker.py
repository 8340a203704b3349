"""One artifact in one fresh process: loaded once, run at every length, one JSON line on stdout. An artifact that writes
reads so many tokens from the first on (the time to first token), and then one token more.

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
from mobile_llm.generation.engine import DecoderEngine
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
    opening = Engine.open if artifact.cache is None else DecoderEngine.open
    load_ms, engine = _timed(lambda: opening(bundle, artifact_id, threads))
    ids = tokenizer.encode(_TEXT).ids
    with engine:
        timed = (
            _passes(engine, ids, lengths, seconds)
            if isinstance(engine, Engine)
            else _writing(engine, ids, lengths, seconds)
        )
    return {
        "runtime": version,
        "load_ms": load_ms,
        "check_ms": sum(bundle.checks_ms),
        **timed,
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


def _passes(engine: Engine, ids: tuple[int, ...], lengths: list[int], seconds: float) -> dict[str, Any]:
    """Passes over so many tokens."""
    role = next(iter(engine.artifact.entry_points))

    def one(length: int) -> list[float]:
        inputs = _inputs(ids, length)
        return _samples(lambda: engine.run(role, inputs), seconds)

    return {"samples": {str(length): one(length) for length in lengths}}


def _writing(engine: DecoderEngine, ids: tuple[int, ...], lengths: list[int], seconds: float) -> dict[str, Any]:
    """Prompts of so many tokens, read from nothing; then the next token, again and again at the same place."""

    def reading(prompt: list[int]) -> list[float]:
        return _samples(lambda: engine.append(prompt), seconds, before=lambda: engine.rewind(0))

    def one_more(prompt: list[int]) -> list[float]:
        return _samples(lambda: engine.append(prompt[:1]), seconds, before=lambda: engine.rewind(len(prompt)))

    prompts = [np.resize(ids, length).tolist() for length in lengths]
    timed = {str(len(prompt)): (reading(prompt), one_more(prompt)) for prompt in prompts}
    return {"samples": {n: pair[0] for n, pair in timed.items()}, "steps": {n: pair[1] for n, pair in timed.items()}}


def _samples(action: Callable[[], Any], seconds: float, before: Callable[[], Any] = lambda: None) -> list[float]:
    """Milliseconds of `action`; what comes `before` is not timed."""
    samples: list[float] = []
    for run in range(_WARM_UP + _MOST_RUNS):
        before()
        taken = _timed(action)[0]
        if run >= _WARM_UP:
            samples.append(round(taken, 4))
        if len(samples) >= _LEAST_RUNS and sum(samples) >= 1000 * seconds:
            break
    return samples


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return 1000 * (time.perf_counter() - start), result


if __name__ == "__main__":
    sys.exit(main())
