"""int4 by calibration in an export: the text, the model's own, and the size that an artifact may have."""

from __future__ import annotations

from collections.abc import Mapping

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.memory import release
from exporters.progress import Watch
from exporters.quantization.calibrated import stored_bytes, to_int4_calibrated
from exporters.quantization.calibration import calibrate
from exporters.quantization.integers import to_int4
from exporters.sources.huggingface import HuggingFaceSource
from exporters.spec import ExportSpec
from mobile_llm.bundle import Artifact
from mobile_llm.errors import InvalidSpec

_SCALE_BYTES = {"onnx": 4, "tflite": 2, "coreml": 2}
# What a file holds beside weights: its graph, tables of positions.
_GRAPH = 1_000_000


def calibrated_int4(
    spec: ExportSpec, source: HuggingFaceSource, blocks: DecoderModel, text: str, watch: Watch
) -> DecoderModel:
    """The same integers for every format. Raises InvalidInput for a text that is too short, InvalidSpec for a size that
    4 bits do not reach, NotEnoughMemory."""
    scale_bytes = max(_SCALE_BYTES[name] for name in spec.formats)
    budget = None if spec.max_size is None else int(spec.max_size * 1e6) - _GRAPH
    smallest = stored_bytes(to_int4(blocks), scale_bytes)
    if budget is not None and budget < smallest:
        raise InvalidSpec(
            f"in int4 and {', '.join(spec.formats)} this model takes {(smallest + _GRAPH) / 1e6 + 0.05:.1f} MB at "
            f"least, which is above {spec.max_size:g}; allow that much"
        )
    hessians = calibrate(source, blocks, text, watch)
    calibrated = to_int4_calibrated(blocks, hessians, budget, scale_bytes, watch)
    release()
    return calibrated


def refuse_too_large(artifacts: Mapping[str, Artifact], max_size: float | None) -> None:
    """The budget was an estimate: raises InvalidSpec where a file came out larger."""
    for artifact_id, artifact in artifacts.items():
        if max_size is not None and artifact_id.endswith("/int4") and artifact.size > max_size * 1e6:
            raise InvalidSpec(
                f"{artifact_id} takes {artifact.size / 1e6:.1f} MB, which is above {max_size:g}; allow that much"
            )
