"""LiteRT-LM artifacts: `.litertlm` files, which hold a TFLite model, the tokenizer, and how the model is talked to.

A format of its own and not a variant of the TFLite one. One TFLite file can hold the signatures of both, with shared
weights, and LiteRT-LM runs it unchanged; but it prepares every signature when it loads. SmolLM2-135M in int8 for 1,024
tokens, in litert-lm 0.18.1 without its cache of weights: 143 MB of one file instead of 139 and 142 of two, but a peak
of 2.9 GB instead of 0.8 and six times the work to load. A phone has the one file that its runtime reads.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats.litertlm.texts import Texts
from exporters.formats.lowered import Lowered
from mobile_llm.errors import InvalidSpec

_MINIMUM = {"litert-lm": "0.18.1"}  # the oldest that was tried


def lower_decoder(model: DecoderModel, precision: str, bundle: Path, context: int, texts: Texts) -> Lowered:
    """Write `model` as `bundle/litertlm/PRECISION.litertlm`, for texts of up to `context` tokens.

    Raises InvalidSpec for more tokens than the model was made for.
    """
    from exporters.formats.litertlm.whole import entry_points, whole_cache, write_whole

    if context > model.context:
        raise InvalidSpec(
            f"a context of {context} tokens: the model was made for {model.context}, ask for at most those"
        )
    path = f"litertlm/{precision}.litertlm"
    with TemporaryDirectory() as scratch:
        inside = Path(scratch) / "model.tflite"
        write_whole(model, inside, context)
        _pack(bundle / path, inside, context, texts)
    return Lowered(path, entry_points(model, context), _MINIMUM, whole_cache(model, context))


def _pack(path: Path, model: Path, context: int, texts: Texts) -> None:
    from exporters.formats.litertlm.container import HF_TOKENIZER, LLM_METADATA, TFLITE_MODEL, Section, write_container
    from exporters.formats.litertlm.metadata import llm_metadata, packed_tokenizer

    sections = [
        Section(LLM_METADATA, llm_metadata(context, texts)),
        Section(HF_TOKENIZER, packed_tokenizer(texts.tokenizer)),
        Section(TFLITE_MODEL, model, {"model_type": "tf_lite_prefill_decode"}),
    ]
    write_container(path, sections, {"created_by": "mobile_llm"})
