"""ONNX artifacts, under the names that transformers.js and optimum look for.

float32 and float16 (stored so, computed in float32: CPUs of phones run it everywhere) and int8 with dynamic
activations. All shapes are dynamic.
"""

from __future__ import annotations

from pathlib import Path

from exporters.architectures.blocks import EncoderModel
from exporters.architectures.encoder import build_encoder
from exporters.formats.lowered import Lowered
from mobile_llm.bundle.manifest import EntryPoint, TensorBinding

PRECISIONS = ("fp32", "fp16", "int8")
_FILES = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_quantized.onnx"}
# The first with every contrib operator used here as it is used here; a bias that is broadcast came with 1.20.
_MINIMUM = {"onnxruntime": "1.20", "android": "7.0", "ios": "13.0"}


def lower(model: EncoderModel, precision: str, bundle: Path) -> Lowered:
    """Write `model` below `bundle/onnx`."""
    from exporters.formats.onnx.encoder import OnnxEncoderBuilder
    from exporters.formats.onnx.graph import Graph

    graph = Graph(f"encoder-{precision}")
    build_encoder(model, OnnxEncoderBuilder(graph, model))
    path = f"onnx/{_FILES[precision]}"
    graph.save(bundle / path)
    return Lowered(path, {"encode": (_entry(model),)}, _MINIMUM)


def _entry(model: EncoderModel) -> EntryPoint:
    lengths = {"sequence": (1, model.max_length)}
    inputs = {name: TensorBinding(name, "int64", ("batch", "sequence"), lengths) for name in model.inputs}
    return EntryPoint(inputs, {name: TensorBinding(name, "float32", shape) for name, shape in model.outputs.items()})
