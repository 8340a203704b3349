"""TFLite artifacts (LiteRT). Shapes are static; signatures share their weights, and the batch is one. Encoders have
one signature per length, `encode_32`, `encode_64`, …; what decoders have stands in `signatures.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporters.architectures.blocks import EncoderModel
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.decoders.walk import build_decoder
from exporters.architectures.encoder import build_encoder
from exporters.formats.lowered import Lowered, static_lengths, static_outputs
from exporters.formats.tflite.signatures import Shape, cache_of, entry_points, shapes
from mobile_llm.bundle.manifest import EntryPoint, TensorBinding
from mobile_llm.errors import InvalidSpec

PRECISIONS = ("fp32", "fp16", "int8")
DECODER_PRECISIONS = ("fp32", "fp16", "int8", "int4")
# GELU with exact erf and per-channel dynamic int8 came with TensorFlow 2.17's runtime.
_MINIMUM = {"tflite": "2.17", "android": "6.0", "ios": "12.0"}
# 4 bits in blocks are younger; 2.21 is the oldest that was tried.
_MINIMUM_OF_BLOCKS = {**_MINIMUM, "tflite": "2.21"}


def lower(model: EncoderModel, precision: str, bundle: Path) -> Lowered:
    """Write `model` as `bundle/tflite/PRECISION.tflite`."""
    from exporters.formats.tflite.encoder import TfliteEncoderBuilder
    from exporters.formats.tflite.flatbuffer import Model, Subgraph

    file = Model()
    lengths = static_lengths(model.max_length)
    for length in lengths:
        graph = Subgraph(file, f"encode_{length}")
        outputs = static_outputs(model, length)
        build_encoder(model, TfliteEncoderBuilder(graph, length, model.max_length, outputs))
        graph.finish()
    path = f"tflite/{precision}.tflite"
    file.save(bundle / path)
    return Lowered(path, {"encode": tuple(_entry(model, length) for length in lengths)}, _MINIMUM)


def lower_decoder(model: DecoderModel, precision: str, bundle: Path, context: int) -> Lowered:
    """Write `model` as `bundle/tflite/PRECISION.tflite`, for texts of up to `context` tokens.

    Raises InvalidSpec for more tokens than the model was made for.
    """
    if context > model.context:
        raise InvalidSpec(
            f"a context of {context} tokens: the model was made for {model.context}, ask for at most those"
        )
    path = f"tflite/{precision}.tflite"
    write_decoder(model, bundle / path, shapes(context), context)
    minimum = _MINIMUM_OF_BLOCKS if precision == "int4" else _MINIMUM
    return Lowered(path, entry_points(model, context), minimum, cache_of(model, context))


def write_decoder(model: DecoderModel, path: Path, shapes: Sequence[Shape], context: int) -> None:
    """One file with a signature for each shape."""
    from exporters.formats.tflite.decoder import Stacked, TfliteDecoderBuilder
    from exporters.formats.tflite.flatbuffer import Model, Subgraph

    file, stacks = Model(), Stacked()
    for shape in shapes:
        graph = Subgraph(file, shape.signature)
        build_decoder(model, TfliteDecoderBuilder(graph, shape, context, stacks))
        graph.finish()
    file.save(path)


def _entry(model: EncoderModel, length: int) -> EntryPoint:
    inputs = {name: TensorBinding(name, "int32", (1, length)) for name in model.inputs}
    shapes = static_outputs(model, length)
    outputs = {name: TensorBinding(name, "float32", shape) for name, shape in shapes.items()}
    return EntryPoint(inputs, outputs, signature=f"encode_{length}")
