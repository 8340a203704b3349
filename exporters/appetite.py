"""What an export takes, predicted from sizes alone: bytes of artifacts, peak memory, seconds.

The memory model follows the pipeline: while artifacts are written the PyTorch model is in memory; while they are
compared it is not, but a runtime holds its own copies of an artifact's weights. The peak is the largest step. Every
factor below was read off a profile of each step, on MiniLM and, of models that write, on SmolLM2-135M (Linux x86_64,
versions of constraints.txt), but for those of fp16 and of writing TFLite, which are estimates; `python -m
benchmarks.plan_check MODEL…` compares the whole with a measured export.
Not covered: what `--eval-data` adds (a second PyTorch model, which is below the peak of comparing), the memory of
calibration (which refuses on its own), macOS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporters.sources.headers import Sizes
from exporters.spec import NEURAL_ENGINE, recipe_of

_MB = 1_000_000
# Resident megabytes of the interpreter with each package imported, beyond those named before it.
_IMPORTS = {"base": 35, "torch": 360}  # torch, transformers, optimum
# onnx + onnxruntime, flatbuffers + LiteRT (twice), coremltools
_IMPORTS_OF_FORMAT = {"onnx": 25, "tflite": 13, "coreml": 20, "litertlm": 13}
_TENSORFLOW = 573  # a second client of TFLite files, asked where it is installed
# What stays behind when a step has ended: tokenizer, golden texts, thread pools, pages that malloc keeps.
_LEFT_BEHIND = 60
# Seconds of one core: to load and to ask the model, then per artifact, and per million linear parameters of each.
_SECONDS, _SECONDS_PER_ARTIFACT = 25.0, {"onnx": 4.0, "tflite": 6.0, "coreml": 9.0, "litertlm": 6.0}
_SECONDS_PER_MILLION = {"onnx": 0.3, "tflite": 0.5, "coreml": 0.45, "litertlm": 0.5}
_CALIBRATING = 11.0  # seconds per million linear parameters: 16k tokens written, 16k read, both read again, rounding
_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 4.5 / 8}  # int4: with a float16 scale for 32
_GRAPH = 250_000  # bytes of an artifact that are no weights


@dataclass(frozen=True)
class Factors:
    """Peaks of steps, in multiples of the exported float32 weights, by format and recipe: of `asking` the model's twins
    and of `writing` above the PyTorch model, of `comparing` above the imports."""

    asking: float
    writing: Mapping[str, Mapping[str, float]]
    comparing: Mapping[str, Mapping[str, float]]


# Asking: a dequantized copy of every weight that is not the model's own. Writing: the graph of ONNX, and its bytes on
# their way to disk; a TFLite weight and what is joined of several; Core ML writes blobs one by one. Comparing:
# onnxruntime has the file parsed and the session's own copy, its exact view a widened graph, its serialized bytes, then
# the session's copies; LiteRT packs the linear layers; the evaluator of MIL programs holds float32 whatever the file
# holds, and one table more while it widens.
ENCODER = Factors(
    asking=1.6,
    writing={
        "onnx": {"fp32": 2.2, "fp16": 1.7, "int8": 1.2},
        "tflite": {"fp32": 0.7, "fp16": 0.7, "int8": 0.7},
        "coreml": {"fp32": 0.7, "fp16": 0.7, "int8": 0.7},
    },
    comparing={
        "onnx": {"fp32": 1.7, "fp16": 2.2, "int8": 3.1},
        "tflite": {"fp32": 0.7, "fp16": 1.2, "int8": 1.9},
        "coreml": {"fp32": 1.3, "fp16": 1.6, "int8": 1.6},
    },
)
# Of SmolLM2-135M in float32. Its weights in ONNX lie beside the graph and are never copied; joined layers are. The
# other recipes' factors are an encoder's, but for what is the same: they are not measured.
DECODER = Factors(
    asking=1.6,
    writing={
        "onnx": {"fp32": 0.6, "fp16": 0.6, "int8": 1.2, "int4": 1.2},
        "tflite": {"fp32": 0.7, "fp16": 0.7, "int8": 0.7, "int4": 0.7},
        "coreml": {"fp32": 1.4, "fp16": 1.4, "int8": 1.4, "int4": 1.4},
        "litertlm": {"fp32": 0.7, "fp16": 0.7, "int8": 0.7, "int4": 0.7},
    },
    comparing={
        "onnx": {"fp32": 1.5, "fp16": 2.2, "int8": 3.1, "int4": 3.1},
        "tflite": {"fp32": 1.9, "fp16": 1.9, "int8": 1.9, "int4": 1.9},
        "coreml": {"fp32": 2.4, "fp16": 2.4, "int8": 2.4, "int4": 2.4},
        "litertlm": {"fp32": 1.9, "fp16": 1.9, "int8": 1.9, "int4": 1.9},
    },
)


@dataclass(frozen=True)
class Shape:
    """What of config.json decides the size of activations."""

    longest: int
    heads: int
    intermediate: int

    @property
    def activations(self) -> int:
        """Bytes alive at the longest text: scores and their softmax, two sides of the feed-forward layer."""
        return 4 * self.longest * (2 * self.heads * self.longest + 2 * self.intermediate)


def artifact_bytes(sizes: Sizes, artifact_id: str, max_size: float | None = None) -> int:
    """The size on disk. Up to `max_size`, in MB, int4 is filled with layers in 8 bits; it is never larger."""
    recipe = recipe_of(artifact_id)
    if max_size is not None and recipe == "int4":
        wide = artifact_bytes(sizes, artifact_id.replace("int4", "int8"))
        return int(min(wide, max_size * _MB))
    floats = 2 if recipe == "fp16" or (artifact_id.startswith("coreml/") and recipe != "fp32") else 4
    words = max(1.0, _BYTES[recipe]) * sizes.words
    return int(_BYTES[recipe] * sizes.linear + words) + floats * sizes.rest + _GRAPH


def imports_bytes(formats: tuple[str, ...], with_tensorflow: bool) -> int:
    """The interpreter with all that such an export imports."""
    second = _TENSORFLOW if with_tensorflow and "tflite" in formats else 0
    return _MB * (sum(_IMPORTS.values()) + sum(_IMPORTS_OF_FORMAT[name] for name in formats) + second)


def peak_bytes(
    sizes: Sizes, shape: Shape, artifact_ids: list[str], with_tensorflow: bool, factors: Factors = ENCODER
) -> tuple[int, str]:
    """The process tree's peak, and the step that it falls on."""
    formats = tuple(dict.fromkeys(name.split("/")[0] for name in artifact_ids))
    writing = imports_bytes(formats, with_tensorflow=False) + _MB * _LEFT_BEHIND + 4 * sizes.stored
    comparing = imports_bytes(formats, with_tensorflow) + _MB * _LEFT_BEHIND + shape.activations
    steps = {f"writing {name}": writing + _times(factors.writing, sizes, name) for name in artifact_ids}
    steps |= {f"comparing {name}": comparing + _times(factors.comparing, sizes, name) for name in artifact_ids}
    if any(not name.endswith("/fp32") for name in artifact_ids):
        steps["asking the model for reference answers"] = writing + int(4 * sizes.stored * factors.asking)
    worst = max(steps, key=lambda name: steps[name])
    return steps[worst], worst


def seconds(sizes: Sizes, artifact_ids: list[str]) -> float:
    """Seconds on one core of the machine that the figures are of: an order of magnitude for any other."""
    formats = [name.split("/")[0] for name in artifact_ids]
    millions = sizes.linear / 1e6
    return _SECONDS + sum(_SECONDS_PER_ARTIFACT[name] + _SECONDS_PER_MILLION[name] * millions for name in formats)


def calibrating_seconds(sizes: Sizes) -> float:
    """What calibration adds, on that core."""
    return _CALIBRATING * sizes.linear / 1e6


def _times(table: Mapping[str, Mapping[str, float]], sizes: Sizes, artifact_id: str) -> int:
    functions = 2 if artifact_id.endswith(NEURAL_ENGINE) else 1
    return int(4 * sizes.exported * functions * table[artifact_id.split("/")[0]][recipe_of(artifact_id)])
