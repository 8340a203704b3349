"""The plan of an export beside what that export took: predicted and measured peak memory, for several models.

    python -m benchmarks.plan_check MODEL… --task TASK [--recipe fp32,int8] [--formats onnx,tflite,coreml]

The prediction is what `mobile-llm export --dry-run --json` says; the measurement is that of `benchmarks.export_memory`.
One line of JSON per model; exit code 1 where a peak is off by more than a quarter. Not judged: minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.export_memory import Measured, add_export_arguments, export_words, measure_export

_ALLOWED = 0.25
_COMMAND = "import sys; from mobile_llm.commands import main; sys.exit(main(sys.argv[1:]))"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    add_export_arguments(parser)
    args = parser.parse_args()
    wrong = 0
    for model in args.models:
        plan = planned(model, export_words(args))
        start = time.perf_counter()
        found = compare(plan, measure_export(model, export_words(args)))
        print(json.dumps({"model": model, **found, "measured_seconds": round(time.perf_counter() - start)}), flush=True)
        wrong += abs(found["peak_off"]) > _ALLOWED
    return 1 if wrong else 0


def planned(model: str, words: list[str]) -> dict[str, Any]:
    """The plan, as the command line gives it."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["export", model, *words, "-o", str(Path(scratch) / "bundle"), "--dry-run", "--json"]
        done = subprocess.run([sys.executable, "-c", _COMMAND, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    plan: dict[str, Any] = json.loads(done.stdout)["plan"]
    return plan


def compare(plan: dict[str, Any], measured: Measured) -> dict[str, Any]:
    """Predicted and measured megabytes; `off` is how far the prediction lies above (+) or below (-) the measurement."""
    pairs = {"peak": (plan["peak"], measured.peak), "above_imports": (plan["above_imports"], measured.above_imports)}
    found: dict[str, Any] = {}
    for name, (predicted, real) in pairs.items():
        found |= {f"{name}_predicted_mb": round(predicted / 1e6), f"{name}_measured_mb": round(real / 1e6)}
        found[f"{name}_off"] = round(predicted / real - 1, 3)
    return found | {"times_the_weights": round(measured.above_imports / measured.weights, 2), "step": plan["peak_step"]}


if __name__ == "__main__":
    sys.exit(main())
