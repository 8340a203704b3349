"""int4 and int8 by calibration in an export: the text, the model's own, and the size that an artifact may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.memory import release
from exporters.progress import Watch
from exporters.quantization.calibrated import by_calibration, with_wide_layers
from exporters.quantization.calibration import calibration_texts
from exporters.quantization.centers import centered
from exporters.quantization.compensation import bytes_per_token, compensated
from exporters.quantization.hessians import Hessians, gather_hessians
from exporters.quantization.integers import to_int4, to_int4_throughout, to_int8
from exporters.quantization.recipes import RECIPES, Recipes
from exporters.quantization.smoothing import smoothed, smoothed_behind_gates
from exporters.sources.huggingface import HuggingFaceSource
from exporters.spec import ExportSpec
from mobile_llm.bundle import Artifact
from mobile_llm.errors import InvalidSpec
from mobile_llm.machine import available_memory

_AT_ONCE = 32_768  # of calibration's tokens, those by which layers make up for each other
_SHARE = 0.5  # of the memory that is free, which these may take

ToIntegers = Callable[[DecoderModel], DecoderModel]
WriteInt4 = Callable[[DecoderModel], Mapping[str, Artifact]]


def recipes_for(
    spec: ExportSpec,
    source: HuggingFaceSource,
    blocks: DecoderModel,
    text: str | None,
    write: WriteInt4,
    watch: Watch,
) -> Recipes:
    """The recipes. Where there is a text to calibrate on, both are of smoothed blocks, and int4 is computed here and
    once: for every format and its twin. `write` gives the int4 artifacts of a model, for their sizes.

    Raises InvalidInput for a text that is too short, InvalidSpec for a size that 4 bits do not reach, NotEnoughMemory.
    """
    if text is None:
        return RECIPES
    rounded, room = _rounded(blocks, write, spec.max_size)
    texts = calibration_texts(source, blocks, text, watch)
    hessians = gather_hessians(source.model, blocks, texts.written, texts.read, watch)
    blocks = centered(blocks, hessians)
    recipes = dict(RECIPES)  # what is computed here is kept, and the moments are not
    if "int8" in spec.recipes:
        in_8_bits = to_int8(smoothed(blocks, hessians))
        recipes["int8"] = lambda _: in_8_bits
    if "int4" in spec.recipes:
        even, known = smoothed_behind_gates(blocks, hessians)
        in_4_bits = by_calibration(even, rounded(even), known, watch)
        if spec.max_size is not None:
            in_4_bits = _filled(even, in_4_bits, known, room, write, spec.max_size)
        in_4_bits = compensated(source.model, even, in_4_bits, texts.together(_at_once(blocks)), watch)
        recipes["int4"] = lambda _: in_4_bits
    release()
    return recipes


def _at_once(blocks: DecoderModel) -> int:
    """Tokens that run through the model together: their values are in memory together."""
    free = available_memory()
    return _AT_ONCE if free is None else min(_AT_ONCE, int(_SHARE * free / bytes_per_token(blocks)))


def _filled(
    blocks: DecoderModel, coarse: DecoderModel, hessians: Hessians, room: int, write: WriteInt4, max_size: float
) -> DecoderModel:
    """With layers in 8 bits until an artifact is full. What a graph grows by with them is known once it is written:
    where one is too large, they get that much less room. With none of them the artifacts fit."""
    while room > 0:
        model = with_wide_layers(blocks, coarse, hessians, room)
        over = _excess(write(model), max_size)
        if over <= 0:
            return model
        room -= over
    return coarse


def _rounded(blocks: DecoderModel, write: WriteInt4, max_size: float | None) -> tuple[ToIntegers, int]:
    """To 4 bits, of which the table of words is left out where it may be, and by how many bytes every artifact may
    grow. What cannot be is said before the work."""
    if max_size is None:
        return to_int4, 0
    for rounded in (to_int4, to_int4_throughout):
        written = write(rounded(blocks))
        excess = _excess(written, max_size)
        if excess <= 0:
            return rounded, -excess
    largest = max(written, key=lambda artifact_id: written[artifact_id].size)
    raise InvalidSpec(
        f"{largest} takes {written[largest].size / 1e6 + 0.05:.1f} MB at least, which is above {max_size:g}; "
        "allow that much, or leave out its format"
    )


def _excess(artifacts: Mapping[str, Artifact], max_size: float) -> int:
    """Bytes of files by which the largest artifact is above the limit."""
    return max(artifact.size for artifact in artifacts.values()) - int(max_size * 1e6)
