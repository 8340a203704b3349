"""int4 and int8 by calibration in an export: the text, the model's own, and the size that an artifact may have."""

from __future__ import annotations

from functools import partial

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.decoders.budgets import ToIntegers, WriteInt4, filled, near, rounded_within
from exporters.memory import release
from exporters.progress import Watch
from exporters.quantization.calibrated import by_calibration
from exporters.quantization.calibration import Texts, calibration_texts
from exporters.quantization.centers import as_if_centered, centered
from exporters.quantization.compensation import bytes_per_token, compensated
from exporters.quantization.distillation import bytes_needed, distilled
from exporters.quantization.divergence import divergence
from exporters.quantization.hessians import gather_hessians
from exporters.quantization.integers import to_int4, to_int8
from exporters.quantization.outliers import outliers_apart
from exporters.quantization.recipes import RECIPES, Recipes
from exporters.quantization.smoothing import smoothed, smoothed_behind_gates
from exporters.sources.huggingface import HuggingFaceSource
from exporters.spec import ExportSpec
from mobile_llm.machine import available_memory

_AT_ONCE = 32_768  # of calibration's tokens, those by which layers make up for each other
_TRAINED = 16_384  # of calibration's tokens, those by which scales and gains are trained
_SHARE = 0.5  # of the memory that is free, which these may take
_JUDGED = 2_048  # of calibration's tokens, those on which a divergence is measured


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

    Raises InvalidInput for a text that is too short, InvalidSpec for a size that 4 bits do not reach or a divergence
    that 8 bits do not, NotEnoughMemory.
    """
    if text is None:
        return RECIPES
    rounded: ToIntegers = to_int4
    room = 0
    if spec.max_size is not None:
        rounded, room = rounded_within(as_if_centered(blocks), write, spec.max_size)
    texts = calibration_texts(source, blocks, text, watch)
    hessians = gather_hessians(source.model, blocks, texts.written, texts.read, watch)
    recipes = dict(RECIPES)  # what is computed here is kept, and the moments are not
    if "int8" in spec.recipes:
        even, known = smoothed(blocks, hessians)
        in_8_bits = by_calibration(even, to_int8(outliers_apart(centered(even, known.means), known)), known, watch)
        recipes["int8"] = lambda _: in_8_bits
    if "int4" in spec.recipes:
        even, known = smoothed_behind_gates(blocks, hessians)
        in_4_bits = by_calibration(even, rounded(centered(even, known.means)), known, watch)
        if spec.max_size is not None:
            in_4_bits = filled(even, in_4_bits, known, room, write, spec.max_size)
        if spec.max_kl is not None:
            apart = partial(divergence, source.model, ids=texts.together(_JUDGED))
            in_4_bits = near(even, in_4_bits, known, apart, spec.max_kl, watch)
        in_4_bits = compensated(source.model, even, in_4_bits, texts.together(_at_once(blocks)), watch)
        in_4_bits = _trained(source, in_4_bits, texts, watch)
        recipes["int4"] = lambda _: in_4_bits
    release()
    return recipes


def _trained(source: HuggingFaceSource, in_4_bits: DecoderModel, texts: Texts, watch: Watch) -> DecoderModel:
    """With other scales and gains, where there is memory to train them: the model is whole without."""
    free = available_memory()
    if free is not None and bytes_needed(in_4_bits) > free:
        watch("leaving scales and gains as they are: too little memory to train them")
        return in_4_bits
    return distilled(source.model, in_4_bits, texts.together(_TRAINED), watch)


def _at_once(blocks: DecoderModel) -> int:
    """Tokens that run through the model together: their values are in memory together."""
    free = available_memory()
    return _AT_ONCE if free is None else min(_AT_ONCE, int(_SHARE * free / bytes_per_token(blocks)))
