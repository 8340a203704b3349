"""Peak memory of an export, above the interpreter with its imports loaded, as a multiple of the float32 weights.

    python -m benchmarks.export_memory MODEL --task TASK [--recipe fp32,int8] [--formats onnx,tflite,coreml]

Two fresh processes: one exports and says which modules it ended up with; one imports just those. The figure is the
difference of their peaks (resident set of the whole process tree, sampled every 10 ms). Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

# The command itself, then every module it ended up with, in the order of their import.
_EXPORT = """
import json, sys
from mobile_llm.commands import main
code = main(sys.argv[2:])
names = [name for name, module in sys.modules.items() if module is not None and name != "__main__"]
open(sys.argv[1], "w").write(json.dumps(names))
sys.exit(code)
"""
_IMPORT = """
import importlib, json, os, sys
from exporters.formats.coreml.quiet import load_coremltools
names = json.load(open(sys.argv[1]))
if "coremltools" in names:
    load_coremltools()
for name in names:
    try:
        importlib.import_module(name)
    except Exception:
        pass
"""


@dataclass(frozen=True)
class Measured:
    """Bytes: the model's weight files, the export's peak, and that of a process with the same imports alone."""

    weights: int
    peak: int
    imports: int

    @property
    def above_imports(self) -> int:
        return self.peak - self.imports


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    add_export_arguments(parser)
    args = parser.parse_args()
    found = measure_export(args.model, export_words(args))
    print(
        json.dumps(
            {
                "weights_mb": round(found.weights / 1e6, 1),
                "peak_mb": round(found.peak / 1e6, 1),
                "imports_mb": round(found.imports / 1e6, 1),
                "above_imports_mb": round(found.above_imports / 1e6, 1),
                "times_the_weights": round(found.above_imports / found.weights, 2),
            }
        )
    )
    return 0


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """What decides which export is measured."""
    parser.add_argument("--task", required=True)
    parser.add_argument("--recipe", default="fp32,int8")
    parser.add_argument("--formats", default="onnx,tflite,coreml")


def export_words(args: argparse.Namespace) -> list[str]:
    return ["--task", args.task, "--recipe", args.recipe, "--formats", args.formats]


def measure_export(model: str, words: list[str]) -> Measured:
    """Export into a temporary folder. Ends the program where the export fails."""
    weights = sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))
    if not weights:
        raise SystemExit(f"{model} holds no *.safetensors, which the peak is a multiple of")
    with tempfile.TemporaryDirectory() as scratch:
        modules = str(Path(scratch) / "modules.json")
        command = ["export", model, *words, "-o", str(Path(scratch) / "bundle")]
        exporting = peak([sys.executable, "-c", _EXPORT, modules, *command])
        return Measured(weights, exporting, peak([sys.executable, "-c", _IMPORT, modules]))


def peak(command: list[str]) -> int:
    """The largest sum of resident bytes over a process and its children."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        largest = 0
        while process.poll() is None:
            largest = max(largest, _resident(process.pid))
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:1])} … exited with {process.returncode}")
    return largest


def _resident(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


if __name__ == "__main__":
    sys.exit(main())
