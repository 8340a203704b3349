"""Core ML artifacts: ML programs, any length up to the model's limit, a batch of one.

fp32 computes in float32; the others in float16, which the GPU and the Neural Engine want. Encoders run on iOS 16,
which brought `constexpr_affine_dequantize` for our integers; decoders on iOS 18, which brought states and blocks of
int4, in a layout for the GPU (see `stateful.py`) and one for the Neural Engine (see `neural_engine.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporters.architectures.blocks import EncoderModel
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.encoder import build_encoder
from exporters.formats.lowered import Lowered, phone_outputs
from exporters.spec import NEURAL_ENGINE
from mobile_llm.bundle.manifest import EntryPoint, TensorBinding

PRECISIONS = ("fp32", "fp16", "int8")
_MINIMUM = {"coreml": "6", "ios": "16.0", "macos": "13.0"}
_DEFAULT_LENGTH = 128


def lower(model: EncoderModel, precision: str, bundle: Path) -> Lowered:
    """Write `model` as `bundle/coreml/PRECISION.mlpackage`."""
    from exporters.formats.coreml.quiet import forget_names, load_coremltools

    load_coremltools()
    forget_names()
    import coremltools as ct

    from exporters.formats.coreml.package import save_package

    path = f"coreml/{precision}.mlpackage"
    save_package(_program(model, precision), ct.target.iOS16, bundle / path)
    return Lowered(path, {"encode": (_entry(model),)}, _MINIMUM)


def lower_decoder(model: DecoderModel, variant: str, bundle: Path, context: int, origin: str = "") -> Lowered:
    """Write `model` as `bundle/coreml/VARIANT.mlpackage`, its cache made for `context` tokens. A variant is a precision
    (a flexible length, for the GPU), or one with `-ane` behind it (fixed lengths, for the Neural Engine). `origin` is
    what model it says it comes from. Raises InvalidSpec for more tokens than the model was made for, UnsupportedModel
    for layers whose caches differ in shape.
    """
    from exporters.formats.coreml.quiet import forget_names, load_coremltools

    load_coremltools()
    forget_names()
    from exporters.formats.coreml import neural_engine, stateful
    from exporters.formats.coreml.package import name_origin

    write = neural_engine.write if variant.endswith(NEURAL_ENGINE) else stateful.write
    lowered = write(model, variant, bundle, context)
    if origin:
        name_origin(bundle / lowered.path, origin)
    return lowered


def _program(model: EncoderModel, precision: str) -> Any:
    import coremltools as ct
    import numpy as np
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types

    from exporters.formats.coreml.encoder import MilEncoderBuilder

    length = get_new_symbol()
    inputs = {name: mb.placeholder((1, length), types.int32) for name in model.inputs}
    with Function(inputs, opset_version=ct.target.iOS16) as function:
        dtype = np.float32 if precision == "fp32" else np.float16
        builder = MilEncoderBuilder(function.inputs, dtype, model.max_length, phone_outputs(model))
        build_encoder(model, builder)
        function.set_outputs(list(builder.outputs.values()))
    lengths = ct.RangeDim(1, model.max_length, default=min(_DEFAULT_LENGTH, model.max_length))
    function.set_input_types(tuple(ct.TensorType(name, shape=(1, lengths), dtype=np.int32) for name in model.inputs))
    program = Program()
    program.add_function("main", function)
    return program


def _entry(model: EncoderModel) -> EntryPoint:
    lengths = {"sequence": (1, model.max_length)}
    inputs = {name: TensorBinding(name, "int32", (1, "sequence"), lengths) for name in model.inputs}
    outputs = {name: TensorBinding(name, "float32", shape) for name, shape in phone_outputs(model).items()}
    return EntryPoint(inputs, outputs)
