"""int4 by calibration in an export: the text, the model's own, and the size that an artifact may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.memory import release
from exporters.progress import Watch
from exporters.quantization.calibrated import stored_bytes, to_int4_calibrated
from exporters.quantization.calibration import calibrate
from exporters.quantization.integers import to_int4
from exporters.quantization.recipes import RECIPES, Recipes
from exporters.sources.huggingface import HuggingFaceSource
from exporters.spec import ExportSpec, recipe_of
from mobile_llm.bundle import Artifact
from mobile_llm.errors import InvalidSpec

WriteRounded = Callable[[], Mapping[str, Artifact]]


def recipes_for(
    spec: ExportSpec,
    source: HuggingFaceSource,
    blocks: DecoderModel,
    text: str | None,
    rounded: WriteRounded,
    watch: Watch,
) -> Recipes:
    """The recipes, of which int4 is computed here and once where there is a text to calibrate on: for every format and
    its twin. `rounded` writes the int4 artifacts without calibration, for their sizes.

    Raises InvalidInput for a text that is too short, InvalidSpec for a size that 4 bits do not reach, NotEnoughMemory.
    """
    if text is None:
        return RECIPES
    budget = None if spec.max_size is None else stored_bytes(to_int4(blocks)) + _room(rounded(), spec.max_size)
    calibrated = to_int4_calibrated(blocks, calibrate(source, blocks, text, watch), budget, watch)
    release()
    return {**RECIPES, "int4": lambda _: calibrated}


def _room(rounded: Mapping[str, Artifact], max_size: float) -> int:
    """By how many bytes every artifact may grow. What cannot be is said before the work."""
    largest = max(rounded, key=lambda artifact_id: rounded[artifact_id].size)
    room = int(max_size * 1e6) - rounded[largest].size
    if room < 0:
        raise InvalidSpec(
            f"{largest} takes {rounded[largest].size / 1e6 + 0.05:.1f} MB at least, which is above {max_size:g}; "
            "allow that much, or leave out its format"
        )
    return room


def refuse_too_large(artifacts: Mapping[str, Artifact], max_size: float | None) -> None:
    """What a graph grows by is an estimate: raises InvalidSpec where a file came out larger."""
    for artifact_id, artifact in artifacts.items():
        if max_size is not None and recipe_of(artifact_id) == "int4" and artifact.size > max_size * 1e6:
            raise InvalidSpec(
                f"{artifact_id} takes {artifact.size / 1e6 + 0.05:.1f} MB, which is above {max_size:g}; allow that much"
            )
