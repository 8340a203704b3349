"""Our int8 ONNX artifact against the dynamic int8 model that optimum-onnx makes from the same weights.

    python -m benchmarks.optimum_peer BUNDLE MODEL [--work FOLDER] [--rounds 12] [--json]

The peer is set up in an environment of its own, where it exports MODEL and quantizes it for each instruction set it
has a recipe for. Then all of them run in this environment's onnxruntime, in turns, at a batch of one and exactly 128
tokens, on two threads; medians and ratios are of one run. Not covered: phones; for those see the cost of operators
under emulation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import OPTIMUM, environment, install
from mobile_llm.bundle import Bundle

TOKENS, THREADS = 128, 2
# Runs in the peer's environment: MODEL OUTPUT TASK -> model_*.onnx
_MAKE_PEER = """
import sys
from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTModelForSequenceClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig as Recipe
model, output, task = sys.argv[1:]
kind = ORTModelForSequenceClassification if task == "text-classification" else ORTModelForFeatureExtraction
kind.from_pretrained(model, export=True).save_pretrained(output)
for name, recipe in (("arm64", Recipe.arm64), ("avx512_vnni", Recipe.avx512_vnni), ("avx2", Recipe.avx2)):
    quantizer = ORTQuantizer.from_pretrained(output, file_name="model.onnx")
    config = recipe(is_static=False, per_channel=False)
    quantizer.quantize(save_dir=output, quantization_config=config, file_suffix=name)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("model")
    parser.add_argument("--work", default="build/optimum_peer", metavar="FOLDER", help="where the peer is set up")
    parser.add_argument("--rounds", type=int, default=12, metavar="N")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    peers = make_peers(Path(args.model), bundle.manifest.task.name, Path(args.work))
    ours = {name: bundle.path(a.path) for name, a in bundle.manifest.artifacts.items() if name == "onnx/int8"}
    medians = race({**ours, **peers}, args.rounds)
    fastest = min(medians[name] for name in peers)
    ratios = {name: round(value / fastest, 3) for name, value in medians.items()}
    if args.json:
        print(json.dumps({"tokens": TOKENS, "threads": THREADS, "p50_ms": medians, "ratio_to_fastest_peer": ratios}))
    else:
        print(f"batch 1, {TOKENS} tokens, {THREADS} threads, onnxruntime, median of {args.rounds} interleaved rounds")
        for name, value in medians.items():
            print(f"  {name:<22}{value:8.2f} ms   {ratios[name]:.2f} x the fastest peer")
    return 0


def make_peers(model: Path, task: str, work: Path) -> dict[str, Path]:
    """The peer's int8 models by recipe. Raises BackendUnavailable where it cannot be set up."""
    output = work / "model"
    if not list(output.glob("model_*.onnx")):
        python = environment(work / "environment", OPTIMUM)
        command = [str(python), "-c", _MAKE_PEER, str(model), str(output), task]
        install(command, "exporting with optimum-onnx", {"HF_HUB_OFFLINE": "1"})
    return {f"optimum {path.stem.removeprefix('model_')}": path for path in sorted(output.glob("model_*.onnx"))}


def race(models: Mapping[str, Path], rounds: int) -> dict[str, float]:
    """Median milliseconds of each model, which take turns so that all see the same noise."""
    sessions = {name: _session(path) for name, path in models.items()}
    ids = np.random.default_rng(0).integers(1000, 20000, (1, TOKENS))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            feeds = {i.name: inputs[i.name] for i in session.get_inputs()}
            for turn in range(18):
                start = time.perf_counter()
                session.run(None, feeds)
                if turn >= 3:  # the first ones find cold caches
                    times[name].append(time.perf_counter() - start)
    return {name: round(float(np.median(values)) * 1e3, 3) for name, values in times.items()}


def _session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = THREADS, 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    sys.exit(main())
